"""Vectors: everything that turns a picture into numbers, and where the numbers are kept."""
