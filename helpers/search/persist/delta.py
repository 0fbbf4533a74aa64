"""DeltaIndex: an index file that is only read, with what was added and removed since kept beside it."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from helpers.search.index import IdSet, IdsPerQuery, Index, UnsupportedByIndex, check_k, open_index
from helpers.search.index.checks import name_ids
from helpers.search.index.filters import keep, locate
from helpers.search.persist.wal import Change
from helpers.search.ranking import PAD, Ranking, best_first

#: A search that excludes up to so many ids asks for as many more results, and drops them.
_FEW = 16


class DeltaIndex:
    """A base index that stays as it is, and the changes since; searched like an `Index`.

    Many processes can share one base, mapped from disk, while each applies the changes by itself. A DeltaIndex never
    changes either: `changed` returns another one that shares memory with the first, so that searches need no lock. The
    cost depends on the number of changes, not on the size of the base.

    Added vectors are compared exactly. Where the scores of the base are estimates (codes, numbers kept in fewer bits),
    the exact scores of added vectors are ranked among them as if they were alike.

    Parameters
    ----------
    base : nobody may change it any more.
    """

    #: Additions go to the log, also where the base is in a server.
    remote = False

    def __init__(self, base: Index):
        self._base, self._base_ids = base, base.ids
        self._added = open_index(f"exact:{base.metric}")
        # int64, rising: of the base and of what was added.
        self._removed = np.empty(0, np.int64)
        self.metric, self.dim = base.metric, base.dim
        self._added.dim = base.dim

    def __len__(self) -> int:
        return len(self._base_ids) + len(self._added) - len(self._removed)

    def __repr__(self) -> str:
        return f"DeltaIndex({self._base!r}, {len(self._added)} added, {len(self._removed)} removed)"

    @property
    def spec(self) -> str:
        """The base's."""
        return self._base.spec

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the base and of the changes."""
        return self._base.nbytes + self._added.nbytes + self._removed.nbytes

    @property
    def changes(self) -> int:
        """How many vectors were added and removed."""
        return len(self._added) + len(self._removed)

    @cached_property
    def ids(self) -> np.ndarray:
        """int64 (n,): what can be found, rising; read only. The first use costs time for each of them."""
        ids = np.union1d(self._base_ids, self._added.ids) if len(self._added) else self._base_ids
        if len(self._removed):
            ids = ids[~locate(self._removed, ids)[1]]
        ids.setflags(write=False)
        return ids

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool (m,): which ids can be found."""
        held = locate(self._base_ids, ids)[1] | locate(self._added.ids, ids)[1]
        return held & ~locate(self._removed, ids)[1]

    def changed(self, vectors: np.ndarray, ids: np.ndarray, removed: np.ndarray = ()) -> "DeltaIndex":
        """Another index in which some vectors were added, and then some ids removed.

        vectors : float (n, dim). ids : int64 (n,), rising, above all ids that this index ever had.
        removed : int64 (m,).

        Raises
        ------
        ValueError : the vectors are wrong, see `Index.add`, or an id is taken.
        KeyError : an id that is to be removed is not in the index.
        """
        ids, removed = np.asarray(ids, np.int64), np.unique(np.asarray(removed, np.int64))
        if self.contains(ids).any():
            raise ValueError(f"{name_ids(ids[self.contains(ids)])} already in the index")
        other = self._copy()
        if len(ids):
            other._added = self._added.extended(vectors, ids)
        absent = removed[~other.contains(removed)]
        if len(absent):
            raise KeyError(f"{name_ids(absent)} can't be removed: not in the index")
        other._removed = np.union1d(self._removed, removed)
        return other

    def rebased(self, base: Index, first: int) -> "Index | DeltaIndex":
        """The same changes over another base, which contains all ids below ``first`` that were not removed by then."""
        late = self._added.ids >= first
        added = self._added.ids[late]
        removed = self._removed[locate(base.ids, self._removed)[1] | locate(added, self._removed)[1]]
        if not len(added) and not len(removed):
            return base
        return DeltaIndex(base).changed(self._added.vectors(added), added, removed)

    def compacted(self) -> Index:
        """The base, changed in place so that it contains all changes; this index is of no use afterwards.

        A base that can't remove is built anew from the vectors it keeps. Where it keeps them in fewer bits, the new one
        is made of these.
        """
        base, gone = self._base, self._removed[locate(self._base_ids, self._removed)[1]]
        if len(gone):
            try:
                base.remove(gone)
            except UnsupportedByIndex:
                stay = np.setdiff1d(base.ids, gone)
                kept, base = base.vectors(stay), open_index(base.spec)
                base.add(kept, stay)
        ids = self._added.ids[~locate(self._removed, self._added.ids)[1]]
        if len(ids):
            # A server may contain some already, from a compaction that was interrupted.
            ids = ids[~locate(base.ids, ids)[1]]
            base.add(self._added.vectors(ids), ids)
        return base

    def search(
        self,
        vectors: np.ndarray,
        k: int = 10,
        *,
        allowed: np.ndarray | IdSet | None = None,
        excluded: np.ndarray | IdSet | IdsPerQuery | None = None,
    ) -> Ranking:
        """As `Index.search`."""
        depth = k = check_k(k)
        if not len(self):
            raise ValueError("the index is empty: add vectors before searching")
        excluded = excluded if isinstance(excluded, IdsPerQuery) else IdSet.of(excluded)
        dropped = None
        if isinstance(excluded, IdsPerQuery) or (excluded is not None and len(excluded) <= _FEW):
            # To leave out a few more results is cheaper than to join them with all that was removed.
            dropped, excluded = excluded, None
            depth = max(k, min(k + dropped.most, len(self)))
        if isinstance(dropped, IdsPerQuery) and len(dropped) != len(vectors):
            raise ValueError(f"excluded holds {len(dropped)} sets of ids for {len(vectors)} queries")
        parts = [
            index.search(vectors, depth, allowed=allowed, excluded=hidden)
            for index, allowed, hidden in self._parts(allowed, excluded)
        ]
        ids, scores = best_first(
            np.hstack([part.ids for part in parts]), np.hstack([part.scores for part in parts]), depth
        )
        if dropped is not None:
            ids, scores = keep(ids, scores, (ids != PAD) & ~dropped.contains(ids), k)
        return Ranking(ids, scores)

    def count(self, *, allowed=None, excluded=None) -> int:
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

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """As `Index.vectors`.

        Raises
        ------
        KeyError : an id is not in the index.
        """
        ids = np.asarray(ids, np.int64)
        absent = ids[~self.contains(ids)]
        if len(absent):
            raise KeyError(f"no vector is kept of {name_ids(absent)}: not in the index")
        vectors, added = np.empty((len(ids), self.dim), np.float32), locate(self._added.ids, ids)[1]
        for index, rows in ((self._added, added), (self._base, ~added)):
            if rows.any():
                vectors[rows] = index.vectors(ids[rows])
        return vectors

    def tune(self, **options) -> "DeltaIndex":
        """As `Index.tune`, for the base."""
        self._base.tune(**options)
        return self

    def _parts(self, allowed, excluded) -> list[tuple[Index, IdSet | None, IdSet | None]]:
        """The indexes to search, each with what is allowed and excluded there."""
        allowed, excluded = IdSet.of(allowed), IdSet.of(excluded)
        parts = [(self._base, self._hidden_in_base), (self._added, self._hidden)]
        return [(index, allowed, _union(hidden, excluded)) for index, hidden in parts if len(index)]

    @cached_property
    def _hidden(self) -> IdSet | None:
        return IdSet(self._removed) if len(self._removed) else None

    @cached_property
    def _hidden_in_base(self) -> IdSet | None:
        if not (self._base.remote and len(self._added)):
            return self._hidden
        # Another process may have put into the server by now what was added here.
        return IdSet(np.union1d(self._removed, self._added.ids))

    def _copy(self) -> "DeltaIndex":
        other = object.__new__(type(self))
        for name in ("_base", "_base_ids", "_added", "_removed", "metric", "dim"):
            setattr(other, name, getattr(self, name))
        return other


def apply_changes(index: Index | DeltaIndex, changes: Sequence[Change]) -> DeltaIndex:
    """An index with changes of the log applied; the given one stays as it is."""
    delta = index if isinstance(index, DeltaIndex) else DeltaIndex(index)
    added = [change for change in changes if change.vector is not None]
    vectors = np.stack([change.vector for change in added]) if added else np.empty((0, delta.dim), np.float32)
    removed = [change.id for change in changes if change.vector is None]
    return delta.changed(vectors, [change.id for change in added], removed)


def _union(first: IdSet | None, second: IdSet | None) -> IdSet | None:
    if first is None or second is None:
        return first if second is None else second
    return IdSet(np.union1d(first.ids, second.ids))
