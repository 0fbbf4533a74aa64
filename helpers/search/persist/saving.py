"""Saving: writes an engine into its folder and reads it."""

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from helpers.search.gallery import GalleryTable
from helpers.search.index import Index, IndexFileError
from helpers.search.persist import snapshot, wal
from helpers.search.persist.engine_file import NAME, OLD_NAME, EngineFile, EngineFolderError, make_tables
from helpers.search.persist.roots import GALLERY, Roots, locate
from helpers.search.persist.snapshot import Manifest
from helpers.search.persist.wal import Change


@dataclass(frozen=True)
class SavedState:
    """The saved state that an engine holds.

    Attributes
    ----------
    snapshot_id : of the manifest.
    compacted : number of the last change of the log that the index file contains.
    position : number of the last change of the log that was applied.
    roots : the folders that its paths are relative to.
    """

    snapshot_id: str
    compacted: int
    position: int
    roots: Roots


def check_target(folder: Path, saved: SavedState | None, replace: bool) -> None:
    """Make the folder; raise the errors of `Engine.save` if an engine with this state must not be saved there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise IndexFileError(f"{folder} cannot be made or read: {error}. Choose another folder.") from error
    if not {NAME, OLD_NAME} & set(names) and not all(name.startswith("vectors-") for name in names):
        raise FileExistsError(f"{folder} holds files that are not an engine; choose another folder.")
    if not replace and (folder / NAME).is_file():
        with EngineFile(folder) as file, file.reading() as connection:
            _check_unchanged(connection, folder, saved)


def save(
    folder: Path, extractor: tuple[str, str], table: GalleryTable, index: Index, saved: SavedState | None, replace: bool
) -> SavedState:
    """Write a new snapshot into a folder that `check_target` has passed; see `Engine.save`.

    extractor : name and fingerprint. saved : the state that the engine was loaded from.
    """
    roots = Roots.of(folder, table.root, table.paths, None if saved is None else saved.roots)
    with FileLock(folder / snapshot.LOCK), EngineFile(folder, create=True, replace=replace) as file:
        try:
            index_file, checksum = snapshot.write_index(folder, index)
            with file.writing() as connection:
                make_tables(connection)
                # Again, as the only writer.
                _check_unchanged(connection, folder, saved)
                position = wal.last_number(connection)
                manifest = Manifest(
                    snapshot_id=secrets.token_hex(8),
                    extractor=extractor[0],
                    fingerprint=extractor[1],
                    index_spec=index.spec,
                    index_file=index_file,
                    index_sha256=checksum,
                    name=table.name,
                    source=None if table.source is None else snapshot.encode_source(table.source, roots),
                    images=len(table),
                    indexed=len(index),
                    log_position=position,
                )
                snapshot.replace_snapshot(connection, manifest, table, roots)
        finally:
            snapshot.delete_leftovers(file)
    return SavedState(manifest.snapshot_id, position, position, roots)


def _check_unchanged(connection: sqlite3.Connection, folder: Path, saved: SavedState | None) -> None:
    """Raise EngineFolderError if a save would lose changes of other processes."""
    current = snapshot.find_manifest(connection)
    if saved is None or current is None or current.snapshot_id != saved.snapshot_id:
        return
    unread = wal.last_number(connection) - saved.position
    if unread:
        raise EngineFolderError(
            f"{folder} was changed {unread} times since this engine was loaded from it; saving would lose these "
            "changes. Load it again, or save to another folder."
        )


def load(
    folder: Path, fingerprint: str, root: str | Path | None, mmap: bool
) -> tuple[SavedState, GalleryTable, Index, Sequence[Change]]:
    """The content of a folder, see `Engine.load`: state, table and index, and changes to apply.

    fingerprint : of the extractor.
    """
    manifest = None
    with EngineFile(folder) as file:
        while True:
            with file.reading() as connection:
                before, manifest = manifest, snapshot.read_manifest(connection, folder)
                if manifest.fingerprint != fingerprint:
                    raise EngineFolderError(
                        f"{folder} was made by {manifest.fingerprint}, this extractor is {fingerprint}: their vectors "
                        "cannot be compared. Give the same extractor with the same settings, or fit and save again."
                    )
                stored = snapshot.read_table(connection, manifest, folder)
                changes = wal.read(connection, manifest.log_position)
            if root is not None and GALLERY not in (one.number for one in stored.roots):
                raise ValueError(f"{manifest.name!r} was saved without a root, so it cannot get another one: omit root")
            try:
                index = snapshot.open_base(folder, manifest, mmap, changes)
                roots = locate(folder, stored.roots, stored.samples(index.ids, changes), root)
                state = SavedState(manifest.snapshot_id, manifest.log_position, manifest.log_position, roots)
                return state, stored.decoded(roots), index, changes
            except FileNotFoundError as error:
                # Another process may have saved or compacted since, and deleted this index file.
                if manifest == before:
                    missing = folder / manifest.index_file
                    raise EngineFolderError(f"{missing} is missing: {folder} is incomplete. Index again.") from error
