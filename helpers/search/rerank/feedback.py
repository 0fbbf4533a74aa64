"""Relevance feedback: a person says which answers are good and which are bad, and the question moves accordingly.

J. J. Rocchio, Relevance feedback in information retrieval, in: G. Salton (ed.), The SMART retrieval system, 1971.
C. D. Manning, P. Raghavan, H. Schütze, Introduction to information retrieval, Cambridge University Press 2008, chapter
9, whose usual weights are taken here: 1 for the query, 0.75 for what is good, 0.15 for what is bad. There, negative
weights of words are set to zero; an image's vector may have negative numbers of its own, so they stay here.

From round to round, give the *first* query and all that was marked so far: to move what was moved already would count
the marks of the first rounds again and again.
"""

from collections.abc import Iterable

import numpy as np

from helpers.search.index import METRIC_NAMES, Index
from helpers.vectors import l2_normalize

ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15

#: A sum of this part of what went into it is rounding.
_NOTHING = 1e-6


def rocchio(
    query: np.ndarray,
    good: np.ndarray,
    bad: np.ndarray,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    metric: str = "cosine",
) -> np.ndarray:
    """The query moved towards the mean of the good answers and away from the mean of the bad ones (Rocchio 1971).

    For the cosine all vectors are brought to length one first, so that each mark counts alike, and so is the result.
    For a distance the weights are brought to a sum of one: the query stays among the vectors, where it would else run
    away from the origin, and from all of them.

    Parameters
    ----------
    query : float (dim,).
    good, bad : float (n, dim) and (m, dim), either of which may be empty. Without any mark the query comes back as it
        is.
    alpha, beta, gamma : weights of the query, of what is good and of what is bad; not negative.
    metric : of the index that is asked next.

    Returns
    -------
    float32 (dim,).

    Raises
    ------
    ValueError : vectors of different lengths, NaN or infinity, a weight that is negative, an unknown metric; or what is
        bad takes away all of the query, so that nothing is left to search for.
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
    moved = sum(weight * part.mean(axis=0) for weight, part in parts)
    # What the same marks could give at most, if nothing took anything away.
    most = sum(abs(weight) * np.linalg.norm(part, axis=1).max() for weight, part in parts)
    if cosine and np.linalg.norm(moved) <= _NOTHING * most:
        raise ValueError("the bad answers take away all of the query: nothing is left to search for. Mark a good one")
    if not cosine and not total > _NOTHING:
        raise ValueError(
            f"the bad answers weigh as much as all else ({gamma:g} against {total + gamma:g}): nothing is left to "
            "search for. Mark a good one, or give a smaller gamma"
        )
    return (moved / (np.linalg.norm(moved) if cosine else total)).astype(np.float32)


def refined(
    index: Index,
    query: np.ndarray,
    good: Iterable[int],
    bad: Iterable[int],
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
) -> np.ndarray:
    """`rocchio` with answers of an index, marked by their ids, for that index's metric: float32 (dim,).

    The vectors are those that the index keeps, so nothing is read or described. An id that is marked twice counts once.

    Raises
    ------
    KeyError : an id is not in the index.
    ValueError : an id is marked good and bad; and as for `rocchio`.
    """
    good, bad = (np.unique(np.array(list(ids), np.int64)) for ids in (good, bad))
    both = np.intersect1d(good, bad)
    if len(both):
        raise ValueError(f"answer {both[0]} is marked good and bad: choose one")
    vectors = index.vectors(np.concatenate([good, bad]))
    return rocchio(query, vectors[: len(good)], vectors[len(good) :], alpha, beta, gamma, index.metric)


def _marked(what: str, vectors: np.ndarray, dim: int) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    if not vectors.size:
        return np.empty((0, dim))
    if vectors.ndim != 2 or vectors.shape[1] != dim or not np.isfinite(vectors).all():
        raise ValueError(f"{what} answers must be finite numbers of shape (n, {dim}), got shape {vectors.shape}")
    return vectors
