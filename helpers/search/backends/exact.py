"""The exact index: it compares every vector with every query, in chunks, and equal scores are exactly equal.

Two searches of the same vectors return the same scores to the last bit, however the work was divided. A float matrix
product depends on the order of its sums, which BLAS chooses by the shape of the matrices. Two copies of one image in
different chunks would get slightly different scores, in random order. Therefore

- returned scores come from arithmetic that does not depend on shape or order (`_Cosine.scores`, `_distances`);
- the fast float32 product only rules out vectors that cannot be among the best, by a proven bound on its error.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np

from helpers.search.index import StoredIndex
from helpers.search.index.filters import Selection
from helpers.search.ranking import PAD
from helpers.vectors import round_to_grid

#: Bytes that the arrays of one step may take.
_STEP_BYTES = 32 * 2**20
#: Queries that are compared together, at most.
_QUERIES = 256
#: Bytes of products, bounds and comparisons for one query and one vector.
_BOUND_BYTES = 20
#: For k above this part of the gallery, all scores are sorted.
_DEEP = 1 / 8
#: For a selection of at most this part of the gallery, only the selection is scored.
_PART = 1 / 4


class ExactIndex(StoredIndex):
    """Compares with everything: slow for millions of vectors, but without error.

    metric : ``cosine`` — vectors are stored with length one; the score with the zero vector is 0.
        ``euclidean``, ``manhattan`` — the negated distance.
    chunk : gallery vectors that are compared at a time; by default as many as fit 32 MiB. A step takes up to about
        12 · chunk · dim bytes in addition to the vectors. It does not affect the results.

    Scores are float64. Equal vectors have equal scores, and are ranked in ascending order of id.
    """

    scheme = "exact"
    option_types = {"chunk": int}
    #: Squared lengths of the first vectors.
    _squares: np.ndarray | None = None

    def __init__(self, metric: str = "cosine", chunk: int | None = None):
        super().__init__(metric, chunk=chunk)
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self._chunk = chunk
        self._scorer = _SCORERS[self.metric]()

    @property
    def nbytes(self) -> int:
        return super().nbytes + (0 if self._squares is None else self._squares.nbytes)

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        return self._scorer.prepare(vectors)

    def _changed(self, kept: int) -> None:
        self._squares = None if self._squares is None else self._squares[:kept]

    def _search(self, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """mask : bool (n,), the rows that may be found; at least ``k`` of them."""
        queries = self._scorer.prepare(queries)
        shallow = k < self._few(queries) * len(self) and _bounds_hold(queries, self._square_lengths())
        search = self._search_by_bounds if shallow else self._search_all
        ids = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k))
        step = self._step(_QUERIES) if shallow else min(self._step(_QUERIES), _rows(8 * len(self), 2**30))
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            ids[block], scores[block] = search(queries[block], k, mask)
        return ids, scores

    def _search_selection(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        if selection.count > _PART * len(self):
            return self._search(queries, k, selection.mask)
        best = _Best(len(queries), k)
        step = min(self._chunk or 2**16, self._step(2**16))
        for start in range(0, selection.count, step):
            rows = selection.rows[start : start + step]
            part = ExactIndex(self.metric, self._chunk)
            part._ids, part._vectors, part.dim = self._ids[rows], self._vectors[rows], self.dim
            ids, scores = part._search(queries, min(k, len(rows)))
            best.merge(np.repeat(np.arange(len(queries)), ids.shape[1]), ids.ravel(), scores.ravel())
        return best.ids, best.scores

    def _search_by_bounds(self, queries: np.ndarray, k: int, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Rules out most vectors by the fast product and the best scores so far, and scores the rest."""
        best, squares = _Best(len(queries), k), self._square_lengths()
        # Wide steps for few queries, so that their candidates are scored in few calls.
        wide = self._chunk or max(self._step(2**12), _rows(_BOUND_BYTES * len(queries), len(self)))
        for start, gallery in self._chunks(wide):
            part = slice(start, start + len(gallery))
            lower, upper = self._scorer.bounds(queries, gallery, squares[part])
            floor = self._scorer.as_bound(queries, best.scores[:, -1])
            empty = np.isneginf(floor)
            if empty.any() and k <= len(gallery):
                low = lower[empty]
                if mask is not None:
                    low[:, ~mask[part]] = -np.inf
                floor[empty] = _floor(low, k)
            rows, columns = np.nonzero(upper >= floor[:, None])
            if mask is not None:
                kept = mask[part][columns]
                rows, columns = rows[kept], columns[kept]
            best.merge(rows, self._ids[part][columns], self._score_pairs(queries, gallery, rows, columns))
        return best.ids, best.scores

    def _search_all(self, queries: np.ndarray, k: int, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Scores all vectors and sorts once."""
        scores = np.empty((len(queries), len(self)))
        for start, gallery in self._chunks():
            scores[:, start : start + len(gallery)] = self._scorer.scores(queries, gallery)
        if mask is not None:
            scores[:, ~mask] = -np.inf
        if k < _DEEP * len(self):
            best = _Best(len(queries), k)
            rows, columns = np.nonzero(scores >= np.partition(scores, -k, axis=1)[:, [-k]])
            best.merge(rows, self._ids[columns], scores[rows, columns])
            return best.ids, best.scores
        # Columns are in the order of ids, which a stable sort keeps for equal scores.
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return self._ids[order], np.take_along_axis(scores, order, axis=1)

    def _few(self, queries: np.ndarray) -> float:
        """The part of all pairs up to which scoring single pairs is faster than scoring all.

        For many queries, a matrix product is faster in spite of unneeded scores.
        """
        return self._scorer.few if len(queries) > 1 else min(1 / 4, 16 * self._scorer.few)

    def _score_pairs(
        self, queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """float64 (m,): query ``rows[i]`` with gallery vector ``columns[i]``; rows are ascending."""
        scores, step = np.empty(len(rows)), self._chunk or self._step(2**12)
        if len(rows) > self._few(queries) * len(queries) * len(gallery):
            for start in range(0, len(gallery), step):
                here = (columns >= start) & (columns < start + step)
                part = self._scorer.scores(queries, gallery[start : start + step])
                scores[here] = part[rows[here], columns[here] - start]
            return scores
        ends = np.searchsorted(rows, np.arange(len(queries) + 1))
        for row, (start, stop) in enumerate(pairwise(ends.tolist())):
            for first in range(start, stop, step):
                some = slice(first, min(first + step, stop))
                scores[some] = self._scorer.scores(queries[row : row + 1], gallery[columns[some]])[0]
        return scores

    def _square_lengths(self) -> np.ndarray:
        """float64 (n,), computed once for each vector."""
        squares = np.empty(0) if self._squares is None else self._squares
        if len(squares) < len(self):
            new = [_squares(gallery) for _, gallery in self._chunks(first=len(squares))]
            squares = self._squares = np.concatenate([squares, *new])
        return squares

    def _chunks(self, step: int | None = None, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        step = step or self._chunk or self._step(2**12)
        for start in range(first, len(self), step):
            yield start, self._vectors[start : start + step]

    def _step(self, most: int) -> int:
        return _rows(8 * self._vectors.shape[1], most)


class _Cosine:
    """The cosine as a matrix product without rounding.

    Components of unit vectors are rounded to multiples of 2⁻²⁶ (finer than float32 above 1/8; the angle changes by
    about 1e-8). Products are then multiples of 2⁻⁵² and, by the Cauchy-Schwarz inequality, no partial sum of them
    reaches 2: each fits the 53 bits of a float64. A sum without rounding is the same in any order.
    """

    #: The part of the pairs up to which scoring them one by one is faster than all in a block.
    few: float = 1 / 64

    def prepare(self, vectors: np.ndarray) -> np.ndarray:
        """float32 (n, dim) of length one on the grid; zero stays zero."""
        unit = np.empty_like(vectors)
        step = _rows(8 * vectors.shape[1], 2**14)
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step].astype(np.float64)
            length = np.sqrt((part * part).sum(axis=1, keepdims=True))
            part /= np.where(length > 0, length, 1)
            unit[start : start + step] = round_to_grid(part)
        return unit

    def scores(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        queries, gallery = queries.astype(np.float64), gallery.astype(np.float64)
        # Rounding to the grid made the lengths slightly different from one.
        lengths = np.outer(_lengths(queries), _lengths(gallery))
        return np.clip(queries @ gallery.T / lengths, -1, 1) + 0.0  # no -0.0

    def bounds(self, queries: np.ndarray, gallery: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        products = queries @ gallery.T
        error = np.float32(_relative_error(queries.shape[1]))
        return products - error, products + error

    def as_bound(self, queries: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return scores.astype(np.float32)


class _Distance:
    """The distance by its definition, after |q|² - 2qg + |g|² has ruled out most vectors, if it is Euclidean.

    That formula subtracts large numbers, so it is inaccurate for close vectors.
    Bounds are of 2qg - |g|², which falls as the distance grows.

    metric : of SciPy. few : as in `_Cosine`; 0 for other distances, for which the bounds are not used.
    """

    def __init__(self, metric: str, few: float):
        self.metric, self.few = metric, few

    def prepare(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    def scores(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        return 0.0 - _distances(queries, gallery, self.metric)

    def bounds(self, queries: np.ndarray, gallery: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = queries @ gallery.T
        near *= 2
        near -= squares.astype(np.float32)
        # The error is at most e·(|q| + |g|)², which is at most 2e·|q|² + 2e·|g|².
        error = 2 * _relative_error(queries.shape[1])
        # Products below 2⁻¹²⁶ may underflow.
        of_queries = (error * _squares(queries) + queries.shape[1] * 2.0**-124).astype(np.float32)[:, None]
        of_gallery = (error * squares).astype(np.float32)
        return near - of_gallery - of_queries, near + of_gallery + of_queries

    def as_bound(self, queries: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return (_squares(queries) - scores * scores).astype(np.float32)


_SCORERS: dict[str, Callable[[], _Cosine | _Distance]] = {
    "cosine": _Cosine,
    "euclidean": partial(_Distance, "euclidean", 1 / 8),
    "manhattan": partial(_Distance, "cityblock", 0),
}


class _Best:
    """The best k results so far of q queries: ids and scores (q, k), padded."""

    def __init__(self, queries: int, k: int):
        self.ids = np.full((queries, k), PAD, np.int64)
        self.scores = np.full((queries, k), -np.inf)

    def merge(self, rows: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> None:
        """Add results: ``ids[i]`` with ``scores[i]`` for query ``rows[i]``."""
        queries, k = self.ids.shape
        if not len(rows):
            return
        if queries == 1:
            self._merge_one(ids, scores)
            return
        held = self.ids != PAD
        rows = np.concatenate([np.nonzero(held)[0], rows])
        ids = np.concatenate([self.ids[held], ids])
        scores = np.concatenate([self.scores[held], scores])
        order = np.lexsort((ids, -scores, rows))
        rows, ids, scores = rows[order], ids[order], scores[order]
        column = np.arange(len(rows)) - np.searchsorted(rows, np.arange(queries))[rows]
        kept = column < k
        self.ids[rows[kept], column[kept]] = ids[kept]
        self.scores[rows[kept], column[kept]] = scores[kept]

    def _merge_one(self, ids: np.ndarray, scores: np.ndarray) -> None:
        """`merge` for a single query, with fewer calls: they take longer than the sorting."""
        if self.ids[0, 0] != PAD:
            held = self.ids[0] != PAD
            ids, scores = np.concatenate([self.ids[0, held], ids]), np.concatenate([self.scores[0, held], scores])
        order = np.lexsort((ids, -scores))[: self.ids.shape[1]]
        self.ids[0, : len(order)], self.scores[0, : len(order)] = ids[order], scores[order]


def _relative_error(dim: int) -> float:
    """The largest error of a float32 product of two vectors, over the product of their lengths.

    ``d·u / (1 - d·u)`` with u = 2⁻²⁴, whatever the order of the sum (Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd edition, section 3.1). The square root and the 16 allow for later operations on the product.
    """
    error = (dim + dim**0.5 + 16) * 2.0**-24
    return error / (1 - error)


def _floor(lower: np.ndarray, k: int) -> np.ndarray:
    """float32 (q,): a bound that k of each row of (q, n) reach; what is below it is not among the best k.

    Sorts only the best of each group of columns if there are many more groups than k: k of these are k columns.
    """
    width = max(1, min(64, lower.shape[1] // (16 * k)))
    whole = lower.shape[1] - lower.shape[1] % width
    best = lower[:, :whole].reshape(len(lower), -1, width).max(axis=2)
    return np.partition(best, -k, axis=1)[:, -k]


def _bounds_hold(queries: np.ndarray, squares: np.ndarray) -> bool:
    """Whether no product can overflow, and `_relative_error` is far from its pole."""
    return queries.shape[1] <= 2**20 and max(squares.max(), _squares(queries).max()) < 1e30


def _distances(queries: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    """float64 (q, n). SciPy sums the numbers of each pair in order, so no distance depends on other pairs."""
    from scipy.spatial.distance import cdist

    queries = queries.astype(np.float64)
    cores = os.cpu_count() or 1
    # Starting a thread takes as long as about a hundred thousand differences.
    if cores == 1 or queries.size * len(gallery) < 2e6:
        return cdist(queries, gallery.astype(np.float64), metric)
    with ThreadPoolExecutor(cores) as pool:
        parts = np.array_split(gallery, cores)
        return np.hstack(list(pool.map(lambda part: cdist(queries, part.astype(np.float64), metric), parts)))


def _squares(vectors: np.ndarray) -> np.ndarray:
    """float64 (n,): squared Euclidean lengths."""
    return np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """float64 (n,): Euclidean lengths, and 1 for the zero vector, so that one can divide by them."""
    squares = _squares(vectors)
    return np.sqrt(np.where(squares > 0, squares, 1))


def _rows(row_bytes: int, most: int) -> int:
    """Number of rows in one step."""
    return max(1, min(most, _STEP_BYTES // row_bytes))
