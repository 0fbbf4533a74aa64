"""The storage of uploaded images."""

import io
import unicodedata
from pathlib import Path

from PIL import Image

from helpers.files import flush_folder, write_atomically
from helpers.service.content import ImageInfo, UploadedImage

#: The folder of an engine that contains the images that were added over HTTP.
FOLDER = "images"

#: Characters of the name of an upload.
MAX_NAME = 200


def reencode(upload: UploadedImage, info: ImageInfo) -> tuple[bytes, str]:
    """A new file that contains only the decoded, upright pixels, and its suffix.

    A JPEG becomes a JPEG of quality 95 without chroma subsampling, whose pixels differ by less than one gray level on
    average. Every other format becomes a PNG with exactly the same pixels. Raises ApiError: see `UploadedImage`.
    """
    image, written = Image.fromarray(upload.decode(info)), io.BytesIO()
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

    Raises OSError: the file cannot be written, for example because the disk is full. No partial file remains.
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
