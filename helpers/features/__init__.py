"""Vectors: everything that turns an image into numbers, and where the numbers are kept."""
