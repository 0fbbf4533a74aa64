"""Vectors on disk, keyed by an image's content and an extractor's settings.

One SQLite file an extractor: every batch is a transaction, so a killed run loses at most the batch that it
was computing, a full disk loses nothing that was stored, and two processes may write at the same time.
"""

import hashlib
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from helpers import paths

#: SQLite's bound on variables in one statement was 999 for a long time.
_CHUNK = 900


class VectorStoreError(OSError):
    """Vectors can't be stored or read; the message names the file and the remedy."""


def pixels_hash(pixels: np.ndarray) -> bytes:
    """16 bytes that stand for the shape, type and values of an array; never those of a file's content."""
    digest = hashlib.blake2b(f"{pixels.dtype.str} {pixels.shape}".encode(), digest_size=16, person=b"pixels")
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


class BlobStore:
    """One SQLite file of bytes by content hash, what `VectorStore` and the store of keypoints have in common.

    Parameters
    ----------
    path : of the file; its folder is made.

    A folder that can't be written to is no reason to compute nothing: everything is then kept in memory for this one
    run, after a warning that says so.

    Raises
    ------
    VectorStoreError : the file is damaged (then also when it is read), or the disk is full.
    """

    #: What error messages call the content.
    _what = "vectors"
    #: Whether a folder that can't be written is worth a warning.
    _warns = True

    def __init__(self, path: Path):
        self.path = path
        self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._prepare(sqlite3.connect(self.path, timeout=120))
        except VectorStoreError:
            raise
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError):
                raise self._damaged(error) from error
            reason = error
        except OSError as error:
            reason = error
        if "full" in str(reason):
            raise self._failed(reason) from reason
        if self._warns:
            warnings.warn(
                f"{self.path} can't be written ({reason}): {self._what} are computed but not kept. "
                "Set LOOKALIKE_CACHE to a folder that can be written.",
                stacklevel=5,
            )
        return self._prepare(sqlite3.connect(":memory:"))

    def _prepare(self, database: sqlite3.Connection) -> sqlite3.Connection:
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS vectors (image BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
            # Files of earlier versions have the same content under another column name.
            key = database.execute("SELECT name FROM pragma_table_info('vectors') WHERE cid = 0").fetchone()[0]
            if key != "image":
                database.execute(f'ALTER TABLE vectors RENAME COLUMN "{key}" TO image')
        # A table that is there already needs no writing, and a lock can be had on a read-only file: only a write that
        # is taken back tells before hours of work.
        database.execute("INSERT OR IGNORE INTO vectors VALUES (x'', x'')")
        database.rollback()
        return database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._database.close()

    def __len__(self) -> int:
        return self._database.execute("SELECT count(*) FROM vectors").fetchone()[0]

    def known(self, images: Iterable[bytes]) -> set[bytes]:
        """Those of the content hashes whose vectors are stored."""
        return {image for image, _ in self._select("image, 0", images)}

    def _get(self, images: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """(content hash, bytes) of those that are stored, in no order."""
        return self._select("image, vector", images)

    def _put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Store (content hash, bytes), all or none; what is already there stays."""
        try:
            with self._database:
                self._database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise self._failed(error) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> VectorStoreError:
        return VectorStoreError(
            f"{self.path} is damaged ({error}). Delete it; its {self._what} will be computed again."
        )

    def _failed(self, error: Exception) -> VectorStoreError:
        return VectorStoreError(
            f"{self.path} can't be written: {error}. What was stored before is kept. "
            "Free some space, or set LOOKALIKE_CACHE to a folder with more, and run again: it goes on from there."
        )

    def _select(self, columns: str, images: Iterable[bytes]):
        images = list(dict.fromkeys(images))
        for start in range(0, len(images), _CHUNK):
            part = images[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            try:
                yield from self._database.execute(f"SELECT {columns} FROM vectors WHERE image IN ({marks})", part)
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error


class VectorStore(BlobStore):
    """The vectors of one extractor; use it as a context manager.

    Parameters
    ----------
    fingerprint : `FeatureExtractor.fingerprint`; names the file.
    dim : length of a vector.
    folder : where the file lives; the cache's ``vectors`` by default.

    Raises
    ------
    VectorStoreError : the file is damaged (then also when vectors are read), or holds vectors of another length, or
        the disk is full.
    """

    def __init__(self, fingerprint: str, dim: int, folder: Path | None = None):
        self.dim = dim
        super().__init__((folder or paths.cache_dir() / "vectors") / f"{fingerprint}.sqlite")

    def _prepare(self, database: sqlite3.Connection) -> sqlite3.Connection:
        database = super()._prepare(database)
        row = database.execute("SELECT length(vector) FROM vectors LIMIT 1").fetchone()
        if row and row[0] != 4 * self.dim:
            database.close()
            raise VectorStoreError(f"{self.path} holds vectors of {row[0] // 4} numbers, not {self.dim}. Delete it.")
        return database

    def get(self, images: Sequence[bytes]) -> np.ndarray:
        """float32 (n, dim) in the order asked for; a row of NaN for an image that is not stored."""
        vectors = np.full((len(images), self.dim), np.nan, np.float32)
        rows: dict[bytes, list[int]] = {}
        for row, image in enumerate(images):
            rows.setdefault(image, []).append(row)
        for image, vector in self._get(rows):
            vectors[rows[image]] = np.frombuffer(vector, "<f4")
        return vectors

    def put(self, images: Sequence[bytes], vectors: np.ndarray) -> None:
        """Store float32 (n, dim), all or none; a vector that is already there stays.

        Raises
        ------
        VectorStoreError : the disk is full, or the file can't be written any more.
        """
        vectors = np.ascontiguousarray(vectors, dtype="<f4")
        if vectors.shape != (len(images), self.dim):
            raise ValueError(f"expected vectors of shape {(len(images), self.dim)}, got {vectors.shape}")
        self._put((image, vector.tobytes()) for image, vector in zip(images, vectors, strict=True))
