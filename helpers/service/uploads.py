"""Uploaded images: decoding, re-encoding and storage."""

import io
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.files import flush_folder, write_atomically
from helpers.images.reading import UnreadableImage, read_image
from helpers.service.content import ImageInfo
from helpers.service.errors import ApiError

#: The folder of an engine that contains the images that were added over HTTP.
FOLDER = "images"

#: Characters of the name of an upload.
MAX_NAME = 200


def decode(content: bytes, info: ImageInfo) -> np.ndarray:
    """uint8 (height, width, 3) of a file that `inspect` accepted.

    Raises
    ------
    ApiError : 400, the pixels are damaged.
    """
    try:
        return read_image(content, max_pixels=info.pixels, formats=[info.format])
    except UnreadableImage as error:
        message = f"The {info.format} file is damaged or incomplete and cannot be decoded."
        raise ApiError(400, message, code="image_damaged") from error


def reencode(content: bytes, info: ImageInfo) -> tuple[bytes, str]:
    """A new file that contains only the decoded, upright pixels, and its suffix.

    A JPEG becomes a JPEG of quality 95 without chroma subsampling, whose pixels differ by less than one gray level on
    average. Every other format becomes a PNG with exactly the same pixels. Raises ApiError: see `decode`.
    """
    image, written = Image.fromarray(decode(content, info)), io.BytesIO()
    if info.format == "JPEG":
        image.save(written, "JPEG", quality=95, subsampling=0)
        return written.getvalue(), ".jpg"
    # A higher level takes more than twice as long for a large image.
    image.save(written, "PNG", compress_level=1)
    return written.getvalue(), ".png"


def path_of(folder: Path, identity: bytes, suffix: str) -> Path:
    """The file of an upload in an engine's folder. No client can choose it, and equal uploads have the same file.

    identity : `helpers.files.bytes_hash` of the file that the client sent. suffix : from `reencode`.
    """
    return folder / FOLDER / f"{identity.hex()}{suffix}"


def clean_name(name: str | None) -> str | None:
    """The name that a client gives to its file, as one line of text without folders; None if nothing is left."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    # Control characters, lone surrogates and the like: Unicode's categories of others, but unassigned letters stay.
    text = "".join(c for c in last if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
    return text.strip()[:MAX_NAME] or None


def store(path: Path, content: bytes) -> None:
    """Write a file from `reencode` to its `path_of`, and flush it to disk.

    Raises
    ------
    OSError : the file cannot be written, for example because the disk is full. No partial file remains.
    """
    is_new = not path.parent.is_dir()
    write_atomically(path, content)
    # A folder records the new names in it.
    flush_folder(path.parent)
    if is_new:
        flush_folder(path.parent.parent)


def is_upload(folder: Path, path: Path) -> bool:
    """Whether `store` wrote a file of an engine; all others are the user's own."""
    return path.parent.absolute() == (folder / FOLDER).absolute()
