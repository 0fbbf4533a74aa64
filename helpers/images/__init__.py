"""Image sets: where they come from, and how they are read."""

from helpers.images.imageset import NO_CLASS, EmptyImageSet, ImageSet, concatenate, from_folder, image_files
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, read_image, readable, resize
from helpers.images.tables import TableError, TableNotice, from_table

__all__ = [
    "NO_CLASS", "EmptyImageSet", "ImageSet", "TableError", "TableNotice", "UnreadableImage", "UnreadableImageWarning",
    "concatenate", "from_folder", "from_table", "image_files", "read_image", "readable", "resize",
]  # fmt: skip
