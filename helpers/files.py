"""Atomic writes and content hashes of files."""

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

#: Bytes of the hash of a file that can be read.
CONTENT_SIZE = 16
#: The beginning of the value of a file that cannot be read, as long as a hash, so that the whole value is longer.
_UNREADABLE = b"unreadable file:"


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], object], durable: bool = True) -> Path:
    """Write a file atomically: it always has either the old content or the new one. Its folder is created.

    After an OSError, e.g. for a full disk, the old file is unchanged.

    content : the bytes, or a function that writes them into an open binary file.
    durable : flush the file to the disk before the rename (fsync). This takes milliseconds, too long for
        thousands of small files that can be created again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is only atomic within one file system.
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
    """`write_atomically` of a text in UTF-8 with Unix line ends."""
    return write_atomically(path, text.encode())


def flush_folder(folder: str | Path) -> None:
    """Flush a folder to the disk, and so the renames in it."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def bytes_hash(content: bytes) -> bytes:
    """`content_hash` of a file with this content."""
    return hashlib.blake2b(content, digest_size=CONTENT_SIZE).digest()


def content_hash(path: str | Path) -> bytes:
    """A hash of a file's content, `CONTENT_SIZE` bytes.

    A file that cannot be read gets a longer value that depends on its path. This value must not be stored.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=CONTENT_SIZE)).digest()
    except OSError:
        return _UNREADABLE + os.fsencode(path)
