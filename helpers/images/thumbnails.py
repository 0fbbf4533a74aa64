"""Thumbnails: images as small, upright JPEG files; those of files are kept in the cache's folder."""

import contextlib
import functools
import hashlib
import io
import logging
import secrets
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import paths
from helpers.images.reading import UnreadableImage, read_image

log = logging.getLogger("lookalike.thumbnails")

#: Part of every tag, to be raised when `encode` changes.
_VERSION = 2


def encode(pixels: np.ndarray, longest: int, quality: int = 85) -> bytes:
    """A JPEG of uint8 (height, width, 3), no side longer than ``longest`` pixels."""
    image, written = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    image.save(written, "JPEG", quality=quality, optimize=True)
    return written.getvalue()


def render(path: Path, longest: int, quality: int = 85) -> bytes:
    """`encode` of a file; only its pixels get into the JPEG.

    Raises
    ------
    UnreadableImage : the file is missing or can't be read.
    """
    return encode(read_image(path, at_least=longest), longest, quality)


def tag(path: Path, longest: int) -> str:
    """A name for the thumbnail of a file, which changes when the file does.

    Raises
    ------
    UnreadableImage : the file is missing.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableImage(f"{path} can't be read: {error.strerror}") from error
    content = f"{_VERSION} {path.absolute()} {status.st_mtime_ns} {status.st_size} {longest}"
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def get(path: Path, longest: int) -> bytes:
    """`render`, kept on disk for the next call.

    Raises
    ------
    UnreadableImage : the file is missing or can't be read.
    """
    file = _file(tag(path, longest))
    try:
        return file.read_bytes()
    except OSError:
        content = render(path, longest)
        _write(file, content)
        return content


def forget(tags: Iterable[str]) -> None:
    """Delete kept thumbnails by their tags."""
    for each in tags:
        with contextlib.suppress(OSError):
            _file(each).unlink()


def _file(tag: str) -> Path:
    return paths.cache_dir() / "thumbnails" / tag[:2] / f"{tag}.jpg"


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        _warn(file.parent.parent, error.strerror)


@functools.cache
def _warn(folder: Path, reason: str) -> None:
    """One warning for each folder and reason, not one for each thumbnail."""
    log.warning(
        "Thumbnails can't be kept in %s (%s), so each is made again when it is needed. "
        "Set LOOKALIKE_CACHE to a folder that can be written.",
        folder,
        reason,
    )
