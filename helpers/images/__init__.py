"""What we search: sets of pictures, where they come from, and how they are read."""
