"""Files: written as a whole or not at all, and recognized by their content."""

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_UNREADABLE = b"no such file"


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], object], durable: bool = True) -> Path:
    """Write a file as a whole: at every moment it has the old content or the new one, never a part.

    Parameters
    ----------
    path : of the file; its folder is made.
    content : the bytes, or a function that writes them into an open binary file.
    durable : wait until the content is on the disk, so that the file is also whole after a power cut. That takes
        milliseconds, too much for thousands of small files that can be made again.

    Raises
    ------
    OSError : the disk is full, or the file can't be written. The old file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8 with Unix line ends, see `write_atomically`."""
    return write_atomically(path, text.encode())


def content_hash(path: str | Path) -> bytes:
    """16 bytes that stand for a file's content.

    A file that can't be read gets a longer value of its own, which depends on its path and is never stored.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return _UNREADABLE + os.fsencode(path)
