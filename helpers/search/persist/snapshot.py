"""Snapshot: the SQLite file of a saved engine, with its manifest and the gallery table.

The folder of an engine holds ``engine.sqlite``, the index file that its manifest names, and uploaded images. Manifest,
gallery table and write-ahead log (`helpers.search.persist.wal`) are tables of one SQLite file, and one transaction
replaces all of them: a process that is killed at any moment leaves either the old engine or the new one. SQLite flushes
every commit with fsync (https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous).
"""

import contextlib
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from helpers.files import flush_folder
from helpers.search.gallery import GalleryTable
from helpers.search.index import Index, IndexFileError, load_index
from helpers.search.persist import wal
from helpers.search.persist.wal import to_sql, to_str

NAME = "engine.sqlite"
#: The format of saved folders; other formats raise an error.
FORMAT = 3
#: The manifest of folders of format 2 and before.
OLD_NAME = "engine.json"
#: The lock of the process that writes an index file into a folder.
LOCK = ".lock"

#: Seconds to wait for another process that writes.
_TIMEOUT = 30.0
#: Bytes of an index file whose checksum is in the manifest: its header, which has the checksum of the rest.
_HEAD = 4096
#: The base of a stored path: none, the root of the gallery, the engine's folder.
_FULL, _ROOT, _OWN = range(3)

_SCHEMA = f"""
create table manifest (
    snapshot_id text not null,
    extractor text not null,
    fingerprint text not null,
    index_spec text not null,
    index_file text not null,
    index_sha256 text not null,
    name not null,
    root,
    images integer not null,
    indexed integer not null,
    log_position integer not null
);
create table classes (label integer primary key, name not null);
create table gallery (
    id integer primary key,
    path not null,
    place integer not null,
    label integer not null,
    grp integer
);
create table parts (start integer primary key, sha256 text not null);
{wal.SCHEMA}
pragma user_version = {FORMAT};
"""


class EngineFolderError(IndexFileError):
    """A folder does not hold an engine, or one of another extractor or format; the message says which."""


@dataclass(frozen=True)
class Manifest:
    """The metadata of a saved engine.

    Attributes
    ----------
    snapshot_id : random, new in every save; compaction keeps it.
    extractor, fingerprint : of the feature extractor.
    index_spec : the spec for `open_index`.
    index_file, index_sha256 : its name in the folder, and the checksum of its header.
    name, root : of the gallery; without a root, paths are stored in full.
    images : rows of the gallery table.
    indexed : vectors in the index file.
    log_position : number of the last change of the log that the index file contains.
    """

    snapshot_id: str
    extractor: str
    fingerprint: str
    index_spec: str
    index_file: str
    index_sha256: str
    name: str
    root: str | None
    images: int
    indexed: int
    log_position: int


class EngineFile:
    """The SQLite file of one engine folder; for one thread at a time.

    Any method may raise EngineFolderError (there is no engine, or one of another format) and IndexFileError (the file
    is damaged or cannot be written, or another process writes for very long).

    create : make the file if there is none.
    """

    def __init__(self, folder: str | Path, create: bool = False):
        self.folder, self.path, self._create = Path(folder), Path(folder) / NAME, create
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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
        # Callers ensure that one thread at a time uses it.
        connection = sqlite3.connect(self._uri(), _TIMEOUT, isolation_level=None, check_same_thread=False, uri=True)
        try:
            if self._create or os.access(self.folder, os.W_OK):
                connection.execute("pragma journal_mode = wal")
                connection.execute("pragma synchronous = full")
                # Overwriting the rows of a compacted log would take longer than the rest of the transaction.
                connection.execute("pragma secure_delete = off")
            (version,) = connection.execute("pragma user_version").fetchone()
            if version == 0 and self._create:
                connection.executescript(f"begin immediate; {_SCHEMA} commit;")
            elif version not in (0, FORMAT):
                raise EngineFolderError(
                    f"{self.path} has format {version}; this version reads {FORMAT}. Delete the folder, and index its "
                    "images again."
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _uri(self) -> str:
        mode = "rwc" if self._create else "rw"
        if not self._create and not os.access(self.folder, os.W_OK):
            # SQLite cannot make its shared-memory file in such a folder. Without a log, it needs none.
            mode = "ro" if self.path.with_name(f"{NAME}-wal").exists() else "ro&immutable=1"
        return f"{self.path.absolute().as_uri()}?mode={mode}"

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
            f"{folder} holds an engine of an older format, which this version does not read. Index its images again "
            "with `lookalike index`."
        )
    return EngineFolderError(f"{folder} holds no engine: {folder / NAME} is missing. Save one there first.")


def is_engine(folder: str | Path) -> bool:
    """Whether a folder holds a saved engine, even if it is damaged or of another format."""
    folder = Path(folder)
    if not (folder / NAME).is_file():
        return (folder / OLD_NAME).is_file()
    try:
        with EngineFile(folder) as file, file.reading() as connection:
            return find_manifest(connection) is not None
    except OSError:
        return True


def read_manifest(connection: sqlite3.Connection, folder: Path) -> Manifest:
    """The manifest, in a transaction; EngineFolderError if the first save was interrupted."""
    manifest = find_manifest(connection)
    if manifest is None:
        raise EngineFolderError(f"{folder} holds no engine: saving it was interrupted. Save it again.")
    return manifest


def find_manifest(connection: sqlite3.Connection) -> Manifest | None:
    """The manifest, in a transaction; None before the first save is complete."""
    if connection.execute("select 1 from sqlite_master where name = 'manifest'").fetchone() is None:
        return None
    names = ", ".join(field.name for field in fields(Manifest))
    row = connection.execute(f"select {names} from manifest").fetchone()
    values: Iterable[Any] = (
        () if row is None else (to_str(value) if isinstance(value, bytes) else value for value in row)
    )
    return None if row is None else Manifest(*values)


def manifest_of(folder: str | Path) -> Manifest:
    """The manifest of a saved engine, without opening anything else.

    Raises EngineFolderError: no engine is there, or it is of another format; IndexFileError: it is damaged.
    """
    with EngineFile(folder) as file, file.reading() as connection:
        return read_manifest(connection, file.folder)


# ---- the gallery table -------------------------------------------------------------------------------------------


def read_table(
    connection: sqlite3.Connection, manifest: Manifest, root: str | Path | None, folder: Path
) -> GalleryTable:
    """The gallery table of a manifest, in the same transaction.

    root : the folder of the images, if they were moved.

    Raises EngineFolderError: the table is damaged; ValueError: a root is given, but the gallery was saved without one.
    """
    base = None if manifest.root is None else Path(manifest.root if root is None else root).absolute()
    if base is None and root is not None:
        raise ValueError(f"{manifest.name!r} was saved without a root, with full paths: it cannot get another one")
    rows = connection.execute("select path, place, label, grp from gallery order by id").fetchall()
    class_names = [to_str(name) for (name,) in connection.execute("select name from classes order by label")]
    parts = connection.execute("select start, sha256 from parts order by start").fetchall()
    ends = [start for start, _ in parts[1:]] + [len(rows)]
    if len(rows) != manifest.images or any(
        _checksum(rows[start:end]) != digest for (start, digest), end in zip(parts, ends, strict=True)
    ):
        raise EngineFolderError(f"{folder / NAME} is damaged: the checksum of its gallery table is wrong. Index again.")
    decode = StoredPaths(base, folder).decode
    paths = [decode(to_str(path), place) for path, place, _, _ in rows]
    labels = np.array([label for _, _, label, _ in rows], np.int64)
    groups = None
    if any(group is not None for _, _, _, group in rows):
        groups = np.array([-1 if group is None else group for _, _, _, group in rows], np.int64)
    return GalleryTable(manifest.name, base, paths, labels, class_names, groups)


class StoredPaths:
    """Converts the paths of one engine to their stored form and back.

    A path in the engine's folder is relative to it, so that the folder can be moved as a whole. A path below the
    gallery's root is relative to the root. Other paths are stored in full.
    """

    def __init__(self, root: Path | None, folder: Path):
        start_of_root = "" if root is None else f"{root.absolute()}{os.sep}"
        #: The prefix of a stored path, by its place.
        self._starts = "", start_of_root, f"{folder.absolute()}{os.sep}"

    def encode(self, path: str | Path) -> tuple[str, int]:
        """A path in its stored form, and its place: the number of its base."""
        path = str(path)
        # As text, because a path object takes as long as everything else.
        if not os.path.isabs(path):  # noqa: PTH117
            path = str(Path(path).absolute())
        place = next((place for place in (_OWN, _ROOT) if path.startswith(self._starts[place] or "\0")), _FULL)
        return path[len(self._starts[place]) :].replace(os.sep, "/"), place

    def decode(self, path: str, place: int) -> str:
        """The absolute path."""
        return self._starts[place] + path


def _checksum(rows: Iterable[tuple]) -> str:
    """SHA-256 of rows (path, place, label, group)."""
    return hashlib.sha256(ascii(list(rows)).encode()).hexdigest()


# ---- replacing the snapshot --------------------------------------------------------------------------------------


def write_index(folder: Path, index: Index) -> tuple[str, str]:
    """Write and flush an index file under a new name; returns its name and checksum, for a manifest."""
    path = index.save(folder / f"vectors-{secrets.token_hex(8)}.index")
    flush_folder(folder)
    return path.name, head_checksum(path)


def open_base(folder: Path, manifest: Manifest, mmap: bool) -> Index:
    """The index file of a manifest.

    Raises
    ------
    FileNotFoundError : it does not exist, such as after another process has compacted.
    IndexFileError : it is damaged, or of another save.
    """
    path = folder / manifest.index_file
    index = load_index(path, mmap)
    if head_checksum(path) != manifest.index_sha256 or len(index) != manifest.indexed:
        raise EngineFolderError(f"{path} is damaged or of another save. Index its images again.")
    return index


def head_checksum(index_file: Path) -> str:
    """SHA-256 of an index file's header, which has the checksum of the rest."""
    with index_file.open("rb") as file:
        return hashlib.sha256(file.read(_HEAD)).hexdigest()


def replace_snapshot(connection: sqlite3.Connection, manifest: Manifest, table: GalleryTable, folder: Path) -> None:
    """Replace the whole content by a new snapshot, in a transaction."""
    for name in ("manifest", "classes", "gallery", "parts", "log"):
        connection.execute(f"delete from {name}")
    _insert_manifest(connection, manifest)
    connection.executemany("insert into classes values (?, ?)", enumerate(map(to_sql, table.class_names)))
    stored = map(StoredPaths(table.root, folder).encode, table.paths)
    groups = [None] * len(table) if table.groups is None else table.groups.tolist()
    rows = [
        (to_sql(path), place, label, group)
        for (path, place), label, group in zip(stored, table.labels.tolist(), groups, strict=True)
    ]
    connection.executemany("insert into gallery values (?, ?, ?, ?, ?)", ((id, *row) for id, row in enumerate(rows)))
    connection.execute("insert into parts values (0, ?)", (_checksum(rows),))


def extend_snapshot(connection: sqlite3.Connection, before: Manifest, manifest: Manifest, folder: Path) -> None:
    """Refer to an index file that contains the log up to a position, in a transaction.

    The images that the log added up to there become rows of the gallery table, and its rows are deleted.

    Raises EngineFolderError: another process has saved or compacted since ``before`` was read.
    """
    if read_manifest(connection, folder) != before:
        raise EngineFolderError(f"{folder} was saved by another process meanwhile: nothing was changed.")
    upto = manifest.log_position
    names = [name for (name,) in connection.execute("select name from classes order by label")]
    added = connection.execute(
        "select class_name from log where number <= ? and class_name is not null group by class_name "
        "order by min(number)",
        (upto,),
    )
    new = [name for (name,) in added if name not in set(names)]
    connection.executemany("insert into classes values (?, ?)", enumerate(new, start=len(names)))
    connection.execute(
        "insert into gallery select id, path, place, coalesce(label, -1), null from log "
        "left join classes on name = class_name where vector is not null and number <= ? order by id",
        (upto,),
    )
    rows = connection.execute(
        "select path, place, label, grp from gallery where id >= ? order by id", (before.images,)
    ).fetchall()
    if rows:
        connection.execute("insert into parts values (?, ?)", (before.images, _checksum(rows)))
    connection.execute("delete from manifest")
    _insert_manifest(connection, manifest)
    wal.delete(connection, upto)


def _insert_manifest(connection: sqlite3.Connection, manifest: Manifest) -> None:
    values = [to_sql(value) if isinstance(value, str) else value for value in astuple(manifest)]
    connection.execute(f"insert into manifest values ({', '.join('?' * len(values))})", values)


def delete_leftovers(file: EngineFile) -> None:
    """Delete former index files, and files of failed saves; the caller must hold the folder's lock.

    Files that cannot be deleted are left to the next save.
    """
    folder = file.folder
    try:
        with file.reading() as connection:
            manifest = find_manifest(connection)
    except OSError:
        return
    file.close()
    named = None if manifest is None else manifest.index_file
    stale = [*folder.glob(".vectors-*.part"), *(path for path in folder.glob("vectors-*.index") if path.name != named)]
    if named:
        # Files of format 2.
        stale += [folder / OLD_NAME, *folder.glob("images-*.json"), *folder.glob("changes.sqlite*")]
    elif (folder / OLD_NAME).is_file():
        stale = [*folder.glob(f"{NAME}*")]
    else:
        stale += folder.glob(f"{NAME}*")
    for path in stale:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def prepare_folder(folder: Path) -> None:
    """Make the folder of an engine.

    Raises FileExistsError: it holds something else; IndexFileError: it cannot be made or read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise IndexFileError(f"{folder} cannot be made or read: {error}. Choose another folder.") from error
    if not {NAME, OLD_NAME} & set(names) and not all(name.startswith("vectors-") for name in names):
        raise FileExistsError(f"{folder} holds files that are not an engine; choose another folder.")
