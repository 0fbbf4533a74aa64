"""What the functions that order answers again have in common: vectors by id, and who is near whom in the gallery."""

import numpy as np

from helpers.search.ranking import PAD, Ranking

#: Components of unit vectors are multiples of this, see `unit`.
_GRID = 2.0**-26
#: Cosines of an index that counts in float32, or compresses a little, are as exact as this.
TOLERANCE = 1e-3
#: Bytes that the arrays of one step may take.
STEP_BYTES = 32 * 2**20


class Gallery:
    """The images that answer: one row each in arrays of vectors and of neighbors, and an id.

    Parameters
    ----------
    size : n, rows.
    ids : int64 (n,), unique, not negative, in any order; None: row *i* is of id *i*. As they were given to
        ``index.add``.

    Raises
    ------
    ValueError : no row, not one id a row, or an id twice or negative.
    """

    def __init__(self, size: int, ids: np.ndarray | None = None):
        if not size:
            raise ValueError("the gallery is empty: there is nothing to put into another order")
        self.ids = np.arange(size) if ids is None else np.array(ids, dtype=np.int64)
        if self.ids.shape != (size,):
            raise ValueError(f"ids must have shape ({size},), one a row of the gallery; got {self.ids.shape}")
        self._order = np.argsort(self.ids, kind="stable")
        rising = self.ids[self._order]
        if rising[0] < 0:
            raise ValueError(f"ids must not be negative, got {rising[0]}")
        if (rising[1:] == rising[:-1]).any():
            raise ValueError(f"ids must be unique: {rising[1:][rising[1:] == rising[:-1]][0]} is given twice")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """int64, shaped like ``ids``: their rows; padding (-1) stays.

        Raises
        ------
        KeyError : an id is not in the gallery.
        """
        places = np.searchsorted(self.ids, ids, sorter=self._order)
        rows = self._order[np.minimum(places, len(self) - 1)]
        rows = np.where(self.ids[rows] == ids, rows, PAD)
        absent = ids[(rows == PAD) & (ids != PAD)]
        if len(absent):
            raise KeyError(
                f"image {absent[0]} was found, but the gallery of {len(self)} rows lacks it: "
                "give the gallery that was searched, and its ids where they are not 0, 1, 2 …"
            )
        return rows

    def others(self, neighbors: Ranking, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores (n, k) of each image's ``k`` nearest others, best first; -1 and -inf where there are fewer.

        neighbors : row *i* answers the vector of row *i*, asked among the gallery itself. An image's own id is
            dropped wherever it stands: where others are equal to it, that need not be in front.

        Raises
        ------
        ValueError : not one row an image, or too few columns for ``k`` others beside the image itself.
        KeyError : a neighbor is not in the gallery.
        """
        if len(neighbors) != len(self):
            raise ValueError(
                f"neighbors must have one row an image of the gallery: got {len(neighbors)} rows for {len(self)}"
            )
        if neighbors.k < min(k + 1, len(self)):
            raise ValueError(
                f"{k} neighbors beside the image itself take {k + 1} columns, neighbors have {neighbors.k}: "
                f"search the gallery for {k + 1} answers"
            )
        rows = self.rows(neighbors.ids)
        own = rows == np.arange(len(self))[:, None]
        # A stable sort of "itself?" moves the others together in their own order.
        order = np.argsort(own, axis=1, kind="stable")[:, :k]
        short = ((0, 0), (0, k - order.shape[1]))
        found = np.take_along_axis(np.where(own, PAD, rows), order, axis=1)
        scores = np.take_along_axis(np.where(own, -np.inf, neighbors.scores), order, axis=1)
        return np.pad(found, short, constant_values=PAD), np.pad(scores, short, constant_values=-np.inf)


def check_asked(ranking: Ranking, queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``queries`` (q, d) and ``gallery`` (n, d) as arrays that belong to a ranking.

    Raises
    ------
    ValueError : they are no arrays of vectors of one length, or not one query a row of the ranking.
    """
    queries, gallery = np.asarray(queries), np.asarray(gallery)
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries must have shape (q, d) and the gallery (n, d) with the same d, "
            f"got {queries.shape} and {gallery.shape}"
        )
    if len(queries) != len(ranking):
        raise ValueError(f"one query a row of the ranking: got {len(queries)} queries, {len(ranking)} rows")
    return queries, gallery


def at_least_one(**numbers: int) -> None:
    """Raise ValueError unless each is a whole number of at least 1; the message names it."""
    for name, number in numbers.items():
        if isinstance(number, bool | np.bool_) or not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")


def unit(vectors: np.ndarray) -> np.ndarray:
    """float64 (n, d): vectors brought to length one, on a grid; zero stays zero.

    As in `helpers.search.backends.exact`: components are rounded to multiples of 2⁻²⁶, which turns a vector by about
    1e-8. A sum of products of two such vectors fits the 53 bits of a float64 whatever its order, so equal images get
    equal cosines however the work is cut up.

    Raises
    ------
    ValueError : a number is NaN or infinite.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise ValueError(f"row {np.flatnonzero(~np.isfinite(lengths))[0]} holds NaN, infinity or too large numbers")
    return np.round(vectors / np.where(lengths > 0, lengths, 1)[:, None] / _GRID) * _GRID


def cosines(first: np.ndarray, second: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """float64 (m,): the cosine of row ``pairs[0][i]`` of ``first`` with row ``pairs[1][i]`` of ``second``.

    first, second : vectors (…, d) of any length; one that is zero has the cosine 0.
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
    """Raise ValueError if a score can't be a cosine; ``what`` names the ranking."""
    off = (np.abs(ranking.scores) > 1 + TOLERANCE) & (ranking.ids != PAD)
    if off.any():
        raise ValueError(
            f"{what}: scores must be cosines, got {ranking.scores[off][0]:.4g}. Search an index of metric cosine; "
            "`helpers.search.rerank.expansion.rescored` makes cosines of any scores"
        )


def check_own_cosines(ranking: Ranking, rows: np.ndarray, queries: np.ndarray, gallery: np.ndarray, what: str) -> None:
    """Whether the best score of each row is the cosine of the vectors; ``rows`` (q, k) are the answers' in ``gallery``.

    Raises
    ------
    ValueError : it is not: another metric or other vectors, or rows and ids in disorder. ``what`` is named.
    """
    asking = np.flatnonzero(rows[:, :1] != PAD)
    if not len(asking):
        return
    expected = cosines(queries, gallery, (asking, rows[asking, 0]))
    off = ~(np.abs(ranking.scores[asking, 0] - expected) < TOLERANCE)
    if off.any():
        row = asking[off][0]
        raise ValueError(
            f"{what}: scores must be the cosines of the given vectors, but in row {row} the best score is "
            f"{ranking.scores[row, 0]:.4g} and the cosine {expected[off][0]:.4g}. Search an index of metric cosine, "
            "give the vectors that it was asked with, and the gallery's ids if they are not 0, 1, 2 …; "
            "`helpers.search.rerank.expansion.rescored` makes cosines of any scores"
        )
