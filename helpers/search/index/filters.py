"""Search filters: sets of ids that are prepared once, and the part of an index that they select."""

import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from helpers.search.index.checks import as_ids
from helpers.search.ranking import PAD

#: Up to this many excluded ids are dropped from deeper results, even if the library can filter.
_FEW = 16


class IdSet:
    """A set of ids for ``allowed`` or ``excluded``, sorted once. Pass the same object to all searches that share it.

    ids : int64 (m,), ascending, unique, read-only. max_size : the size of the set; as in `IdsPerQuery`.
    """

    def __init__(self, ids: ArrayLike):
        self.ids = np.unique(as_ids(ids))
        self.ids.setflags(write=False)
        self.max_size = len(self.ids)
        self._last: tuple[weakref.ref, np.ndarray] | None = None

    @classmethod
    def of(cls, ids: "ArrayLike | IdSet | None") -> "IdSet | None":
        """An `IdSet` or None unchanged, an array as a new set."""
        return ids if ids is None or isinstance(ids, IdSet) else cls(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool, in the shape of ``ids``."""
        return locate(self.ids, ids)[1]

    def rows_in(self, held: np.ndarray) -> np.ndarray:
        """int64, ascending: the rows of ``held`` whose ids are in the set.

        ``held`` must be ascending and must never change: the rows for the latest array are cached.
        """
        last = self._last
        if last is not None and last[0]() is held:
            return last[1]
        rows, found = locate(held, self.ids)
        rows = rows[found]
        self._last = weakref.ref(held), rows
        return rows

    @cached_property
    def bitmap(self) -> np.ndarray:
        """uint8: bit ``i % 8`` of byte ``i // 8`` is set for each id ``i``."""
        ids = self.ids[np.searchsorted(self.ids, 0) :]
        bits = np.zeros(int(ids[-1]) + 1 if len(ids) else 0, bool)
        bits[ids] = True
        return np.packbits(bits, bitorder="little")


#: The ids of a filter, in any form.
Filter = ArrayLike | IdSet | None


class IdsPerQuery:
    """Ids to exclude that differ between queries: ``ids[starts[j] : starts[j + 1]]`` for query *j*.

    Each query is searched ``max_size`` results deeper, so the sets should be small. `IdSet` holds ids for all queries.

    starts : int64 (q + 1,), ascending from 0. ids : int64 (m,). max_size : the size of the largest set.
    """

    def __init__(self, starts: np.ndarray, ids: np.ndarray):
        self.starts, self.ids = as_ids(starts), as_ids(ids)
        self.max_size = int(np.diff(self.starts).max(initial=0))

    @classmethod
    def of(cls, sets: Sequence[ArrayLike]) -> Self:
        """One array of ids for each query."""
        arrays = [as_ids(each) for each in sets]
        return cls(np.cumsum([0, *map(len, arrays)]), np.concatenate([np.empty(0, np.int64), *arrays]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, rows: np.ndarray) -> Self:
        """The sets of some queries, in the order of ``rows``."""
        low, high = self.starts[rows], self.starts[np.asarray(rows) + 1]
        return type(self)(np.cumsum([0, *(high - low)]), self.ids[ranges(low, high)])

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool (q, k): whether each id of row *j* is in the set of query *j*; ``ids`` are at least -1."""
        if len(ids) != len(self):
            raise ValueError(f"excluded holds {len(self)} sets of ids for {len(ids)} queries")
        if not len(self.ids):
            return np.zeros(ids.shape, bool)
        owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        span = int(max(self.ids.max(), ids.max(initial=PAD))) + 2
        if span <= 4 * ids.shape[1]:
            # For rows of about this width, a table is faster. Its last column stands for -1.
            table = np.zeros((len(ids), span), bool)
            table[owners, self.ids] = True
            table[:, -1] = False
            return np.take_along_axis(table, ids, axis=1)
        unique, ranks = np.unique(self.ids, return_inverse=True)
        positions, found = locate(unique, ids)
        pairs = np.sort(owners * len(unique) + ranks)
        return found & locate(pairs, np.arange(len(ids))[:, None] * len(unique) + positions)[1]


class Selection:
    """The ids of an index that pass its filters.

    held : int64 (n,), the ascending ids of the index.
    allowed, excluded : None for no such filter; at least one is given.
    count : number of selected ids.
    """

    def __init__(self, held: np.ndarray, allowed: IdSet | None, excluded: IdSet | None):
        self.held, self.allowed, self.excluded = held, allowed, excluded
        if allowed is None and excluded is not None:
            self.count = len(held) - len(excluded.rows_in(held))
        else:
            self.count = len(self.rows)

    @cached_property
    def rows(self) -> np.ndarray:
        """int64, ascending: the rows of ``held`` that are selected."""
        if self.allowed is None:
            return np.flatnonzero(self.mask)
        rows = self.allowed.rows_in(self.held)
        return rows if self.excluded is None else rows[~self.excluded.contains(self.held[rows])]

    @property
    def ids(self) -> np.ndarray:
        """int64, ascending: the selected ids."""
        return self.held[self.rows]

    @cached_property
    def mask(self) -> np.ndarray:
        """bool (n,): which rows are selected."""
        if self.allowed is None and self.excluded is not None:
            mask = np.ones(len(self.held), bool)
            mask[self.excluded.rows_in(self.held)] = False
        else:
            mask = np.zeros(len(self.held), bool)
            mask[self.rows] = True
        return mask

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool, in the shape of ``ids``: which results are selected; padding is not."""
        return (ids != PAD) & permitted(ids, self.allowed, self.excluded)


def split_excluded(ids: Filter | IdsPerQuery, k: int, max_k: float) -> tuple[IdSet | IdsPerQuery | None, IdSet | None]:
    """The ids to exclude: those to drop from deeper results, and those to filter out; at most one is not None."""
    if isinstance(ids, IdsPerQuery):
        return ids, None
    excluded = IdSet.of(ids)
    if excluded is None or not len(excluded):
        return None, None
    # A few more results cost less than any filter.
    return (excluded, None) if len(excluded) <= _FEW and k + len(excluded) <= max_k else (None, excluded)


def permitted(ids: np.ndarray, allowed: IdSet | None, excluded: IdSet | None) -> np.ndarray:
    """bool, in the shape of ``ids``: which ids pass the filters."""
    if excluded is None:
        return np.ones(ids.shape, bool) if allowed is None else allowed.contains(ids)
    return ~excluded.contains(ids) if allowed is None else allowed.contains(ids) & ~excluded.contains(ids)


def keep(ids: np.ndarray, scores: np.ndarray, kept: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``k`` kept results of each row, in their order, padded: (q, m) to (q, k)."""
    if len(ids) == 1:
        # For a single query, the general case takes longer than a search in a graph.
        columns = np.flatnonzero(kept)[:k]
        if len(columns) == k:
            return ids[:, columns], scores[:, columns]
    places = np.cumsum(kept, axis=1) - 1
    rows, columns = np.nonzero(kept & (places < k))
    at = rows, places[rows, columns]
    best, best_scores = np.full((len(ids), k), PAD, np.int64), np.full((len(ids), k), -np.inf, scores.dtype)
    best[at], best_scores[at] = ids[rows, columns], scores[rows, columns]
    return best, best_scores


def locate(ascending: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The position of each id in an ascending array, and whether it is there."""
    positions = np.searchsorted(ascending, ids)
    if not len(ascending):
        return positions, np.zeros(np.shape(ids), bool)
    return positions, np.take(ascending, positions, mode="clip") == ids


def ranges(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The numbers low[0] … high[0] - 1, low[1] … high[1] - 1, …"""
    counts = high - low
    return np.arange(counts.sum()) + np.repeat(low - np.concatenate([[0], counts.cumsum()[:-1]]), counts)


def union(first: IdSet | None, second: IdSet | None) -> IdSet | None:
    """The ids of both sets; None if there is neither."""
    if first is None or second is None:
        return first if second is None else second
    return IdSet(np.union1d(first.ids, second.ids))
