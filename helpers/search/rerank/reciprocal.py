"""k-reciprocal re-ranking: related images share their nearest neighbors, in both directions.

Z. Zhong, L. Zheng, D. Cao, S. Li, Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017, and the
authors' code. The encoding of an image holds the weights of the images that are among its nearest and have it among
theirs. Two images are compared by the overlap of their encodings.

Here the gallery is encoded by itself, and each query is added alone, so its results do not depend on other queries. The
published code puts all queries and the gallery into one pool, in which queries affect each other.
"""

from typing import TYPE_CHECKING

import numpy as np

from helpers.search.index import check_count
from helpers.search.ranking import PAD, Ranking, rank
from helpers.search.rerank.neighbors import Gallery, check_own_cosines, check_vectors, cosines

if TYPE_CHECKING:
    from scipy import sparse

#: A candidate's neighbors are added if more than this part of them is in the set already.
_OVERLAP = 2 / 3
#: Images whose sets are expanded together.
_ROWS = 4096


def k_reciprocal(
    ranking: Ranking, queries: np.ndarray, gallery: np.ndarray, neighbors: Ranking, k1: int = 20, k2: int = 6,
    original_weight: float = 0.3, ids: np.ndarray | None = None,
) -> Ranking:  # fmt: skip
    """Re-rank by the Jaccard distance of k-reciprocal neighbors, mixed with the former distance.

    Distances are 1 - cosine, within 0 … 1 for vectors without negative numbers, as the published code scales them.
    Queries and their copies must not be in the gallery, where they would be neighbors of their own results.

    Parameters
    ----------
    ranking : at least ``k1`` results per query (or the whole gallery), with cosines as scores.
    queries : float (q, d), one per row of the ranking. gallery : float (n, d), the searched vectors.
    neighbors : the results of the gallery in itself, ``index.search(gallery, k1 + 1)`` or more, with cosines; row *i*
        belongs to row *i* of ``gallery``, whose own id is dropped here.
    k1 : neighbors that may be reciprocal. k2 : nearest images, including itself, over which an encoding is averaged
        ("local query expansion"); 1 for no average.
    original_weight : λ, the weight of the former distance, 0 … 1.
    ids : int64 (n,), the gallery's ids; by default row *i* has id *i*.

    Returns
    -------
    Ranking with the same ids in each row, float64: negated distances. Memory grows with n · k1, and with n per query.
    """
    if not 0 <= original_weight <= 1:
        raise ValueError(f"original_weight must lie between 0 and 1, got {original_weight}")
    queries, gallery = check_vectors(ranking, queries, gallery)
    _check_numbers(k1, k2)
    images = Gallery(len(gallery), ids)
    rows = images.rows(ranking.ids)
    nearest, cosine = images.others(neighbors, k1)
    # The least cosine among an image's k1 nearest; -inf if there are fewer.
    reach = cosine[:, -1]
    if ranking.k < min(k1, len(gallery)):
        raise ValueError(f"k1 = {k1} needs as many results per query, the ranking has {ranking.k}: search for {k1}")
    check_own_cosines(ranking, rows, queries, gallery, "ranking")
    check_own_cosines(neighbors, images.rows(neighbors.ids), gallery, gallery, "neighbors")

    half = _reciprocal(nearest, _half(k1))
    plain = _plain(gallery, nearest, half)
    encodings = _averages(nearest[:, : k2 - 1]) @ plain
    by_column, sums = encodings.tocsc(), np.asarray(encodings.sum(axis=1)).ravel()

    scores = np.full(ranking.ids.shape, -np.inf)
    for start in range(0, len(ranking), _ROWS):
        block = slice(start, start + _ROWS)
        first = rows[block, :k1]
        first = np.where(ranking.scores[block, :k1] >= reach[first], first, PAD)
        own = _query_encodings(first, rows[block, : k2 - 1], queries[block], gallery, half, plain)
        for row, results in enumerate(rows[block], start):
            results = results[results != PAD]
            jaccard = _jaccard(own[[row - start]], by_column, sums)[results]
            former = 1 - ranking.scores[row, : len(results)]
            scores[row, : len(results)] = -((1 - original_weight) * jaccard + original_weight * former)
    return rank(ranking.ids, scores)


def _query_encodings(
    first: np.ndarray, near: np.ndarray, queries: np.ndarray, gallery: np.ndarray, half: "sparse.csr_array",
    plain: "sparse.csr_array",
) -> "sparse.csr_array":  # fmt: skip
    """(b, n): the encodings of queries by their reciprocal results ``first``, averaged with those of ``near``."""
    from scipy import sparse

    own = _weighted(_expanded(_pattern(first, len(gallery)), half), queries, gallery)
    nearest = _pattern(near, len(gallery))
    return sparse.diags_array(1 / (1 + nearest.sum(axis=1))) @ (own + nearest @ plain)


def k_reciprocal_encodings(
    gallery: np.ndarray, neighbors: Ranking, k1: int = 20, k2: int = 6, ids: np.ndarray | None = None
) -> "sparse.csr_array":
    """float64 (n, n), sparse: the encoding of each gallery image, V of the paper; rows and columns as in ``gallery``.

    Row *i* has the weights, of sum 1, of the images in the reciprocal set of image *i*, averaged over it and its
    nearest ``k2`` - 1 others. Parameters: `k_reciprocal`.
    """
    _check_numbers(k1, k2)
    nearest, _ = Gallery(len(gallery), ids).others(neighbors, k1)
    plain = _plain(gallery, nearest, _reciprocal(nearest, _half(k1)))
    return _averages(nearest[:, : k2 - 1]) @ plain


def _check_numbers(k1: int, k2: int) -> None:
    check_count("k1", k1)
    check_count("k2", k2)
    if k2 > k1 + 1:
        raise ValueError(f"k2 counts the image itself and some of its k1 neighbors: at most {k1 + 1}, got {k2}")


def _half(k1: int) -> int:
    """Neighbors of a candidate, rounded as in the published code."""
    return int(np.around(k1 / 2))


def _pattern(rows: np.ndarray, n: int) -> "sparse.csr_array":
    """int64 (m, n), sparse: 1 in the columns of ``rows`` (m, k); padding is ignored."""
    from scipy import sparse

    where, _ = np.nonzero(rows != PAD)
    columns = rows[rows != PAD]
    return sparse.csr_array((np.ones(len(columns), np.int64), (where, columns)), shape=(len(rows), n))


def _with_self(nearest: np.ndarray) -> np.ndarray:
    return np.column_stack([np.arange(len(nearest)), nearest])


def _reciprocal(nearest: np.ndarray, k: int) -> "sparse.csr_array":
    """R(p, k) for the whole gallery: the image itself, and those of its ``k`` nearest that have it among theirs."""
    near = _pattern(_with_self(nearest[:, :k]), len(nearest))
    return near.multiply(near.T).tocsr()


def _expanded(sets: "sparse.csr_array", half: "sparse.csr_array") -> "sparse.csr_array":
    """R*(p): the sets (m, n), and the half-sized sets of members that are mostly inside (equation 4)."""
    shared = (sets @ half.T).multiply(sets).tocsr()
    sizes = np.asarray(half.sum(axis=1)).ravel()
    shared.data = (shared.data > _OVERLAP * sizes[shared.indices]).astype(np.int64)
    return sets + shared @ half


def _weighted(sets: "sparse.csr_array", vectors: np.ndarray, gallery: np.ndarray) -> "sparse.csr_array":
    """The sets (m, n) of ``vectors`` (m, d) as weights exp(-distance), of sum 1 (equation 7, scaled as in the code)."""
    from scipy import sparse

    pairs = sets.tocoo()
    weights = np.exp(cosines(vectors, gallery, (pairs.row, pairs.col)) - 1)
    sums = np.bincount(pairs.row, weights, minlength=len(vectors))
    return sparse.csr_array((weights / sums[pairs.row], (pairs.row, pairs.col)), shape=sets.shape)


def _plain(gallery: np.ndarray, nearest: np.ndarray, half: "sparse.csr_array") -> "sparse.csr_array":
    """The gallery's encodings before they are averaged, some rows at a time."""
    from scipy import sparse

    sets = _reciprocal(nearest, nearest.shape[1])
    parts = [
        _weighted(_expanded(sets[start : start + _ROWS], half), gallery[start : start + _ROWS], gallery)
        for start in range(0, len(gallery), _ROWS)
    ]
    return sparse.vstack(parts, format="csr")


def _averages(near: np.ndarray) -> "sparse.csr_array":
    """float64 (n, n), sparse: the mean over the image itself and the images ``near`` (n, k2 - 1)."""
    from scipy import sparse

    members = _pattern(_with_self(near), len(near))
    return (sparse.diags_array(1 / members.sum(axis=1)) @ members).tocsr()


def _jaccard(own: "sparse.csr_array", by_column: "sparse.csc_array", sums: np.ndarray) -> np.ndarray:
    """float64 (n,): the Jaccard distances of an encoding (1, n) to all, most of which it does not overlap."""
    columns = by_column[:, own.indices]
    least = np.minimum(columns.data, np.repeat(own.data, np.diff(columns.indptr)))
    shared = np.bincount(columns.indices, least, len(sums))
    union = own.sum() + sums - shared
    # Two images without neighbors have none in common.
    return 1 - np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
