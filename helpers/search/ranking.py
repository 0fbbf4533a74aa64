"""Ranking: what a search returns, whatever searched."""

from dataclasses import dataclass

import numpy as np

#: Fills a row that has fewer answers than columns.
PAD = -1


@dataclass(frozen=True, eq=False)
class Ranking:
    """The answers to *q* queries, best first.

    Parameters
    ----------
    ids : int64 (q, k): ids of gallery images, unique in a row; -1 pads at the end.
    scores : float32 or float64 (q, k): higher is better whatever the metric (a distance comes negated);
        sorted from high to low, equal scores by rising id; -inf where ids is -1.

    Raises
    ------
    ValueError : any of this does not hold; the message names the row.
    """

    ids: np.ndarray
    scores: np.ndarray

    def __post_init__(self):
        ids = np.array(self.ids, dtype=np.int64)
        scores = np.array(self.scores)
        if not np.issubdtype(scores.dtype, np.floating):
            scores = scores.astype(np.float64)
        if ids.ndim != 2 or ids.shape != scores.shape:
            raise ValueError(f"ids and scores must both have shape (q, k), got {ids.shape} and {scores.shape}")
        padded = ids == PAD
        if (ids < PAD).any():
            raise ValueError(f"row {_first(ids < PAD)}: ids must not be negative (-1 pads)")
        if np.isnan(scores).any():
            raise ValueError(f"row {_first(np.isnan(scores))}: a score is NaN")
        scores[padded] = -np.inf
        if (padded[:, :-1] & ~padded[:, 1:]).any():
            raise ValueError(f"row {_first(padded[:, :-1] & ~padded[:, 1:])}: padding stands before an answer")
        # Padding may repeat, answers may not.
        in_order = np.sort(ids, axis=1)
        repeated = (in_order[:, :-1] == in_order[:, 1:]) & (in_order[:, 1:] != PAD)
        if repeated.any():
            raise ValueError(f"row {_first(repeated)}: an id stands twice")
        both = ~padded[:, 1:]
        rising = both & (scores[:, :-1] < scores[:, 1:])
        if rising.any():
            raise ValueError(f"row {_first(rising)}: scores must fall from left to right")
        tied = both & (scores[:, :-1] == scores[:, 1:]) & (ids[:, :-1] > ids[:, 1:])
        if tied.any():
            raise ValueError(f"row {_first(tied)}: equal scores must be ordered by id")
        ids.setflags(write=False)
        scores.setflags(write=False)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def k(self) -> int:
        """Columns: answers asked for."""
        return self.ids.shape[1]

    def head(self, k: int) -> "Ranking":
        """The first ``k`` answers of each query."""
        return Ranking(self.ids[:, :k], self.scores[:, :k])


def rank(ids: np.ndarray, scores: np.ndarray, k: int | None = None) -> Ranking:
    """Sort unsorted answers into a Ranking: scores from high to low, ties by id, the best ``k`` kept.

    ids : int64 (q, m) or (m,) when all queries share them; -1 is taken as padding whatever its score.
    scores : floating (q, m).
    """
    return Ranking(*best_first(ids, scores, k))


def best_first(ids: np.ndarray, scores: np.ndarray, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What `rank` makes a Ranking of, for those whose answers are checked once more anyway."""
    scores = np.asarray(scores)
    ids = np.broadcast_to(np.asarray(ids, dtype=np.int64), scores.shape)
    scores = np.where(ids == PAD, -np.inf, scores)
    # -1 has to sort behind a real answer whose score is -inf too.
    order = np.lexsort((np.where(ids == PAD, np.iinfo(np.int64).max, ids), -scores), axis=1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _first(mask: np.ndarray) -> int:
    return int(np.flatnonzero(mask.any(axis=1))[0])
