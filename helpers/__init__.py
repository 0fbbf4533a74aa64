"""Content-based image retrieval: images → features → index → ranking → scores → visualization."""
