"""Query expansion and database augmentation: a vector is mixed with its nearest ones, and results are scored again.

Expansion mixes results into the query, augmentation mixes neighbors into each gallery vector. Vectors are normalized to
length one first, and scores are cosines.

Expansion uses only the given ranking. It is valid under every protocol if ignored images were dropped from the ranking
before (`helpers.evaluation.runner.run` does). Augmentation mixes gallery images before any query. If the query or a
copy of it is in the gallery, as in leave one out, it becomes a part of the images around it, and so affects its own
ranking even after it is dropped. Augmentation needs a protocol whose queries, and their copies, are not in the gallery.

In all functions, ``ranking`` has the results of ``queries``, float (q, d), in ``gallery``, float (n, d); ``ids`` are
the gallery's ids, int64 (n,), by default 0, 1, 2 …; ``neighbors`` are the results of the gallery in itself,
``index.search(gallery, top + 1)`` or more, whose own ids are dropped here. Returned Rankings are float64 and have the
same ids in each row.
"""

import numpy as np

from helpers.features.vocabulary import one_thread
from helpers.search.index import check_count
from helpers.search.ranking import PAD, Ranking, rank
from helpers.search.rerank.neighbors import STEP_BYTES, Gallery, check_vectors, unit

#: Queries that are compared with the results of all of them together.
_QUERIES = 16


def average_query_expansion(
    ranking: Ranking, queries: np.ndarray, gallery: np.ndarray, top: int = 2, ids: np.ndarray | None = None
) -> Ranking:
    """Re-rank by the cosine to the mean of the query and its first ``top`` results.

    O. Chum et al., Total recall: automatic query expansion with a generative feature model for object retrieval,
    ICCV 2007. They use verified results only: apply `helpers.search.rerank.geometry.verified` first for that.
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
    """Re-rank by the cosine to the sum of the query and its ``top`` results, each times cosine^alpha.

    Similar results have more weight, so a large ``top`` does less harm than in the mean, which is alpha 0.

    F. Radenović, G. Tolias, O. Chum, Fine-tuning CNN image retrieval with no human annotation, PAMI 2019.
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
    """float32 (q, d), of length one: the queries of `alpha_query_expansion`, for a second search of an index.

    The second search finds images that the first did not, while re-ranking keeps the set of results.
    """
    check_count("top", top)
    queries, gallery = check_vectors(ranking, queries, gallery)
    rows = Gallery(len(gallery), ids).rows(ranking.ids[:, :top])
    return _mixed(queries, gallery, rows, alpha)


def augmented(
    gallery: np.ndarray, neighbors: Ranking, top: int = 5, alpha: float = 3, ids: np.ndarray | None = None
) -> np.ndarray:
    """float32 (n, d), of length one: each gallery vector plus its ``top`` nearest others, each times cosine^alpha.

    It is computed once, so a search costs no more than before.

    P. Turcot, D. Lowe, Better matching with fewer features, ICCV workshop 2009. R. Arandjelović, A. Zisserman, Three
    things everyone should know to improve object retrieval, CVPR 2012.
    """
    check_count("top", top)
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
    """Re-rank by the query's cosine to the vectors of `augmented`."""
    check_vectors(ranking, queries, gallery)
    return rescored(ranking, queries, augmented(gallery, neighbors, top, alpha, ids), ids)


def rescored(ranking: Ranking, queries: np.ndarray, gallery: np.ndarray, ids: np.ndarray | None = None) -> Ranking:
    """Re-rank by the cosine to the query; equal scores by id. The score of a zero vector is 0."""
    queries, gallery = check_vectors(ranking, queries, gallery)
    rows = Gallery(len(gallery), ids).rows(ranking.ids)
    scores = np.full(ranking.ids.shape, -np.inf)
    step = max(1, STEP_BYTES // (8 * max(1, gallery.shape[1])))
    for start in range(0, len(ranking), _QUERIES):
        block = slice(start, start + _QUERIES)
        units = unit(queries[block])
        used = rows[block] != PAD
        results, positions = np.unique(rows[block][used], return_inverse=True)
        found = np.empty((len(units), len(results)))
        for first in range(0, len(results), step):
            vectors = unit(gallery[results[first : first + step]])
            # For these small products, threads would wait longer than they work.
            with one_thread():
                found[:, first : first + step] = units @ vectors.T
        scores[block][used] = np.clip(found[np.nonzero(used)[0], positions], -1, 1)
    return rank(ranking.ids, scores)


def _mixed(vectors: np.ndarray, gallery: np.ndarray, rows: np.ndarray, alpha: float) -> np.ndarray:
    """float32 (m, d): ``vectors`` plus the gallery's ``rows`` (m, k) times cosine^alpha; padding has no weight."""
    if not alpha >= 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    mixed = np.empty(vectors.shape, np.float32)
    step = max(1, STEP_BYTES // (8 * max(1, rows.shape[1] * gallery.shape[1])))
    for start in range(0, len(vectors), step):
        block = slice(start, start + step)
        own, used = unit(vectors[block]), rows[block]
        near = unit(gallery[used[used != PAD]])
        owners = np.nonzero(used != PAD)[0]
        cosine = np.einsum("ij,ij->i", own[owners], near)
        # Negative cosines get no weight for any alpha above 0; for alpha 0 the weight is 0⁰ = 1, as in the mean.
        near *= (np.maximum(cosine, 0) ** alpha)[:, None]
        np.add.at(own, owners, near)
        mixed[block] = unit(own)
    return mixed
