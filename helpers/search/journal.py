"""Journal: what was added to and removed from a saved engine since, in a file that many processes share.

SQLite writes it, in its write-ahead log with every commit flushed to the disk: what was committed outlives a process
that is killed and a machine that loses power, and what was not leaves no trace (https://sqlite.org/wal.html,
https://sqlite.org/pragma.html#pragma_synchronous).
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.search.index import IndexFileError

NAME = "changes.sqlite"

#: Seconds to wait while another process writes.
_PATIENCE = 30.0
_TABLE = """
create table if not exists changes (
    number integer primary key autoincrement,
    lineage text not null,
    id integer not null,
    path text,
    class_name text,
    vector blob
)
"""


@dataclass(frozen=True, eq=False)
class Change:
    """One picture added, or removed.

    Attributes
    ----------
    number : rises with every change, and is never used again.
    id : of the picture.
    path : as `helpers.search.engine` writes paths; None for a removal.
    class_name : None for a picture of no class.
    vector : float32 (dim,); None for a removal.
    """

    number: int
    id: int
    path: str | None
    class_name: str | None
    vector: np.ndarray | None

    @property
    def added(self) -> bool:
        return self.vector is not None


class Journal:
    """The changes of one engine folder; for one thread at a time.

    Raises
    ------
    IndexFileError : in any method: the file is damaged, can't be written, or another process writes for very long.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / NAME
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None

    def close(self) -> None:
        """Give the file back; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def moved(self) -> bool:
        """Whether another process changed something since this was last asked (the first time: whether there is any).

        Cheap enough to ask before every search.
        """
        with self._reporting():
            if self._connection is None and not self.path.exists():
                return False
            (version,) = self._open().execute("pragma data_version").fetchone()
        before, self._version = self._version, version
        return version != before

    def read(self, lineage: str, after: int) -> list[Change]:
        """The changes of a lineage with a number above ``after``, in the order they were made."""
        with self._reporting():
            if self._connection is None and not self.path.exists():
                return []
            rows = self._open().execute(
                "select number, id, path, class_name, vector from changes where lineage = ? and number > ? "
                "order by number",
                (lineage, after),
            )
            return [Change(*row[:4], None if row[4] is None else np.frombuffer(row[4], "<f4")) for row in rows]

    @contextlib.contextmanager
    def writing(self) -> Iterator["Writer"]:
        """The one who may write, of all processes; after an error nothing was written."""
        with self._reporting():
            connection = self._open()
            connection.execute("begin immediate")
            try:
                yield Writer(connection)
                connection.execute("commit")
            except BaseException:
                connection.execute("rollback")
                raise

    def drop(self, lineage: str, upto: int) -> None:
        """Forget what is in the saved engine by now: a lineage's changes up to a number, and all other lineages."""
        with self._reporting():
            if self._connection is None and not self.path.exists():
                return
            self._open().execute("delete from changes where lineage != ? or number <= ?", (lineage, upto))

    def _open(self) -> sqlite3.Connection:
        deadline = time.monotonic() + _PATIENCE
        while self._connection is None:
            # Its user sees to it that one thread at a time is in here.
            connection = sqlite3.connect(self.path, _PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("pragma journal_mode = wal")
                connection.execute("pragma synchronous = full")
                connection.execute(_TABLE)
                self._connection = connection
            except sqlite3.OperationalError as error:
                connection.close()
                # SQLite does not wait where two open a new file, or one the last of whose users is just leaving.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            except BaseException:
                connection.close()
                raise
        return self._connection

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise IndexFileError(
                f"{self.path} can't be used: {error}. Is its folder writable and its disk not full? If the file is "
                "damaged, restore it with changes.sqlite-wal beside it; without them, what was added or removed since "
                "the engine was saved is lost."
            ) from error


class Writer:
    """Inside `Journal.writing`."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def next_id(self, lineage: str, saved: int) -> int:
        """The first id that no picture has or had; ``saved`` have the engine's own ids, from 0 on."""
        (highest,) = self._connection.execute(
            "select max(id) from changes where lineage = ? and vector is not null", (lineage,)
        ).fetchone()
        return saved if highest is None else max(saved, highest + 1)

    def add(
        self,
        lineage: str,
        ids: Sequence[int],
        paths: Sequence[str],
        class_names: Sequence[str | None],
        vectors: np.ndarray,
    ) -> None:
        """vectors : float32 (n, dim)."""
        rows = zip(ids, paths, class_names, np.ascontiguousarray(vectors, "<f4"), strict=True)
        self._connection.executemany(
            "insert into changes (lineage, id, path, class_name, vector) values (?, ?, ?, ?, ?)",
            ((lineage, int(i), path, name, vector.tobytes()) for i, path, name, vector in rows),
        )

    def remove(self, lineage: str, ids: Sequence[int]) -> None:
        self._connection.executemany(
            "insert into changes (lineage, id) values (?, ?)", ((lineage, int(i)) for i in ids)
        )
