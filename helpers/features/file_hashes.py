"""Content hashes of images, cached so that unchanged files are not read again."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from helpers import paths
from helpers.features.store import BlobStore, VectorStoreError
from helpers.files import CONTENT_SIZE, content_hash
from helpers.images import depths

#: The hash of a file is stored only after the file has not changed for this time. Time stamps are coarse (two seconds
#: on FAT), so a younger file may change again and keep its time stamp. Git and make have the same problem.
SETTLED_NS = 2_000_000_000

#: Number of files whose hashes are stored in one transaction.
_BATCH = 1000


class _HashStore(BlobStore):
    """One SQLite file for all extractors: hash of a file's path, size, times and inode → its content hash."""

    _content = "content hashes of files"
    # Callers then open another store in the same cache, which warns.
    _warns = False
    _long_entries = False

    def __init__(self):
        super().__init__(paths.cache_dir() / "file-hashes.sqlite")

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return dict(self._get(keys))

    def put(self, hashes: dict[bytes, bytes]) -> None:
        # A full disk is no reason to stop: without stored hashes, files are only read again.
        with suppress(VectorStoreError):
            self._put(hashes.items())


def image_hash(file: str | Path) -> bytes:
    """`helpers.files.content_hash`, for deep images together with the version of their conversion to 8 bits.

    So a change of `helpers.images.depths` invalidates what was computed of such images, and of no others.
    """
    content = content_hash(file)
    if len(content) == 16 and depths.may_be_deep(_head(file)):
        return blake2b(content, digest_size=16, person=f"depths {depths.VERSION}".encode()).digest()
    return content


def _head(file: str | Path) -> bytes:
    """The first 32 bytes of a file; none if it cannot be read any more."""
    with suppress(OSError), Path(file).open("rb") as opened:
        return opened.read(32)
    return b""


def content_hashes(files: Iterable[str | Path]) -> list[bytes]:
    """`image_hash` of each file, without reading files that are unchanged since an earlier call.

    A file is unchanged if its absolute path, size, inode, modification time and status change time are the same. On
    Windows the last one is the creation time: there, a change that keeps the size and resets the modification time
    (`os.utime`) goes unnoticed, as with make and rsync.

    Raises `VectorStoreError` if the file of the stored hashes is damaged.
    """
    files, found = list(files), []
    with _HashStore() as store:
        for start in range(0, len(files), _BATCH):
            part = files[start : start + _BATCH]
            now = time.time_ns()
            keys = [_key(file, now) for file in part]
            known = store.get(key for key in keys if key)
            hashes = [known.get(key or b"") or image_hash(file) for key, file in zip(keys, part, strict=True)]
            found += hashes
            # A file that changed while it was read is not stored.
            store.put(
                {
                    key: content
                    for key, file, content in zip(keys, part, hashes, strict=True)
                    if key and key not in known and key == _key(file, now) and len(content) == CONTENT_SIZE
                }
            )
    return found


def identities(files: Iterable[str | Path]) -> list[bytes | None]:
    """`content_hashes`, with None for each file that cannot be read. Files of equal content have equal identities."""
    return [content if len(content) == CONTENT_SIZE else None for content in content_hashes(files)]


def _key(file: str | Path, now: int) -> bytes | None:
    """Key of a file in its present state; None if the file is missing or changed too recently."""
    path = Path(file)
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    if now - max(state.st_mtime_ns, state.st_ctime_ns) < SETTLED_NS:
        return None
    # The version is part of the key, because hashes of deep images were stored without it.
    numbers = f"depths {depths.VERSION} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino} "
    return blake2b(numbers.encode() + os.fsencode(path.absolute()), digest_size=16).digest()
