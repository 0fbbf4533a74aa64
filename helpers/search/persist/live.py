"""Live engine: a saved engine that many processes search and change at once."""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from helpers.features.extractor import FeatureExtractor
from helpers.images.imageset import ImageSet
from helpers.search.engine import Engine
from helpers.search.identity import Additions, Candidates, plan
from helpers.search.index.checks import as_vectors, check_held
from helpers.search.persist import added_dates, snapshot, wal
from helpers.search.persist.compaction import BackgroundCompaction, compact
from helpers.search.persist.delta import DeltaIndex
from helpers.search.persist.engine_file import EngineFile
from helpers.search.persist.roots import Roots, StoredRoot, locate
from helpers.search.persist.snapshot import Manifest
from helpers.search.persist.wal import Change

log = logging.getLogger("lookalike.engine")


class LiveEngine(contextlib.AbstractContextManager["LiveEngine"]):
    """A saved engine that stays up to date.

    The index file is mapped from disk and only read, so processes share its memory. Additions and removals go to the
    write-ahead log in ``engine.sqlite``, which is flushed with fsync before the call returns: a process that is killed
    loses no completed change. Every process replays the log over the index file (`DeltaIndex`). When the log exceeds a
    share of the index file (`helpers.search.persist.compaction`), a background thread writes a new index file.

    All methods may be called from several threads. A replay makes another engine and swaps the reference to it. A
    search waits neither for additions nor for a compaction. It waits only for changes that were completed before it
    began: until they are replayed or, after another save, until that engine is loaded. New ids follow the highest id
    that any process ever gave.

    Attributes
    ----------
    engine : to search with. An engine does not change: `refresh` replaces it, and a running search keeps its own.
    folder : of the engine.
    """

    def __init__(self, folder: Path, extractor: FeatureExtractor | None, root: str | Path | None):
        self.folder, self._root = Path(folder), root
        self._reader, self._writer = EngineFile(self.folder), EngineFile(self.folder)
        #: One thread at a time writes a change, one replays changes, and one uses the reader's connection. The locks
        #: are acquired in this order. Every search needs the last one, which is not held during a replay.
        self._writing, self._replaying, self._reading = threading.Lock(), threading.Lock(), threading.Lock()
        self._closed = False
        # Before loading, so that a save in between is noticed.
        self._version = self._reader.version()
        self.engine = Engine.load(self.folder, extractor, root, mmap=True)
        self._compaction = BackgroundCompaction(self.folder, self._switch)
        self._switching: threading.Thread | None = None

    @classmethod
    def open(
        cls, folder: str | Path, extractor: FeatureExtractor | None = None, root: str | Path | None = None
    ) -> Self:
        """Open what `Engine.save` wrote, with all changes since; parameters and errors as in `Engine.load`."""
        return cls(Path(folder), extractor, root)

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of images that a query can find."""
        return len(self.engine)

    def __repr__(self) -> str:
        return f"LiveEngine({str(self.folder)!r}: {self.engine!r})"

    def close(self) -> None:
        """Cancel a running compaction, and close the files; the engine can still be searched."""
        self._compaction.close()
        with self._writing, self._replaying, self._reading:
            self._closed = True
            switching = self._switching
        if switching is not None:
            switching.join()
        self._reader.close()
        self._writer.close()

    @property
    def changes(self) -> int:
        """The number of additions and removals in the log."""
        with self._reading, self._opened().reading() as connection:
            return connection.execute("select count(*) from log").fetchone()[0]

    def wait_for_compaction(self) -> int:
        """Wait for this process's background compaction; returns the number of changes it has compacted so far.

        Raises EngineFolderError or IndexFileError: the last compaction failed; nothing was changed.
        """
        self._compaction.wait()
        if self._compaction.error is not None:
            raise self._compaction.error
        return self._compaction.written

    def refresh(self) -> bool:
        """Replay changes of other processes; returns whether there were any. Fast enough for every search.

        Raises
        ------
        EngineFolderError : an engine of another extractor was saved here meanwhile, or the folder is damaged.
        IndexFileError : the log cannot be read.
        """
        if self._read_version() == self._version:
            return False
        with self._replaying:
            # Another thread may have replayed the changes meanwhile.
            version = self._read_version()
            if version == self._version:
                return False
            engine = self.engine
            manifest, stored, changes = self._read_changes(engine)
            if changes is not None:
                roots = engine.saved.roots
                new = stored[len(roots.stored) :]
                found = locate(self.folder, new, snapshot.samples_of_changes(changes)) if new else ()
                replayed = engine.replay(changes, Roots(self.folder, [*roots, *found]))
            else:
                replayed = Engine.load(self.folder, engine.extractor, self._root, mmap=True)
            # In this order: a thread that reads the new version must find the new engine.
            self.engine, self._version = replayed, version
            if manifest.log_position > replayed.saved.compacted:
                self._switch_later()
            return replayed is not engine

    def _read_version(self) -> int:
        with self._reading:
            return self._opened().version()

    def _read_changes(self, engine: Engine) -> tuple[Manifest, list[StoredRoot], list[Change] | None]:
        """The manifest, the roots, and the changes after those of an engine.

        The changes are None if they do not continue the engine: after another save, after a compaction of changes that
        this process has not read, or if roots are at another place.
        """
        with self._reading, self._opened().reading() as connection:
            manifest, stored = snapshot.read_manifest(connection, self.folder), snapshot.read_roots(connection)
            saved, former = engine.saved, engine.saved.roots.stored
            continued = manifest.snapshot_id == saved.snapshot_id and manifest.log_position <= saved.position
            continued &= stored[: len(former)] == former
            return manifest, stored, wal.read(connection, saved.position) if continued else None

    def add(self, images: ImageSet, classes: bool = False) -> Additions:
        """Add images and save them; `helpers.search.identity` defines what becomes of those that the engine knows.

        The files are not copied. Images that cannot be read get no id; the extractor's warning names them.

        classes : whether known images in another class get their new class.

        Raises EngineFolderError or IndexFileError: nothing was added: see `refresh`, or the log cannot be written.
        """
        self.refresh()
        return self.apply(self.engine.extract_candidates(images, classes), classes=classes, root=images.root)

    def add_extracted(
        self,
        paths: Sequence[str | Path],
        vectors: np.ndarray,
        class_names: Sequence[str | None],
        contents: Sequence[bytes | None] | None = None,
        display_names: Sequence[str | None] | None = None,
        write: Callable[[], object] | None = None,
        compare: bool = True,
    ) -> Additions:
        """Add and save images whose features were extracted by this engine's extractor.

        The cost depends on the number of images, not on the size of the gallery.

        Parameters
        ----------
        paths : files that will not be moved.
        vectors : float (n, dim), finite.
        class_names : one per image; None for an image of no class.
        contents : `helpers.features.file_hashes.identities`; images without one are added in any case.
        display_names : names that differ from those of the files, or None.
        write : called before the addition is saved, if anything is to be added; while it runs, no process changes
            the engine.
        compare : whether known images are recognized; otherwise all images are added.

        Raises
        ------
        ValueError : the numbers of paths, vectors and names differ, or a vector is invalid.
        EngineFolderError, IndexFileError : nothing was added: see `refresh`, or the log cannot be written.
        """
        vectors = as_vectors(vectors, self.engine.index.dim)
        if not len(paths) == len(vectors) == len(class_names):
            raise ValueError(
                f"{len(paths)} images need as many vectors and class names, got {len(vectors)} and {len(class_names)}"
            )
        nothing = [None] * len(paths)
        files = [str(Path(path).absolute()) for path in paths]
        candidates = Candidates(
            files, contents or nothing, class_names, display_names or nothing, vectors, np.full(len(paths), -1)
        )
        return self.apply(candidates, write=write, compare=compare)

    def apply(
        self,
        candidates: Candidates,
        removed: Iterable[int] = (),
        classes: bool = False,
        root: Path | None = None,
        write: Callable[[], object] | None = None,
        compare: bool = True,
    ) -> Additions:
        """Add images and remove others in one transaction; see `add` and `add_extracted`.

        removed : ids; those that another process has removed are ignored. root : the folder of the added images.
        """
        with self.locked() as connection:
            engine, gone = self.engine, np.unique(np.array(list(removed), np.int64))
            gone = gone[engine.index.contains(gone)]
            compared = candidates if compare else replace(candidates, contents=[None] * len(candidates))
            # Without the removed images: one of the same content was renamed, and not copied.
            decided = plan(
                engine.table, lambda ids: engine.index.contains(ids) & ~np.isin(ids, gone), compared, classes
            )
            rows = decided.rows
            if rows and write is not None:
                write()
            paths = [candidates.paths[row] for row in rows]
            roots = engine.saved.roots.extended(paths, root)
            snapshot.write_roots(connection, roots.stored[len(engine.saved.roots.stored) :])
            wal.add(
                connection,
                decided.additions.ids[rows],
                map(roots.encode, paths),
                decided.class_names,
                candidates.vectors[rows],
                [candidates.contents[row] for row in rows],
                [candidates.display_names[row] for row in rows],
            )
            if rows:
                added_dates.note_addition(connection, len(engine.table))
            wal.remove(connection, np.union1d(gone, decided.replaced))
        return decided.additions

    @contextlib.contextmanager
    def locked(self) -> Iterator[sqlite3.Connection]:
        """A transaction on an up-to-date engine; while it is open, no process changes the engine."""
        # All writers wait for the transaction, so most changes of other processes are replayed before it.
        self.refresh()
        with self._writing:
            with self._opened(self._writer).writing() as connection:
                # As the only writer, so that no other process gives the same ids.
                self.refresh()
                yield connection
            self._written()

    def remove(self, ids: Iterable[int]) -> None:
        """Remove images and save that; their files are kept.

        Raises
        ------
        KeyError : an id is not in the index; nothing is removed.
        EngineFolderError, IndexFileError : nothing was removed: see `refresh`, or the log cannot be written.
        """
        ids = np.unique(np.array(list(ids), np.int64))
        with self.locked() as connection:
            check_held(ids, self.engine.index.contains(ids), f"cannot be removed: not in {self.folder}")
            wal.remove(connection, ids)

    def compact(self) -> int:
        """Write the log into a new index file; see `helpers.search.persist.compaction.compact`.

        Other processes switch to the new file later.
        """
        self._opened()
        changes = compact(self.folder)
        self.refresh()
        self._switch()
        return changes

    def _opened(self, file: EngineFile | None = None) -> EngineFile:
        if self._closed:
            raise RuntimeError(f"{self.folder} was closed: open it again")
        return file or self._reader

    def _written(self) -> None:
        """Called after a change of this process was committed."""
        try:
            self.refresh()
        except OSError:
            # The change is saved. The next search tries again, and raises the error.
            log.exception("A change of %s was written, but cannot be read.", self.folder)
        index = self.engine.index
        if isinstance(index, DeltaIndex):
            self._compaction.start_if_due(index.changes, len(index))

    def _switch_later(self) -> None:
        """Search the compacted index file once it is open; until then, the former file and the changes."""
        if self._switching is None or not self._switching.is_alive():
            self._switching = threading.Thread(target=self._switch_or_log, name="switch-index", daemon=True)
            self._switching.start()

    def _switch_or_log(self) -> None:
        try:
            self._switch()
        except Exception:
            # The next change tries again.
            log.exception("The compacted index file of %s cannot be opened.", self.folder)

    def _switch(self) -> None:
        with EngineFile(self.folder) as file, file.reading() as connection:
            manifest = snapshot.read_manifest(connection, self.folder)
            changes = wal.read(connection, manifest.log_position)
        saved = self.engine.saved
        if saved.snapshot_id != manifest.snapshot_id or saved.compacted >= manifest.log_position:
            return
        try:
            base = snapshot.open_base(self.folder, manifest, True, changes)
        except FileNotFoundError:
            # Another process has compacted again, unless the manifest still names the file.
            if snapshot.manifest_of(self.folder) == manifest:
                raise
            self._switch()
            return
        with self._replaying:
            saved = self.engine.saved
            same = saved.snapshot_id == manifest.snapshot_id
            if same and saved.compacted < manifest.log_position <= saved.position:
                self.engine = self.engine.rebased(base, manifest)
