"""Thumbnails: pictures as small JPEG files, made once and kept; and larger ones to look at."""

import contextlib
import hashlib
import io
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from helpers import paths
from helpers.app.errors import Refused
from helpers.pictures.reading import UnreadablePicture, read_picture

log = logging.getLogger("lookalike.service")

#: Longest sides that are made, so that nobody can fill a disk by asking for each number of pixels.
SIDES = (64, 128, 256, 512)

#: Longest side of a picture that is looked at.
LARGE = 2048

#: Changes with how they are made.
_VERSION = 1


class Thumbnails:
    """JPEG files by picture and side, the latest of them in memory, all of them in the cache's folder.

    memory : bytes that may be in memory.
    """

    def __init__(self, memory: int = 32 * 2**20):
        self._most, self._held = memory, 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._warned = False

    def tag(self, path: Path, side: int) -> str:
        """What stands for the thumbnail as it has to look now; another one as soon as the file is another.

        Raises
        ------
        Refused : 404, the file is gone.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise Refused(404, "The picture's file is not there any more.") from error
        told = f"{_VERSION} {path} {status.st_mtime_ns} {status.st_size} {side}"
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def get(self, path: Path, side: int, tag: str) -> bytes:
        """The thumbnail that `tag` stands for.

        Raises
        ------
        Refused : 404, the file is gone or can't be read.
        """
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
                return self._kept[tag]
        file = _file(tag)
        try:
            content = file.read_bytes()
        except OSError:
            content = jpeg(path, side, 85)
            self._write(file, content)
        with self._lock:
            if tag not in self._kept:
                self._kept[tag] = content
                self._held += len(content)
            while self._held > self._most and len(self._kept) > 1:
                self._held -= len(self._kept.popitem(last=False)[1])
        return content

    def forget(self, tags: Iterable[str]) -> None:
        """Delete thumbnails of a picture that was removed."""
        for tag in tags:
            with self._lock:
                self._held -= len(self._kept.pop(tag, b""))
            with contextlib.suppress(OSError):
                _file(tag).unlink()

    def _write(self, file: Path, content: bytes) -> None:
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(file)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if not self._warned:
                self._warned = True
                log.warning(
                    "thumbnails can't be kept in %s (%s): each is made anew when it is not in memory. "
                    "Set LOOKALIKE_CACHE to a folder that can be written.",
                    file.parent.parent,
                    error,
                )


def _file(tag: str) -> Path:
    return paths.cache_dir() / "thumbnails" / tag[:2] / f"{tag}.jpg"


def nearest_side(side: int) -> int:
    """The smallest side that is made and not smaller than this, or the largest."""
    return next((each for each in SIDES if each >= side), SIDES[-1])


def jpeg(path: Path, longest: int, quality: int) -> bytes:
    """A picture upright as a JPEG file, no side longer than ``longest``; nothing else of the file gets into it.

    Raises
    ------
    Refused : 404, it is gone or can't be read.
    """
    try:
        picture = Image.fromarray(read_picture(path, at_least=longest))
    except UnreadablePicture as error:
        raise Refused(404, "The picture's file is not there any more, or can't be read.") from error
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality, optimize=True)
    return written.getvalue()
