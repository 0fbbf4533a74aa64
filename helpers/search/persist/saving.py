"""Saving: how an engine gets into its folder and out of it."""

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from helpers.search.gallery import GalleryTable
from helpers.search.index import Index
from helpers.search.persist import snapshot, wal
from helpers.search.persist.snapshot import EngineFile, EngineFolderError, Manifest
from helpers.search.persist.wal import Change


@dataclass(frozen=True)
class SavedState:
    """Which saved state an engine holds.

    Attributes
    ----------
    snapshot_id : of the manifest.
    compacted : number of the last change of the log that the index file contains.
    position : number of the last change of the log that was applied.
    """

    snapshot_id: str
    compacted: int
    position: int


@dataclass(frozen=True)
class Loaded:
    """What a folder holds: the changes are not applied to the table and the index."""

    manifest: Manifest
    table: GalleryTable
    index: Index
    changes: Sequence[Change]

    @property
    def state(self) -> SavedState:
        """That of the table and the index."""
        return SavedState(self.manifest.snapshot_id, self.manifest.log_position, self.manifest.log_position)


def check_target(folder: Path, saved: SavedState | None) -> None:
    """Make a folder, and refuse one that an engine with this state must not be saved into, see `Engine.save`."""
    snapshot.prepare_folder(folder)
    if snapshot.is_engine(folder) and (folder / snapshot.NAME).is_file():
        with EngineFile(folder) as file, file.reading() as connection:
            _check_unchanged(connection, folder, saved)


def save(
    folder: Path, extractor: tuple[str, str], table: GalleryTable, index: Index, saved: SavedState | None
) -> SavedState:
    """Write a new snapshot into a folder that `check_target` has passed; see `Engine.save`.

    extractor : name and fingerprint. saved : the state that the engine was loaded from.
    """
    with FileLock(folder / snapshot.LOCK), EngineFile(folder, create=True) as file:
        try:
            index_file, checksum = snapshot.write_index(folder, index)
            with file.writing() as connection:
                # Once more, as the only writer.
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
                    root=None if table.root is None else str(table.root.absolute()),
                    images=len(table),
                    indexed=len(index),
                    log_position=position,
                )
                snapshot.replace_snapshot(connection, manifest, table, folder)
        finally:
            snapshot.delete_leftovers(file)
    return SavedState(manifest.snapshot_id, position, position)


def _check_unchanged(connection: sqlite3.Connection, folder: Path, saved: SavedState | None) -> None:
    """Refuse to save where that would lose what other processes changed."""
    there = snapshot.find_manifest(connection)
    if saved is None or there is None or there.snapshot_id != saved.snapshot_id:
        return
    unseen = wal.last_number(connection) - saved.position
    if unseen:
        raise EngineFolderError(
            f"{folder} was changed {unseen} times since this engine was loaded from it, and to save it would lose "
            "that. Load it again, or save to another folder."
        )


def load(folder: Path, check: Callable[[Manifest], None], root: str | Path | None, mmap: bool) -> Loaded:
    """Read a folder, see `Engine.load`.

    check : raises where an engine with this manifest is not wanted.
    """
    manifest = None
    with EngineFile(folder) as file:
        while True:
            with file.reading() as connection:
                before, manifest = manifest, snapshot.read_manifest(connection, folder)
                check(manifest)
                table = snapshot.read_table(connection, manifest, root, folder)
                changes = wal.read(connection, manifest.log_position)
            try:
                return Loaded(manifest, table, snapshot.open_base(folder, manifest, mmap), changes)
            except FileNotFoundError as error:
                # Another process may have saved or compacted since, and deleted this index file.
                if manifest == before:
                    missing = folder / manifest.index_file
                    raise EngineFolderError(f"{missing} is missing: {folder} is incomplete. Index again.") from error
