"""Live engine: one engine folder that many processes search and change at once, and no change is ever lost."""

import contextlib
import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from helpers.pictures.imageset import ImageSet
from helpers.search.engine import CARD, Engine, EngineFolderError, read_card, written_path
from helpers.search.journal import Journal

if TYPE_CHECKING:
    from helpers.features.extractor import Describer
    from helpers.search.engine import UnopenedDescriber


class LiveEngine:
    """A saved engine that stays up to date.

    The saved index is mapped from disk and only read, so that processes share its memory. What is added or removed goes
    into a journal beside it, on the disk before the call returns: a process that is killed, or a machine that loses
    power, loses nothing that was acknowledged. Every process puts the journal's changes over the saved index by itself
    (`Overlay`); `fold` writes them into a new one when they have become many.

    Threads may call anything at once. Ids go on from the highest ever given, in whichever process, and are not given
    again.

    Attributes
    ----------
    engine : to search with. Another one after a `refresh` that found a new save; a search that runs keeps its own.
    folder : where it lies.
    """

    def __init__(self, folder: Path, describer: "Describer | UnopenedDescriber | None", root: str | Path | None):
        self.folder, self._root = Path(folder), root
        self._lock = threading.RLock()
        self._journal = Journal(self.folder)
        self._closed = False
        # Before loading: what is saved meanwhile must not be taken for what was loaded.
        self._seen = self._stamp()
        self.engine = Engine.load(self.folder, describer, root, mmap=True)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        describer: "Describer | UnopenedDescriber | None" = None,
        root: str | Path | None = None,
    ) -> "LiveEngine":
        """What `Engine.save` wrote, with all changes since.

        describer, root : as in `Engine.load`, which also says what is raised.
        """
        return cls(Path(folder), describer, root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        """Pictures that a query can find."""
        return len(self.engine)

    def __repr__(self) -> str:
        return f"LiveEngine({str(self.folder)!r}: {self.engine!r})"

    def close(self) -> None:
        """Give the journal back; what the engine has can still be searched."""
        with self._lock:
            self._closed = True
            self._journal.close()

    @property
    def changes(self) -> int:
        """How many additions and removals wait to be folded."""
        with self._using():
            card = read_card(self.folder)
            return len(self._journal.read(card["lineage"], card["folded"]))

    def refresh(self) -> bool:
        """Take in what other processes changed; whether there was anything.

        Cheap enough to call before every search.

        Raises
        ------
        EngineFolderError : an engine of another describer was saved here meanwhile, or the folder was damaged.
        IndexFileError : the journal can't be read.
        """
        with self._using():
            stamp = self._stamp()
            if stamp != self._seen:
                self.engine, self._seen = self._load(), stamp
                self._journal.moved()
                return True
            return self._journal.moved() and self._catch_up()

    def add(self, pictures: ImageSet) -> np.ndarray:
        """Describe more pictures and put them in for good: int64 (m,), the ids of those that can be read.

        The pictures stay where they are. Those that can't be read get no id, after the describer's warning.

        Raises
        ------
        ValueError : the describer gave a number that is none.
        EngineFolderError, IndexFileError : nothing was added: see `refresh`, or the journal can't be written.
        """
        vectors = self.engine.describer.describe(pictures)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        class_names = [pictures.class_name(row) if pictures.labels[row] >= 0 else None for row in rows]
        return self.add_described([pictures.paths[row] for row in rows], vectors[rows], class_names)

    def add_described(
        self, paths: Sequence[str | Path], vectors: np.ndarray, class_names: Sequence[str | None]
    ) -> np.ndarray:
        """Put pictures in for good whose vectors this engine's describer made already: int64 (n,), their ids.

        paths : files that are there to stay. vectors : float (n, dim), finite.
        class_names : one a picture; None for a picture of no class.

        Raises
        ------
        ValueError : the numbers of paths, vectors and names differ, or a vector can't be in this index.
        EngineFolderError, IndexFileError : nothing was added: see `refresh`, or the journal can't be written.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (len(paths), self.engine.index.dim) or len(class_names) != len(paths):
            raise ValueError(
                f"{len(paths)} pictures want as many class names, got {len(class_names)}, and vectors of shape "
                f"{(len(paths), self.engine.index.dim)}, got {vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise ValueError("a vector holds NaN or infinity: leave such pictures out")
        paths = [Path(path).absolute() for path in paths]
        with self._using():
            with self._current() as (writer, card):
                first = writer.next_id(card["lineage"], card["counts"]["pictures"])
                ids = np.arange(first, first + len(paths))
                written = [json.dumps(written_path(path, self.engine.gallery.root, self.folder)) for path in paths]
                writer.add(card["lineage"], ids, written, class_names, vectors)
            self._catch_up()
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Take pictures out for good; their files stay.

        Raises
        ------
        KeyError : no search finds an id anyway; nothing is removed then.
        EngineFolderError, IndexFileError : nothing was removed: see `refresh`, or the journal can't be written.
        """
        ids = np.unique(np.array(list(ids), np.int64))
        with self._using():
            with self._current() as (writer, card):
                absent = np.setdiff1d(ids, self.engine.index.ids)
                if len(absent):
                    raise KeyError(f"ids {', '.join(map(str, absent[:5]))} can't be removed: not in {self.folder}")
                writer.remove(card["lineage"], ids)
            self._catch_up()

    def fold(self) -> None:
        """Write all changes into a new saved index; other processes take it over at their next `refresh`.

        They may search, add and remove meanwhile. It needs memory for a second index.

        Raises
        ------
        EngineFolderError, IndexFileError : it can't be read or written; all is as it was, journal included.
        """
        with self._using():
            self.refresh()
            describer = self.engine.describer
        Engine.load(self.folder, describer, self._root).fold(self.folder)
        self.refresh()

    @contextlib.contextmanager
    def _using(self):
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self.folder} was closed: open it again")
            yield

    @contextlib.contextmanager
    def _current(self):
        """The only writer of all processes, who has seen all changes, and the card."""
        with self._journal.writing() as writer:
            # Inside: a fold that ends between the card and this would give ids away a second time.
            if self._stamp() != self._seen:
                self._seen = self._stamp()
                self.engine = self._load()
            else:
                self._catch_up()
            yield writer, read_card(self.folder)

    def _load(self) -> Engine:
        return Engine.load(self.folder, self.engine.describer, self._root, mmap=True)

    def _catch_up(self) -> bool:
        return self.engine.catch_up(self.folder, self._journal)

    def _stamp(self) -> tuple[int, int, int]:
        """Changes with every save, which puts a new file in place of the card."""
        try:
            status = (self.folder / CARD).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise EngineFolderError(
                f"{self.folder} holds no engine: {CARD} is missing. Save one there first."
            ) from error
        return status.st_ino, status.st_mtime_ns, status.st_size
