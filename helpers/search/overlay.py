"""Overlay: an index that is only read, with what was added and removed since kept beside it."""

import numpy as np

from helpers.search.backends.exact import ExactIndex
from helpers.search.index import IdSet, Index, UnsupportedByIndex, open_index
from helpers.search.ranking import best_first


class Overlay(Index):
    """A base index that stays as it is, however much is added and removed.

    So many processes can share one base, mapped from disk, while each takes in small changes by itself. What was added
    is compared exactly; what was removed is excluded from searches of the base. `folded` brings both into the base.

    Where the base's scores are estimates (codes, numbers kept in fewer bits), those of what was added are exact, and
    the two are ordered as if they were alike.

    Parameters
    ----------
    base : nobody may change it any more.
    """

    def __init__(self, base: Index):
        super().__init__(base.metric)
        self._base, self._added = base, ExactIndex(base.metric)
        # int64, rising: ids of the base that are no answers any more.
        self._gone = np.empty(0, np.int64)
        self._last_hidden: tuple = (None, None, None)
        self._ids, self.dim, self._next_id = base.ids.copy(), base.dim, base._next_id

    # What may be asked of the base by name may be asked of this.
    metrics = ("cosine", "euclidean", "manhattan")

    @property
    def spec(self) -> str:
        """The base's."""
        return self._base.spec

    @property
    def nbytes(self) -> int:
        return self._base.nbytes + self._added.nbytes + self._gone.nbytes + self._ids.nbytes

    def folded(self) -> Index:
        """The base, with all that was added and removed done to it; the overlay is of no use afterwards.

        A base that can't remove is built anew from the vectors it keeps. Where it keeps them in fewer bits, these are
        what the new one is made of.
        """
        base, self._base = self._base, None
        if len(self._gone):
            try:
                base.remove(self._gone)
            except UnsupportedByIndex:
                stay = np.setdiff1d(base.ids, self._gone)
                kept = base.vectors(stay)
                base = open_index(base.spec)
                base.add(kept, stay)
        if len(self._added):
            base.add(self._added.vectors(self._added.ids), self._added.ids)
        return base

    def _add(self, vectors, ids):
        self._added.add(vectors, ids)

    def _remove(self, ids):
        added = np.isin(ids, self._added.ids)
        self._added.remove(ids[added])
        self._gone = np.union1d(self._gone, ids[~added])

    def _search(self, queries, k, allowed=None, excluded=None):
        hidden = self._hidden()
        if excluded is not None:
            hidden = IdSet(np.union1d(hidden.ids, excluded.ids))
        parts = ((self._base, hidden), (self._added, excluded))
        near = [part.search(queries, k, allowed=allowed, excluded=without) for part, without in parts if len(part)]
        return best_first(np.hstack([each.ids for each in near]), np.hstack([each.scores for each in near]), k)

    def _search_among(self, queries, k, among):
        return self._search(queries, k, among.allowed, among.excluded)

    def _hidden(self) -> IdSet:
        """What a search of the base must not find, prepared once after each change."""
        gone, added, ids = self._last_hidden
        if gone is not self._gone or added is not self._added._ids:
            gone, added = self._gone, self._added._ids
            # A base in a server may hold by now what was added here.
            ids = IdSet(np.union1d(gone, added))
            self._last_hidden = gone, added, ids
        return ids

    def _kept(self, ids):
        vectors = np.empty((len(ids), self.dim), np.float32)
        added = np.isin(ids, self._added.ids)
        vectors[added] = self._added.vectors(ids[added]) if added.any() else 0
        vectors[~added] = self._base.vectors(ids[~added]) if (~added).any() else 0
        return vectors

    def _clear(self):
        self._added.clear()
        self._gone = self._base.ids.copy()

    def _state(self):
        raise UnsupportedByIndex("an overlay is not saved: save what folded() gives")

    def _restore(self, arrays):
        raise UnsupportedByIndex("an overlay is not loaded: load its base")
