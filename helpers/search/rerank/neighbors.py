"""What the re-rankers have in common: rows by id, neighbors within the gallery, cosines and checks."""

import numpy as np

from helpers.search.index.checks import as_new_ids
from helpers.search.index.filters import keep
from helpers.search.ranking import PAD, Ranking
from helpers.vectors import round_to_grid

#: The largest error of cosines from an index that computes in float32, or compresses a little.
TOLERANCE = 1e-3
#: Bytes that the arrays of one step may take.
STEP_BYTES = 32 * 2**20


class Gallery:
    """The gallery images: one row each in arrays of vectors and of neighbors, and an id.

    Parameters
    ----------
    size : n, rows.
    ids : int64 (n,), as in ``index.add``: unique, not negative, in any order; by default row *i* has id *i*.
    """

    def __init__(self, size: int, ids: np.ndarray | None = None):
        if not size:
            raise ValueError("the gallery is empty: there is nothing to re-rank")
        self.ids = np.arange(size) if ids is None else as_new_ids(ids, size)
        self._order = np.argsort(self.ids, kind="stable")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """int64, in the shape of ``ids``: their rows; padding (-1) stays. KeyError if an id is not in the gallery."""
        positions = np.searchsorted(self.ids, ids, sorter=self._order)
        rows = self._order[np.minimum(positions, len(self) - 1)]
        rows = np.where(self.ids[rows] == ids, rows, PAD)
        missing = ids[(rows == PAD) & (ids != PAD)]
        if len(missing):
            raise KeyError(
                f"image {missing[0]} was found, but is not in the gallery of {len(self)} rows: "
                "give the gallery that was searched, and its ids if they are not 0, 1, 2 …"
            )
        return rows

    def others(self, neighbors: Ranking, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores (n, k) of each image's ``k`` nearest others, best first; -1 and -inf if there are fewer.

        neighbors : row *i* has the results of row *i*'s vector in the gallery itself. The image's own id is dropped at
            any rank, because equal images may precede it.
        """
        if len(neighbors) != len(self):
            raise ValueError(
                f"neighbors must have one row per image of the gallery: got {len(neighbors)} rows for {len(self)}"
            )
        if neighbors.k < min(k + 1, len(self)):
            raise ValueError(
                f"{k} neighbors besides the image itself need {k + 1} columns, but neighbors has {neighbors.k}: "
                f"search the gallery for {k + 1} results"
            )
        rows = self.rows(neighbors.ids)
        return keep(rows, neighbors.scores, rows != np.arange(len(self))[:, None], k)


def check_vectors(ranking: Ranking, queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``queries`` (q, d) and ``gallery`` (n, d) as arrays; ValueError unless they have these shapes, q rows ranked."""
    queries, gallery = np.asarray(queries), np.asarray(gallery)
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries must have shape (q, d) and the gallery (n, d) with the same d, "
            f"got {queries.shape} and {gallery.shape}"
        )
    if len(queries) != len(ranking):
        raise ValueError(f"one query per row of the ranking: got {len(queries)} queries, {len(ranking)} rows")
    return queries, gallery


def unit(vectors: np.ndarray) -> np.ndarray:
    """float64 (n, d): vectors of length one, on a grid; zero stays zero. ValueError for NaN or infinity.

    As in `helpers.search.backends.exact`, components are rounded to multiples of 2⁻²⁶, which changes the angle by about
    1e-8. A sum of products of two such vectors is exact in float64 in any order, so equal images have equal cosines.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise ValueError(f"row {np.flatnonzero(~np.isfinite(lengths))[0]} holds NaN, infinity or too large numbers")
    return round_to_grid(vectors / np.where(lengths > 0, lengths, 1)[:, None])


def cosines(first: np.ndarray, second: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """float64 (m,): the cosine of row ``pairs[0][i]`` of ``first`` with row ``pairs[1][i]`` of ``second``.

    first, second : vectors (…, d) of any length; the cosine of a zero vector is 0.
    """
    found = np.empty(len(pairs[0]))
    step = max(1, STEP_BYTES // (8 * max(1, first.shape[1])))
    for start in range(0, len(found), step):
        left, right = (side[rows[start : start + step]] for side, rows in zip((first, second), pairs, strict=True))
        product, lefts, rights = (
            np.einsum("ij,ij->i", a, b, dtype=np.float64) for a, b in ((left, right), (left, left), (right, right))
        )
        lengths = np.sqrt(lefts * rights)
        found[start : start + step] = product / np.where(lengths > 0, lengths, 1)
    return np.clip(found, -1, 1)


def check_cosines(ranking: Ranking, what: str) -> None:
    """Raise ValueError if a score is not a cosine; ``what`` names the ranking."""
    off = (np.abs(ranking.scores) > 1 + TOLERANCE) & (ranking.ids != PAD)
    if off.any():
        raise ValueError(
            f"{what}: scores must be cosines, got {ranking.scores[off][0]:.4g}. Search an index of metric cosine; "
            "`helpers.search.rerank.expansion.rescored` converts any scores to cosines"
        )


def check_own_cosines(ranking: Ranking, rows: np.ndarray, queries: np.ndarray, gallery: np.ndarray, what: str) -> None:
    """Raise ValueError unless the best score of each row is the cosine of the vectors.

    This detects another metric, other vectors, and rows that do not belong to the ids.

    rows : int64 (q, k), the results' rows in ``gallery``. what : names the ranking.
    """
    used = np.flatnonzero(rows[:, :1] != PAD)
    if not len(used):
        return
    expected = cosines(queries, gallery, (used, rows[used, 0]))
    off = ~(np.abs(ranking.scores[used, 0] - expected) < TOLERANCE)
    if off.any():
        row = used[off][0]
        raise ValueError(
            f"{what}: scores must be the cosines of the given vectors, but in row {row} the best score is "
            f"{ranking.scores[row, 0]:.4g} and the cosine {expected[off][0]:.4g}. Search an index of metric cosine, "
            "give the vectors that were searched, and the gallery's ids if they are not 0, 1, 2 …; "
            "`helpers.search.rerank.expansion.rescored` converts any scores to cosines"
        )
