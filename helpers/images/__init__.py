"""What we search: sets of images, where they come from, and how they are read."""
