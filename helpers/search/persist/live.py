"""Live engine: one engine folder that many processes search and change at once."""

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from helpers.images.imageset import ImageSet
from helpers.search.engine import Engine
from helpers.search.persist import snapshot, wal
from helpers.search.persist.compaction import BackgroundCompaction, compact
from helpers.search.persist.delta import DeltaIndex
from helpers.search.persist.snapshot import EngineFile, StoredPaths

if TYPE_CHECKING:
    from helpers.features.extractor import FeatureExtractor
    from helpers.search.engine import UnopenedExtractor

log = logging.getLogger("lookalike.engine")


class LiveEngine:
    """A saved engine that stays up to date.

    The index file is mapped from disk and only read, so that processes share its memory. What is added or removed is
    written to the write-ahead log in ``engine.sqlite``, which is flushed with fsync before the call returns: a process
    that is killed loses nothing that was acknowledged. Every process replays the log over the index file
    (`DeltaIndex`).

    When the log has outgrown a share of the index file (`helpers.search.persist.compaction`), the process whose change
    made it so writes a new index file in a background thread. Nobody waits for it.

    Threads may call anything at once. A search waits neither for additions nor for a compaction, only for the replay of
    changes that were acknowledged before it began. Ids go on from the highest ever given, in whichever process, and are
    not given again.

    Attributes
    ----------
    engine : to search with. Never changes: after a change, `refresh` puts another one here, and a search that runs
        keeps its own.
    folder : where it lies.
    """

    def __init__(self, folder: Path, extractor: "FeatureExtractor | UnopenedExtractor | None", root: str | Path | None):
        self.folder, self._root = Path(folder), root
        self._reader, self._writer = EngineFile(self.folder), EngineFile(self.folder)
        #: Held by who replays, and by who writes; the second may acquire the first, never the reverse.
        self._replaying, self._writing = threading.RLock(), threading.Lock()
        self._closed = False
        # Before loading: what is saved meanwhile must not be taken for what was loaded.
        self._version = self._reader.version()
        self.engine = Engine.load(self.folder, extractor, root, mmap=True)
        self._compaction = BackgroundCompaction(self.folder, self._switch)
        self._switching: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        extractor: "FeatureExtractor | UnopenedExtractor | None" = None,
        root: str | Path | None = None,
    ) -> Self:
        """What `Engine.save` wrote, with all changes since.

        extractor, root : as in `Engine.load`, which also says what is raised.
        """
        return cls(Path(folder), extractor, root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        """Images that a query can find."""
        return len(self.engine)

    def __repr__(self) -> str:
        return f"LiveEngine({str(self.folder)!r}: {self.engine!r})"

    def close(self) -> None:
        """Cancel a compaction that runs, and close the files; what the engine has can still be searched."""
        self._compaction.close()
        with self._writing, self._replaying:
            self._closed = True
            switching = self._switching
        if switching is not None:
            switching.join()
        self._reader.close()
        self._writer.close()

    @property
    def changes(self) -> int:
        """How many additions and removals are in the log."""
        with self._replaying, self._opened().reading() as connection:
            return wal.count(connection)

    def wait_for_compaction(self) -> int:
        """Wait until this process does not compact in the background: how many changes it has written so far.

        Raises
        ------
        EngineFolderError, IndexFileError : the last compaction failed; the log is as it was.
        """
        self._compaction.wait()
        if self._compaction.error is not None:
            raise self._compaction.error
        return self._compaction.written

    def refresh(self) -> bool:
        """Replay what other processes changed; whether there was anything.

        Cheap enough to call before every search.

        Raises
        ------
        EngineFolderError : an engine of another extractor was saved here meanwhile, or the folder was damaged.
        IndexFileError : the log can't be read.
        """
        with self._replaying:
            return self._replay()

    def add(self, images: ImageSet) -> np.ndarray:
        """Extract the features of more images and put them in for good: int64 (m,), the ids of those that can be read.

        The files stay where they are. Images that can't be read get no id, after the extractor's warning.

        Raises
        ------
        ValueError : the extractor gave a number that is none.
        EngineFolderError, IndexFileError : nothing was added: see `refresh`, or the log can't be written.
        """
        vectors = self.engine.extractor.extract(images)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        class_names = [images.class_name(row) if images.labels[row] >= 0 else None for row in rows]
        return self.add_extracted([images.paths[row] for row in rows], vectors[rows], class_names)

    def add_extracted(
        self, paths: Sequence[str | Path], vectors: np.ndarray, class_names: Sequence[str | None]
    ) -> np.ndarray:
        """Put images in for good whose vectors this engine's extractor made already: int64 (n,), their ids.

        The cost depends on the number of images, not on the size of the gallery.

        paths : files that are there to stay. vectors : float (n, dim), finite.
        class_names : one an image; None for an image of no class.

        Raises
        ------
        ValueError : the numbers of paths, vectors and names differ, or a vector can't be in this index.
        EngineFolderError, IndexFileError : nothing was added: see `refresh`, or the log can't be written.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (len(paths), self.engine.index.dim) or len(class_names) != len(paths):
            raise ValueError(
                f"{len(paths)} images need as many class names, got {len(class_names)}, and vectors of shape "
                f"{(len(paths), self.engine.index.dim)}, got {vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise ValueError("a vector holds NaN or infinity: leave such images out")
        with self._writing:
            with self._opened(self._writer).writing() as connection:
                # As the only writer: nobody else can give these ids.
                self.refresh()
                table = self.engine.table
                ids = np.arange(len(table), len(table) + len(paths))
                stored = StoredPaths(table.root, self.folder)
                wal.add(connection, ids, map(stored.encode, paths), class_names, vectors)
            self._written()
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Take images out for good; their files stay.

        Raises
        ------
        KeyError : no search finds an id anyway; nothing is removed then.
        EngineFolderError, IndexFileError : nothing was removed: see `refresh`, or the log can't be written.
        """
        ids = np.unique(np.array(list(ids), np.int64))
        with self._writing:
            with self._opened(self._writer).writing() as connection:
                self.refresh()
                absent = ids[~self.engine.index.contains(ids)]
                if len(absent):
                    raise KeyError(f"ids {', '.join(map(str, absent[:5]))} can't be removed: not in {self.folder}")
                wal.remove(connection, ids)
            self._written()

    def compact(self) -> int:
        """Write the log into a new index file: how many changes it held.

        Other processes go on meanwhile, and switch to the new file later. It needs memory for a second index.

        Raises
        ------
        EngineFolderError, IndexFileError : it can't be read or written; everything is as it was, log included.
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
        """After a change of this process was committed."""
        try:
            self.refresh()
        except OSError:
            # It lasts all the same; the next search tries again, and says what is wrong.
            log.exception("A change of %s was written, but can't be read.", self.folder)
        index = self.engine.index
        if isinstance(index, DeltaIndex):
            self._compaction.start_if_due(index.changes, len(index))

    def _replay(self) -> bool:
        """`refresh`, by who holds the lock for it."""
        version = self._opened().version()
        if version == self._version:
            return False
        engine = self.engine
        with self._reader.reading() as connection:
            manifest = snapshot.read_manifest(connection, self.folder)
            known = manifest.snapshot_id == engine.saved.snapshot_id and manifest.log_position <= engine.saved.position
            changes = wal.read(connection, engine.saved.position) if known else []
        if known:
            replayed = engine.replay(changes, self.folder)
        else:
            # Another save, or a compaction of changes that were never read here.
            replayed = Engine.load(self.folder, engine.extractor, self._root, mmap=True)
        self.engine, self._version = replayed, version
        if manifest.log_position > replayed.saved.compacted:
            self._switch_later()
        return replayed is not engine

    def _switch_later(self) -> None:
        """Search the compacted index file once it is open; until then, the former file and the changes do as well."""
        if self._switching is None or not self._switching.is_alive():
            self._switching = threading.Thread(target=self._switch_or_log, name="switch-index", daemon=True)
            self._switching.start()

    def _switch_or_log(self) -> None:
        try:
            self._switch()
        except Exception:
            # The next change tries again.
            log.exception("The compacted index file of %s can't be opened.", self.folder)

    def _switch(self) -> None:
        while True:
            with EngineFile(self.folder) as file:
                manifest = file.manifest()
            saved = self.engine.saved
            if saved.snapshot_id != manifest.snapshot_id or saved.compacted >= manifest.log_position:
                return
            try:
                base = snapshot.open_base(self.folder, manifest, mmap=True)
                break
            except FileNotFoundError:
                # Another process has compacted once more. One that is really missing stays in the manifest.
                with EngineFile(self.folder) as file:
                    if file.manifest() == manifest:
                        raise
        with self._replaying:
            saved = self.engine.saved
            same = saved.snapshot_id == manifest.snapshot_id
            if same and saved.compacted < manifest.log_position <= saved.position:
                self.engine = self.engine.rebased(base, manifest)
