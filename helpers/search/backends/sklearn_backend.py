"""scikit-learn's NearestNeighbors as an index: a reference for the exact one, and its trees."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from helpers.search.index import StoredIndex
from helpers.search.index.filters import Selection
from helpers.search.ranking import best_first

#: For a selection of at most this part of the gallery, scikit-learn is fitted to the selection.
_PART = 1 / 4


class SklearnIndex(StoredIndex):
    """Pedregosa et al. 2011, https://scikit-learn.org/stable/modules/neighbors.html.

    metric : ``cosine`` (0 with the zero vector), ``euclidean`` or ``manhattan``.
    algorithm : ``brute`` (the default), ``ball_tree``, ``kd_tree`` or ``auto``. There is no tree for the cosine.

    The first search after a change fits it to a float64 copy of the vectors. scikit-learn breaks ties for the last
    result by its own order. Therefore the search continues until a tie is complete, and the distances are computed
    again pair by pair. Equal vectors are in ascending order of id.
    """

    scheme = "sklearn"
    option_types = {"algorithm": str}

    def __init__(self, metric: str = "cosine", algorithm: str | None = None):
        super().__init__(metric, algorithm=algorithm)
        known = ("brute", "auto") if self.metric == "cosine" else ("brute", "ball_tree", "kd_tree", "auto")
        self.algorithm = algorithm or "brute"
        if self.algorithm not in known:
            raise ValueError(f"for {self.metric} the algorithm must be one of {', '.join(known)}; got {algorithm!r}")

    @property
    def nbytes(self) -> int:
        """Excludes what scikit-learn builds over its copy of the vectors."""
        return super().nbytes + (0 if self._fitted is None else self._fitted[1].nbytes)

    def _changed(self, kept: int) -> None:
        self._fitted: tuple[NearestNeighbors, np.ndarray] | None = None

    def _fit(self, vectors: np.ndarray) -> tuple[NearestNeighbors, np.ndarray]:
        vectors = vectors.astype(np.float64)
        return NearestNeighbors(algorithm=self.algorithm, metric=self.metric).fit(vectors), vectors

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        fitted = self._fitted
        if fitted is None:
            fitted = self._fitted = self._fit(self._vectors)
        return self._nearest(*fitted, self._ids, queries, k)

    def _search_selection(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        # A tree is built over all vectors; brute force can use a part of them.
        if self.algorithm != "brute" or selection.count > _PART * len(self):
            return super()._search_selection(queries, k, selection)
        return self._nearest(*self._fit(self._vectors[selection.rows]), selection.ids, queries, k)

    def _nearest(
        self, model: NearestNeighbors, vectors: np.ndarray, ids: np.ndarray, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        queries = queries.astype(np.float64)
        rows = _with_ties(model, len(vectors), queries, k, _noise(self.metric, queries, vectors))
        scores = np.stack([_score(self.metric, query, vectors[row]) for query, row in zip(queries, rows, strict=True)])
        return best_first(ids[rows], scores, k)


def _with_ties(model: NearestNeighbors, count: int, queries: np.ndarray, k: int, noise: np.ndarray) -> np.ndarray:
    """int64 (q, m): rows of the k nearest of ``count``, and of all at the same distance as the last of them."""
    fetch = k
    while fetch < count:
        fetch = min(count, max(fetch + 8, 2 * fetch if fetch > k else 0))
        distances, rows = model.kneighbors(queries, fetch)
        if (distances[:, -1] > distances[:, k - 1] + noise).all():
            return rows
    return np.broadcast_to(np.arange(count), (len(queries), count))


def _noise(metric: str, queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float64 (q,): the largest difference between the distances of two equal vectors in scikit-learn's arithmetic."""
    if metric == "cosine":
        scale = np.ones(len(queries))
    else:
        order = 2 if metric == "euclidean" else 1
        scale = np.linalg.norm(queries, order, axis=1) + np.linalg.norm(vectors, order, axis=1).max()
    # A root, because a Euclidean distance near zero is the root of a rounding error.
    return scale * np.sqrt(vectors.shape[1] * 2.0**-48)


def _score(metric: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float64 (n,): one query (d,) with vectors (n, d), by the definition."""
    if metric == "euclidean":
        return 0.0 - np.sqrt(((vectors - query) ** 2).sum(axis=1))
    if metric == "manhattan":
        return 0.0 - np.abs(vectors - query).sum(axis=1)
    lengths = np.sqrt((vectors**2).sum(axis=1)) * np.sqrt((query**2).sum())
    return (vectors * query).sum(axis=1) / np.where(lengths > 0, lengths, 1)
