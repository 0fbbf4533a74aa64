"""Searches and changes of a live engine: pages of results, filters by class, and images by id."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from helpers.features.file_hashes import identities
from helpers.features.regions import Regions
from helpers.features.text_encoder import embeds_text
from helpers.files import bytes_hash
from helpers.images.file_details import file_details
from helpers.images.imageset import NO_CLASS
from helpers.images.reading import UnreadableImage, read_image, upright_size
from helpers.search.combined import QueryPart, marked_parts, search_parts
from helpers.search.engine import Engine
from helpers.search.gallery import GalleryTable
from helpers.search.identity import Outcome
from helpers.search.index import IdSet
from helpers.search.persist.live import LiveEngine
from helpers.search.ranking import PAD, Ranking
from helpers.search.region_index import RegionIndex
from helpers.search.region_search import RegionMatch, search_regions
from helpers.search.rerank import RERANKERS, SearchSpace, names_for, rerank, rocchio
from helpers.search.word_index import WordIndex
from helpers.service import uploads
from helpers.service.content import UploadedImage
from helpers.service.errors import ApiError, no_image, readable
from helpers.service.image_schemas import DetailsOut, SizesOut
from helpers.service.listing import Listing, Sort
from helpers.service.schemas import (
    ClassOut,
    GalleryOut,
    ImageOut,
    ImagesOut,
    MatchOut,
    QueryPartIn,
    ResultOut,
    SearchOptions,
    SearchOut,
    from_text,
    to_text,
)
from helpers.service.settings import MAX_DEPTH
from helpers.text import printable


class GallerySearch:
    """A live engine for many threads. Each call first applies the changes of other processes.

    words : for searches by text, unless the extractor embeds texts; None if the engine has no class scores.
    regions : None if the engine has no regions; then whole images are searched.
    root_path : the start of the URLs in responses.

    The time of a `SearchOut` is 0, because a search may have begun with an extraction; `timed` sets it.
    """

    def __init__(
        self, live: LiveEngine, words: WordIndex | None = None, regions: RegionIndex | None = None, root_path: str = ""
    ):
        self._live, self._words, self._regions, self._root_path = live, words, regions, root_path
        self._classes: tuple[Engine | None, dict[str | None, IdSet]] = (None, {})
        self._listing = Listing()

    def summary(self) -> GalleryOut:
        """What the index contains, and which searches it supports."""
        engine = self._current()
        table, ids = engine.table, engine.index.ids
        labels = table.labels[ids]
        counts = np.bincount(labels[labels != NO_CLASS], minlength=len(table.class_names))
        classes = [(name, int(count)) for name, count in zip(table.class_names, counts, strict=True) if count]
        return GalleryOut(
            name=table.name,
            images=len(ids),
            extractor=engine.extractor.name,
            index=engine.index.spec,
            classes=[ClassOut(name=name, count=count) for name, count in sorted(classes)],
            no_class=int(np.count_nonzero(labels == NO_CLASS)),
            text=self._words is not None or embeds_text(engine.extractor),
            regions=None if self._regions is None else self._regions.source,
            rerankers=list(names_for(engine.index.metric)),
        )

    def search(
        self, vectors: np.ndarray, options: SearchOptions, image: np.ndarray | None = None, own_id: int | None = None
    ) -> SearchOut:
        """The results nearest to the parts of a query, float32 (p, dim).

        image : uint8 (height, width, 3), the query; required by some re-rankers.
        own_id : of the image of the gallery with these parts, which is left out.

        Raises ApiError: 404, the class does not exist; 422, wrong length of the vectors, or the re-ranker is not
        applicable.
        """
        engine = self._current()
        reranked = options.rerank != "none"
        if reranked and len(vectors) > 1:
            raise ApiError(422, "Re-ranking needs a query of one part.", code="not_applicable")
        with _not_applicable():
            RERANKERS[options.rerank].check(engine.index.metric, image is not None)
        for vector in vectors:
            self._check_length(engine, vector)
        moved = self._moved(engine, vectors, options)
        filters = self._filters(engine, options, [] if own_id is None else [own_id])
        candidates = engine.index.count(**filters)
        depth = min(options.offset + options.k, MAX_DEPTH)
        k = min(depth, candidates)
        regions = None if reranked else self._regions
        ranking = Ranking(np.empty((1, 0), np.int64), np.empty((1, 0)))
        matches: tuple[tuple[RegionMatch | None, ...], ...] = ()
        if candidates and regions is not None:
            by_regions = search_regions(engine, regions.of(engine), moved, k, **filters)
            ranking, matches = by_regions.ranking, by_regions.matches
        elif candidates:
            ranking = _search_images(engine, moved, k, options.rerank, image, filters)
        found = self._page(engine, ranking, candidates, depth, options)
        if options.vectors:
            texts = [to_text(vector) for vector in vectors]
            found.vector = texts[0] if len(texts) == 1 else texts
        if regions is not None:
            found.regions = regions.source
            for result in found.results:
                self._add_matches(result, matches[result.rank - 1])
        return found

    def search_id(self, id: int, options: SearchOptions) -> SearchOut:
        """The results nearest to an image of the gallery, without the image itself.

        Raises ApiError: 404, the image or class does not exist; 422, the re-ranker is not applicable.
        """
        engine, image = engine_with(self._live, id), None
        if RERANKERS[options.rerank].needs_image:
            with readable(id):
                image = read_image(self.path(id))
        return self.search(engine.index.vectors(np.array([id])), options, image, id)

    def search_parts(self, parts: Sequence[QueryPartIn], options: SearchOptions) -> SearchOut:
        """The results of a query of several parts, without the images that are parts themselves.

        Raises ApiError: 404, an image or the class does not exist; 422, a text or a vector cannot be used, or texts are
        not supported.
        """
        engine = self._current()
        ids = [part.id for part in parts if part.id is not None]
        _check_ids(engine, ids)
        vectors = dict(zip(ids, engine.index.vectors(ids), strict=True)) if ids else {}
        query = []
        for part in parts:
            vector = None if part.id is None else vectors[part.id]
            if part.vector is not None:
                vector = from_text(part.vector)
                self._check_length(engine, vector)
            query.append(QueryPart(part.weight, vector, part.text))
        query += marked_parts(self._marked(engine, options.good), self._marked(engine, options.bad))
        filters = self._filters(engine, options, ids)
        candidates = engine.index.count(**filters)
        depth = min(options.offset + options.k, MAX_DEPTH)
        with _not_applicable():
            ranking = search_parts(engine, query, min(depth, max(1, candidates)), self._words, **filters)
        # All results then come from the index of word vectors, which is exact.
        by_words = self._words is not None and all(part.text is not None for part in query if part.weight > 0)
        return self._page(engine, ranking, candidates, depth, options, by_words)

    def regions(self, id: int, source: str) -> Regions | None:
        """The stored regions of an image; None if it has none from this source.

        Raises ApiError: 404, the image does not exist.
        """
        engine = engine_with(self._live, id)
        if self._regions is None or self._regions.source != source:
            return None
        return self._regions.of(engine).regions_of(id) or None

    def images(self, options: SearchOptions, sort: Sort) -> ImagesOut:
        """Some images. options : their number, offset and class. Raises ApiError: 404, the class does not exist."""
        engine = self._current()
        table, ids = engine.table, self._listing.ids(engine, sort)
        if options.class_name is not None or options.no_class:
            ids = ids[table.labels[ids] == _label(table, options.class_name)]
        images = [self._image(engine, int(id)) for id in ids[options.offset : options.offset + options.k]]
        return ImagesOut(images=images, total=len(ids), offset=options.offset)

    def image(self, id: int) -> ImageOut:
        """One image. Raises ApiError: 404, it does not exist."""
        return self._image(engine_with(self._live, id), id)

    def details(self, id: int) -> DetailsOut:
        """One image and what its file says about it.

        Raises ApiError: 404, it does not exist, or its file cannot be read.
        """
        image, path = self.image(id), self.path(id)
        with readable(id):
            details = file_details(path)
        return DetailsOut(**vars(image), **vars(details), original=f"{self._root_path}/v1/images/{id}/original")

    def sizes(self, ids: Sequence[int]) -> SizesOut:
        """The sizes of the images whose files can be read."""
        return SizesOut(sizes={id: [*size] for id in ids if (size := self._size_of(id)) is not None})

    def _size_of(self, id: int) -> tuple[int, int] | None:
        try:
            path = self.path(id)
            return _size(path, path.stat().st_mtime_ns)
        except (ApiError, OSError, UnreadableImage):
            return None  # removed meanwhile, or its file is missing

    def path(self, id: int) -> Path:
        """The file of an image of the engine, with links resolved.

        A link that leads out of the folder that was indexed or added is followed only if its target still has the
        content that was indexed. The owner of the engine knows this content, but not one that was put there later.

        Raises ApiError: 404, the image does not exist, or its file is missing or outside these folders.
        """
        engine = engine_with(self._live, id)
        path = engine.table.path(id)
        missing = ApiError(404, f"The file of image {id} was moved or deleted.", code="file_not_found")
        try:
            real = path.resolve(strict=True)
            root = Path(engine.saved.roots.start_of(str(path))).resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise missing from error
        if not real.is_file():
            raise missing
        if not real.is_relative_to(root) and engine.table.content(id) not in identities([real]):
            raise ApiError(404, f"The file of image {id} is now a link to another image.", code="file_not_found")
        return real

    def add(
        self, upload: UploadedImage, content: bytes, suffix: str, vector: np.ndarray, class_name: str | None
    ) -> tuple[ImageOut, bool]:
        """Add an image, unless it was added before; returns the image, and whether it is new.

        When this returns, the change is flushed to the disk, and a killed process does not lose it.

        Parameters
        ----------
        content, suffix : from `uploads.reencode`.
        vector : float32 (dim,), of the image as it was sent.

        Raises
        ------
        OSError : the image cannot be written; nothing was added.
        """
        identity, name = bytes_hash(upload.content), uploads.clean_name(upload.name)
        path = uploads.path_of(self._live.folder.absolute(), identity, suffix)
        added = self._live.add_extracted(
            [path], vector[None], [class_name], [identity], [name], write=lambda: uploads.store(path, content)
        )
        return self._image(self._live.engine, int(added.ids[0])), added.outcomes != (Outcome.UNCHANGED,)

    def _current(self) -> Engine:
        self._live.refresh()
        return self._live.engine

    def _filters(self, engine: Engine, options: SearchOptions, own: Sequence[int]) -> dict[str, IdSet | None]:
        """The filters of a search in the index. own : ids of the query's images, which are left out."""
        allowed = None
        if options.class_name is not None or options.no_class:
            cached_engine, classes = self._classes
            if cached_engine is not engine:
                self._classes = engine, (classes := {})
            if options.class_name not in classes:
                label = _label(engine.table, options.class_name)
                classes[options.class_name] = IdSet(np.flatnonzero(engine.table.labels == label))
            allowed = classes[options.class_name]
        return {"allowed": allowed, "excluded": IdSet([*own, *options.exclude]) if own or options.exclude else None}

    def _moved(self, engine: Engine, vectors: np.ndarray, options: SearchOptions) -> np.ndarray:
        """The vectors of a query, moved by the marks; with marks, a query has one vector."""
        good, bad = (self._marked(engine, ids) for ids in (options.good, options.bad))
        if not len(good) and not len(bad):
            return vectors
        if len(vectors) > 1:
            raise ApiError(422, "Marks can be used only with a query of one part.", code="not_applicable")
        try:
            return rocchio(vectors[0], good, bad, metric=engine.index.metric)[None]
        except ValueError as error:
            raise ApiError(422, f"{str(error)[:1].upper()}{str(error)[1:]}.", code="not_applicable") from error

    @staticmethod
    def _marked(engine: Engine, ids: Sequence[int]) -> np.ndarray:
        """float32 (n, dim): the vectors of marked images."""
        _check_ids(engine, ids)
        return engine.index.vectors(list(ids)) if ids else np.empty((0, engine.index.dim or 0), np.float32)

    def _add_matches(self, result: ResultOut, matches: Sequence[RegionMatch | None]) -> None:
        result.regions = [MatchOut.of(part, match) for part, match in enumerate(matches, 1) if match is not None]
        if any(match.box is not None for match in result.regions):
            result.width, result.height = self._size_of(result.id) or (None, None)

    def _page(
        self, engine: Engine, ranking: Ranking, candidates: int, depth: int, options: SearchOptions,
        by_words: bool = False,
    ) -> SearchOut:  # fmt: skip
        """The results of a ranking of one query that the options select.

        candidates : the number of images that could be found. depth : of the ranking. by_words : whether it contains
            only images with class scores.
        """
        ranking = _unpadded(ranking)
        ids, scores = ranking.ids[0], ranking.scores[0]
        threshold = -np.inf if options.threshold is None else options.threshold
        found = int(np.count_nonzero(scores >= threshold))
        results = [
            ResultOut(
                **vars(self._image(engine, int(ids[row]))), rank=row + 1, score=float(scores[row]), regions=[],
                width=None, height=None,
            )
            for row in range(options.offset, min(options.offset + options.k, found))
        ]  # fmt: skip
        named = "" if options.class_name is None else f" of class {options.class_name}"
        of_class = " without a class" if options.no_class else named
        more, note = False, ""
        if found < len(ids):
            note = f"No other image{of_class} has a score of {threshold:g} or more."
        elif len(results) == options.k:
            more = depth < min(candidates, MAX_DEPTH)
        else:
            note = _note(found, candidates, of_class, engine.index.spec, by_words)
        return SearchOut(
            results=results, offset=options.offset, k=options.k, more=more, note=note, regions=None, vector=None,
            milliseconds=0,
        )  # fmt: skip

    def _image(self, engine: Engine, id: int) -> ImageOut:
        table = engine.table
        path = table.path_text(id)
        # Clients must not learn in which folder of this computer a file lies.
        start = engine.saved.roots.start_of(path)
        anchor = f"{os.path.splitdrive(path)[0]}{os.sep}"
        key = path.rpartition(os.sep)[2] if start in ("", anchor) else path[len(start) :].replace(os.sep, "/")
        thumbnail = f"{self._root_path}/v1/images/{id}/thumbnail"
        return ImageOut(
            id=id, key=key, name=table.display_name(id), class_name=table.class_name(id), thumbnail=thumbnail
        )

    @staticmethod
    def _check_length(engine: Engine, vector: np.ndarray) -> None:
        dim = engine.index.dim
        if dim is not None and vector.shape != (dim,):
            raise ApiError(422, f"The vector must have {dim} numbers, it has {vector.size}.")


def engine_with(live: LiveEngine, id: int) -> Engine:
    """The current engine, if the image is in its index. Raises ApiError: 404, the image does not exist."""
    live.refresh()
    engine = live.engine
    _check_ids(engine, [id])
    return engine


def _check_ids(engine: Engine, ids: Sequence[int]) -> None:
    for id in ids:
        if not engine.index.contains(np.array([id]))[0]:
            raise no_image(id)


@contextlib.contextmanager
def _not_applicable() -> Iterator[None]:
    """Turn a ValueError into an ApiError: 422, this engine does not support the request."""
    try:
        yield
    except ValueError as error:
        raise ApiError(422, str(error), code="not_applicable") from error


def _search_images(
    engine: Engine, vectors: np.ndarray, k: int, reranker: str, image: np.ndarray | None,
    filters: dict[str, IdSet | None],
) -> Ranking:  # fmt: skip
    """The ranking by whole images. For several parts, (p, dim), the score is the mean of the cosines.

    image : the query, for re-rankers that compare pixels.
    """
    if len(vectors) > 1:
        with _not_applicable():
            return search_parts(engine, [QueryPart(1, vector) for vector in vectors], k, None, **filters)
    space = SearchSpace(
        engine.index.metric,
        lambda query, k: _unpadded(engine.index.search(query[None], k, **filters)),
        engine.index.vectors,
        engine.table.subset,
    )
    return rerank(space, vectors[0], k, reranker, image)


@lru_cache(maxsize=100_000)
def _size(path: Path, modified: int) -> tuple[int, int]:
    """Width and height of an upright image. modified : of the file, in nanoseconds."""
    return upright_size(path)


def _unpadded(ranking: Ranking) -> Ranking:
    """A ranking of one query without its padding."""
    return ranking.head(int(np.count_nonzero(ranking.ids[0] != PAD)))


def _label(table: GalleryTable, class_name: str | None) -> int:
    """The label of a class. class_name : None for no class. Raises ApiError: 404, the class does not exist."""
    if class_name is None:
        return NO_CLASS
    label = table.class_label(class_name)
    if label is None:
        # Clients know the names as responses contain them.
        label = next((label for label, name in enumerate(table.class_names) if printable(name) == class_name), None)
    if label is None:
        raise ApiError(404, "The gallery has no such class.", code="class_not_found")
    return label


def _note(found: int, candidates: int, of_class: str, spec: str, by_words: bool) -> str:
    if found < min(candidates, MAX_DEPTH):
        images = f"{found} of {candidates} images{of_class}"
        if by_words:
            return f"The text found {images}: the others have no class scores."
        return f"{spec} found {images}: an approximate search may miss some."
    if found < candidates:
        return f"Only the first {found} of {candidates} images{of_class} are available."
    return f"The gallery has {candidates} image{'' if candidates == 1 else 's'}{of_class}."
