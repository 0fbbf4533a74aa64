"""Ranking: the result of a search, independent of the index."""

import operator
from dataclasses import dataclass

import numpy as np

#: Rows of up to this many results are compared in Python.
_SHORT = 32
#: Pads a row that has fewer results than columns.
PAD = -1


@dataclass(frozen=True, eq=False)
class Ranking:
    """The results of *q* queries, best first.

    Parameters
    ----------
    ids : int64 (q, k): ids of gallery images, unique in a row; -1 pads at the end.
    scores : float32 or float64 (q, k): higher is better whatever the metric (distances are negated);
        in descending order, equal scores in ascending order of id; -inf where ids is -1.

    Raises ValueError: one of these conditions is violated; the message names the row.
    """

    ids: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        ids = np.array(self.ids, dtype=np.int64)
        scores = np.array(self.scores)
        if not np.issubdtype(scores.dtype, np.floating):
            scores = scores.astype(np.float64)
        if ids.ndim != 2 or ids.shape != scores.shape:
            raise ValueError(f"ids and scores must both have shape (q, k), got {ids.shape} and {scores.shape}")
        scores = _checked(ids, scores)
        ids.setflags(write=False)
        scores.setflags(write=False)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "scores", scores)

    @classmethod
    def of_sorted(cls, ids: np.ndarray, scores: np.ndarray) -> "Ranking":
        """A ranking without the checks, which take longer than a search in a graph.

        ids, scores : arrays as `best_first` returns them; they become read-only.
        """
        ids.setflags(write=False)
        scores.setflags(write=False)
        ranking = object.__new__(cls)
        ranking.__dict__.update(ids=ids, scores=scores)
        return ranking

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def k(self) -> int:
        """The number of columns."""
        return self.ids.shape[1]

    def head(self, k: int) -> "Ranking":
        """The first ``k`` results of each query."""
        return self if k >= self.k else Ranking.of_sorted(self.ids[:, :k], self.scores[:, :k])


def _checked(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The scores, -inf for padding. Raises ValueError: the ids and scores of some row are not a ranking."""
    padded = ids == PAD
    scores = np.where(padded & ~np.isnan(scores), -np.inf, scores)
    by_id = np.sort(ids, axis=1)
    both, (left, right) = ~padded[:, 1:], (scores[:, :-1], scores[:, 1:])
    for mask, problem in (
        (ids < PAD, "ids must not be negative (-1 pads)"),
        (np.isnan(scores), "a score is NaN"),
        (padded[:, :-1] & both, "padding precedes a result"),
        # Only padding may repeat.
        ((by_id[:, :-1] == by_id[:, 1:]) & (by_id[:, 1:] != PAD), "an id is repeated"),
        (both & (left < right), "scores must be in descending order"),
        (both & (left == right) & (ids[:, :-1] > ids[:, 1:]), "equal scores must be ordered by id"),
    ):
        if mask.any():
            raise ValueError(f"row {np.flatnonzero(mask.any(axis=1))[0]}: {problem}")
    return scores


def rank(ids: np.ndarray, scores: np.ndarray, k: int | None = None) -> Ranking:
    """Sort results into a Ranking: scores in descending order, ties by id, the best ``k``.

    ids : int64 (q, m), or (m,) if all queries share them; -1 is padding whatever its score.
    scores : floating (q, m).
    """
    scores = np.asarray(scores)
    return Ranking(*best_first(np.broadcast_to(np.asarray(ids, np.int64), scores.shape), scores, k))


def best_first(ids: np.ndarray, scores: np.ndarray, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The sorted arrays (q, k) of `rank`, without the checks of `Ranking`."""
    if _is_sorted(ids, scores):
        return (ids, scores) if k is None or k >= ids.shape[1] else (ids[:, :k], scores[:, :k])
    padding = ids == PAD
    scores = np.where(padding, -np.inf, scores)
    # Padding must follow a result whose score is -inf too.
    rows, order = np.arange(len(ids))[:, None], np.lexsort((ids, padding, -scores), axis=1)[:, :k]
    return ids[rows, order], scores[rows, order]


def _is_sorted(ids: np.ndarray, scores: np.ndarray) -> bool:
    """Whether there is no padding, and the scores of each row are strictly descending."""
    if ids.size <= _SHORT and len(ids) == 1:
        # Python's loops over a short list take less time than three calls of NumPy.
        (row,) = scores.tolist()
        return bool(row) and min(*ids.tolist()) > PAD and all(map(operator.gt, row, row[1:]))
    return bool(ids.size and ids.min() > PAD and (scores[:, :-1] > scores[:, 1:]).all())
