"""Searches for the query picker: one engine per extractor and index, fitted at its first use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from helpers import extras
from helpers.evaluation.protocol import Protocol
from helpers.features.deep import NetworkExtractor, class_scores_of
from helpers.features.explain import Explanation, explain, has_shares
from helpers.features.extractor import FeatureExtractor
from helpers.features.region_vectors import crop
from helpers.features.regions import SHORTEST_GIVEN, detect
from helpers.features.registry import open_extractor
from helpers.features.text import WordVectors
from helpers.features.text_encoder import embeds_text
from helpers.features.word_space import Conse
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.images.reading import UnreadableImage, read_image, upright_size
from helpers.networks.weights import WeightsUnavailable
from helpers.search.combined import QueryPart, check_metric, marked_parts, search_parts
from helpers.search.engine import Engine
from helpers.search.index import UnsupportedByIndex
from helpers.search.ranking import PAD
from helpers.search.region_search import GalleryRegions, RegionMatch, search_regions
from helpers.search.rerank import NAMES, RERANKERS, SearchSpace, names_for, rerank, rocchio
from helpers.search.word_index import GalleryWords

#: Images between two progress messages.
_STEP = 128
#: Objects of a query image that are shown, those with the best scores.
MAX_OBJECTS = 12
#: Their minimum score, as on the page of the web service: a box may be good although its class is uncertain.
MIN_SCORE = 0.3


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


@dataclass(frozen=True)
class QueryImage:
    """An image of a query.

    Attributes
    ----------
    pixels : returns uint8 (height, width, 3); called only if the pixels are needed.
    row : its row in the set, or None. cropped : whether only a part of the image is the query.
    boxes : parts of ``pixels`` that are searched together, if there are several.
    weight : its share of the score, as in `QueryPart`; an image of weight 0 is only left out of the results.
    """

    pixels: Callable[[], np.ndarray]
    row: int | None = None
    cropped: bool = False
    weight: float = 1.0
    boxes: tuple[tuple[float, ...], ...] = ()


#: What matches each part of a query, as x, y, width, height in fractions of the image's size. None if the whole image
#: matches best, nothing matches, or the file of the image cannot be read. Empty if whole images were searched.
Boxes = tuple[tuple[float, ...] | None, ...]


class Searcher:
    """Searches a set of images with several extractors and indexes.

    Parameters
    ----------
    images, extractors, indexes, protocol, regions : as for `helpers.picker.state.Picker`.
    report : called with a progress message.
    """

    def __init__(
        self,
        images: ImageSet,
        extractors: Sequence[str | FeatureExtractor],
        indexes: Sequence[str],
        protocol: Protocol | None,
        report: Callable[[str], object],
        regions: GalleryRegions | Mapping[str, GalleryRegions] | None = None,
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
        #: Name of a classifier → the gallery by its class scores.
        self._words: dict[str, GalleryWords] = {}
        self._missing_text = extras.missing("text")
        # Row of an engine's id, and the reverse, which is PAD for images outside the gallery.
        self._rows = np.arange(len(images)) if protocol is None else protocol.gallery
        self._ids = np.full(len(images), PAD)
        self._ids[self._rows] = np.arange(len(self._rows))
        given_regions = {self.extractors[0]: regions} if isinstance(regions, GalleryRegions) else regions or {}
        unknown = next((name for name in given_regions if name not in self.extractors), None)
        if unknown is not None:
            raise ValueError(f"there are regions for {unknown!r}, which is not one of {', '.join(self.extractors)}")
        self._regions = {name: each.with_ids(self._ids) for name, each in given_regions.items()}
        self._query_rows = {} if protocol is None else {int(id): row for row, id in enumerate(protocol.queries)}

    def __len__(self) -> int:
        """The number of gallery images."""
        return len(self._rows)

    def relevance(self, row: int | None, given_class: str | None = None) -> np.ndarray | None:
        """bool (n,): which images are relevant to an image of the set; None if that is unknown.

        The protocol decides for its queries, the class for all other images. given_class : of an image that is not in
        the set.
        """
        if row is None and given_class is not None:
            return self.images.labels == self.images.class_names.index(given_class)
        if row is None or self.images.labels[row] == NO_CLASS:
            return None
        if self.protocol is not None and row in self._query_rows:
            return np.isin(np.arange(len(self.images)), self.protocol.relevant(self._query_rows[row]))
        return self.images.labels == self.images.labels[row]

    def ignored(self, rows: Sequence[int | None]) -> np.ndarray:
        """int64: the rows that are ignored for images of a query: themselves, copies, and what the protocol lists.

        rows : of the images, None for images that are not in the set.
        """
        ignored = [self._ignored(row) for row in rows if row is not None]
        return np.unique(np.concatenate([np.empty(0, np.int64), *ignored]))

    def _ignored(self, row: int) -> np.ndarray:
        if self.protocol is not None and row in self._query_rows:
            return np.union1d(self.protocol.ignored(self._query_rows[row]), [row])
        groups = self.images.groups
        return np.array([row]) if groups is None or groups[row] < 0 else np.flatnonzero(groups == groups[row])

    @property
    def text_hint(self) -> str:
        """Why searches by text are not available, with the remedy; empty if they are."""
        return "" if any(map(embeds_text, self._extractors.values())) else self._missing_text

    def check_texts(self, method: Method, texts: Sequence[QueryPart]) -> None:
        """Raise SearchError if a method cannot search by one of the texts, such as one without a known word."""
        with _search_errors():
            if not embeds_text(self._extractor(method)):
                for part in texts:
                    self._space.embed_text(part.text or "")

    def search(
        self, method: Method, images: Sequence[QueryImage], texts: Sequence[QueryPart], k: int,
        good: Sequence[int] = (), bad: Sequence[int] = (), label: int | None = None,
    ) -> tuple[list[tuple[int, float, Boxes]], str]:  # fmt: skip
        """The ``k`` best results of a query, and a note on missing or meaningless results.

        A result is a row of the set, its score, and what matches. The best one is the first.

        One image is compared with the regions of the gallery, if there are some, unless it is re-ranked.

        Parameters
        ----------
        images, texts : of the query; at least one. Only a single image without a text is re-ranked. Several parts are
            combined by their weights, see `search_parts`.
        good, bad : rows with that mark; they move the query (Rocchio).
        label : only results of this class, `NO_CLASS` for those of none; None for all.

        Raises
        ------
        SearchError, UnreadableImage
        """
        with _search_errors():
            engine = self._engine(method)
            single = len(images) == 1 and not texts
            if not single:
                check_metric(engine)
            regions, whole = self._regions_for(engine, method) if single else (None, "")
            _check_boxes(images, texts, method, regions is not None, bool(good or bad))
            words = self._gallery_words(engine) if texts and not embeds_text(engine.extractor) else None
            self._report(f"Searching with {method} …")
            used = [image for image in images if image.weight]
            queries = [self._parts(engine.extractor, image) for image in used]
            empty = any(not vector.any() for parts in queries for vector in parts)
            none = np.empty((0, engine.extractor.dim), np.float32)
            marked = [self._vectors(engine.extractor, rows) if rows else none for rows in (good, bad)]
            if single and (good or bad):
                queries[0] = rocchio(queries[0][0], *marked, metric=engine.index.metric)[None]
            ignored, excluded = self._excluded(images, label)
            matches: Sequence[Sequence[RegionMatch | None]] = ()
            if regions is not None:
                found = search_regions(engine, regions, queries[0], k, excluded=excluded)
                ranking, matches = found.ranking, found.matches
            elif single:
                pixels = images[0].pixels() if RERANKERS[method.reranker].needs_image else None
                ranking = rerank(SearchSpace.of(engine, exclude=excluded), queries[0][0], k, method.reranker, pixels)
            else:
                weighted = [QueryPart(image.weight, parts[0]) for image, parts in zip(used, queries, strict=True)]
                parts = [*weighted, *texts, *marked_parts(*marked)]
                ranking = search_parts(engine, parts, k, words, excluded=excluded)
            phrases = [] if words is None else [self._space.words.phrase(part.text or "") for part in texts]
            unknown = [word for phrase in phrases for word in phrase.ignored]
        valid = ranking.ids[0] != PAD
        rows, scores = self._rows[ranking.ids[0, valid]].tolist(), ranking.scores[0, valid].tolist()
        boxes: list[Boxes] = list(map(self._places, rows, matches)) if matches else [()] * len(rows)
        note = "; ".join(filter(None, [whole, _note(engine, k, len(rows), len(ignored), empty, unknown, label)]))
        return list(zip(rows, scores, boxes, strict=True)), note

    def _excluded(self, images: Sequence[QueryImage], label: int | None) -> tuple[np.ndarray, np.ndarray]:
        """int64 ids: those that are ignored for the images of a query, and all that cannot be results."""
        ignored = self._ids[self.ignored([image.row for image in images])]
        ignored = ignored[ignored != PAD]
        others = np.empty(0, np.int64) if label is None else np.flatnonzero(self.images.labels[self._rows] != label)
        return ignored, np.union1d(ignored, others).astype(np.int64)

    def objects(self, pixels: np.ndarray) -> list[tuple[np.ndarray, str, float]]:
        """The objects in an image, uint8 (height, width, 3): box (4,), class and score, the best scores first.

        The detector is downloaded at its first use. Raises SearchError: it is not available.
        """
        with _search_errors():
            self._report("Finding objects …")
            (found,) = detect([pixels], threshold=MIN_SCORE, limit=MAX_OBJECTS)
        objects = zip(found.boxes, found.names, found.scores.tolist(), strict=True)
        # Smaller ones cannot be searched with.
        return [one for one in objects if min(one[0][2:]) >= SHORTEST_GIVEN]

    def _regions_for(self, engine: Engine, method: Method) -> tuple[GalleryRegions | None, str]:
        """The regions to search with a method, or a note why whole images are searched although there are some."""
        if not self._regions:
            return None, ""
        if method.extractor not in self._regions:
            return None, f"whole images are searched: {method.extractor} has no regions here"
        if engine.index.metric != "cosine":
            return None, f"whole images are searched: regions need cosines, not {engine.index.metric} distances"
        if method.reranker != NAMES[0]:
            return None, "whole images are searched: regions are not re-ranked"
        return self._regions[method.extractor], ""

    def _places(self, row: int, matches: Sequence[RegionMatch | None]) -> Boxes:
        boxes = [None if match is None else match.box for match in matches]
        try:
            size = np.tile(upright_size(self.images.paths[row]), 2) if any(box is not None for box in boxes) else None
        except UnreadableImage:
            size = None  # the page shows that the file is missing
        return tuple(None if box is None or size is None else tuple((box / size).tolist()) for box in boxes)

    def why(self, method: Method, pixels: np.ndarray, row: int) -> Explanation:
        """Explain why an image of the set is similar to a query, uint8 (height, width, 3).

        Raises
        ------
        SearchError
        """
        with _search_errors():
            engine = self._engine(method)
            return explain(engine.extractor, pixels, read_image(self.images.paths[row]), engine.index.metric)

    def prepare_why(self, method: Method) -> None:
        """Build the network that `why` needs, if its extractor has another one than the search used."""
        engine = self._engines.get((method.extractor, method.index))
        if engine is not None and has_shares(engine.extractor, engine.index.metric):
            assert isinstance(engine.extractor, NetworkExtractor)
            with _search_errors():
                engine.extractor.prepare_maps()

    def rerankers_for(self, method: Method) -> tuple[str, ...]:
        """The re-rankers that work with a method's index; all of them until the index is built."""
        engine = self._engines.get((method.extractor, method.index))
        return NAMES if engine is None else names_for(engine.index.metric)

    def _engine(self, method: Method) -> Engine:
        fitted = self._engines.get((method.extractor, method.index))
        if fitted is not None:
            return fitted
        extractor, gallery = self._extractor(method), self.images.subset(self._rows)
        # The features go into the store, where `fit` finds them. Its own progress bar would belong to no cell.
        self._extract(extractor, f"Extracting features with {method.extractor}")
        self._report(f"Building {method.index} …")
        engine = self._engines[method.extractor, method.index] = Engine(extractor, method.index).fit(gallery)
        return engine

    def _extractor(self, method: Method) -> FeatureExtractor:
        extractor = self._extractors.get(method.extractor)
        if extractor is None:
            self._report(f"Loading {method.extractor} …")
            extractor = self._extractors[method.extractor] = open_extractor(method.extractor)
        return extractor

    def _extract(self, extractor: FeatureExtractor, title: str) -> np.ndarray:
        """The vectors of the gallery, with progress messages."""
        parts = []
        for start in range(0, len(self), _STEP):
            self._report(f"{title}: {start} of {len(self)} images …")
            rows = self._rows[start : start + _STEP]
            parts.append(extractor.extract(self.images.subset(rows), progress=False))
        return np.concatenate(parts)

    @cached_property
    def _space(self) -> Conse:
        self._report("Loading word vectors …")
        return Conse(WordVectors.glove())

    def _gallery_words(self, engine: Engine) -> GalleryWords:
        """The gallery in the space of words, by the class scores of the extractor's network or the default one."""
        classifier = class_scores_of(engine.extractor)
        if classifier.name not in self._words:
            scores = self._extract(classifier, f"Extracting class scores with {classifier.name}")
            self._words[classifier.name] = GalleryWords(self._space, scores)
        return self._words[classifier.name]

    def _parts(self, extractor: FeatureExtractor, image: QueryImage) -> np.ndarray:
        """float32 (p, dim): the vector of an image, or those of its boxes."""
        if image.boxes:
            pixels = image.pixels()
            return extractor.extract_arrays([crop(pixels, box) for box in image.boxes])
        if image.row is None or image.cropped:
            return extractor.extract_arrays([image.pixels()])
        return self._vectors(extractor, [image.row])

    def _vectors(self, extractor: FeatureExtractor, rows: Sequence[int]) -> np.ndarray:
        vectors = extractor.extract(self.images.subset(rows), progress=False)
        for row, vector in zip(rows, vectors, strict=True):
            if np.isnan(vector).any():
                raise SearchError(f"{self.images.paths[row]} cannot be read.")
        return vectors


def _check_boxes(
    images: Sequence[QueryImage], texts: Sequence[QueryPart], method: Method, has_regions: bool, is_marked: bool
) -> None:
    """Raise SearchError if an image has several boxes and the search cannot use them."""
    if not any(image.boxes for image in images):
        return
    if len(images) > 1 or texts:
        raise SearchError(
            "Several boxes are a query of one image. Choose one box, or remove the texts and the other images."
        )
    if not has_regions:
        raise SearchError(
            f"Several boxes are searched among the regions of the gallery, and {method} has none. Choose one box, or "
            "give the picker regions and choose an index with cosines and no re-ranking: Picker(…, regions=regions)."
        )
    if is_marked:
        raise SearchError("Marks move a query of one part. Choose one box, or forget the marks.")


def _note(
    engine: Engine, k: int, found: int, ignored: int, empty: bool, unknown: Sequence[str], label: int | None
) -> str:  # fmt: skip
    notes = []
    if unknown:
        notes.append(f"{', '.join(unknown)}: no word vector, ignored")
    if empty:
        notes.append(f"{engine.extractor.name} extracts only zeros from this image, so the scores mean nothing")
    if found < k and label is not None:
        notes.append(f"{k} results requested, {found} of the class found")
    elif found < k:
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
    except (ImportError, KeyError, OSError, UnsupportedByIndex, ValueError, WeightsUnavailable) as error:
        raise SearchError(error.args[0] if isinstance(error, KeyError) else str(error)) from error
