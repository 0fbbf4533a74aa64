"""Feature vectors on disk, keyed by an image's content and an extractor's settings.

Each extractor has one SQLite file. Every batch is a transaction: an interrupted run loses at most one batch, a full
disk loses nothing that was stored, and two processes may write at the same time.
"""

import hashlib
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from helpers import paths

#: SQLite's bound on variables in one statement was 999 for a long time.
_CHUNK = 900
#: Bytes of a page of a new file with long entries.
_PAGE = 32768


class VectorStoreError(OSError):
    """Vectors cannot be stored or read; the message names the file and the remedy."""


def pixels_hash(pixels: np.ndarray) -> bytes:
    """16-byte hash of an array's shape, dtype and values; it never equals the hash of a file's content."""
    digest = hashlib.blake2b(f"{pixels.dtype.str} {pixels.shape}".encode(), digest_size=16, person=b"pixels")
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


class BlobStore:
    """One SQLite file of bytes by content hash: the base of `VectorStore` and of the store of keypoints.

    If the folder is not writable, a warning says so, and everything is kept in memory for this run. Opening, reading
    and writing raise a `VectorStoreError` if the file is damaged or the disk is full.
    """

    #: Name of the content in messages.
    _content = "vectors"
    #: Whether to warn about a folder that is not writable.
    _warns = True
    #: Whether an entry has more than some hundred bytes.
    _long_entries = True

    def __init__(self, path: Path):
        self.path = path
        self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._prepare(sqlite3.connect(self.path, timeout=120))
        except VectorStoreError:
            raise
        except (OSError, sqlite3.OperationalError) as error:
            if "full" in str(error):
                raise self._failed(error) from error
            reason = str(error)
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        if self._warns:
            warnings.warn(
                f"{self.path} can't be written ({reason}): {self._content} are computed but not kept. "
                "Set LOOKALIKE_CACHE to a writable folder.",
                stacklevel=5,
            )
        return self._prepare(sqlite3.connect(":memory:"))

    def _prepare(self, database: sqlite3.Connection) -> sqlite3.Connection:
        # Only a new file takes these. Long entries are then written and read several times as fast.
        if self._long_entries:
            database.execute(f"PRAGMA page_size = {_PAGE}")
        options = "" if self._long_entries else "WITHOUT ROWID"
        with database:
            database.execute(f"CREATE TABLE IF NOT EXISTS vectors (image BLOB PRIMARY KEY, vector BLOB) {options}")
            # Files of earlier versions use another column name.
            key = database.execute("SELECT name FROM pragma_table_info('vectors') WHERE cid = 0").fetchone()[0]
            if key != "image":
                database.execute(f'ALTER TABLE vectors RENAME COLUMN "{key}" TO image')
        # Fail now if the file is read-only, not after hours of work. Neither the existing table nor a lock shows it; a
        # write that is rolled back does.
        database.execute("INSERT OR IGNORE INTO vectors VALUES (x'', x'')")
        database.rollback()
        return database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def __len__(self) -> int:
        return self._database.execute("SELECT count(*) FROM vectors").fetchone()[0]

    def known(self, images: Iterable[bytes]) -> set[bytes]:
        """Return those content hashes that are stored."""
        return {image for image, _ in self._select("image, 0", images)}

    def _get(self, images: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield (content hash, bytes) of the stored ones, in no order."""
        return self._select("image, vector", images)

    def _put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Store (content hash, bytes), all or none; existing entries stay unchanged."""
        try:
            with self._database:
                self._database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise self._failed(error) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> VectorStoreError:
        return VectorStoreError(
            f"{self.path} is damaged ({error}). Move it to another folder; its {self._content} will be computed again."
        )

    def _failed(self, error: Exception) -> VectorStoreError:
        return VectorStoreError(
            f"{self.path} can't be written: {error}. What was stored before is kept. "
            "Free some space and run again to continue, or set LOOKALIKE_CACHE to a folder with more space, where the "
            "computation starts again."
        )

    def _select(self, columns: str, images: Iterable[bytes]) -> Iterator[tuple]:
        unique = list(dict.fromkeys(images))
        for start in range(0, len(unique), _CHUNK):
            part = unique[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            try:
                yield from self._database.execute(f"SELECT {columns} FROM vectors WHERE image IN ({marks})", part)
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error


class VectorStore(BlobStore):
    """The vectors of one extractor, as a context manager. A file with vectors of another length is an error.

    fingerprint : `FeatureExtractor.fingerprint`; names the file.
    """

    def __init__(self, fingerprint: str, dim: int):
        self.dim = dim
        super().__init__(paths.cache_dir() / "vectors" / f"{fingerprint}.sqlite")

    def _prepare(self, database: sqlite3.Connection) -> sqlite3.Connection:
        database = super()._prepare(database)
        row = database.execute("SELECT length(vector) FROM vectors LIMIT 1").fetchone()
        if row and row[0] != 4 * self.dim:
            database.close()
            raise VectorStoreError(f"{self.path} holds vectors of {row[0] // 4} numbers, not {self.dim}. Move it away.")
        return database

    def get(self, images: Sequence[bytes]) -> np.ndarray:
        """Read float32 (n, dim), in the given order; a missing image gets a row of NaN."""
        vectors = np.full((len(images), self.dim), np.nan, np.float32)
        rows: dict[bytes, list[int]] = {}
        for row, image in enumerate(images):
            rows.setdefault(image, []).append(row)
        for image, vector in self._get(rows):
            vectors[rows[image]] = np.frombuffer(vector, "<f4")
        return vectors

    def put(self, images: Sequence[bytes], vectors: np.ndarray) -> None:
        """Store float32 (n, dim), all or none; existing vectors stay unchanged."""
        vectors = np.ascontiguousarray(vectors, dtype="<f4")
        if vectors.shape != (len(images), self.dim):
            raise ValueError(f"expected vectors of shape {(len(images), self.dim)}, got {vectors.shape}")
        self._put((image, vector.tobytes()) for image, vector in zip(images, vectors, strict=True))

    def complete(
        self, images: Sequence[bytes], compute: Callable[[list[int]], Iterable[tuple[Sequence[int], np.ndarray]]]
    ) -> np.ndarray:
        """Read float32 (n, dim) like `get`, after computing and storing the missing vectors.

        compute : row numbers → (rows, vectors) of each batch. Identical images are computed once.
        """
        known = self.known(images)
        missing = {image: row for row, image in reversed(list(enumerate(images))) if image not in known}
        for rows, vectors in compute(sorted(missing.values())):
            self.put([images[row] for row in rows], vectors)
        return self.get(images)


class RegionStore(BlobStore):
    """The vectors of the regions of images, all those of an image in one entry.

    fingerprint : see `helpers.features.region_vectors.region_fingerprint`; names the file.
    """

    _content = "vectors of regions"

    def __init__(self, fingerprint: str, dim: int):
        self.dim = dim
        super().__init__(paths.cache_dir() / "regions" / f"{fingerprint}.sqlite")

    def get(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
        """Yield (key, float32 (n, dim)) of the stored entries, in no order."""
        for key, vectors in self._get(keys):
            yield key, np.frombuffer(vectors, "<f4").reshape(-1, self.dim)

    def put(self, entries: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Store (key, float32 (n, dim)) entries, all or none; existing ones stay unchanged."""
        self._put((key, np.ascontiguousarray(vectors, "<f4").tobytes()) for key, vectors in entries)
