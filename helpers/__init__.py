"""Content-based image retrieval: pictures → vectors → index → ranking → scores → what a person sees."""
