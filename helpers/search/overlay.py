"""Overlay: an index that is only read, with what was added and removed since kept beside it."""

import numpy as np

from helpers.search.backends.exact import ExactIndex
from helpers.search.index import Index, UnsupportedByIndex, open_index
from helpers.search.ranking import PAD, best_first


class Overlay(Index):
    """A base index that stays as it is, however much is added and removed.

    So many processes can share one base, mapped from disk, while each takes in small changes by itself. What was added
    is compared exactly; what was removed from the base is asked for too and left out, so that a search takes the longer
    the more was removed: `folded` brings both into the base.

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

    def _search(self, queries, k):
        found, scores = [], []
        if len(self._base):
            near = self._base.search(queries, min(k + len(self._gone), len(self._base)))
            # A base in a server may hold by now what was added here.
            hidden = np.isin(near.ids, self._gone) | np.isin(near.ids, self._added.ids)
            found.append(np.where(hidden, PAD, near.ids))
            scores.append(near.scores)
        if len(self._added):
            near = self._added.search(queries, min(k, len(self._added)))
            found.append(near.ids)
            scores.append(near.scores)
        ids, scores = best_first(np.hstack(found), np.hstack(scores), k)
        missing = k - ids.shape[1]
        if missing > 0:
            ids = np.pad(ids, ((0, 0), (0, missing)), constant_values=PAD)
            scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        return ids, scores

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
