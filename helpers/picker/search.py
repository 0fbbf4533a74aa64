"""What the query picker searches with: one engine for each describer and index, fitted when it is first asked."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from helpers.evaluation.protocol import Protocol
from helpers.features.explain import Why, why
from helpers.features.extractor import Describer
from helpers.features.registry import open_extractor
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.images.reading import read_picture
from helpers.networks.weights import WeightsUnavailable
from helpers.search.engine import Engine
from helpers.search.ranking import PAD
from helpers.search.rerank import NAMES, RERANKERS, SearchSpace, names_for, rerank, rocchio

#: Pictures that are described between two remarks on how far it is.
_STEP = 128


class CantSearch(RuntimeError):
    """A describer, an index or a re-ranker can't do what was asked; the message says why."""


@dataclass(frozen=True)
class Method:
    """How answers are found: the describer's name, the index's spec, and the re-ranker's name."""

    describer: str
    index: str
    reranker: str = NAMES[0]

    def __str__(self) -> str:
        return " · ".join([self.describer, self.index, *([self.reranker] if self.reranker != NAMES[0] else [])])


@dataclass(frozen=True)
class Found:
    """Rows and scores, best first, and what a person should know of them."""

    answers: tuple[tuple[int, float], ...]
    note: str


class Finder:
    """Searches a set of pictures by several describers and indexes.

    Parameters
    ----------
    images, describers, indexes, rules : as `helpers.picker.state.Picker` takes them.
    say : called with what takes long, in words.

    Attributes
    ----------
    describers, indexes, rerankers : names to choose from.
    """

    def __init__(
        self,
        images: ImageSet,
        describers: Sequence[str | Describer],
        indexes: Sequence[str],
        rules: Protocol | None,
        say: Callable[[str], object],
    ):
        if not len(images) or not len(describers) or not len(indexes):
            raise ValueError("a picker needs at least one picture, one describer and one index")
        self.describers = tuple(given if isinstance(given, str) else given.name for given in describers)
        self.indexes, self.rerankers = tuple(indexes), NAMES
        for names in (self.describers, self.indexes):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice!r} is given twice; each needs a name of its own")
        self.images, self.rules, self._say = images, rules, say
        self._describers = {given.name: given for given in describers if not isinstance(given, str)}
        self._engines: dict[tuple[str, str], Engine] = {}
        #: Row of an engine's id, and the reverse, -1 for who does not answer.
        self._rows = np.arange(len(images)) if rules is None else rules.gallery
        self._ids = np.full(len(images), PAD)
        self._ids[self._rows] = np.arange(len(self._rows))
        self._query_of = {} if rules is None else {int(id): row for row, id in enumerate(rules.queries)}

    def __len__(self) -> int:
        """Pictures that answer."""
        return len(self._rows)

    # ---- who is right, who never counts ----------------------------------------------------------------

    def relevant(self, row: int | None) -> np.ndarray | None:
        """bool (n,): who is a right answer to a picture of the set; None where nobody knows.

        By the rules if the picture is one of their queries, else by its class.
        """
        if row is None or self.images.labels[row] == NO_CLASS:
            return None
        if row in self._query_of:
            return np.isin(np.arange(len(self.images)), self.rules.relevant(self._query_of[row]))
        return self.images.labels == self.images.labels[row]

    def never(self, row: int | None) -> np.ndarray:
        """int64: rows that are no answers to a picture of the set: itself, its copies, and what the rules exclude."""
        if row is None:
            return np.empty(0, np.int64)
        if row in self._query_of:
            return np.union1d(self.rules.ignored(self._query_of[row]), [row])
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
        """The ``k`` best answers to a picture.

        Parameters
        ----------
        pixels : gives the query, uint8 (height, width, 3); called only where it has to be seen.
        row : of a picture of the set, or None. whole : whether all of it asks.
        good, bad : rows that were marked so; the query is moved by them (Rocchio).

        Raises
        ------
        CantSearch : the describer, the index or the re-ranker can't do it.
        WeightsUnavailable : the describer's weights can't be had.
        UnreadablePicture : the query can't be read.
        """
        with _told():
            engine = self._engine(method)
            self._say(f"Searching with {method} …")
            if row is not None and whole:
                vector = self._vectors(engine.describer, [row])[0]
            else:
                vector = engine.describer.describe_arrays([pixels()])[0]
            nothing = not vector.any()
            good, bad = list(good), list(bad)
            if good or bad:
                vectors = self._vectors(engine.describer, [*good, *bad])
                vector = rocchio(vector, vectors[: len(good)], vectors[len(good) :], metric=engine.index.metric)
            never = self.never(row)
            space = SearchSpace.of(engine, exclude=self._ids[never][self._ids[never] != PAD])
            image = pixels() if RERANKERS[method.reranker].needs_image else None
            ranking = rerank(space, vector, k, method.reranker, image)
        there = ranking.ids[0] != PAD
        rows, scores = self._rows[ranking.ids[0, there]], ranking.scores[0, there]
        answers = tuple((int(row), float(score)) for row, score in zip(rows, scores, strict=True))
        return Found(answers, self._note(engine, k, len(answers), never, nothing))

    def why(self, method: Method, pixels: np.ndarray, row: int) -> Why:
        """What makes a picture of the set similar to a query, uint8 (height, width, 3), in the eyes of a method.

        Raises
        ------
        CantSearch, UnreadablePicture, WeightsUnavailable : as for `find`.
        """
        with _told():
            engine = self._engine(method)
            return why(engine.describer, pixels, read_picture(self.images.paths[row]), engine.index.metric)

    def rerankers_for(self, method: Method) -> tuple[str, ...]:
        """The re-rankers that can follow a method's index; all of them as long as the index is not open."""
        engine = self._engines.get((method.describer, method.index))
        return self.rerankers if engine is None else names_for(engine.index.metric)

    def _engine(self, method: Method) -> Engine:
        known = self._engines.get((method.describer, method.index))
        if known is not None:
            return known
        seeing = self._describers.get(method.describer)
        if seeing is None:
            self._say(f"Opening {method.describer} …")
            seeing = self._describers[method.describer] = open_extractor(method.describer)
        engine = Engine(seeing, method.index)
        gallery = self.images.subset(self._rows)
        # Into the store, from where the engine takes the vectors: a bar of its own would go to no cell.
        for start in range(0, len(gallery), _STEP):
            self._say(f"Describing pictures with {method.describer}: {start} of {len(gallery)} …")
            seeing.describe(gallery.subset(range(start, min(start + _STEP, len(gallery)))), progress=False)
        self._say(f"Building {method.index} …")
        engine.fit(gallery)
        self._engines[method.describer, method.index] = engine
        return engine

    def _vectors(self, seeing: Describer, rows: list[int]) -> np.ndarray:
        vectors = seeing.describe(self.images.subset(rows), progress=False)
        for row, vector in zip(rows, vectors, strict=True):
            if np.isnan(vector).any():
                raise CantSearch(f"{self.images.paths[row]} can't be read.")
        return vectors

    def _note(self, engine: Engine, k: int, found: int, never: np.ndarray, nothing: bool) -> str:
        notes = []
        if nothing:
            notes.append(f"{engine.describer.name} finds nothing in this picture, so all answers are alike to it")
        if found < k:
            excluded = int((self._ids[never] != PAD).sum())
            but = f", {excluded} of them never counted for this query" if excluded else ""
            notes.append(f"{k} answers were asked for, {found} found: {len(engine)} pictures answer{but}")
        if len(engine.skipped):
            one = len(engine.skipped) == 1
            notes.append(f"{len(engine.skipped)} picture{'' if one else 's'} can't be read and never answer{'s' * one}")
        return "; ".join(notes)


@contextmanager
def _told():
    """What describers and indexes complain of, as one error that is meant for a person."""
    try:
        yield
    except WeightsUnavailable:
        raise
    except KeyError as error:
        raise CantSearch(str(error.args[0])) from error
    except (ValueError, ImportError, OSError, NotImplementedError) as error:
        raise CantSearch(str(error)) from error
