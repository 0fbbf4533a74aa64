"""Thumbnails: small, upright JPEG files, cached on disk."""

import contextlib
import functools
import hashlib
import io
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import paths
from helpers.files import write_atomically
from helpers.images.reading import decoding, read_image

log = logging.getLogger("lookalike.thumbnails")

#: Part of every tag; raise it when `encode` or the decoding changes.
_VERSION = 3


def encode(pixels: np.ndarray, longest: int, quality: int = 85) -> bytes:
    """A JPEG of uint8 (height, width, 3), no side longer than ``longest`` pixels."""
    image, written = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    image.save(written, "JPEG", quality=quality, optimize=True)
    return written.getvalue()


def render(path: Path, longest: int, quality: int = 85) -> bytes:
    """The thumbnail of a file, without its metadata. Raises `UnreadableImage` if it cannot be read."""
    return encode(read_image(path, at_least=longest), longest, quality)


def tag(path: Path, longest: int) -> str:
    """A name for the thumbnail of a file that changes with the file. Raises `UnreadableImage` if it is missing."""
    with decoding(str(path)):
        status = path.stat()
    content = f"{_VERSION} {path.absolute()} {status.st_mtime_ns} {status.st_size} {longest}"
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def get(path: Path, longest: int) -> bytes:
    """`render`, cached on disk. Raises `UnreadableImage` if the file cannot be read."""
    file = _file(tag(path, longest))
    try:
        return file.read_bytes()
    except OSError:
        content = render(path, longest)
    try:
        write_atomically(file, content, durable=False)
    except OSError as error:
        _warn(file.parent.parent, error.strerror)
    return content


def forget(tags: Iterable[str]) -> None:
    """Delete cached thumbnails by their tags."""
    for each in tags:
        with contextlib.suppress(OSError):
            _file(each).unlink()


def _file(tag: str) -> Path:
    return paths.cache_dir() / "thumbnails" / tag[:2] / f"{tag}.jpg"


@functools.cache
def _warn(folder: Path, reason: str) -> None:
    """Warn once for each folder and reason."""
    log.warning(
        "Thumbnails cannot be cached in %s (%s), so they are created again for each request. "
        "Set LOOKALIKE_CACHE to a writable folder.",
        folder,
        reason,
    )
