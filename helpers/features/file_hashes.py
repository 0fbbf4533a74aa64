"""Content hashes of files, remembered in the cache, so that a file that has not changed is not read again."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from helpers import paths
from helpers.features.store import BlobStore, VectorStoreError
from helpers.files import content_hash

#: A file is remembered once it has not changed for so long. Time stamps are coarse (two seconds on FAT), so a younger
#: file may change again and keep its time stamp. Git and make have the same problem.
SETTLED_NS = 2_000_000_000

#: Files whose hashes are stored in one transaction.
_BATCH = 1000


class _HashStore(BlobStore):
    """One SQLite file for all extractors: path, size, times and inode of a file, hashed → its content hash."""

    _what = "content hashes of files"
    # Who asks for hashes opens a store in the same cache next, and that store warns.
    _warns = False

    def __init__(self):
        super().__init__(paths.cache_dir() / "file-hashes.sqlite")

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return dict(self._get(keys))

    def put(self, hashes: dict[bytes, bytes]) -> None:
        # Only time is lost without them, so a full disk is no reason to stop.
        with suppress(VectorStoreError):
            self._put(hashes.items())


def content_hashes(files: Iterable[str | Path]) -> list[bytes]:
    """`helpers.files.content_hash` of each file; a file that has not changed since an earlier call is not read.

    A file counts as unchanged when its absolute path, size, inode, modification time and status change time are the
    same. On Windows the last one is the time of creation: there a change that keeps the size and sets the modification
    time back (`os.utime`) is not noticed, as with make and rsync.

    Raises
    ------
    VectorStoreError : the file of the remembered hashes is damaged.
    """
    files, found = list(files), []
    with _HashStore() as store:
        for start in range(0, len(files), _BATCH):
            part = files[start : start + _BATCH]
            now = time.time_ns()
            keys = [_key(file, now) for file in part]
            known = store.get(key for key in keys if key)
            hashes = [known.get(key) or content_hash(file) for key, file in zip(keys, part, strict=True)]
            found += hashes
            # Not if the file was changed while it was read.
            store.put(
                {
                    key: content
                    for key, file, content in zip(keys, part, hashes, strict=True)
                    if key and key not in known and key == _key(file, now) and len(content) == 16
                }
            )
    return found


def _key(file: str | Path, now: int) -> bytes | None:
    """What stands for a file in its present state; None if it can't be told from a later state, or is missing."""
    path = Path(file)
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    if now - max(state.st_mtime_ns, state.st_ctime_ns) < SETTLED_NS:
        return None
    numbers = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino} "
    return blake2b(numbers.encode() + os.fsencode(path.absolute()), digest_size=16).digest()
