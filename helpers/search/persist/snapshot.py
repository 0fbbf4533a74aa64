"""Snapshot: the SQLite file of a saved engine, with its manifest and the gallery table.

The folder of an engine holds ``engine.sqlite``, the index file that its manifest names, and uploaded images. Manifest,
gallery table and write-ahead log (`helpers.search.persist.wal`) are tables of one SQLite file, and one transaction
replaces all of them: a process that is killed at any moment leaves either the old engine or the new one.
"""

import contextlib
import hashlib
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from helpers.files import flush_folder
from helpers.search.gallery import GalleryTable
from helpers.search.index import Index, load_index
from helpers.search.persist import added_dates
from helpers.search.persist.engine_file import NAME, OLD_NAME, EngineFile, EngineFolderError, has_table
from helpers.search.persist.roots import Roots, Sample, StoredRoot, spread
from helpers.search.persist.wal import Change, to_sql, to_str

#: The lock of the process that writes an index file into a folder.
LOCK = ".lock"

#: Bytes of an index file whose checksum is in the manifest: its header, which has the checksum of the rest.
_HEAD = 4096
#: The columns of the gallery table that its checksum covers.
_COLUMNS = "path, place, label, grp, content, name"


@dataclass(frozen=True)
class Manifest:
    """The metadata of a saved engine.

    Attributes
    ----------
    snapshot_id : random, new in every save; compaction keeps it.
    extractor, fingerprint : of the feature extractor.
    index_spec : the spec for `open_index`.
    index_file, index_sha256 : its name in the folder, and the checksum of its header.
    name : of the gallery.
    source : the folder or the table from which ``lookalike index`` made the engine, as `Roots.encode` stores it: number
        of the root, a space, and the path; or None.
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
    source: str | None
    images: int
    indexed: int
    log_position: int


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
    if not has_table(connection, "manifest"):
        return None
    names = ", ".join(field.name for field in fields(Manifest))
    row = connection.execute(f"select {names} from manifest").fetchone()
    if row is None:
        return None
    values: Iterable[Any] = (to_str(value) if isinstance(value, bytes) else value for value in row)
    return Manifest(*values)


def manifest_of(folder: str | Path) -> Manifest:
    """The manifest of a saved engine, without opening anything else.

    Raises EngineFolderError: no engine is there, or it is of another format; IndexFileError: it is damaged.
    """
    with EngineFile(folder) as file, file.reading() as connection:
        return read_manifest(connection, file.folder)


# ---- the gallery table -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredTable:
    """The gallery table as it is stored: with paths relative to roots.

    Attributes
    ----------
    rows : tuples of path, number of the root, label, group, content and name.
    """

    manifest: Manifest
    rows: list[tuple]
    class_names: list[str]
    roots: list[StoredRoot]

    def samples(self, indexed: np.ndarray, changes: Sequence[Change]) -> dict[int, list[Sample]]:
        """Some files of each root, of images in the index and the log: by the number of the root.

        indexed : int64 (m,), ids.
        """
        removed = {change.id for change in changes if change.vector is None}
        indexed = indexed[~np.isin(indexed, list(removed))]
        places = np.fromiter((row[1] for row in self.rows), np.int64, len(self.rows))[indexed]
        samples: dict[int, list[Sample]] = {root.number: [] for root in self.roots}
        for number, files in samples.items():
            of_root = indexed[places == number]
            files += [Sample(to_str(self.rows[id][0]), self.rows[id][4]) for id in of_root[spread(len(of_root))]]
        for number, files in samples_of_changes(change for change in changes if change.id not in removed).items():
            samples[number] = samples.get(number) or files
        return samples

    def decoded(self, roots: Roots) -> GalleryTable:
        """The gallery table, with absolute paths."""
        paths = [roots.decode(to_str(row[0]), row[1]) for row in self.rows]
        labels = np.array([row[2] for row in self.rows], np.int64)
        groups = None
        if any(row[3] is not None for row in self.rows):
            groups = np.array([-1 if row[3] is None else row[3] for row in self.rows], np.int64)
        contents = [row[4] for row in self.rows]
        names = {id: to_str(row[5]) for id, row in enumerate(self.rows) if row[5] is not None}
        source = None if self.manifest.source is None else decode_source(self.manifest.source, roots)
        return GalleryTable(
            self.manifest.name, roots.gallery, paths, labels, self.class_names, groups, contents, names, source
        )


def read_table(connection: sqlite3.Connection, manifest: Manifest, folder: Path) -> StoredTable:
    """The gallery table of a manifest, in the same transaction. Raises EngineFolderError: it is damaged."""
    rows = connection.execute(f"select {_COLUMNS} from gallery order by id").fetchall()
    class_names = [to_str(name) for (name,) in connection.execute("select name from classes order by label")]
    parts = connection.execute("select start, sha256 from parts order by start").fetchall()
    ends = [start for start, _ in parts[1:]] + [len(rows)]
    if len(rows) != manifest.images or any(
        _checksum(rows[start:end]) != digest for (start, digest), end in zip(parts, ends, strict=True)
    ):
        raise EngineFolderError(f"{folder / NAME} is damaged: the checksum of its gallery table is wrong. Index again.")
    return StoredTable(manifest, rows, class_names, read_roots(connection))


def read_roots(connection: sqlite3.Connection) -> list[StoredRoot]:
    """The roots of the paths, ascending."""
    rows = connection.execute("select number, path, relative from roots order by number")
    return [StoredRoot(number, to_str(path), to_str(relative)) for number, path, relative in rows]


def write_roots(connection: sqlite3.Connection, roots: Iterable[StoredRoot]) -> None:
    """Write roots, in place of those with the same numbers."""
    rows = [(number, to_sql(path), to_sql(relative)) for number, path, relative in roots]
    connection.executemany("insert or replace into roots values (?, ?, ?)", rows)


def samples_of_changes(changes: Iterable[Change]) -> dict[int, list[Sample]]:
    """Some files of the images that changes added, by the number of their root."""
    files: dict[int, list[Sample]] = {}
    for change in changes:
        if change.vector is not None:
            files.setdefault(change.place, []).append(Sample(change.path, change.content))
    return {number: [each[row] for row in spread(len(each))] for number, each in files.items()}


def encode_source(source: str, roots: Roots) -> str:
    """A folder or table in its stored form; relative to a root, if one contains it."""
    start = roots.start_of(f"{source}/")
    if not start:
        return f"- {source}"
    path, number = roots.encode(f"{source}/")
    return f"{number} {path}"


def write_source(connection: sqlite3.Connection, source: str, roots: Roots) -> None:
    """Store the folder or table from which an engine was made, in a transaction."""
    connection.execute("update manifest set source = ?", (to_sql(encode_source(source, roots)),))


def decode_source(stored: str, roots: Roots) -> str:
    """The reverse of `encode_source`."""
    number, path = stored.split(" ", 1)
    return path if number == "-" else roots.decode(path, int(number)).rstrip("/")


def _checksum(rows: Iterable[tuple]) -> str:
    """SHA-256 of rows of the gallery table."""
    return hashlib.sha256(ascii(list(rows)).encode()).hexdigest()


# ---- replacing the snapshot --------------------------------------------------------------------------------------


def write_index(folder: Path, index: Index) -> tuple[str, str]:
    """Write and flush an index file under a new name; returns its name and checksum, for a manifest."""
    path = index.save(folder / f"vectors-{secrets.token_hex(8)}.index")
    flush_folder(folder)
    return path.name, head_checksum(path)


def open_base(folder: Path, manifest: Manifest, mmap: bool, changes: Sequence[Change]) -> Index:
    """The index file of a manifest.

    changes : those that the file does not contain. An interrupted compaction may have sent some to a server already.

    Raises
    ------
    FileNotFoundError : it does not exist, such as after another process has compacted.
    IndexFileError : it is damaged, or of another save.
    """
    path = folder / manifest.index_file
    index = load_index(path, mmap, [change.id for change in changes])
    if head_checksum(path) != manifest.index_sha256 or len(index) != manifest.indexed:
        raise EngineFolderError(f"{path} is damaged or of another save. Index its images again.")
    return index


def head_checksum(index_file: Path) -> str:
    """SHA-256 of an index file's header, which has the checksum of the rest."""
    with index_file.open("rb") as file:
        return hashlib.sha256(file.read(_HEAD)).hexdigest()


def replace_snapshot(connection: sqlite3.Connection, manifest: Manifest, table: GalleryTable, roots: Roots) -> None:
    """Replace the whole content by a new snapshot, in a transaction."""
    dates = added_dates.known_dates(connection)
    for name in ("manifest", "classes", "gallery", "roots", "parts", "log"):
        connection.execute(f"delete from {name}")
    _insert_manifest(connection, manifest)
    write_roots(connection, roots.stored)
    connection.executemany("insert into classes values (?, ?)", enumerate(map(to_sql, table.class_names)))
    given, names = table.given_groups, table.display_names
    groups = [None] * len(table) if given is None else given.tolist()
    rows = [
        (to_sql(path), place, label, group, content, to_sql(names.get(id)))
        for id, ((path, place), label, group, content) in enumerate(
            zip(map(roots.encode, table.paths), table.labels.tolist(), groups, table.contents, strict=True)
        )
    ]
    connection.executemany(
        f"insert into gallery (id, {_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?)",
        ((id, *row) for id, row in enumerate(rows)),
    )
    connection.execute("insert into parts values (0, ?)", (_checksum(rows),))
    added_dates.replace(connection, ((path, place, content) for path, place, _, _, content, _ in rows), dates)
    for name in ("class_scores", "region_boxes"):
        if has_table(connection, name):
            connection.execute(
                f"delete from {name} where content not in (select content from gallery where content is not null)"
            )


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
        f"insert into gallery (id, {_COLUMNS}) "
        "select id, path, place, coalesce(label, -1), null, content, log.name from log "
        "left join classes on classes.name = class_name where vector is not null and number <= ? order by id",
        (upto,),
    )
    rows = connection.execute(f"select {_COLUMNS} from gallery where id >= ? order by id", (before.images,)).fetchall()
    if rows:
        connection.execute("insert into parts values (?, ?)", (before.images, _checksum(rows)))
    connection.execute("delete from manifest")
    _insert_manifest(connection, manifest)
    connection.execute("delete from log where number <= ?", (upto,))


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
