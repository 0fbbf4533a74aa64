"""Relevance feedback: a person marks good and bad results, and the query vector moves accordingly.

J. J. Rocchio, Relevance feedback in information retrieval, in: G. Salton (ed.), The SMART retrieval system, 1971.
C. D. Manning, P. Raghavan, H. Schütze, Introduction to information retrieval, Cambridge University Press 2008, chapter
9, is the source of the default weights: 1 for the query, 0.75 for good and 0.15 for bad results. There, negative
components are set to zero; here they are kept, because an image's feature vector may have negative components.

In every round, give the *first* query and all marks so far: moving a query again would count earlier marks repeatedly.
"""

import numpy as np

from helpers.search.index import METRIC_NAMES
from helpers.vectors import l2_normalize

#: Weights of good and of bad results; the query has weight 1.
GOOD, BAD = 0.75, 0.15
#: A sum below this part of its terms is a rounding error.
_NOTHING = 1e-6


def rocchio(
    query: np.ndarray,
    good: np.ndarray,
    bad: np.ndarray,
    alpha: float = 1.0,
    beta: float = GOOD,
    gamma: float = BAD,
    metric: str = "cosine",
) -> np.ndarray:
    """The query moved towards the mean of the good results and away from the mean of the bad ones: float32 (dim,).

    For the cosine, all vectors are normalized first, so that each mark has the same weight, and so is the result. For a
    distance, the weights are divided by their sum: otherwise the query would move away from the origin, and from all
    vectors.

    Parameters
    ----------
    query : float (dim,).
    good, bad : float (n, dim) and (m, dim); may be empty. Without a mark, the query is returned unchanged.
    alpha, beta, gamma : weights of the query, of good and of bad results; not negative.
    metric : of the index.

    Raises ValueError: the bad results cancel the query.
    """
    query = np.asarray(query, np.float64)
    if query.ndim != 1 or not query.size or not np.isfinite(query).all():
        raise ValueError(f"the query must be finite numbers of shape (dim,), got shape {query.shape}")
    good, bad = _marked("good", good, len(query)), _marked("bad", bad, len(query))
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not 0 <= weight < np.inf:
            raise ValueError(f"{name} must be a number that is not negative, got {weight}")
    if metric not in METRIC_NAMES:
        raise ValueError(f"there is no metric {metric!r}; there are: {', '.join(METRIC_NAMES)}")
    if not len(good) and not len(bad):
        return query.astype(np.float32)
    cosine = METRIC_NAMES[metric] == "cosine"
    parts = [(alpha, query[None]), (beta, good), (-gamma, bad)]
    parts = [(weight, l2_normalize(part) if cosine else part) for weight, part in parts if len(part)]
    total = sum(weight for weight, _ in parts)
    moved = np.sum([weight * part.mean(axis=0) for weight, part in parts], axis=0)
    # The length without cancellation, at most.
    most = sum(abs(weight) * np.linalg.norm(part, axis=1).max() for weight, part in parts)
    if cosine and np.linalg.norm(moved) <= _NOTHING * most:
        raise ValueError("the bad results cancel the query: nothing is left to search for. Mark a good one")
    if not cosine and not total > _NOTHING:
        raise ValueError(
            f"the bad results weigh as much as everything else ({gamma:g} against {total + gamma:g}): nothing is left "
            "to search for. Mark a good one, or give a smaller gamma"
        )
    return (moved / (np.linalg.norm(moved) if cosine else total)).astype(np.float32)


def _marked(what: str, vectors: np.ndarray, dim: int) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    if not vectors.size:
        return np.empty((0, dim))
    if vectors.ndim != 2 or vectors.shape[1] != dim or not np.isfinite(vectors).all():
        raise ValueError(f"{what} results must be finite numbers of shape (n, {dim}), got shape {vectors.shape}")
    return vectors
