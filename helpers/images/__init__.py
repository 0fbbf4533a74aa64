"""Image sets: where they come from, and how they are read."""

from helpers.images.folders import FolderScan, SkippedFilesWarning, from_folder, image_files, scan_folder
from helpers.images.imageset import NO_CLASS, EmptyImageSet, ImageSet, concatenate
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, read_image, readable, resize
from helpers.images.tables import TableError, TableNotice, from_table

__all__ = [
    "NO_CLASS", "EmptyImageSet", "FolderScan", "ImageSet", "SkippedFilesWarning", "TableError", "TableNotice",
    "UnreadableImage", "UnreadableImageWarning", "concatenate", "from_folder", "from_table", "image_files",
    "read_image", "readable", "resize", "scan_folder",
]  # fmt: skip
