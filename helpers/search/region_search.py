"""Search by the parts of images: a query is an image, a part of it, or several parts at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from helpers.features.regions import Regions
from helpers.search.backends.exact import ExactIndex
from helpers.search.engine import Engine
from helpers.search.index import IdSet, Index, check_k
from helpers.search.index.filters import Filter, keep, locate, permitted, ranges
from helpers.search.persist.delta import DeltaIndex
from helpers.search.ranking import PAD, Ranking, best_first
from helpers.vectors import l2_normalize

#: Images for each query part whose scores are computed, if there are several parts.
DEPTH = 200


class RegionMatch(NamedTuple):
    """The part of an image that matches a query part.

    box : float32 (4,), x, y, width, height in pixels of the upright image; None for the whole image.
    class_name : the detected class; None without one.
    score : the cosine of the two parts.
    """

    box: np.ndarray | None
    class_name: str | None
    score: float


@dataclass(frozen=True, eq=False)
class RegionRanking:
    """The results of a query of one or more parts.

    ranking : one row of image ids.
    matches : for each result, the match of each query part; None for a part without a match, because the image has
        fewer parts than the query.
    """

    ranking: Ranking
    matches: tuple[tuple[RegionMatch | None, ...], ...]


class GalleryRegions:
    """The regions of a gallery's images: their vectors in an index, and their boxes and classes.

    An entry is a region of an image. Images with identical content share the vectors of their regions.

    Parameters
    ----------
    index : of the regions' vectors; of metric cosine.
    images, regions : int64 (n,): the image and the region, an id in ``index``, of each entry.
    boxes : float32 (n, 4). class_names, scores : (n,), of the detector.
    """

    def __init__(
        self, index: Index | DeltaIndex, images: np.ndarray, regions: np.ndarray, boxes: np.ndarray,
        class_names: Sequence[str | None] | np.ndarray, scores: np.ndarray,
    ):  # fmt: skip
        order = np.argsort(images, kind="stable")
        self.index = index
        self._images, self._regions = np.asarray(images, np.int64)[order], np.asarray(regions, np.int64)[order]
        self._boxes, self._scores = np.asarray(boxes, np.float32).reshape(-1, 4)[order], np.asarray(scores)[order]
        self._class_names = np.asarray(class_names, object)[order]
        self._by_region = np.argsort(self._regions, kind="stable")

    @classmethod
    def of_vectors(cls, ids: np.ndarray, regions: Sequence[Regions], vectors: Sequence[np.ndarray]) -> Self:
        """The regions of images in memory.

        ids : int64 (m,), of the images. regions : of each image. vectors : float (n, dim) for its n regions.
        """
        index = ExactIndex("cosine")
        counts = [len(each) for each in regions]
        if counts != [len(each) for each in vectors] or len(counts) != len(ids):
            raise ValueError("each image needs its regions, and each region its vector")
        rows = np.arange(sum(counts))
        if len(rows):
            index.add(np.concatenate([each for each in vectors if len(each)]), rows)
        boxes = np.concatenate([np.empty((0, 4), np.float32), *(each.boxes for each in regions)])
        names = [name for each in regions for name in each.class_names]
        scores = np.concatenate([np.empty(0, np.float32), *(each.scores for each in regions)])
        return cls(index, np.repeat(np.asarray(ids, np.int64), counts), rows, boxes, names, scores)

    def with_ids(self, ids: np.ndarray) -> "GalleryRegions":
        """The same regions of images with other ids.

        ids : int64 (m,): the new id of each image; PAD leaves it out. Raises ValueError: an image has none.
        """
        if len(self) and self._images.max() >= len(ids):
            raise ValueError(f"there are regions of image {self._images.max()}, but only {len(ids)} images")
        images = np.asarray(ids, np.int64)[self._images]
        kept = np.flatnonzero(images != PAD)
        columns = (self._regions, self._boxes, self._class_names, self._scores)
        return GalleryRegions(self.index, images[kept], *(column[kept] for column in columns))

    def __len__(self) -> int:
        """Number of regions, of all images."""
        return len(self._images)

    def regions_of(self, id: int) -> Regions:
        """The boxes and classes of an image's regions; none for an image without regions."""
        rows = self._rows_of(id)
        return Regions(self._boxes[rows], tuple(self._class_names[rows]), self._scores[rows])

    def images_of(self, regions: np.ndarray) -> np.ndarray:
        """int64: the images of some regions, in the order of ``regions``, without repetitions."""
        low, high = self._entries_of(regions)
        found, first = np.unique(self._images[self._by_region[ranges(low, high)]], return_index=True)
        return found[np.argsort(first, kind="stable")]

    def filters(self, allowed: IdSet | None, excluded: IdSet | None) -> tuple[IdSet | None, IdSet | None]:
        """The allowed and the excluded region ids that correspond to filters of images."""
        if allowed is not None:
            return IdSet(self._regions[permitted(self._images, allowed, excluded)]), None
        if excluded is None:
            return None, None
        rows = ranges(*(np.searchsorted(self._images, excluded.ids, side) for side in ("left", "right")))
        hidden = np.unique(self._regions[rows])
        # Another image with identical content may be found.
        low, high = self._entries_of(hidden)
        others = ~excluded.contains(self._images[self._by_region[ranges(low, high)]])
        shared = np.bincount(np.repeat(np.arange(len(hidden)), high - low), others, len(hidden)) > 0
        return None, IdSet(hidden[~shared])

    def _entries_of(self, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first entry of each region in ``_by_region``, and the end of its entries."""
        low = np.searchsorted(self._regions, regions, "left", sorter=self._by_region)
        return low, np.searchsorted(self._regions, regions, "right", sorter=self._by_region)

    def _rows_of(self, id: int) -> slice:
        return slice(*np.searchsorted(self._images, [id, id + 1]))

    def parts_of(self, id: int) -> tuple[np.ndarray, list[RegionMatch]]:
        """The ids (n,) of an image's regions, and a `RegionMatch` for each, with a score of 0."""
        rows = self._rows_of(id)
        matches = zip(self._boxes[rows], self._class_names[rows], strict=True)
        return self._regions[rows], [RegionMatch(box, name, 0.0) for box, name in matches]


def search_regions(
    engine: Engine, regions: GalleryRegions, parts: np.ndarray | Sequence[np.ndarray], k: int = 10, *,
    allowed: Filter = None, excluded: Filter = None,
) -> RegionRanking:  # fmt: skip
    """The ``k`` best images for a query of one or more parts.

    The score of an image for one part is the maximum of the part's cosines with the whole image and with each of its
    regions. Several parts are assigned to different parts of the image, so that the product of their cosines is
    largest; negative cosines count as 0. The score is the product to the power 1 / number of parts. For several parts,
    the best images of each part are compared: ``k``, but at least `DEPTH`.

    Parameters
    ----------
    parts : float (p, dim): a feature vector for each part of the query, by the engine's extractor.
    allowed, excluded : ids of images, as in `Index.search`.

    Raises ValueError: there is no part, k < 1, or an index has no cosines.
    """
    k, queries = check_k(k), np.atleast_2d(np.asarray(parts, np.float32))
    if not queries.size:
        raise ValueError("a query needs at least one part")
    check_cosines(engine)
    among, hidden = IdSet.of(allowed), IdSet.of(excluded)

    def kept(ids: np.ndarray) -> np.ndarray:
        """Those of some ids that may be found. Padding and removed images may not."""
        return ids[engine.index.contains(ids) & permitted(ids, among, hidden)]

    count = engine.index.count(allowed=among, excluded=hidden)
    depth = min(max(1, count), k if len(queries) == 1 else max(k, DEPTH))
    found = [engine.index.search(queries, depth, allowed=among, excluded=hidden).ids.ravel()]
    filters = regions.filters(among, hidden)
    found += [_nearest(regions, query[None], depth, filters, kept) for query in queries]
    ids = kept(np.unique(np.concatenate(found)))
    if not len(ids):
        return RegionRanking(Ranking(np.full((1, k), PAD), np.full((1, k), -np.inf)), ())
    scored = _scored(engine, regions, l2_normalize(queries), ids)
    best, scores = best_first(ids[None], np.array([[score for score, _ in scored]]), k)
    matches = tuple(scored[row][1] for row in np.searchsorted(ids, best[0]))
    return RegionRanking(Ranking(*keep(best, scores, best != PAD, k)), matches)


def check_cosines(engine: Engine) -> None:
    """Raise ValueError unless the engine's index has cosines."""
    if engine.index.metric != "cosine":
        raise ValueError(
            f"Regions are compared by cosines, but this index has {engine.index.metric} distances. "
            "Index the images with a backend of metric cosine, such as exact:cosine."
        )


def _nearest(
    regions: GalleryRegions, query: np.ndarray, count: int, filters: tuple[IdSet | None, IdSet | None],
    kept: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """The images of the regions that are nearest to a query (1, dim): ``count``, if there are that many.

    filters : see `GalleryRegions.filters`. kept : ids of images → those that may be found.
    """
    allowed, excluded = filters
    total = min(regions.index.count(allowed=allowed, excluded=excluded), regions.index.max_k)
    depth, found = 0, np.empty(0, np.int64)
    while depth < total and len(found) < count:
        depth = int(min(total, max(4 * depth, 4 * count)))
        nearest = regions.index.search(query, depth, allowed=allowed, excluded=excluded).ids[0]
        found = kept(regions.images_of(nearest[nearest != PAD]))
    return found[:count]


def _scored(
    engine: Engine, regions: GalleryRegions, queries: np.ndarray, ids: np.ndarray
) -> list[tuple[float, tuple[RegionMatch | None, ...]]]:
    """The score and the matches of each image."""
    parts = [regions.parts_of(int(id)) for id in ids]
    needed = np.unique(np.concatenate([each for each, _ in parts]))
    needed = needed[regions.index.contains(needed)]
    whole = l2_normalize(engine.index.vectors(ids)) @ queries.T
    cosines = l2_normalize(regions.index.vectors(needed)) @ queries.T if len(needed) else np.empty((0, len(queries)))
    scored = []
    for of_whole, (numbers, matches) in zip(whole, parts, strict=True):
        rows, stored = locate(needed, numbers)
        table = np.vstack([of_whole, cosines[rows[stored]]])
        candidates = [RegionMatch(None, None, 0.0), *(one for one, kept in zip(matches, stored, strict=True) if kept)]
        scored.append(_assigned(table.T, candidates))
    return scored


def _assigned(cosines: np.ndarray, candidates: Sequence[RegionMatch]) -> tuple[float, tuple[RegionMatch | None, ...]]:
    """The score of an image, and its matches, from the cosines (p, m) of the query's parts with the image's."""
    if len(cosines) == 1:
        best = int(cosines[0].argmax())
        return float(cosines[0, best]), (candidates[best]._replace(score=float(cosines[0, best])),)
    from scipy.optimize import linear_sum_assignment

    # The logarithm, so that the sum of the assigned values is largest where the product is.
    positive = np.log(np.maximum(cosines, 1e-6))
    rows, columns = linear_sum_assignment(positive, maximize=True)
    matches: list[RegionMatch | None] = [None] * len(cosines)
    for row, column in zip(rows, columns, strict=True):
        matches[row] = candidates[column]._replace(score=float(cosines[row, column]))
    product = np.prod([max(0.0, match.score) if match else 0.0 for match in matches])
    return float(product ** (1 / len(cosines))), tuple(matches)
