"""Diffusion: the similarity to the query spreads over the gallery's graph of nearest neighbors.

M. Donoser, H. Bischof, Diffusion processes for retrieval revisited, CVPR 2013. A. Iscen, G. Tolias, Y. Avrithis,
T. Furon, O. Chum, Efficient diffusion on region manifolds, CVPR 2017: as there, the steady state is the solution of a
system of linear equations by conjugate gradients; here each image has one vector.
"""

from typing import TYPE_CHECKING

import numpy as np

from helpers.search.index import check_count
from helpers.search.ranking import PAD, Ranking, rank
from helpers.search.rerank.neighbors import Gallery, check_cosines

if TYPE_CHECKING:
    from scipy import sparse

#: The equations are solved when the residual is this part of the right side.
RESIDUAL = 1e-6
#: The eigenvalues of S lie in -1 … 1, so those of I - alpha S in 1 - alpha … 1 + alpha, and about a hundred steps of
#: conjugate gradients suffice for alpha 0.99 (Saad, Iterative methods for sparse linear systems, 2nd edition, 6.128).
_STEPS = 1000


def diffused(
    ranking: Ranking, neighbors: Ranking, top: int = 3, k: int = 10, alpha: float = 0.9, gamma: float = 3,
    ids: np.ndarray | None = None,
) -> Ranking:  # fmt: skip
    """Re-rank by the similarity that spreads from the query's first ``top`` results over the graph of the gallery.

    Two images are linked if each is among the ``k`` nearest others of the other, with the weight cosine^gamma (0 if it
    is negative): the graph A. With S = D^-½ A D^-½ and y the query's cosine^gamma to its ``top`` first results, the
    scores are f of (I - alpha S) f = y. Results that are not reached keep their order behind the others, with the score
    cosine - 1.

    Use it only if the queries, and their copies, are not in the gallery. A query in the gallery would link its own
    results to each other.

    Parameters
    ----------
    ranking : with cosines as scores, of at least ``top`` columns.
    neighbors : the results of the gallery in itself, ``index.search(gallery, k + 1)`` or more, with cosines; row *i*
        belongs to the gallery's row *i*, whose own id is dropped here.
    k : below the number of related images in the gallery; otherwise the graph links unrelated ones.
    alpha : between 0 and 1; near 1, the similarity spreads far.
    gamma : above 0; the larger, the less weight weak links have.
    ids : int64 (n,), the gallery's ids; by default row *i* has id *i*.

    Returns
    -------
    Ranking of the same shape, float64, with the same ids in each row. Memory grows with n · k.

    Raises ArithmeticError: alpha is so near 1 that a thousand steps do not solve the equations.
    """
    from scipy import sparse
    from scipy.sparse.linalg import cg

    check_count("top", top)
    check_count("k", k)
    if not 0 < alpha < 1 or not gamma > 0:
        raise ValueError(f"alpha must lie between 0 and 1, and gamma above 0; got {alpha} and {gamma}")
    check_cosines(ranking, "ranking")
    images = Gallery(len(neighbors), ids)
    rows = images.rows(ranking.ids)
    if ranking.k < min(top, len(images)):
        raise ValueError(f"top = {top} needs as many results per query, the ranking has {ranking.k}: search for {top}")
    system = sparse.eye_array(len(images)) - alpha * neighbor_graph(neighbors, k, gamma, ids)
    scores = np.empty(ranking.ids.shape)
    for row, results in enumerate(rows):
        sources = np.zeros(len(images))
        first = np.flatnonzero(results[:top] != PAD)
        sources[results[first]] = np.maximum(ranking.scores[row, first], 0) ** gamma
        spread, steps = cg(system, sources, rtol=RESIDUAL, maxiter=_STEPS)
        if steps:
            raise ArithmeticError(
                f"diffusion did not converge in {steps} steps: alpha {alpha} is too near 1, use a smaller one"
            )
        reached = spread[results]
        scores[row] = np.where(reached > 0, reached, ranking.scores[row] - 1)
    return rank(ranking.ids, scores)


def neighbor_graph(
    neighbors: Ranking, k: int = 10, gamma: float = 3, ids: np.ndarray | None = None
) -> "sparse.csr_array":
    """float64 (n, n), sparse and symmetric: S of `diffused`, rows and columns as in ``neighbors``.

    An entry is cosine^gamma of two images that are among each other's ``k`` nearest, over the root of the product of
    the sums of the two rows.
    """
    from scipy import sparse

    check_count("k", k)
    check_cosines(neighbors, "neighbors")
    n = len(neighbors)
    nearest, cosine = Gallery(n, ids).others(neighbors, k)
    used = nearest != PAD
    weights = np.maximum(cosine[used], 0) ** gamma
    links = sparse.csr_array((weights, (np.nonzero(used)[0], nearest[used])), shape=(n, n))
    # A link in one direction only becomes 0.
    mutual = links.minimum(links.T).tocsr()
    degrees = np.asarray(mutual.sum(axis=1)).ravel()
    pairs = mutual.tocoo()
    mutual.data /= np.sqrt(degrees[pairs.row] * degrees[pairs.col])
    return mutual
