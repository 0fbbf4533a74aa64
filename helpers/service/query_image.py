"""Query images: an upload or an image of the gallery, and the parts of it that are searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.features.region_vectors import Crop, crop
from helpers.features.regions import check_box
from helpers.images.reading import MAX_PIXELS, read_image, reduction, upright_size
from helpers.service.content import ImageInfo, UploadedImage
from helpers.service.errors import ApiError, readable


@dataclass(frozen=True)
class GalleryImage:
    """The file of an image of the gallery, which may be larger than an upload, and of another format."""

    id: int
    path: Path

    def size(self) -> tuple[int, int]:
        """Width and height of the upright image. Raises ApiError: 404, the file cannot be read."""
        with readable(self.id):
            return upright_size(self.path)

    def inspect(self, max_pixels: int) -> ImageInfo:
        """As for `UploadedImage`, but any size is accepted."""
        width, height = self.size()
        return ImageInfo("", width, height, reduction(width, height, MAX_PIXELS) or 1)

    def decode(self, info: ImageInfo) -> np.ndarray:
        """As for `UploadedImage`."""
        with readable(self.id):
            return read_image(self.path)


QueryImage = UploadedImage | GalleryImage


#: A part of an upright image: a `Crop`, or x, y, width, height in pixels. These numbers are not checked yet: there may
#: be more or fewer than four, and they may not be finite.
ImagePart = Crop | tuple[float, ...]


def cut(pixels: np.ndarray, info: ImageInfo, parts: Sequence[ImagePart]) -> list[np.ndarray]:
    """The parts of a decoded image; copies, so that the rest can be freed. Without parts, the whole image.

    Raises ApiError: 422, `check_box` finds an error.
    """
    return [_part(pixels, info, part).copy() for part in parts] or [pixels]


def _part(pixels: np.ndarray, info: ImageInfo, part: ImagePart) -> np.ndarray:
    if isinstance(part, Crop):
        return part.cut(pixels)
    try:
        box = check_box(part, *full_size(pixels, info))
    except ValueError as error:
        raise ApiError(422, str(error)) from error
    return crop(pixels, box / scale(pixels, info))


def full_size(pixels: np.ndarray, info: ImageInfo) -> tuple[int, int]:
    """Width and height of an upright image that was perhaps reduced while it was decoded."""
    height, width = pixels.shape[:2]
    if info.scale == 1:
        return width, height
    # The header tells the size before the orientation is applied.
    short, long = sorted((info.width, info.height))
    return (long, short) if width > height else (short, long)


def scale(pixels: np.ndarray, info: ImageInfo) -> np.ndarray:
    """float64 (4,): the full size of an image, divided by its decoded size, for x, y, width and height of a box."""
    width, height = full_size(pixels, info)
    return np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2)
