"""Library: a live engine as the service needs it: answers page by page, by class, and images by id."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.images.imageset import NO_CLASS
from helpers.images.reading import UnreadableImage, read_image
from helpers.search.engine import Engine
from helpers.search.gallery import GalleryTable
from helpers.search.index import IdSet
from helpers.search.persist.live import LiveEngine
from helpers.search.ranking import PAD, Ranking
from helpers.search.rerank import RERANKERS, SearchSpace, rerank
from helpers.service import uploads
from helpers.service.errors import ApiError
from helpers.service.settings import MAX_DEPTH


@dataclass(frozen=True)
class Entry:
    """One image of the gallery; ``class_name`` is None where it has none."""

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


class GallerySearch:
    """What is searched and changed; every method may be called by many threads at once.

    Before each call, what other processes changed is taken in.
    """

    def __init__(self, live: LiveEngine):
        self._live = live
        #: Of how many images of which snapshot, and the folder that holds them.
        self._listed: tuple[str, int, Path | None] = ("", 0, None)
        self._classes: tuple[Engine | None, dict[str, IdSet]] = (None, {})

    @property
    def folder(self) -> Path:
        """The engine's, absolute."""
        return self._live.folder.absolute()

    @property
    def extractor(self):
        return self._live.engine.extractor

    def __len__(self) -> int:
        return len(self._live.engine)

    def about(self) -> dict:
        """The gallery in a few words: name, images, extractor, index, and classes with their counts."""
        engine = self._current()
        ids = engine.index.ids
        table = engine.table
        labels = table.labels[ids]
        counts = np.bincount(labels[labels != NO_CLASS], minlength=len(table.class_names))
        classes = [(name, int(count)) for name, count in zip(table.class_names, counts, strict=True) if count]
        return {
            "name": table.name,
            "images": len(ids),
            "extractor": engine.extractor.name,
            "index": engine.index.spec,
            "classes": sorted(classes),
        }

    def search(
        self,
        vector: np.ndarray,
        k: int,
        offset: int = 0,
        class_name: str | None = None,
        reranker: str = "none",
        image: np.ndarray | None = None,
    ) -> Page:
        """The answers from ``offset`` on that are nearest to float32 (dim,), of one class if that is given.

        reranker : a name of the registry. image : uint8 (height, width, 3), the query; some re-rankers need it.

        Raises
        ------
        Refused : 404, there is no such class; 422, the vector is of another length, or the re-ranker can't follow.
        """
        return self._page(self._current(), vector, k, offset, class_name, None, reranker, image)

    def search_id(
        self, id: int, k: int, offset: int = 0, class_name: str | None = None, reranker: str = "none"
    ) -> tuple[Page, np.ndarray]:
        """The answers nearest to an image of the gallery, itself left out; and its vector.

        Raises
        ------
        Refused : 404, there is no such image or class; 422, the re-ranker can't follow.
        """
        engine = self._current()
        try:
            vector = engine.index.vectors([id])[0]
        except KeyError as error:
            raise _no_image(id) from error
        image = self._pixels(id) if RERANKERS[reranker].needs_image else None
        return self._page(engine, vector, k, offset, class_name, id, reranker, image), vector

    def entries(self, offset: int, limit: int, class_name: str | None = None) -> tuple[list[Entry], int]:
        """Some images in the order of their ids, and how many there are.

        Raises
        ------
        Refused : 404, there is no such class.
        """
        engine = self._current()
        ids = engine.index.ids
        if class_name is not None:
            ids = ids[engine.table.labels[ids] == _label(engine.table, class_name)]
        return [self._entry(engine.table, int(i)) for i in ids[offset : offset + limit]], len(ids)

    def entry(self, id: int) -> Entry:
        """
        Raises
        ------
        Refused : 404, there is no such image.
        """
        return self._entry(self._with(id).table, id)

    def path(self, id: int) -> Path:
        """The file of an image; links are followed, and it lies below the gallery's folder or among the uploads.

        Raises
        ------
        Refused : 404, there is no such image, its file is gone, or lies elsewhere.
        """
        engine = self._with(id)
        path = engine.table.path(id)
        gone = ApiError(404, f"The file of image {id} is not there any more.")
        if ".." in path.parts:
            raise gone
        try:
            real = path.resolve(strict=True)
            folders = [(self.folder / uploads.FOLDER).resolve(), self._root(engine)]
        except (OSError, RuntimeError) as error:  # a loop of links
            raise gone from error
        if not any(real.is_relative_to(folder) for folder in folders) or not real.is_file():
            raise gone
        return real

    def add(self, content: bytes, suffix: str, vector: np.ndarray, class_name: str | None) -> Entry:
        """Put an image in for good: when this returns, neither a kill nor a power cut loses it.

        content, suffix : as `uploads.reencode` gives them. vector : float32 (dim,), of the image as it was uploaded.

        Raises
        ------
        OSError : it can't be written; nothing was added.
        """
        path = uploads.keep(self.folder, content, suffix)
        try:
            (id,) = self._live.add_extracted([path], vector[None], [class_name])
        except (OSError, ValueError):
            # Then nothing was added. After anything else it may have been, and a file too many is the lesser evil.
            uploads.forget(self.folder, path)
            raise
        return self._entry(self._live.engine.table, int(id))

    def remove(self, id: int) -> None:
        """Take an image out for good, and delete its file if it was added over HTTP.

        Raises
        ------
        Refused : 404, there is no such image.
        """
        path = self._with(id).table.path(id)
        try:
            self._live.remove([id])
        except KeyError as error:
            raise _no_image(id) from error
        uploads.forget(self.folder, path)

    def _current(self) -> Engine:
        self._live.refresh()
        return self._live.engine

    def _with(self, id: int) -> Engine:
        """The engine, if a search can find the image."""
        engine = self._current()
        if not engine.index.contains(np.array([id]))[0]:
            raise _no_image(id)
        return engine

    def _root(self, engine: Engine) -> Path:
        """The folder that the gallery's files must not lead out of."""
        table = engine.table
        if table.root is not None:
            return table.root.resolve(strict=True)
        # Listed file by file: what holds all that was listed. Remembered, as it takes a look at each.
        snapshot_id, known, root = self._listed
        if snapshot_id != engine.saved.snapshot_id:
            known, root = 0, None
        if known < len(table):
            own = self.folder.absolute()
            parents = {Path(path).parent for path in table.paths[known:]}
            listed = [str(parent) for parent in parents if not parent.is_relative_to(own)]
            if listed:
                root = Path(os.path.commonpath(listed + ([] if root is None else [root])))
            self._listed = engine.saved.snapshot_id, len(table), root
        return (root or self.folder.absolute() / uploads.FOLDER).resolve(strict=True)

    def _pixels(self, id: int) -> np.ndarray:
        try:
            return read_image(self.path(id))
        except UnreadableImage as error:
            raise ApiError(404, f"The file of image {id} can't be read any more.") from error

    def _entry(self, table: GalleryTable, id: int) -> Entry:
        path = str(table.path(id))
        # Where it lies on this computer is nobody's business.
        key = table.path(id).name
        for folder in (self.folder, table.root):
            # As text, because a page of answers is made of many: an engine's paths are absolute.
            if folder is not None and path.startswith(start := f"{folder}{os.sep}"):
                key = path[len(start) :].replace(os.sep, "/")
                break
        return Entry(id, key, table.class_name(id))

    def _ids_of_class(self, engine: Engine, class_name: str) -> IdSet:
        """All ids of a class, prepared once for an engine."""
        of, classes = self._classes
        if of is not engine:
            self._classes = engine, (classes := {})
        if class_name not in classes:
            classes[class_name] = IdSet(np.flatnonzero(engine.table.labels == _label(engine.table, class_name)))
        return classes[class_name]

    def _page(
        self,
        engine: Engine,
        vector: np.ndarray,
        k: int,
        offset: int,
        class_name: str | None,
        itself: int | None,
        reranker: str,
        image: np.ndarray | None,
    ) -> Page:
        index = engine.index
        try:
            RERANKERS[reranker].check(index.metric, image is not None)
        except ValueError as error:
            raise ApiError(422, str(error)) from error
        if index.dim is not None and vector.shape != (index.dim,):
            raise ApiError(422, f"The vector must have {index.dim} numbers, it has {vector.size}.")
        depth = min(offset + k, MAX_DEPTH)
        allowed = None if class_name is None else self._ids_of_class(engine, class_name)
        excluded = None if itself is None else IdSet([itself])
        candidates = index.count(allowed=allowed, excluded=excluded)

        def search(vector: np.ndarray, k: int) -> Ranking:
            found = index.search(vector[None], k, allowed=allowed, excluded=excluded)
            return found.head(int((found.ids[0] != PAD).sum()))

        space = SearchSpace(index.metric, search, index.vectors, lambda ids: engine.gallery.subset(ids))
        ranking = rerank(space, vector, max(1, min(depth, candidates)), reranker, image)
        found, scores = ranking.ids[0][ranking.ids[0] != PAD], ranking.scores[0]
        hits = [
            Hit(rank, float(scores[rank - 1]), self._entry(engine.table, int(found[rank - 1])))
            for rank in range(offset + 1, min(depth, len(found)) + 1)
        ]
        full = len(hits) == k
        more = full and depth < min(candidates, MAX_DEPTH)
        return Page(hits, more, "" if full else _note(len(found), candidates, class_name, index.spec))


def _label(table: GalleryTable, class_name: str) -> int:
    label = table.class_label(class_name)
    if label is None:
        raise ApiError(404, "There is no such class in the gallery.")
    return label


def _no_image(id: int) -> ApiError:
    return ApiError(404, f"There is no image {id} in the index.")


def _note(found: int, there: int, class_name: str | None, spec: str) -> str:
    which = "" if class_name is None else f" of class {class_name}"
    if found < min(there, MAX_DEPTH):
        return f"{spec} found {found} of {there} images{which}: an approximate search does not reach all of them."
    if found < there:
        return f"The first {found} of {there} images{which} can be reached."
    return f"There are {there} images{which} to find."
