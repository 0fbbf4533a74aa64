"""EngineFile: the SQLite file of a saved engine, its schema and its connections.

SQLite flushes every commit with fsync (https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous).
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from helpers.search.index import IndexFileError
from helpers.search.persist import wal

NAME = "engine.sqlite"
#: The format of saved folders; other formats raise an error.
FORMAT = 4
#: The manifest of folders of format 2 and before.
OLD_NAME = "engine.json"

#: Seconds to wait for another process that writes.
_TIMEOUT = 30.0
_SCHEMA = f"""
create table manifest (
    snapshot_id text not null,
    extractor text not null,
    fingerprint text not null,
    index_spec text not null,
    index_file text not null,
    index_sha256 text not null,
    name not null,
    source,
    images integer not null,
    indexed integer not null,
    log_position integer not null
);
create table roots (number integer primary key, path not null, relative);
create table classes (label integer primary key, name not null);
create table gallery (
    id integer primary key,
    path not null,
    place integer not null,
    label integer not null,
    grp integer,
    content blob,
    name
);
create table parts (start integer primary key, sha256 text not null);
{wal.SCHEMA}
pragma user_version = {FORMAT};
"""


class EngineFolderError(IndexFileError):
    """A folder holds no engine, or an engine of another extractor or format; the message says which."""


class EngineFile(contextlib.AbstractContextManager["EngineFile"]):
    """The SQLite file of one engine folder; for one thread at a time.

    Any method may raise EngineFolderError (there is no engine, or one of another format) and IndexFileError (the file
    is damaged or cannot be written, or another process writes for very long).

    A folder that cannot be written is read. If a writer that was killed left changes in SQLite's log there, a private
    copy of the file and the log is read, because SQLite cannot read the log without writing
    (https://sqlite.org/wal.html#read_only_databases).

    create : make the file if there is none. replace : open a file of another format, too, for `make_tables`.
    """

    def __init__(self, folder: str | Path, create: bool = False, replace: bool = False):
        self.folder, self.path, self._create, self._replace = Path(folder), Path(folder) / NAME, create, replace
        self._connection: sqlite3.Connection | None = None
        self._copy: tempfile.TemporaryDirectory | None = None
        self._wrote = False

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again. Changes go from SQLite's log into the file, if no one reads."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                if self._wrote:
                    _empty_log(connection)
            finally:
                connection.close()
                self._wrote = False
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def version(self) -> int:
        """A number that changes with every commit of another connection; fast enough for every search."""
        with self._reporting():
            return self._open().execute("pragma data_version").fetchone()[0]

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the file in the state of the first read, whatever others write meanwhile."""
        with self._transaction("begin") as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection as the only writer of all processes; after an error nothing was written."""
        with self._transaction("begin immediate") as connection:
            self._wrote = True
            yield connection

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._reporting():
            connection = self._open()
            connection.execute(begin)
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if not self._create and not self.path.is_file():
            raise missing_engine(self.folder)
        deadline = time.monotonic() + _TIMEOUT
        while self._connection is None:
            try:
                self._connection = self._connect()
            except sqlite3.OperationalError as error:
                # SQLite does not wait if two open a new file, or one that its last user is closing.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if not self._create and not os.access(self.folder, os.W_OK):
            return self._connect_read_only()
        connection = _connect(self.path, "rwc" if self._create else "rw")
        with _closed_on_error(connection):
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            # Overwriting the rows of a compacted log would take longer than the rest of the transaction.
            connection.execute("pragma secure_delete = off")
            if _format(connection) == 0 and self._create:
                connection.execute("begin immediate")
                # Another process may have made them meanwhile.
                if _format(connection) == 0:
                    make_tables(connection)
                connection.execute("commit")
        return self._checked(connection)

    def _connect_read_only(self) -> sqlite3.Connection:
        log, shared = (self.path.with_name(f"{NAME}{suffix}") for suffix in ("-wal", "-shm"))
        if log.exists() and shared.exists():
            # Of a process that may write, and that writes perhaps.
            with contextlib.suppress(sqlite3.OperationalError):
                return self._checked(_connect(self.path, "ro"))
        if not log.exists() or not log.stat().st_size:
            # Without a log, SQLite needs no shared memory.
            return self._checked(_connect(self.path, "ro&immutable=1"))
        if self._copy is None:
            self._copy = tempfile.TemporaryDirectory(prefix="lookalike-")
            _copy_stable((self.path, log), Path(self._copy.name))
        connection = self._checked(_connect(Path(self._copy.name, NAME), "rw"))
        connection.execute("pragma query_only = on")
        return connection

    def _checked(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """The connection, unless the file has another format."""
        with _closed_on_error(connection):
            version = _format(connection)
            if version not in (0, FORMAT) and not self._replace:
                raise EngineFolderError(
                    f"{self.path} has format {version}; this version reads {FORMAT}. Index its images again: "
                    "`lookalike index FOLDER -o OTHER` makes another engine, and --force replaces this one."
                )
        return connection

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise IndexFileError(
                f"{self.path} cannot be used: {error}. Is its folder writable and its disk not full? If the file is "
                f"damaged, restore it together with {NAME}-wal, or index its images again."
            ) from error


def missing_engine(folder: Path) -> EngineFolderError:
    """The error for a folder without ``engine.sqlite``."""
    if (folder / OLD_NAME).is_file():
        return EngineFolderError(
            f"{folder} holds an engine of an older format, which this version does not read. Index its images again: "
            "`lookalike index FOLDER -o OTHER` makes another engine, and --force replaces this one."
        )
    return EngineFolderError(f"{folder} holds no engine: {folder / NAME} is missing. Save one there first.")


def make_tables(connection: sqlite3.Connection) -> None:
    """Make empty tables in place of those of another format, in a transaction; those of this format are kept."""
    if _format(connection) == FORMAT:
        return
    names = connection.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
    for (name,) in names.fetchall():
        connection.execute(f'drop table "{name}"')
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether the file has a table of this name."""
    return connection.execute("select 1 from sqlite_master where name = ?", (name,)).fetchone() is not None


def _format(connection: sqlite3.Connection) -> int:
    return connection.execute("pragma user_version").fetchone()[0]


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    # Callers ensure that one thread at a time uses it.
    return sqlite3.connect(uri, _TIMEOUT, isolation_level=None, check_same_thread=False, uri=True)


def _empty_log(connection: sqlite3.Connection) -> None:
    """Write SQLite's log into the file and empty it, unless another process uses it at the moment."""
    # The changes are in the log, and stay there if this fails.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("pragma busy_timeout = 0")
        connection.execute("pragma wal_checkpoint(truncate)")


def _copy_stable(files: tuple[Path, ...], folder: Path) -> None:
    """Copy files that belong together, again if they have changed meanwhile."""

    def state() -> list[tuple[int, int]]:
        return [(status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files)]

    copied = None
    while copied != (copied := state()):
        for file in files:
            shutil.copyfile(file, folder / file.name)
