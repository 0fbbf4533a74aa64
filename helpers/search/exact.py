"""Exact search: every query against every vector, in chunks, by products of matrices."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.spatial.distance import cdist

from helpers.search.index import Index
from helpers.search.ranking import Ranking, rank

#: Scores (queries × vectors) that are in memory at a time: 64 MB of float32.
BLOCK = 16_000_000


class ExactIndex(Index):
    """All distances, nothing skipped: the reference for every other index.

    - ``cosine``: float32 product of vectors of length one; the zero vector has cosine 0 to everything.
    - ``euclidean``: negated distance by |a|² - 2ab + |b|². That difference of large numbers is taken in float64: in
      float32 a picture would be up to 3e-4 away from itself.
    - ``manhattan``: negated distance, pair by pair (it is no product), on all cores.

    Vectors that are equal to the last bit always tie, because each distinct vector is compared once; ties go by id.

    Parameters
    ----------
    chunk : vectors that are compared at a time; bounds memory, not the result.
    """

    scheme = "exact"

    def __init__(self, metric: str = "cosine", chunk: int | str = 8192):
        super().__init__(metric, **({} if int(chunk) == 8192 else {"chunk": int(chunk)}))
        self.chunk = int(chunk)
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self._changed()

    def _changed(self) -> None:
        self._prepared = None

    def _prepare(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct vectors, ready for the metric, and for each id which of them it has."""
        if self._prepared is None:
            vectors = _unit(self._vectors) if self.metric == "cosine" else self._vectors
            rows = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.dtype.itemsize * vectors.shape[1]))).ravel()
            _, first, owner = np.unique(rows, return_index=True, return_inverse=True)
            if len(first) == len(vectors):
                self._prepared = vectors, np.arange(len(vectors))
            else:
                self._prepared = vectors[first], owner.ravel()
        return self._prepared

    def _search(self, vectors: np.ndarray, k: int) -> Ranking:
        distinct, owner = self._prepare()
        if self.metric == "cosine":
            vectors = _unit(vectors)
        # Ids grouped by their vector, so that a chunk of vectors is a slice of ids.
        by_vector = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[by_vector], np.arange(len(distinct) + 1))
        step = max(1, BLOCK // min(len(self), self.chunk + k))
        parts = [
            self._search_block(vectors[start : start + step], k, distinct, owner, by_vector, bounds)
            for start in range(0, len(vectors), step)
        ]
        if not parts:
            return Ranking(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        return Ranking(np.concatenate([p.ids for p in parts]), np.concatenate([p.scores for p in parts]))

    def _search_block(self, queries, k, distinct, owner, by_vector, bounds) -> Ranking:
        best_ids = np.empty((len(queries), 0), np.int64)
        best_scores = np.empty((len(queries), 0), np.float32)
        for start in range(0, len(distinct), self.chunk):
            chunk = distinct[start : start + self.chunk]
            members = by_vector[bounds[start] : bounds[start + len(chunk)]]
            scores = self._scores(queries, chunk)[:, owner[members] - start]
            ids = np.broadcast_to(self._ids[members], scores.shape)
            best_ids, best_scores = _shortlist(
                np.concatenate([best_ids, ids], axis=1), np.concatenate([best_scores, scores], axis=1), k
            )
        return rank(best_ids, best_scores, k)

    def _scores(self, queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """float32 (q, n), higher is better."""
        if self.metric == "cosine":
            return queries @ vectors.T
        if self.metric == "euclidean":
            a, b = queries.astype(np.float64), vectors.astype(np.float64)
            lengths = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None]
            squares = lengths - 2 * (a @ b.T)
            # What is left of two equal vectors is rounding.
            squares[squares < 1e-13 * lengths] = 0
            return -np.sqrt(squares).astype(np.float32)
        with ThreadPoolExecutor() as pool:
            halves = np.array_split(np.arange(len(queries)), min(len(queries), pool._max_workers))
            found = pool.map(lambda rows: cdist(queries[rows], vectors, "cityblock"), halves)
            return -np.concatenate(list(found)).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _shortlist(ids: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """At least the best ``k`` of each row, all that tie with the last of them included; not sorted."""
    if scores.shape[1] <= 2 * k:
        return ids, scores
    worst = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    kept = scores >= worst
    width = int(kept.sum(axis=1).max())
    order = np.argsort(~kept, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
