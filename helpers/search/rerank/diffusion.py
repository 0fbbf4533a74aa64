"""Diffusion: the query's likeness spreads over the gallery's graph of nearest neighbors, along chains of images.

M. Donoser, H. Bischof, Diffusion processes for retrieval revisited, CVPR 2013. A. Iscen, G. Tolias, Y. Avrithis,
T. Furon, O. Chum, Efficient diffusion on region manifolds, CVPR 2017, whose steady state, solved as a system of linear
equations by conjugate gradients, is followed here; images are one vector each.
"""

from typing import TYPE_CHECKING

import numpy as np

from helpers.search.ranking import PAD, Ranking, rank
from helpers.search.rerank.neighbors import STEP_BYTES, Gallery, at_least_one, check_cosines

if TYPE_CHECKING:
    from scipy import sparse

#: The equations are solved when what is left of the right side is this part of it.
RESIDUAL = 1e-6
#: Steps at most.
_STEPS = 1000


def diffused(
    ranking: Ranking,
    neighbors: Ranking,
    top: int = 3,
    k: int = 10,
    alpha: float = 0.9,
    gamma: float = 3,
    ids: np.ndarray | None = None,
) -> Ranking:
    """The answers again, by what reaches them from the query's first ``top`` over the graph of the gallery.

    Two images are joined when each is among the ``k`` nearest others of the other, by cosine^gamma (0 where it is
    negative): the graph A. With S = D^-½ A D^-½ and y the query's cosine^gamma to its ``top`` first answers, the
    scores are f of (I - alpha S) f = y. An answer that nothing reaches keeps its former place behind the others, with
    the score cosine - 1.

    Only for protocols whose queries, and their copies, are not in the gallery: one that stands there is a link
    between its own answers.

    Parameters
    ----------
    ranking : scores are cosines, as an index of that metric gives.
    neighbors : the gallery asked of itself, ``index.search(gallery, k + 1)`` or more, scores likewise; row *i*
        answers the gallery's row *i*, whose own id is dropped here.
    k : below the number of images that belong together in the gallery, or the graph joins what does not.
    alpha : 0 … 1, both excluded: how far it spreads; near 1, far.
    gamma : above 0; the larger, the less weak links count.
    ids : int64 (n,), the gallery's ids row by row; None: row *i* is of id *i*.

    Returns
    -------
    Ranking of the same shape, float64: in each row the same ids.

    Memory grows with n · k, and with n for a query; queries go in blocks.

    Raises
    ------
    ValueError : scores that are no cosines, neighbors that are too few, ``top`` or ``k`` below 1, ``top`` beyond the
        ranking's columns, alpha or gamma out of range.
    KeyError : an answer or a neighbor is not in the gallery.
    ArithmeticError : alpha is so near 1 that the equations are not solved in a thousand steps.
    """
    at_least_one(top=top, k=k)
    if not 0 < alpha < 1 or not gamma > 0:
        raise ValueError(f"alpha must lie between 0 and 1, and gamma above 0; got {alpha} and {gamma}")
    check_cosines(ranking, "ranking")
    images = Gallery(len(neighbors), ids)
    rows = images.rows(ranking.ids)
    if ranking.k < min(top, len(images)):
        raise ValueError(f"top = {top} needs as many answers a query, the ranking has {ranking.k}: search for {top}")
    graph = neighbor_graph(neighbors, k, gamma, ids)

    scores = np.full(ranking.ids.shape, -np.inf)
    # Four arrays (n, block) at a time.
    step = max(1, STEP_BYTES // (32 * len(images)))
    for start in range(0, len(ranking), step):
        block = slice(start, start + step)
        found = rows[block] != PAD
        queries, columns = np.nonzero(found[:, :top])
        sources = np.zeros((len(images), len(found)))
        likeness = np.maximum(ranking.scores[block, :top][queries, columns], 0) ** gamma
        sources[rows[block][queries, columns], queries] = likeness
        reached = _solved(graph, alpha, sources)[rows[block], np.arange(len(found))[:, None]]
        scores[block] = np.where(reached > 0, reached, ranking.scores[block] - 1)
    return rank(ranking.ids, scores)


def neighbor_graph(
    neighbors: Ranking, k: int = 10, gamma: float = 3, ids: np.ndarray | None = None
) -> "sparse.csr_array":
    """float64 (n, n), sparse and symmetric: S of `diffused`, rows and columns as in ``neighbors``.

    An entry is cosine^gamma of two images that are among each other's ``k`` nearest, over the root of the product of
    what the two rows sum to. An image without such a neighbor has an empty row. Errors: `diffused`.
    """
    from scipy import sparse

    at_least_one(k=k)
    check_cosines(neighbors, "neighbors")
    n = len(neighbors)
    nearest, cosine = Gallery(n, ids).others(neighbors, k)
    there = nearest != PAD
    weights = np.maximum(cosine[there], 0) ** gamma
    links = sparse.csr_array((weights, (np.nonzero(there)[0], nearest[there])), shape=(n, n))
    # A link that one of the two lacks is 0 on that side.
    mutual = links.minimum(links.T).tocsr()
    degrees = np.asarray(mutual.sum(axis=1)).ravel()
    pairs = mutual.tocoo()
    mutual.data /= np.sqrt(degrees[pairs.row] * degrees[pairs.col])
    return mutual


def _solved(graph: "sparse.csr_array", alpha: float, sources: np.ndarray) -> np.ndarray:
    """f (n, b) of (I - alpha S) f = y for each column y of ``sources``, by conjugate gradients side by side.

    Hestenes & Stiefel 1952. The eigenvalues of S lie in -1 … 1, so those of the matrix in 1 - alpha … 1 + alpha, and
    about a hundred steps do for alpha 0.99 (Saad, Iterative methods for sparse linear systems, 2nd edition, 6.128).
    """
    found, left = np.zeros_like(sources), sources.copy()
    direction, squares = left.copy(), (left * left).sum(axis=0)
    enough = RESIDUAL**2 * squares
    for _ in range(_STEPS):
        working = squares > enough
        if not working.any():
            return found
        moved = direction - alpha * (graph @ direction)
        # Columns that are done stay as they are.
        length = np.divide(squares, (direction * moved).sum(axis=0), out=np.zeros_like(squares), where=working)
        found += length * direction
        left -= length * moved
        before, squares = squares, np.where(working, (left * left).sum(axis=0), squares)
        direction *= np.divide(squares, before, out=np.zeros_like(squares), where=working)
        direction += left
    raise ArithmeticError(f"diffusion did not settle in {_STEPS} steps: alpha {alpha} is too near 1")
