"""The exact index: every vector is compared with every query, in chunks, and ties are ties.

Two searches of the same vectors give the same scores to the last bit, however the work was cut up. That takes care:
a matrix product of floats depends on the order of its sums, which BLAS chooses by the shape of the matrices, so two
copies of one image in different chunks would get scores a hair apart, and their order would be chance. Therefore

- what is returned was scored by arithmetic that does not depend on shape or order (`_Cosine.scores`, `_distances`);
- the fast float32 product only rules out what can't be among the best, by a proven bound on its error.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.search.index import StoredIndex
from helpers.search.ranking import PAD

#: What the arrays of one step may take, in bytes.
_STEP_BYTES = 32 * 2**20
#: Queries that go through the gallery together, at most.
_QUERIES = 256
#: What products, bounds and comparisons take for one query and one vector.
_BOUND_BYTES = 20
#: If k is more than this part of the gallery, all scores are sorted instead of the best ones picked.
_DEEP = 1 / 8
#: If a filter leaves at most this part of the gallery, only this part is scored.
_PART = 1 / 4
#: Unit vectors are kept as multiples of this, see `_Cosine`.
_GRID = 2.0**-26


class ExactIndex(StoredIndex):
    """Compares with everything: slow for millions of vectors, and never wrong.

    metric : ``cosine`` — the cosine of the angle, -1 … 1. Vectors are brought to length one when they are added. The
        zero vector has no direction; its score is 0, whatever the other is.
        ``euclidean``, ``manhattan`` — the distance, negated.
    chunk : gallery vectors that are compared at a time. A step takes up to about 12 · chunk · dim bytes beside the
        vectors; without it, what fits 32 MiB. Results don't depend on it.

    Scores are float64. Equal vectors have equal scores; equal scores stand by rising id.
    """

    scheme = "exact"
    option_types = {"chunk": int}

    def __init__(self, metric: str = "cosine", chunk: int | None = None):
        super().__init__(metric, chunk=chunk)
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self._chunk = chunk
        self._scorer = {"cosine": _Cosine, "euclidean": _Euclidean, "manhattan": _Manhattan}[self.metric]()
        self._squares: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return super().nbytes + (0 if self._squares is None else self._squares.nbytes)

    def _prepare(self, vectors):
        return self._scorer.prepare(vectors)

    def _changed(self, kept):
        self._squares = None if self._squares is None else self._squares[:kept]

    def _search(self, queries, k, stays=None):
        """stays : bool (n,), which rows may be found; at least ``k`` of them."""
        queries = self._scorer.prepare(queries)
        shallow = k < self._few(queries) * len(self) and _bounds_hold(queries, self._square_lengths())
        search = self._search_by_bounds if shallow else self._search_all
        ids = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k))
        step = self._step(_QUERIES) if shallow else min(self._step(_QUERIES), _rows(8 * len(self), 2**30))
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            ids[block], scores[block] = search(queries[block], k, stays)
        return ids, scores

    def _search_among(self, queries, k, among):
        if among.count > _PART * len(self):
            return self._search(queries, k, among.mask)
        best = _Best(len(queries), k)
        step = min(self._chunk or 2**16, self._step(2**16))
        for start in range(0, among.count, step):
            rows = among.rows[start : start + step]
            part = ExactIndex(self.metric, self._chunk)
            part._ids, part._vectors, part.dim = self._ids[rows], self._vectors[rows], self.dim
            ids, scores = part._search(queries, min(k, len(rows)))
            best.merge(np.repeat(np.arange(len(queries)), ids.shape[1]), ids.ravel(), scores.ravel())
        return best.ids, best.scores

    def _search_by_bounds(self, queries, k, stays):
        """The best k of many: rule out by the fast product, score the rest; the best so far rule out ever more."""
        best, squares = _Best(len(queries), k), self._square_lengths()
        # The fewer queries, the more vectors fit one step: each query's answers are then scored in few calls.
        wide = self._chunk or max(self._step(2**12), _rows(_BOUND_BYTES * len(queries), len(self)))
        for start, gallery in self._chunks(wide):
            part = slice(start, start + len(gallery))
            lower, upper = self._scorer.bounds(queries, gallery, squares[part])
            floor = self._scorer.as_bound(queries, best.scores[:, -1])
            empty = np.isneginf(floor)
            if empty.any() and k <= len(gallery):
                low = lower[empty]
                if stays is not None:
                    low[:, ~stays[part]] = -np.inf
                floor[empty] = _floor(low, k)
            rows, columns = np.nonzero(upper >= floor[:, None])
            if stays is not None:
                kept = stays[part][columns]
                rows, columns = rows[kept], columns[kept]
            best.merge(rows, self._ids[part][columns], self._score_pairs(queries, gallery, rows, columns))
        return best.ids, best.scores

    def _search_all(self, queries, k, stays):
        """All of the gallery in order, or the best k of it: score everything, sort once."""
        scores = np.empty((len(queries), len(self)))
        for start, gallery in self._chunks():
            scores[:, start : start + len(gallery)] = self._scorer.scores(queries, gallery)
        if stays is not None:
            scores[:, ~stays] = -np.inf
        if k < _DEEP * len(self):
            best = _Best(len(queries), k)
            rows, columns = np.nonzero(scores >= np.partition(scores, -k, axis=1)[:, [-k]])
            best.merge(rows, self._ids[columns], scores[rows, columns])
            return best.ids, best.scores
        # Columns are in the order of ids, and a stable sort leaves equal scores so.
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return self._ids[order], np.take_along_axis(scores, order, axis=1)

    def _few(self, queries) -> float:
        """Up to which part of all pairs it is faster to score them one by one than all at once.

        For many queries the product of matrices makes up for what is scored in vain; for one it can't.
        """
        return self._scorer.few if len(queries) > 1 else min(1 / 4, 16 * self._scorer.few)

    def _score_pairs(self, queries, gallery, rows, columns):
        """float64 (m,): query ``rows[i]`` with gallery vector ``columns[i]``; rows are rising."""
        scores, step = np.empty(len(rows)), self._chunk or self._step(2**12)
        if len(rows) > self._few(queries) * len(queries) * len(gallery):
            for start in range(0, len(gallery), step):
                here = (columns >= start) & (columns < start + step)
                part = self._scorer.scores(queries, gallery[start : start + step])
                scores[here] = part[rows[here], columns[here] - start]
            return scores
        asked, starts = np.unique(rows, return_index=True)
        for row, start, stop in zip(asked, starts, np.append(starts, len(rows))[1:], strict=True):
            for first in range(start, stop, step):
                some = slice(first, min(first + step, stop))
                scores[some] = self._scorer.scores(queries[row : row + 1], gallery[columns[some]])[0]
        return scores

    def _square_lengths(self):
        """float64 (n,), computed once for each vector."""
        squares = np.empty(0) if self._squares is None else self._squares
        if len(squares) < len(self):
            new = [_squares(gallery) for _, gallery in self._chunks(first=len(squares))]
            squares = self._squares = np.concatenate([squares, *new])
        return squares

    def _chunks(self, step: int | None = None, first: int = 0):
        step = step or self._chunk or self._step(2**12)
        for start in range(first, len(self), step):
            yield start, self._vectors[start : start + step]

    def _step(self, most: int) -> int:
        return _rows(8 * self.dim, most)


class _Cosine:
    """The cosine as a matrix product without rounding.

    Components of unit vectors are rounded to multiples of 2⁻²⁶ (finer than float32 where they exceed 1/8; the angle
    changes by about 1e-8). Products are then multiples of 2⁻⁵² and, by the Cauchy-Schwarz inequality, no partial
    sum of them reaches 2: each fits the 53 bits of a float64. A sum without rounding is the same in any order, so
    BLAS may work as it likes.
    """

    #: Up to this part of the pairs it is quicker to score them one by one than all in a block.
    few = 1 / 64

    def prepare(self, vectors):
        """float32 (n, dim) of length one on the grid; zero stays zero."""
        unit = np.empty_like(vectors)
        step = _rows(8 * vectors.shape[1], 2**14)
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step].astype(np.float64)
            length = np.sqrt((part * part).sum(axis=1, keepdims=True))
            part /= np.where(length > 0, length, 1)
            unit[start : start + step] = np.round(part / _GRID) * _GRID
        return unit

    def scores(self, queries, gallery):
        queries, gallery = queries.astype(np.float64), gallery.astype(np.float64)
        # Rounding to the grid moved the lengths a little away from one.
        lengths = np.outer(_lengths(queries), _lengths(gallery))
        return np.clip(queries @ gallery.T / lengths, -1, 1) + 0.0  # no -0.0

    def bounds(self, queries, gallery, squares):
        products = queries @ gallery.T
        error = np.float32(_relative_error(queries.shape[1]))
        return products - error, products + error

    def as_bound(self, queries, scores):
        return scores.astype(np.float32)


class _Euclidean:
    """The distance by its definition, after |q|² - 2qg + |g|² has ruled out what is surely too far.

    That formula alone won't do: it subtracts large numbers, and leaves noise where two vectors are close.
    Bounds are of 2qg - |g|², which falls as the distance grows.
    """

    few = 1 / 8

    def prepare(self, vectors):
        return vectors

    def scores(self, queries, gallery):
        return 0.0 - _distances(queries, gallery, "euclidean")

    def bounds(self, queries, gallery, squares):
        near = queries @ gallery.T
        near *= 2
        near -= squares.astype(np.float32)
        # The error is at most e·(|q| + |g|)², which is at most 2e·|q|² + 2e·|g|².
        error = 2 * _relative_error(queries.shape[1])
        # Products below 2⁻¹²⁶ may vanish altogether.
        of_queries = (error * _squares(queries) + queries.shape[1] * 2.0**-124).astype(np.float32)[:, None]
        of_gallery = (error * squares).astype(np.float32)
        return near - of_gallery - of_queries, near + of_gallery + of_queries

    def as_bound(self, queries, scores):
        return (_squares(queries) - scores * scores).astype(np.float32)


class _Manhattan:
    """The sum of absolute differences; no product rules anything out."""

    few = 0

    def prepare(self, vectors):
        return vectors

    def scores(self, queries, gallery):
        return 0.0 - _distances(queries, gallery, "cityblock")


class _Best:
    """The best k answers so far to each of q queries: ids and scores (q, k), padded while there are fewer."""

    def __init__(self, queries: int, k: int):
        self.ids = np.full((queries, k), PAD, np.int64)
        self.scores = np.full((queries, k), -np.inf)

    def merge(self, rows: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> None:
        """New answers: query ``rows[i]`` has ``ids[i]`` with ``scores[i]``."""
        queries, k = self.ids.shape
        if not len(rows):
            return
        held = self.ids != PAD
        rows = np.concatenate([np.nonzero(held)[0], rows])
        ids = np.concatenate([self.ids[held], ids])
        scores = np.concatenate([self.scores[held], scores])
        order = np.lexsort((ids, -scores, rows))
        rows, ids, scores = rows[order], ids[order], scores[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(queries))[rows]
        kept = place < k
        self.ids[rows[kept], place[kept]] = ids[kept]
        self.scores[rows[kept], place[kept]] = scores[kept]


def _relative_error(dim: int) -> float:
    """What a float32 product of two vectors is off by, at most, over the product of their lengths.

    ``d·u / (1 - d·u)`` with u = 2⁻²⁴, whatever the order of the sum (Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd edition, section 3.1). The square root and the 16 pay for what is done to the product afterwards.
    """
    error = (dim + dim**0.5 + 16) * 2.0**-24
    return error / (1 - error)


def _floor(lower: np.ndarray, k: int) -> np.ndarray:
    """float32 (q,): what k of each row of (q, n) reach at least; what is surely worse is not among the best k.

    Of groups of columns only the best is sorted, where that leaves many more groups than k: k of these are k columns.
    """
    width = max(1, min(64, lower.shape[1] // (16 * k)))
    whole = lower.shape[1] - lower.shape[1] % width
    best = lower[:, :whole].reshape(len(lower), -1, width).max(axis=2)
    return np.partition(best, -k, axis=1)[:, -k]


def _bounds_hold(queries: np.ndarray, squares: np.ndarray) -> bool:
    """Whether no product can overflow, and `_relative_error` is far from its pole."""
    return queries.shape[1] <= 2**20 and max(squares.max(), _squares(queries).max()) < 1e30


def _distances(queries: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    """float64 (q, n). SciPy sums the numbers of a pair one after the other, so no pair depends on its neighbors."""
    from scipy.spatial.distance import cdist

    queries = queries.astype(np.float64)
    cores = os.cpu_count() or 1
    # A thread costs about as much as a hundred thousand differences.
    if cores == 1 or queries.size * len(gallery) < 2e6:
        return cdist(queries, gallery.astype(np.float64), metric)
    with ThreadPoolExecutor(cores) as pool:
        parts = np.array_split(gallery, cores)
        return np.hstack(list(pool.map(lambda part: cdist(queries, part.astype(np.float64), metric), parts)))


def _squares(vectors: np.ndarray) -> np.ndarray:
    """float64 (n,): squared Euclidean lengths."""
    return np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """float64 (n,): Euclidean lengths, and 1 for zero, which may then be divided by."""
    squares = _squares(vectors)
    return np.sqrt(np.where(squares > 0, squares, 1))


def _rows(row_bytes: int, most: int) -> int:
    """How many rows fit one step."""
    return max(1, min(most, _STEP_BYTES // row_bytes))
