"""What the query picker searches with: one engine for each extractor and index, fitted when it is first asked."""

from collections.abc import Callable, Iterable, Sequence
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

#: Images that are described between two remarks on how far it is.
_STEP = 128


class CantSearch(RuntimeError):
    """An extractor, an index or a re-ranker can't do what was asked; the message says why."""


@dataclass(frozen=True)
class Method:
    """How answers are found: the extractor's name, the index's spec, and the re-ranker's name."""

    extractor: str
    index: str
    reranker: str = NAMES[0]

    def __str__(self) -> str:
        return " · ".join([self.extractor, self.index, *([self.reranker] if self.reranker != NAMES[0] else [])])


@dataclass(frozen=True)
class Found:
    """Rows and scores, best first, and what a person should know of them."""

    results: tuple[tuple[int, float], ...]
    note: str


class Finder:
    """Searches a set of images by several extractors and indexes.

    Parameters
    ----------
    images, extractors, indexes, rules : as `helpers.picker.state.Picker` takes them.
    say : called with what takes long, in words.

    Attributes
    ----------
    extractors, indexes, rerankers : names to choose from.
    """

    def __init__(
        self,
        images: ImageSet,
        extractors: Sequence[str | FeatureExtractor],
        indexes: Sequence[str],
        protocol: Protocol | None,
        say: Callable[[str], object],
    ):
        if not len(images) or not len(extractors) or not len(indexes):
            raise ValueError("a picker needs at least one image, one extractor and one index")
        self.extractors = tuple(given if isinstance(given, str) else given.name for given in extractors)
        self.indexes, self.rerankers = tuple(indexes), NAMES
        for names in (self.extractors, self.indexes):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice!r} is given twice; each needs a name of its own")
        self.images, self.protocol, self._say = images, protocol, say
        self._extractors = {given.name: given for given in extractors if not isinstance(given, str)}
        self._engines: dict[tuple[str, str], Engine] = {}
        #: Row of an engine's id, and the reverse, -1 for who does not answer.
        self._rows = np.arange(len(images)) if protocol is None else protocol.gallery
        self._ids = np.full(len(images), PAD)
        self._ids[self._rows] = np.arange(len(self._rows))
        self._query_of = {} if protocol is None else {int(id): row for row, id in enumerate(protocol.queries)}

    def __len__(self) -> int:
        """Images that answer."""
        return len(self._rows)

    # ---- who is right, who never counts ----------------------------------------------------------------

    def relevant(self, row: int | None) -> np.ndarray | None:
        """bool (n,): who is a right answer to an image of the set; None where nobody knows.

        By the rules if the image is one of their queries, else by its class.
        """
        if row is None or self.images.labels[row] == NO_CLASS:
            return None
        if row in self._query_of:
            return np.isin(np.arange(len(self.images)), self.protocol.relevant(self._query_of[row]))
        return self.images.labels == self.images.labels[row]

    def never(self, row: int | None) -> np.ndarray:
        """int64: rows that are no answers to an image of the set: itself, its copies, and what the rules exclude."""
        if row is None:
            return np.empty(0, np.int64)
        if row in self._query_of:
            return np.union1d(self.protocol.ignored(self._query_of[row]), [row])
        groups = self.images.groups
        if groups is None or groups[row] < 0:
            return np.array([row])
        return np.flatnonzero(groups == groups[row])

    # ---- searching -------------------------------------------------------------------------------------

    def find(
        self,
        method: Method,
        pixels: Callable[[], np.ndarray],
        row: int | None,
        whole: bool,
        k: int,
        good: Iterable[int] = (),
        bad: Iterable[int] = (),
    ) -> Found:
        """The ``k`` best answers to an image.

        Parameters
        ----------
        pixels : gives the query, uint8 (height, width, 3); called only where it has to be seen.
        row : of an image of the set, or None. whole : whether all of it asks.
        good, bad : rows that were marked so; the query is moved by them (Rocchio).

        Raises
        ------
        CantSearch : the extractor, the index or the re-ranker can't do it.
        WeightsUnavailable : the extractor's weights can't be had.
        UnreadableImage : the query can't be read.
        """
        with _told():
            engine = self._engine(method)
            self._say(f"Searching with {method} …")
            if row is not None and whole:
                vector = self._vectors(engine.extractor, [row])[0]
            else:
                vector = engine.extractor.extract_arrays([pixels()])[0]
            nothing = not vector.any()
            good, bad = list(good), list(bad)
            if good or bad:
                vectors = self._vectors(engine.extractor, [*good, *bad])
                vector = rocchio(vector, vectors[: len(good)], vectors[len(good) :], metric=engine.index.metric)
            never = self.never(row)
            space = SearchSpace.of(engine, exclude=self._ids[never][self._ids[never] != PAD])
            image = pixels() if RERANKERS[method.reranker].needs_image else None
            ranking = rerank(space, vector, k, method.reranker, image)
        there = ranking.ids[0] != PAD
        rows, scores = self._rows[ranking.ids[0, there]], ranking.scores[0, there]
        results = tuple((int(row), float(score)) for row, score in zip(rows, scores, strict=True))
        return Found(results, self._note(engine, k, len(results), never, nothing))

    def why(self, method: Method, pixels: np.ndarray, row: int) -> Explanation:
        """What makes an image of the set similar to a query, uint8 (height, width, 3), in the eyes of a method.

        Raises
        ------
        CantSearch, UnreadableImage, WeightsUnavailable : as for `find`.
        """
        with _told():
            engine = self._engine(method)
            return explain(engine.extractor, pixels, read_image(self.images.paths[row]), engine.index.metric)

    def rerankers_for(self, method: Method) -> tuple[str, ...]:
        """The re-rankers that can follow a method's index; all of them as long as the index is not open."""
        engine = self._engines.get((method.extractor, method.index))
        return self.rerankers if engine is None else names_for(engine.index.metric)

    def _engine(self, method: Method) -> Engine:
        known = self._engines.get((method.extractor, method.index))
        if known is not None:
            return known
        seeing = self._extractors.get(method.extractor)
        if seeing is None:
            self._say(f"Opening {method.extractor} …")
            seeing = self._extractors[method.extractor] = open_extractor(method.extractor)
        engine = Engine(seeing, method.index)
        gallery = self.images.subset(self._rows)
        # Into the store, from where the engine takes the vectors: a bar of its own would go to no cell.
        for start in range(0, len(gallery), _STEP):
            self._say(f"Describing images with {method.extractor}: {start} of {len(gallery)} …")
            seeing.extract(gallery.subset(range(start, min(start + _STEP, len(gallery)))), progress=False)
        self._say(f"Building {method.index} …")
        engine.fit(gallery)
        self._engines[method.extractor, method.index] = engine
        return engine

    def _vectors(self, seeing: FeatureExtractor, rows: list[int]) -> np.ndarray:
        vectors = seeing.extract(self.images.subset(rows), progress=False)
        for row, vector in zip(rows, vectors, strict=True):
            if np.isnan(vector).any():
                raise CantSearch(f"{self.images.paths[row]} can't be read.")
        return vectors

    def _note(self, engine: Engine, k: int, found: int, never: np.ndarray, nothing: bool) -> str:
        notes = []
        if nothing:
            notes.append(f"{engine.extractor.name} finds nothing in this image, so all answers are alike to it")
        if found < k:
            excluded = int((self._ids[never] != PAD).sum())
            but = f", {excluded} of them never counted for this query" if excluded else ""
            notes.append(f"{k} answers were asked for, {found} found: {len(engine)} images answer{but}")
        if len(engine.skipped):
            one = len(engine.skipped) == 1
            notes.append(f"{len(engine.skipped)} image{'' if one else 's'} can't be read and never answer{'s' * one}")
        return "; ".join(notes)


@contextmanager
def _told():
    """What extractors and indexes complain of, as one error that is meant for a person."""
    try:
        yield
    except WeightsUnavailable:
        raise
    except KeyError as error:
        raise CantSearch(str(error.args[0])) from error
    except (ValueError, ImportError, OSError, NotImplementedError) as error:
        raise CantSearch(str(error)) from error
