"""Re-ranking of one query, or of several one by one, by the names of the registry.

A re-ranker uses a gallery through a `SearchSpace`: a search with its filter, and the vectors and images of ids. Command
line, query picker, web service and notebooks run this code. The work is bounded by `SHORTLIST`, whatever the size of
the gallery. Vectors come from the index, and are as coarse as its codes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.features.keypoints import extract, extract_set, shrink
from helpers.images.imageset import ImageSet
from helpers.search.backends.exact import ExactIndex
from helpers.search.index import check_k
from helpers.search.index.filters import keep
from helpers.search.ranking import PAD, Ranking
from helpers.search.rerank.diffusion import diffused
from helpers.search.rerank.expansion import expanded_queries, rescored
from helpers.search.rerank.geometry import verified
from helpers.search.rerank.reciprocal import k_reciprocal
from helpers.search.rerank.registry import SHORTLIST, reranker

if TYPE_CHECKING:
    from helpers.search.engine import Engine


@dataclass(frozen=True)
class SearchSpace:
    """The access of a re-ranker to a gallery.

    Attributes
    ----------
    metric : of the index.
    search : (vector (dim,), k) → Ranking (1, at most k), with the filter of this query.
    vectors : ids (m,) → float (m, dim). images : ids (m,) → the images.
    """

    metric: str
    search: Callable[[np.ndarray, int], Ranking]
    vectors: Callable[[np.ndarray], np.ndarray]
    images: Callable[[np.ndarray], ImageSet]

    @classmethod
    def of(cls, engine: "Engine", exclude: Iterable[int | str | Path] | None = None) -> "SearchSpace":
        """The gallery of an engine, without the excluded images: ids, keys or paths."""
        return cls(
            engine.index.metric,
            lambda vector, k: engine.query_vector(vector, k, exclude).ranking,
            lambda ids: engine.index.vectors(ids),
            engine.table.subset,
        )


def rerank(
    space: SearchSpace, vector: np.ndarray, k: int = 10, name: str = "none", image: np.ndarray | None = None
) -> Ranking:
    """The ``k`` best results of a query, re-ranked.

    If the query, or a copy of it, is in the gallery, exclude it (`SearchSpace.of`): otherwise all re-rankers but
    ``none`` would use it as a neighbor of its own results.

    Parameters
    ----------
    vector : float (dim,), the query's feature vector.
    name : one of `NAMES`.
    image : uint8 (height, width, 3) RGB, the query; only ``geometry`` uses it.

    Returns
    -------
    Ranking (1, k), padded if there are fewer results. Scores are the index's own for none, cosines for the two
    expansions, negated distances for k-reciprocal, the diffused similarity for diffusion, and agreeing pairs of
    keypoints for geometry. After the shortlist, each score is one below the previous score.

    Raises ValueError: an unsupported metric, or geometry without an image.
    """
    k, chosen = check_k(k), reranker(name)
    chosen.check(space.metric, image is not None)
    vector = np.asarray(vector)
    if name not in _REORDERINGS:
        if name != "none":
            vector = _expanded(space, vector, **chosen.settings)
        return _first(space.search(vector, k), k)
    found = space.search(vector, max(k, SHORTLIST))
    shortlist = found.head(SHORTLIST)
    if shortlist.k:
        shortlist = _REORDERINGS[name](space, shortlist, vector, image, **chosen.settings)
    return _first(_followed(shortlist, found.ids[0, SHORTLIST:]), k)


def rerank_each(
    space: SearchSpace, vectors: np.ndarray, k: int = 10, name: str = "none", images: Iterable[np.ndarray] | None = None
) -> Ranking:
    """`rerank` of several queries, float (q, dim), one by one: Ranking (q, k).

    images : the queries' pixels, one per vector; may be a generator.
    """
    pixels: Iterable[np.ndarray | None] = [None] * len(vectors) if images is None else images
    rows = [rerank(space, vector, k, name, image) for vector, image in zip(vectors, pixels, strict=True)]
    if not rows:
        return Ranking(np.empty((0, k), np.int64), np.empty((0, k)))
    return Ranking(np.concatenate([row.ids for row in rows]), np.concatenate([row.scores for row in rows]))


def _expanded(space: SearchSpace, vector: np.ndarray, top: int, alpha: float) -> np.ndarray:
    """The query mixed with its first results."""
    first = space.search(vector, top)
    if not first.k:
        return vector
    ids = first.ids[0]
    return expanded_queries(first, vector[None], space.vectors(ids), top, alpha, ids)[0]


def _by_reciprocal_neighbors(
    space: SearchSpace, shortlist: Ranking, vector: np.ndarray, _: object, k1: int, **settings: Any
) -> Ranking:
    ids = shortlist.ids[0]
    exact, vectors, near = _neighborhood(space, shortlist, vector, k1)
    return k_reciprocal(exact, vector[None], vectors, near, k1, **settings, ids=ids)


def _by_diffusion(
    space: SearchSpace, shortlist: Ranking, vector: np.ndarray, _: object, k: int, **settings: Any
) -> Ranking:
    exact, _, near = _neighborhood(space, shortlist, vector, k)
    return diffused(exact, near, k=k, **settings, ids=shortlist.ids[0])


def _neighborhood(
    space: SearchSpace, shortlist: Ranking, vector: np.ndarray, k: int
) -> tuple[Ranking, np.ndarray, Ranking]:
    """The shortlist by exact cosines, its vectors in the former order, and the ``k`` nearest others of each."""
    ids = shortlist.ids[0]
    vectors = space.vectors(ids)
    # An index of codes has approximate scores. These are the cosines of the vectors that it returns.
    exact = rescored(shortlist, vector[None], vectors, ids)
    near = ExactIndex("cosine").add(vectors, ids).search(vectors, min(k + 1, len(ids)))
    return exact, vectors, near


def _by_geometry(
    space: SearchSpace, shortlist: Ranking, _: object, image: np.ndarray, depth: int, ratio: float, longest: int
) -> Ranking:
    ids = shortlist.ids[0, :depth]
    # Unreadable files have no keypoints, after a warning. Keypoints are cached by content.
    gallery = extract_set(space.images(ids), longest=longest, progress=False)
    query = extract(shrink(image, longest))
    return verified(shortlist, [query], dict(zip(ids.tolist(), gallery, strict=True)), depth, ratio)


#: Name → function that re-ranks a shortlist (1, m).
_REORDERINGS: dict[str, Callable[..., Ranking]] = {
    "k-reciprocal": _by_reciprocal_neighbors,
    "diffusion": _by_diffusion,
    "geometry": _by_geometry,
}


def _followed(shortlist: Ranking, rest: np.ndarray) -> Ranking:
    """A shortlist (1, m), followed by further ids (r,) in their order."""
    if not len(rest):
        return shortlist
    # In float64, in which a step of one is never rounded away.
    scores = shortlist.scores[0, -1].astype(np.float64) - np.arange(1, len(rest) + 1)
    return Ranking(np.append(shortlist.ids, rest[None], axis=1), np.append(shortlist.scores, scores[None], axis=1))


def _first(ranking: Ranking, k: int) -> Ranking:
    """The first ``k`` of a ranking, padded if there are fewer."""
    if ranking.k >= k:
        return ranking.head(k)
    return Ranking(*keep(ranking.ids, ranking.scores, ranking.ids != PAD, k))
