"""Query expansion and database augmentation: a vector is mixed with its nearest ones, and answers are scored again.

Expansion takes what was found into the question, augmentation what lies near each gallery image into its answer.
Vectors are brought to length one before they are mixed, and scores are cosines.

Expansion asks nothing but the ranking that it is given, so it is honest under every protocol, if what never counts was
dropped from the ranking before (`helpers.evaluation.runner.run` does). Augmentation mixes gallery images before
anybody asks: where the query or a copy of it stands in the gallery, as under leave one out, it is mixed into the
images around it, and has a part in its own ranking, which dropping it from the ranking does not undo. It needs a
protocol whose queries, and their copies, are not in the gallery.
"""

import numpy as np

from helpers.features.vocabulary import one_thread
from helpers.search.ranking import PAD, Ranking, rank
from helpers.search.rerank.neighbors import STEP_BYTES, Gallery, at_least_one, check_asked, unit

#: Queries that are compared with the answers of all of them together.
_QUERIES = 16


def average_query_expansion(
    ranking: Ranking, queries: np.ndarray, gallery: np.ndarray, top: int = 2, ids: np.ndarray | None = None
) -> Ranking:
    """The answers again, by their cosine to the mean of the query and its first ``top`` answers (Chum et al. 2007).

    Chum et al. take verified answers only; `helpers.search.rerank.geometry.verified` before this one does so.
    Parameters, result and errors are those of `alpha_query_expansion`, of which this is the case of alpha 0.

    O. Chum et al., Total recall: automatic query expansion with a generative feature model for object retrieval,
    ICCV 2007.
    """
    return alpha_query_expansion(ranking, queries, gallery, top, 0, ids)


def alpha_query_expansion(
    ranking: Ranking,
    queries: np.ndarray,
    gallery: np.ndarray,
    top: int = 5,
    alpha: float = 3,
    ids: np.ndarray | None = None,
) -> Ranking:
    """The answers again, by their cosine to the sum of the query and its ``top`` answers, each times cosine^alpha.

    Near answers weigh more, so a large ``top`` does less harm than in the mean. Safe under every protocol if the
    ranking holds nothing that never counts.

    F. Radenović, G. Tolias, O. Chum, Fine-tuning CNN image retrieval with no human annotation, PAMI 2019.

    Parameters
    ----------
    queries : float (q, d), one a row of the ranking.
    gallery : float (n, d), what was searched.
    top : answers that are mixed in; a row that has fewer mixes in those. alpha : 0 is the mean.
    ids : int64 (n,), the gallery's ids row by row; None: row *i* is of id *i*.

    Returns
    -------
    Ranking of the same shape, float64: in each row the same ids in another order.

    Raises
    ------
    ValueError : not one query a row, vectors of two lengths, with NaN or infinity, an empty gallery, ``top`` below 1,
        ``alpha`` negative.
    KeyError : an answer is not in the gallery.
    """
    return rescored(ranking, expanded_queries(ranking, queries, gallery, top, alpha, ids), gallery, ids)


def expanded_queries(
    ranking: Ranking,
    queries: np.ndarray,
    gallery: np.ndarray,
    top: int = 5,
    alpha: float = 3,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """float32 (q, d), of length one: the queries of `alpha_query_expansion`, to search an index with once more.

    That second search finds what the first did not; the ranking alone can only be put into another order.
    Parameters and errors are those of `alpha_query_expansion`.
    """
    at_least_one(top=top)
    queries, gallery = check_asked(ranking, queries, gallery)
    rows = Gallery(len(gallery), ids).rows(ranking.ids[:, :top])
    return _mixed(queries, gallery, rows, alpha)


def augmented(
    gallery: np.ndarray, neighbors: Ranking, top: int = 5, alpha: float = 3, ids: np.ndarray | None = None
) -> np.ndarray:
    """float32 (n, d), of length one: each gallery vector plus its ``top`` nearest others, each times cosine^alpha.

    The gallery's half of query expansion (Turcot & Lowe 2009; Arandjelović & Zisserman 2012); computed once, it costs
    a search nothing. Only for protocols whose queries are not in the gallery, see the head of this file.

    P. Turcot, D. Lowe, Better matching with fewer features, ICCV workshop 2009. R. Arandjelović, A. Zisserman, Three
    things everyone should know to improve object retrieval, CVPR 2012.

    Parameters
    ----------
    gallery : float (n, d).
    neighbors : the gallery asked of itself, ``index.search(gallery, top + 1)`` or more; row *i* answers row *i*
        of ``gallery``, whose own id is dropped here.
    top : others that are mixed in. alpha : 0 is the mean.
    ids : int64 (n,), the gallery's ids row by row; None: row *i* is of id *i*.

    Raises
    ------
    ValueError : not one row a gallery vector, too few columns for ``top`` others, NaN or infinity, ``top`` below 1,
        ``alpha`` negative.
    KeyError : a neighbor is not in the gallery.
    """
    at_least_one(top=top)
    gallery = np.asarray(gallery)
    if gallery.ndim != 2:
        raise ValueError(f"the gallery must have shape (n, d), got {gallery.shape}")
    return _mixed(gallery, gallery, Gallery(len(gallery), ids).others(neighbors, top)[0], alpha)


def database_augmentation(
    ranking: Ranking,
    queries: np.ndarray,
    gallery: np.ndarray,
    neighbors: Ranking,
    top: int = 5,
    alpha: float = 3,
    ids: np.ndarray | None = None,
) -> Ranking:
    """The answers again, by the query's cosine to their vectors as `augmented` mixes them.

    Only for protocols whose queries are not in the gallery, see the head of this file. Parameters and errors are
    those of `alpha_query_expansion` and `augmented`.
    """
    check_asked(ranking, queries, gallery)
    return rescored(ranking, queries, augmented(gallery, neighbors, top, alpha, ids), ids)


def rescored(ranking: Ranking, queries: np.ndarray, gallery: np.ndarray, ids: np.ndarray | None = None) -> Ranking:
    """The answers again, by the cosine of their vectors to the query's; equal ones by id.

    A zero vector has no direction; its score is 0. Parameters and errors are those of `alpha_query_expansion`.
    """
    queries, gallery = check_asked(ranking, queries, gallery)
    rows = Gallery(len(gallery), ids).rows(ranking.ids)
    scores = np.full(ranking.ids.shape, -np.inf)
    step = max(1, STEP_BYTES // (8 * max(1, gallery.shape[1])))
    for start in range(0, len(ranking), _QUERIES):
        block = slice(start, start + _QUERIES)
        asking = unit(queries[block])
        there = rows[block] != PAD
        results, places = np.unique(rows[block][there], return_inverse=True)
        found = np.empty((len(asking), len(results)))
        for first in range(0, len(results), step):
            vectors = unit(gallery[results[first : first + step]])
            # Small products one after the other: threads would wait for each other longer than they work.
            with one_thread():
                found[:, first : first + step] = asking @ vectors.T
        scores[block][there] = np.clip(found[np.nonzero(there)[0], places], -1, 1)
    return rank(ranking.ids, scores)


def _mixed(vectors: np.ndarray, gallery: np.ndarray, rows: np.ndarray, alpha: float) -> np.ndarray:
    """float32 (m, d): ``vectors`` plus the gallery's ``rows`` (m, k) times cosine^alpha; padding weighs nothing."""
    if not alpha >= 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    mixed = np.empty(vectors.shape, np.float32)
    step = max(1, STEP_BYTES // (8 * max(1, rows.shape[1] * gallery.shape[1])))
    for start in range(0, len(vectors), step):
        block = slice(start, start + step)
        own, used = unit(vectors[block]), rows[block]
        near = unit(gallery[used[used != PAD]])
        asked = np.nonzero(used != PAD)[0]
        cosine = np.einsum("ij,ij->i", own[asked], near)
        # What points away from the query has nothing to add, whatever the power; but 0⁰ is 1, as the mean wants it.
        near *= (np.maximum(cosine, 0) ** alpha)[:, None]
        np.add.at(own, asked, near)
        mixed[block] = unit(own)
    return mixed
