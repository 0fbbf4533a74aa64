"""Content-based image retrieval: images → vectors → index → ranking → scores → what a person sees."""
