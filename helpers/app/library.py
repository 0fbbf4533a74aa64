"""Library: a live engine as the service needs it: answers page by page, by class, and pictures by id."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.app import uploads
from helpers.app.content import Seen
from helpers.app.errors import Refused
from helpers.app.settings import MAX_DEPTH
from helpers.pictures.imageset import NO_CLASS, ImageSet
from helpers.search.engine import Engine
from helpers.search.index import IdSet
from helpers.search.live import LiveEngine
from helpers.search.ranking import PAD, Ranking


@dataclass(frozen=True)
class Entry:
    """One picture of the gallery; ``class_name`` is None where it has none."""

    id: int
    key: str
    class_name: str | None


@dataclass(frozen=True)
class Hit:
    """One answer."""

    rank: int
    score: float
    entry: Entry


@dataclass(frozen=True)
class Page:
    """Some of the answers to a query: whether there are more behind them, and in words why there are so few."""

    hits: list[Hit]
    more: bool
    note: str


class Library:
    """What is searched and changed; every method may be called by many threads at once.

    Before each call, what other processes changed is taken in.
    """

    def __init__(self, live: LiveEngine):
        self._live = live
        self._listed: tuple[ImageSet | None, Path | None] = (None, None)
        self._classes: tuple[ImageSet | None, dict[int, IdSet]] = (None, {})

    @property
    def folder(self) -> Path:
        """The engine's, absolute."""
        return self._live.folder.absolute()

    @property
    def describer(self):
        return self._live.engine.describer

    def __len__(self) -> int:
        return len(self._live.engine)

    def about(self) -> dict:
        """The gallery in a few words: name, pictures, describer, index, and classes with their counts."""
        engine = self._current()
        ids = engine.index.ids
        gallery = engine.gallery
        labels = gallery.labels[ids]
        counts = np.bincount(labels[labels != NO_CLASS], minlength=len(gallery.class_names))
        classes = [(name, int(count)) for name, count in zip(gallery.class_names, counts, strict=True) if count]
        return {
            "name": gallery.name,
            "pictures": len(ids),
            "describer": engine.describer.name,
            "index": engine.index.spec,
            "classes": sorted(classes),
        }

    def search(self, vector: np.ndarray, k: int, offset: int = 0, class_name: str | None = None) -> Page:
        """The answers from ``offset`` on that are nearest to float32 (dim,), of one class if that is given.

        Raises
        ------
        Refused : 404, there is no such class; 422, the vector is of another length.
        """
        return self._page(self._current(), vector, k, offset, class_name, None)

    def search_id(self, id: int, k: int, offset: int = 0, class_name: str | None = None) -> tuple[Page, np.ndarray]:
        """The answers nearest to a picture of the gallery, itself left out; and its vector.

        Raises
        ------
        Refused : 404, there is no such picture or class.
        """
        engine = self._current()
        try:
            vector = engine.index.vectors([id])[0]
        except KeyError as error:
            raise _no_picture(id) from error
        return self._page(engine, vector, k, offset, class_name, id), vector

    def entries(self, offset: int, limit: int, class_name: str | None = None) -> tuple[list[Entry], int]:
        """Some pictures in the order of their ids, and how many there are.

        Raises
        ------
        Refused : 404, there is no such class.
        """
        engine = self._current()
        ids = engine.index.ids
        if class_name is not None:
            ids = ids[engine.gallery.labels[ids] == _label(engine.gallery, class_name)]
        return [self._entry(engine.gallery, int(i)) for i in ids[offset : offset + limit]], len(ids)

    def entry(self, id: int) -> Entry:
        """
        Raises
        ------
        Refused : 404, there is no such picture.
        """
        return self._entry(self._with(id).gallery, id)

    def path(self, id: int) -> Path:
        """The file of a picture; links are followed, and it lies below the gallery's folder or among the uploads.

        Raises
        ------
        Refused : 404, there is no such picture, its file is gone, or lies elsewhere.
        """
        gallery = self._with(id).gallery
        path = gallery.paths[id]
        gone = Refused(404, f"The file of picture {id} is not there any more.")
        if ".." in path.parts:
            raise gone
        try:
            real = path.resolve(strict=True)
            folders = [(self.folder / uploads.FOLDER).resolve(), self._root(gallery)]
        except (OSError, RuntimeError) as error:  # a loop of links
            raise gone from error
        if not any(real.is_relative_to(folder) for folder in folders) or not real.is_file():
            raise gone
        return real

    def add(self, content: bytes, seen: Seen, vector: np.ndarray, class_name: str | None) -> Entry:
        """Put a picture in for good: when this returns, neither a kill nor a power cut loses it.

        Raises
        ------
        OSError : it can't be written; nothing was added.
        """
        path = uploads.keep(self.folder, content, seen)
        try:
            (id,) = self._live.add_described([path], vector[None], [class_name])
        except (OSError, ValueError):
            # Then nothing was added. After anything else it may have been, and a file too many is the lesser evil.
            uploads.forget(self.folder, path)
            raise
        return self._entry(self._live.engine.gallery, int(id))

    def remove(self, id: int) -> None:
        """Take a picture out for good, and delete its file if it was added over HTTP.

        Raises
        ------
        Refused : 404, there is no such picture.
        """
        path = self._with(id).gallery.paths[id]
        try:
            self._live.remove([id])
        except KeyError as error:
            raise _no_picture(id) from error
        uploads.forget(self.folder, path)

    def _current(self) -> Engine:
        self._live.refresh()
        return self._live.engine

    def _with(self, id: int) -> Engine:
        """The engine, if a search can find the picture."""
        engine = self._current()
        ids = engine.index.ids
        place = np.searchsorted(ids, id)
        if place == len(ids) or ids[place] != id:
            raise _no_picture(id)
        return engine

    def _root(self, gallery: ImageSet) -> Path:
        """The folder that the gallery's files must not lead out of."""
        if gallery.root is not None:
            return gallery.root.resolve(strict=True)
        # Listed file by file: what holds all that was listed. Remembered, as it takes a look at each.
        known, root = self._listed
        if known is not gallery:
            own = self.folder.absolute()
            parents = {path.absolute().parent for path in gallery.paths}
            listed = [str(parent) for parent in parents if not parent.is_relative_to(own)]
            root = Path(os.path.commonpath(listed)) if listed else own / uploads.FOLDER
            self._listed = gallery, root
        return root.resolve(strict=True)

    def _entry(self, gallery: ImageSet, id: int) -> Entry:
        path, label = str(gallery.paths[id]), gallery.labels[id]
        # Where it lies on this computer is nobody's business.
        key = gallery.paths[id].name
        for folder in (self.folder, gallery.root):
            # As text, because a page of answers is made of many: an engine's paths are absolute.
            if folder is not None and path.startswith(start := f"{folder}{os.sep}"):
                key = path[len(start) :].replace(os.sep, "/")
                break
        return Entry(id, key, None if label == NO_CLASS else gallery.class_names[label])

    def _of_class(self, gallery: ImageSet, class_name: str) -> IdSet:
        """The ids of a class, prepared once as long as the gallery stays the same."""
        known, sets = self._classes
        if known is not gallery:
            known, sets = self._classes = gallery, {}
        label = _label(gallery, class_name)
        if label not in sets:
            sets[label] = IdSet(np.flatnonzero(gallery.labels == label))
        return sets[label]

    def _page(
        self, engine: Engine, vector: np.ndarray, k: int, offset: int, class_name: str | None, itself: int | None
    ) -> Page:
        index = engine.index
        if index.dim is not None and vector.shape != (index.dim,):
            raise Refused(422, f"The vector must have {index.dim} numbers, it has {vector.size}.")
        depth = min(offset + k, MAX_DEPTH)
        filters = {
            "allowed": None if class_name is None else self._of_class(engine.gallery, class_name),
            "excluded": None if itself is None else IdSet([itself]),
        }
        # What another thread removes meanwhile makes a page shorter, nothing else.
        there = index.count(**filters)
        ranking = index.search(vector[None], min(depth, max(1, there)), **filters) if there else Ranking([[]], [[]])
        found, scores = ranking.ids[0], ranking.scores[0]
        found, scores = found[found != PAD], scores[found != PAD]
        # Taken after the search: the gallery grows before the index does.
        gallery = engine.gallery
        hits = [
            Hit(offset + place, float(score), self._entry(gallery, int(id)))
            for place, (id, score) in enumerate(zip(found[offset:depth], scores[offset:depth], strict=True), start=1)
        ]
        full = len(hits) == k
        more = full and depth < min(there, MAX_DEPTH)
        return Page(hits, more, "" if full else _note(len(found), there, class_name, index.spec))


def _label(gallery: ImageSet, class_name: str) -> int:
    try:
        return gallery.class_names.index(class_name)
    except ValueError as error:
        raise Refused(404, "There is no such class in the gallery.") from error


def _no_picture(id: int) -> Refused:
    return Refused(404, f"There is no picture {id} in the index.")


def _note(found: int, there: int, class_name: str | None, spec: str) -> str:
    which = "" if class_name is None else f" of class {class_name}"
    if found < min(there, MAX_DEPTH):
        return f"{spec} found {found} of {there} pictures{which}: an approximate search does not reach all of them."
    if found < there:
        return f"The first {found} of {there} pictures{which} can be reached."
    return f"There are {there} pictures{which} to find."
