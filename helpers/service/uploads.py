"""Uploaded images: decoding, re-encoding and storage."""

import contextlib
import hashlib
import io
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.files import flush_folder
from helpers.images.reading import UnreadableImage, read_image
from helpers.service.content import ImageInfo
from helpers.service.errors import ApiError

#: The folder of an engine that contains the images that were added over HTTP.
FOLDER = "images"


@dataclass(frozen=True)
class Crop:
    """A part of an upright image, in fractions of its width and height."""

    left: float
    top: float
    width: float
    height: float

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """This part of uint8 (height, width, 3), at least one pixel; a copy, so that the rest can be freed."""
        rows, columns = pixels.shape[:2]
        top, left = min(int(self.top * rows), rows - 1), min(int(self.left * columns), columns - 1)
        bottom = max(top + 1, round((self.top + self.height) * rows))
        right = max(left + 1, round((self.left + self.width) * columns))
        return pixels[top:bottom, left:right].copy()


def decode(content: bytes, info: ImageInfo, crop: Crop | None = None) -> np.ndarray:
    """uint8 (height, width, 3) of a file that `inspect` accepted.

    Raises
    ------
    ApiError : 400, the pixels are damaged.
    """
    try:
        pixels = read_image(content, max_pixels=info.pixels, formats=[info.format])
    except UnreadableImage as error:
        raise ApiError(400, f"The {info.format} file is damaged or incomplete and cannot be decoded.") from error
    return pixels if crop is None else crop.of(pixels)


def reencode(content: bytes, info: ImageInfo) -> tuple[bytes, str]:
    """A new file that contains only the decoded, upright pixels, and its suffix.

    A JPEG becomes a JPEG of quality 95 without chroma subsampling, whose pixels differ by less than one gray level on
    average. Every other format becomes a PNG with exactly the same pixels.

    Raises
    ------
    ApiError : see `decode`.
    """
    image, written = Image.fromarray(decode(content, info)), io.BytesIO()
    if info.format == "JPEG":
        image.save(written, "JPEG", quality=95, subsampling=0)
        return written.getvalue(), ".jpg"
    # A higher level takes more than twice as long for a large image.
    image.save(written, "PNG", compress_level=1)
    return written.getvalue(), ".png"


def store(folder: Path, content: bytes, suffix: str) -> Path:
    """Write a file from `reencode` into an engine's folder, and flush it to disk.

    Its name consists of a hash of the content and a random part: no client can choose it, and no two images share a
    file.

    Raises
    ------
    OSError : the file cannot be written, for example because the disk is full. No partial file remains.
    """
    digest = hashlib.sha256(content).hexdigest()[:24]
    images = folder / FOLDER
    if not images.is_dir():
        images.mkdir(exist_ok=True)
        flush_folder(folder)
    path = images / f"{digest}-{secrets.token_hex(4)}{suffix}"
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    # The folder records the new name.
    flush_folder(images)
    return path


def delete(folder: Path, path: Path) -> None:
    """Delete the file of a removed image if `store` wrote it; the user's own files stay."""
    if path.parent.absolute() == (folder / FOLDER).absolute():
        path.unlink(missing_ok=True)
