"""scikit-learn's NearestNeighbors as an index: the second opinion on the exact one, and its trees."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from helpers.search.index import Index
from helpers.search.ranking import Ranking, rank


class SklearnIndex(Index):
    """Pedregosa et al. 2011, https://scikit-learn.org/stable/modules/neighbors.html.

    Parameters
    ----------
    algorithm : ``brute``, ``ball_tree``, ``kd_tree`` or ``auto``; cosine can only be searched by brute force.

    Of vectors that tie for the last place scikit-learn keeps whichever it met; those it returns are ordered by id.
    """

    scheme = "sklearn"

    def __init__(self, metric: str = "cosine", algorithm: str = "brute"):
        super().__init__(metric, **({} if algorithm == "brute" else {"algorithm": algorithm}))
        known = ("brute",) if metric == "cosine" else ("brute", "ball_tree", "kd_tree", "auto")
        if algorithm not in known:
            raise ValueError(f"for {metric} the algorithm must be {' or '.join(known)}; got {algorithm!r}")
        self.algorithm = algorithm
        self._changed()

    def _changed(self) -> None:
        self._fitted: NearestNeighbors | None = None

    def _search(self, vectors: np.ndarray, k: int) -> Ranking:
        if self._fitted is None:
            self._fitted = NearestNeighbors(algorithm=self.algorithm, metric=self.metric).fit(self._vectors)
        distances, rows = self._fitted.kneighbors(vectors, n_neighbors=k)
        return rank(self._ids[rows], 1 - distances if self.metric == "cosine" else -distances)
