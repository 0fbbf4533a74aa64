"""Filters of a search: sets of ids that are prepared once, and what they leave of an index."""

import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np

from helpers.search.index.checks import as_ids
from helpers.search.ranking import PAD


class IdSet:
    """A set of ids for ``allowed`` or ``excluded``, sorted once. Pass the same object to every search.

    Attributes
    ----------
    ids : int64 (m,), rising and unique; read only.

    Raises
    ------
    ValueError : the ids are not whole numbers in an array of shape (m,).
    """

    def __init__(self, ids):
        self.ids = np.unique(as_ids(ids))
        self.ids.setflags(write=False)
        self._last: tuple[weakref.ref, np.ndarray] | None = None

    @classmethod
    def of(cls, ids) -> Self | None:
        """An `IdSet` or None as it is, an array as a new set."""
        return ids if ids is None or isinstance(ids, cls) else cls(ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def most(self) -> int:
        """As in `IdsPerQuery`: the ids of the set."""
        return len(self)

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool, in the shape of ``ids``."""
        return locate(self.ids, ids)[1]

    def places(self, held: np.ndarray) -> np.ndarray:
        """int64, rising: the places in ``held`` of those ids that stand there.

        ``held`` must be rising and must not change. The result for the latest array is kept.
        """
        last = self._last
        if last is not None and last[0]() is held:
            return last[1]
        places, found = locate(held, self.ids)
        places = places[found]
        self._last = weakref.ref(held), places
        return places

    @cached_property
    def bitmap(self) -> np.ndarray:
        """uint8: bit ``i % 8`` of byte ``i // 8`` is set for each id ``i``. It takes an eighth of the largest id."""
        ids = self.ids[np.searchsorted(self.ids, 0) :]
        bits = np.zeros(int(ids[-1]) + 1 if len(ids) else 0, bool)
        bits[ids] = True
        return np.packbits(bits, bitorder="little")


class IdsPerQuery:
    """Ids to exclude that differ from query to query: ``ids[starts[j] : starts[j + 1]]`` belong to query *j*.

    Each query is searched ``most`` results deeper, so keep the sets small. Use `IdSet` for what all queries share.

    starts : int64 (q + 1,), rising from 0. ids : int64 (m,).
    """

    def __init__(self, starts: np.ndarray, ids: np.ndarray):
        self.starts, self.ids = as_ids(starts), as_ids(ids)

    @classmethod
    def of(cls, sets: Sequence[np.ndarray]) -> Self:
        """One array of ids for each query."""
        sets = [as_ids(each) for each in sets]
        return cls(np.cumsum([0, *map(len, sets)]), np.concatenate([np.empty(0, np.int64), *sets]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def most(self) -> int:
        """The number of ids of the query that has the most."""
        return int(np.diff(self.starts).max(initial=0))

    def take(self, rows: np.ndarray) -> Self:
        """The sets of some queries, in the order of ``rows``."""
        first, count = self.starts[rows], self.starts[np.asarray(rows) + 1] - self.starts[rows]
        starts = np.cumsum([0, *count])
        return type(self)(starts, self.ids[np.arange(starts[-1]) + np.repeat(first - starts[:-1], count)])

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool (q, k): whether each id of row *j* is in the set of query *j*; ``ids`` are at least -1."""
        if not len(self.ids):
            return np.zeros(ids.shape, bool)
        owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        span = int(max(self.ids.max(), ids.max(initial=PAD))) + 2
        if span <= 4 * ids.shape[1]:
            # A table is faster where the rows are about as wide as it. Its last column stands for -1.
            table = np.zeros((len(ids), span), bool)
            table[owners, self.ids] = True
            table[:, -1] = False
            return np.take_along_axis(table, ids, axis=1)
        known, ranks = np.unique(self.ids, return_inverse=True)
        places, found = locate(known, ids)
        pairs = np.sort(owners * len(known) + ranks)
        return found & locate(pairs, np.arange(len(ids))[:, None] * len(known) + places)[1]


class Selection:
    """What filters leave of the ids that an index holds.

    held : int64 (n,), the rising ids of the index.
    allowed, excluded : None stands for no such filter; at least one is given.

    Attributes
    ----------
    count : how many held ids may be found.
    """

    def __init__(self, held: np.ndarray, allowed: IdSet | None, excluded: IdSet | None):
        self.held, self.allowed, self.excluded = held, allowed, excluded
        self.count = len(self.rows) if allowed is not None else len(held) - len(excluded.places(held))

    @cached_property
    def rows(self) -> np.ndarray:
        """int64, rising: places in ``held`` that may be found."""
        if self.allowed is None:
            return np.flatnonzero(self.mask)
        rows = self.allowed.places(self.held)
        return rows if self.excluded is None else rows[~self.excluded.contains(self.held[rows])]

    @cached_property
    def mask(self) -> np.ndarray:
        """bool (n,): which places may be found."""
        mask = np.full(len(self.held), self.allowed is None)
        mask[self.excluded.places(self.held) if self.allowed is None else self.rows] = self.allowed is not None
        return mask

    def passes(self, ids: np.ndarray) -> np.ndarray:
        """bool, in the shape of ``ids``: which of some found ids stay; never -1."""
        kept = ids != PAD
        if self.allowed is not None:
            kept &= self.allowed.contains(ids)
        return kept if self.excluded is None else kept & ~self.excluded.contains(ids)


def keep(ids: np.ndarray, scores: np.ndarray, kept: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``k`` results of each row that are kept, in their order, padded: (q, m) to (q, k)."""
    # A stable sort of "dropped?" moves what stays to the front.
    rows, order = np.arange(len(ids))[:, None], np.argsort(~kept, axis=1, kind="stable")[:, :k]
    kept = kept[rows, order]
    ids, scores = np.where(kept, ids[rows, order], PAD), np.where(kept, scores[rows, order], -np.inf)
    if (short := k - ids.shape[1]) > 0:
        ids = np.pad(ids, ((0, 0), (0, short)), constant_values=PAD)
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
    return ids, scores


def locate(rising: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each id stands in a rising array, and whether it does."""
    places = np.searchsorted(rising, ids)
    return places, (np.take(rising, places, mode="clip") == ids if len(rising) else np.zeros(np.shape(ids), bool))
