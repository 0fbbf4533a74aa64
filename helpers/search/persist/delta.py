"""DeltaIndex: a read-only base index, and the changes since then in memory."""

import copy
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from helpers.search.backends.exact import ExactIndex
from helpers.search.index import IdSet, IdsPerQuery, Index, UnsupportedByIndex, check_k, open_index
from helpers.search.index.checks import as_ids, check_held, name_ids
from helpers.search.index.filters import Filter, keep, locate, split_excluded, union
from helpers.search.persist.wal import Change
from helpers.search.ranking import PAD, Ranking, best_first


class DeltaIndex:
    """A base index that does not change, and the changes since then; searched like an `Index`.

    Many processes can share one base, mapped from disk, and apply the changes by themselves. A DeltaIndex does not
    change either: `changed` returns another one that shares memory with it, so searches need no lock. The cost depends
    on the number of changes, not on the size of the base.

    Added vectors are compared exactly. If the scores of the base are estimates (codes, numbers of fewer bits), the
    exact scores of added vectors are ranked among them.

    base : must not change any more. metric, dim, max_k : of the base.
    """

    def __init__(self, base: Index):
        self.base, self._base_ids = base, base.ids
        self._added = ExactIndex(base.metric)
        #: int64, ascending: ids of the base and of added vectors.
        self._removed = np.empty(0, np.int64)
        self.metric, self.dim, self.max_k = base.metric, base.dim, base.max_k
        self._added.dim = base.dim

    def __len__(self) -> int:
        return len(self._base_ids) + len(self._added) - len(self._removed)

    def __repr__(self) -> str:
        return f"DeltaIndex({self.base!r}, {len(self._added)} added, {len(self._removed)} removed)"

    @property
    def spec(self) -> str:
        """The spec of the base."""
        return self.base.spec

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the base and of the changes."""
        return self.base.nbytes + self._added.nbytes + self._removed.nbytes

    @property
    def changes(self) -> int:
        """The number of added and removed vectors."""
        return len(self._added) + len(self._removed)

    @cached_property
    def ids(self) -> np.ndarray:
        """int64 (n,): the ids that can be found, ascending, read-only. The first use takes time for each of them."""
        ids = np.union1d(self._base_ids, self._added.ids) if len(self._added) else self._base_ids
        if len(self._removed):
            ids = ids[~locate(self._removed, ids)[1]]
        ids.setflags(write=False)
        return ids

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool (m,): which ids can be found."""
        held = locate(self._base_ids, ids)[1] | self._added.contains(ids)
        return held & ~locate(self._removed, ids)[1]

    def changed(self, vectors: np.ndarray, ids: ArrayLike, removed: ArrayLike = ()) -> "DeltaIndex":
        """Another index in which vectors were added, and then ids removed.

        vectors : float (n, dim). ids : int64 (n,), ascending, above all ids that this index ever had.
        removed : int64 (m,).

        Raises
        ------
        ValueError : bad vectors, see `Index.add`, or an id is taken.
        KeyError : an id to remove is not in the index.
        """
        ids, removed = as_ids(ids), np.unique(as_ids(removed))
        taken = ids[self.contains(ids)]
        if len(taken):
            raise ValueError(f"{name_ids(taken)} already in the index")
        other = copy.copy(self)
        # What was computed from the former changes.
        for name in ("ids", "_hidden", "_hidden_in_base"):
            vars(other).pop(name, None)
        if len(ids):
            other._added = self._added.extended(vectors, ids)
        check_held(removed, other.contains(removed), "cannot be removed: not in the index")
        other._removed = np.union1d(self._removed, removed)
        return other

    def rebased(self, base: Index, first: int) -> "Index | DeltaIndex":
        """The same changes over another base, which contains all ids below ``first`` that were not removed by then."""
        added = self._added.ids[self._added.ids >= first]
        removed = self._removed[base.contains(self._removed) | locate(added, self._removed)[1]]
        if not len(added) and not len(removed):
            return base
        return DeltaIndex(base).changed(self._added.vectors(added), added, removed)

    def compacted(self) -> Index:
        """The base, changed in place so that it contains all changes; this index must not be used afterwards.

        A base that cannot remove is built again from its vectors, in the precision in which it stores them.
        """
        base, removed = self.base, self._removed[locate(self._base_ids, self._removed)[1]]
        if len(removed):
            try:
                base.remove(removed)
            except UnsupportedByIndex:
                kept = np.setdiff1d(base.ids, removed)
                base = open_index(base.spec).add(base.vectors(kept), kept)
        ids = self._added.ids[~locate(self._removed, self._added.ids)[1]]
        if len(ids):
            # After an interrupted compaction, a server may contain some already.
            ids = ids[~base.contains(ids)]
            base.add(self._added.vectors(ids), ids)
        return base

    def search(
        self, vectors: ArrayLike, k: int = 10, *, allowed: Filter = None, excluded: Filter | IdsPerQuery = None
    ) -> Ranking:
        """As `Index.search`."""
        depth = k = check_k(k)
        if not len(self):
            raise ValueError("the index is empty: add vectors before searching")
        # Dropping a few results is also cheaper than joining these ids with all removed ones.
        dropped, excluded = split_excluded(excluded, k, self.max_k)
        if dropped is not None:
            depth = max(k, min(k + dropped.max_size, len(self)))
        parts = [
            index.search(vectors, depth, allowed=allowed, excluded=hidden)
            for index, allowed, hidden in self._parts(allowed, excluded)
        ]
        if len(parts) == 1 and dropped is None:
            return parts[0]
        ids, scores = best_first(
            np.hstack([part.ids for part in parts]), np.hstack([part.scores for part in parts]), depth
        )
        if dropped is not None:
            ids, scores = keep(ids, scores, (ids != PAD) & ~dropped.contains(ids), k)
        return Ranking(ids, scores)

    def count(self, *, allowed: Filter = None, excluded: Filter = None) -> int:
        """As `Index.count`."""
        allowed, excluded = IdSet.of(allowed), IdSet.of(excluded)
        if allowed is None:
            count = len(self)
        else:
            parts = self._parts(allowed, None)
            count = sum(index.count(allowed=allowed, excluded=hidden) for index, allowed, hidden in parts)
        if excluded is None:
            return count
        dropped = self.contains(excluded.ids)
        return count - int((dropped if allowed is None else dropped & allowed.contains(excluded.ids)).sum())

    def vectors(self, ids: ArrayLike) -> np.ndarray:
        """As `Index.vectors`."""
        ids = as_ids(ids)
        check_held(ids, self.contains(ids), "has no vector: not in the index")
        vectors, added = np.empty((len(ids), self.dim or 0), np.float32), self._added.contains(ids)
        for index, rows in ((self._added, added), (self.base, ~added)):
            if rows.any():
                vectors[rows] = index.vectors(ids[rows])
        return vectors

    def tune(self, **options: object) -> "DeltaIndex":
        """As `Index.tune`, for the base."""
        self.base.tune(**options)
        return self

    def _parts(self, allowed: Filter, excluded: Filter) -> list[tuple[Index, IdSet | None, IdSet | None]]:
        """The indexes to search, with the allowed and excluded ids of each."""
        among, dropped = IdSet.of(allowed), IdSet.of(excluded)
        parts = [(self.base, self._hidden_in_base), (self._added, self._hidden)]
        return [(index, among, union(hidden, dropped)) for index, hidden in parts if len(index)]

    @cached_property
    def _hidden(self) -> IdSet | None:
        return IdSet(self._removed) if len(self._removed) else None

    @cached_property
    def _hidden_in_base(self) -> IdSet | None:
        if not (self.base.remote and len(self._added)):
            return self._hidden
        # Another process may have added the same vectors to the server meanwhile.
        return IdSet(np.union1d(self._removed, self._added.ids))


def apply_changes(index: Index | DeltaIndex, changes: Sequence[Change]) -> DeltaIndex:
    """An index with changes of the log applied; the given one does not change."""
    delta = index if isinstance(index, DeltaIndex) else DeltaIndex(index)
    added = [(change.id, change.vector) for change in changes if change.vector is not None]
    vectors = np.stack([vector for _, vector in added]) if added else np.empty((0, delta.dim or 0), np.float32)
    removed = [change.id for change in changes if change.vector is None]
    return delta.changed(vectors, [id for id, _ in added], removed)
