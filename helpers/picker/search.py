"""Searches for the query picker: one engine per extractor and index, fitted at its first use."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from helpers.evaluation.protocol import Protocol
from helpers.features.explain import Explanation, explain
from helpers.features.extractor import FeatureExtractor
from helpers.features.registry import open_extractor
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.images.reading import read_image
from helpers.networks.weights import WeightsUnavailable
from helpers.search.engine import Engine
from helpers.search.ranking import PAD
from helpers.search.rerank import NAMES, RERANKERS, SearchSpace, names_for, rerank, rocchio

#: Images between two progress messages.
_STEP = 128


class SearchError(RuntimeError):
    """An extractor, an index or a re-ranker cannot do the search; the message gives the reason."""


@dataclass(frozen=True)
class Method:
    """How to search: the extractor's name, the index's spec and the re-ranker's name."""

    extractor: str
    index: str
    reranker: str = NAMES[0]

    def __str__(self) -> str:
        return " · ".join([self.extractor, self.index, *([self.reranker] if self.reranker != NAMES[0] else [])])


class Searcher:
    """Searches a set of images with several extractors and indexes.

    Parameters
    ----------
    images, extractors, indexes, protocol : as for `helpers.picker.state.Picker`.
    report : called with a progress message.
    """

    def __init__(
        self,
        images: ImageSet,
        extractors: Sequence[str | FeatureExtractor],
        indexes: Sequence[str],
        protocol: Protocol | None,
        report: Callable[[str], object],
    ):
        if not len(images) or not len(extractors) or not len(indexes):
            raise ValueError("a picker needs at least one image, one extractor and one index")
        self.extractors = tuple(given if isinstance(given, str) else given.name for given in extractors)
        self.indexes = tuple(indexes)
        for names in (self.extractors, self.indexes):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice!r} is given twice; names must be unique")
        self.images, self.protocol, self._report = images, protocol, report
        self._extractors = {given.name: given for given in extractors if not isinstance(given, str)}
        self._engines: dict[tuple[str, str], Engine] = {}
        # Row of an engine's id, and the reverse, which is PAD for images outside the gallery.
        self._rows = np.arange(len(images)) if protocol is None else protocol.gallery
        self._ids = np.full(len(images), PAD)
        self._ids[self._rows] = np.arange(len(self._rows))
        self._query_rows = {} if protocol is None else {int(id): row for row, id in enumerate(protocol.queries)}

    def __len__(self) -> int:
        """The number of gallery images."""
        return len(self._rows)

    def relevance(self, row: int | None) -> np.ndarray | None:
        """bool (n,): which images are relevant to an image of the set; None if that is unknown.

        The protocol decides for its queries, the class for all other images.
        """
        if row is None or self.images.labels[row] == NO_CLASS:
            return None
        if self.protocol is not None and row in self._query_rows:
            return np.isin(np.arange(len(self.images)), self.protocol.relevant(self._query_rows[row]))
        return self.images.labels == self.images.labels[row]

    def ignored(self, row: int | None) -> np.ndarray:
        """int64: the rows that are ignored for an image of the set: itself, its copies, and what the protocol lists."""
        if row is None:
            return np.empty(0, np.int64)
        if self.protocol is not None and row in self._query_rows:
            return np.union1d(self.protocol.ignored(self._query_rows[row]), [row])
        groups = self.images.groups
        return np.array([row]) if groups is None or groups[row] < 0 else np.flatnonzero(groups == groups[row])

    def search(
        self,
        method: Method,
        pixels: Callable[[], np.ndarray],
        row: int | None,
        cropped: bool,
        k: int,
        good: Sequence[int] = (),
        bad: Sequence[int] = (),
    ) -> tuple[list[tuple[int, float]], str]:
        """The ``k`` nearest images to a query: (row, score), best first, and a note on missing or meaningless results.

        Parameters
        ----------
        pixels : returns the query, uint8 (height, width, 3); called only if the pixels are needed.
        row : the query's row in the set, or None. cropped : whether only a part of the image is the query.
        good, bad : rows with that mark; they move the query (Rocchio).

        Raises
        ------
        SearchError, UnreadableImage
        """
        with _search_errors():
            engine = self._engine(method)
            self._report(f"Searching with {method} …")
            if row is None or cropped:
                vector = engine.extractor.extract_arrays([pixels()])[0]
            else:
                vector = self._vectors(engine.extractor, [row])[0]
            empty = not vector.any()
            if good or bad:
                vectors = self._vectors(engine.extractor, [*good, *bad])
                vector = rocchio(vector, vectors[: len(good)], vectors[len(good) :], metric=engine.index.metric)
            excluded = self._ids[self.ignored(row)]
            excluded = excluded[excluded != PAD]
            image = pixels() if RERANKERS[method.reranker].needs_image else None
            ranking = rerank(SearchSpace.of(engine, exclude=excluded), vector, k, method.reranker, image)
        valid = ranking.ids[0] != PAD
        rows, scores = self._rows[ranking.ids[0, valid]].tolist(), ranking.scores[0, valid].tolist()
        return list(zip(rows, scores, strict=True)), _note(engine, k, len(rows), len(excluded), empty)

    def why(self, method: Method, pixels: np.ndarray, row: int) -> Explanation:
        """Explain why an image of the set is similar to a query, uint8 (height, width, 3).

        Raises
        ------
        SearchError
        """
        with _search_errors():
            engine = self._engine(method)
            return explain(engine.extractor, pixels, read_image(self.images.paths[row]), engine.index.metric)

    def rerankers_for(self, method: Method) -> tuple[str, ...]:
        """The re-rankers that work with a method's index; all of them until the index is built."""
        engine = self._engines.get((method.extractor, method.index))
        return NAMES if engine is None else names_for(engine.index.metric)

    def _engine(self, method: Method) -> Engine:
        fitted = self._engines.get((method.extractor, method.index))
        if fitted is not None:
            return fitted
        extractor = self._extractors.get(method.extractor)
        if extractor is None:
            self._report(f"Loading {method.extractor} …")
            extractor = self._extractors[method.extractor] = open_extractor(method.extractor)
        gallery = self.images.subset(self._rows)
        # The features go into the store, where `fit` finds them. Its own progress bar would belong to no cell.
        for start in range(0, len(gallery), _STEP):
            self._report(f"Extracting features with {method.extractor}: {start} of {len(gallery)} images …")
            extractor.extract(gallery.subset(range(start, min(start + _STEP, len(gallery)))), progress=False)
        self._report(f"Building {method.index} …")
        engine = self._engines[method.extractor, method.index] = Engine(extractor, method.index).fit(gallery)
        return engine

    def _vectors(self, extractor: FeatureExtractor, rows: list[int]) -> np.ndarray:
        vectors = extractor.extract(self.images.subset(rows), progress=False)
        for row, vector in zip(rows, vectors, strict=True):
            if np.isnan(vector).any():
                raise SearchError(f"{self.images.paths[row]} cannot be read.")
        return vectors


def _note(engine: Engine, k: int, found: int, ignored: int, empty: bool) -> str:
    notes = []
    if empty:
        notes.append(f"{engine.extractor.name} extracts only zeros from this image, so the scores mean nothing")
    if found < k:
        notes.append(
            f"{k} results requested, {found} found: {len(engine)} images are indexed"
            + (f", {ignored} of them ignored for this query" if ignored else "")
        )
    if skipped := len(engine.skipped):
        notes.append(f"{skipped} unreadable image{'s are' if skipped > 1 else ' is'} not indexed")
    return "; ".join(notes)


@contextmanager
def _search_errors() -> Iterator[None]:
    """Turn the errors of extractors and indexes into `SearchError`."""
    try:
        yield
    except (ImportError, KeyError, NotImplementedError, OSError, ValueError, WeightsUnavailable) as error:
        raise SearchError(error.args[0] if isinstance(error, KeyError) else str(error)) from error
