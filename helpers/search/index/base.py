"""Index: what every place that keeps vectors and finds the nearest ones has in common."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlencode

import numpy as np

from helpers.search.index.checks import as_ids, as_vectors, check_k, name_ids
from helpers.search.index.factory import METRIC_NAMES, open_index
from helpers.search.index.filters import IdSet, IdsPerQuery, Selection, keep, locate
from helpers.search.index.locks import ReadWriteLock
from helpers.search.index.storage import IndexFileError, Streamed, encode, load_index, write_atomically
from helpers.search.ranking import PAD, Ranking, best_first

#: A filtered search compares with all allowed vectors where they are fewer than this times what it would ask for.
_WORTH = 8
#: Up to so many excluded ids are dropped from deeper results, whatever the library can do.
_FEW = 16
#: Vectors compared at a time, and results in memory at a time.
_COMPARED, _STEP_RESULTS = 8192, 2**22


class UnsupportedByIndex(NotImplementedError):
    """What an index is built with can't do this; the message names the library and the remedy."""


class Index(ABC):
    """Keeps vectors by id and finds the nearest ones.

    Scores are higher for better answers whatever the metric: cosine similarity, or a distance negated.
    Searching from several threads is safe, and so is adding or removing meanwhile: a search sees the index as it was
    before or after, and an `add` waits until the searches that run are done.

    A backend sets the class attributes, and writes `_add`, `_remove`, `_search`, `_kept`, `_state`, `_restore` and
    `nbytes`; what it is handed has been checked. If its library can filter, it writes `_search_filtered` too.

    Attributes
    ----------
    metric : ``"cosine"``, ``"euclidean"`` or ``"manhattan"``.
    options : those that were given and differ from the default.
    dim : length of a vector; None until the first add.
    """

    #: The part of the spec before the colon.
    scheme: ClassVar[str]
    #: What the backend can measure by.
    metrics: ClassVar[tuple[str, ...]] = ("cosine", "euclidean", "manhattan")
    #: The backend's options → how the text of one is read.
    option_types: ClassVar[dict[str, Callable]] = {}
    #: Those of them that only matter to a search, so that `tune` can change them at any time.
    search_options: ClassVar[tuple[str, ...]] = ()
    #: Whether it lives in a server: then its spec opens what is stored there, and `add` takes a payload.
    remote: ClassVar[bool] = False
    #: The most results that a query may ask for.
    most: ClassVar[float] = math.inf

    def __init__(self, metric: str = "cosine", **options):
        if METRIC_NAMES.get(metric) not in self.metrics:
            raise ValueError(f"{self.scheme} has no metric {metric!r}; it has: {', '.join(self.metrics)}")
        self.metric = METRIC_NAMES[metric]
        self.options = {name: value for name, value in options.items() if value is not None}
        self.dim: int | None = None
        self._ids = np.empty(0, np.int64)
        self._next_id = 0
        self._lock = ReadWriteLock()

    @classmethod
    def from_spec(cls, rest: str, options: dict[str, str]) -> Self:
        """What `open_index` calls with the part after the scheme, and the options as text."""
        unknown = sorted(options.keys() - cls.option_types.keys())
        if unknown:
            raise ValueError(
                f"{cls.scheme} has no option {unknown[0]!r}; it has: {', '.join(sorted(cls.option_types)) or 'none'}"
            )
        read = {}
        for name, text in options.items():
            try:
                read[name] = cls.option_types[name](text)
            except ValueError as error:
                raise ValueError(f"{cls.scheme}: option {name} can't be {text!r} ({error})") from error
        return cls(rest, **read)

    @property
    def spec(self) -> str:
        """The name by which `open_index` opens an empty index like this one."""
        query = urlencode(sorted(self.options.items()))
        return f"{self.scheme}:{self._kind}" + (f"?{query}" if query else "")

    @property
    def _kind(self) -> str:
        """What stands in the spec after the colon."""
        return self.metric

    @property
    def ids(self) -> np.ndarray:
        """int64 (n,): what is in it, rising; read only."""
        view = self._ids.view()
        view.setflags(write=False)
        return view

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory that the vectors and what is built over them take."""

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        size = f"{len(self)} vectors of {self.dim} numbers" if self.dim else "empty"
        return f"{type(self).__name__}({self.spec!r}, {size})"

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> Self:
        """Put vectors in; all or, after an error, none.

        vectors : float (n, dim); kept as float32. The first add sets ``dim``.
        ids : int64 (n,), unique and not negative; without them they go on from the highest id ever added.

        Raises
        ------
        ValueError : a shape or dimension is wrong, a number is NaN or infinite, an id is taken already.
        """
        with self._lock.write():
            vectors = as_vectors(vectors, self.dim)
            ids = self._new_ids(ids, len(vectors))
            order = np.argsort(ids)
            if (order[1:] < order[:-1]).any():
                vectors, ids = vectors[order], ids[order]
            self._add(vectors, ids)
            self.dim = vectors.shape[1]
            if len(ids):
                self._ids = np.insert(self._ids, np.searchsorted(self._ids, ids), ids)
                self._next_id = max(self._next_id, int(ids[-1]) + 1)
        return self

    def remove(self, ids: np.ndarray) -> Self:
        """Take vectors out; their ids may be added again.

        Raises
        ------
        KeyError : an id is not in the index; nothing is removed then.
        UnsupportedByIndex : the backend can't remove.
        """
        with self._lock.write():
            ids = np.unique(as_ids(ids))
            absent = ids[~locate(self._ids, ids)[1]]
            if len(absent):
                raise KeyError(f"{name_ids(absent)} can't be removed: not in the index")
            if len(ids):
                self._remove(ids)
                self._ids = self._ids[~np.isin(self._ids, ids)]
        return self

    def clear(self) -> Self:
        """Take everything out, and forget the dimension and the ids that were used."""
        with self._lock.write():
            self._clear()
            self._ids = np.empty(0, np.int64)
            self.dim, self._next_id = None, 0
        return self

    def tune(self, **options) -> Self:
        """Change options that only matter to a search (``search_options``); nothing is built anew.

        They become part of ``spec`` and are saved with the index. None stands for the default.

        Raises
        ------
        ValueError : there is no such option, it matters to more than the search, or its value can't be.
        """
        with self._lock.write():
            for name in options:
                if name not in self.search_options:
                    raise ValueError(
                        f"{self.scheme}:{self._kind} can't change {name!r} once it is open; it can: "
                        f"{', '.join(self.search_options) or 'nothing'}"
                    )
            self._tune({name: value for name, value in (self.options | options).items() if value is not None})
        return self

    def search(
        self,
        vectors: np.ndarray,
        k: int = 10,
        *,
        allowed: np.ndarray | IdSet | None = None,
        excluded: np.ndarray | IdSet | IdsPerQuery | None = None,
    ) -> Ranking:
        """The ``k`` best results of each query; where fewer are held or found, the Ranking is padded with -1.

        An approximate index may find fewer than it holds, and others than the best. Filters are as exact as the
        index: with an exact one, the results are the best of what may be found.

        vectors : float (q, dim).
        allowed : int64 (m,), the only ids that may be found, in any order; None allows all. Ids that the index does
            not hold are ignored. Prepare an `IdSet` to filter many searches by the same ids.
        excluded : likewise, ids that must not be found, even where they are allowed. `IdsPerQuery` gives each query
            its own.

        Raises
        ------
        ValueError : the index is empty, ``k`` is not positive, a query has the wrong dimension, NaN or infinity, a
            filter holds something else than whole numbers, or there is not one set of ids for each query.
        """
        depth = k = check_k(k)
        allowed, excluded = IdSet.of(allowed), excluded if isinstance(excluded, IdsPerQuery) else IdSet.of(excluded)
        # A few more results cost less than any filter.
        few = excluded is not None and len(excluded) <= _FEW and k + len(excluded) <= self.most
        if few or isinstance(excluded, IdsPerQuery):
            dropped, excluded = excluded, None
        else:
            dropped = None
        with self._lock.read():
            if not len(self):
                raise ValueError("the index is empty: add vectors before searching")
            queries = as_vectors(vectors, self.dim)
            if isinstance(dropped, IdsPerQuery) and len(dropped) != len(queries):
                raise ValueError(f"excluded holds {len(dropped)} sets of ids for {len(queries)} queries")
            if dropped is not None:
                depth = max(k, min(k + dropped.most, len(self)))
            ids = np.full((len(queries), depth), PAD, np.int64)
            scores = np.full((len(queries), depth), -np.inf)
            filtered = allowed is not None or excluded is not None
            among = Selection(self._ids, allowed, excluded) if filtered else None
            found = min(depth, among.count if filtered else len(self))
            if len(queries) and found:
                # A server may hold more than is known here.
                whole = not filtered or (among.count == len(self) and not self.remote)
                best = self._search(queries, found) if whole else self._search_among(queries, found, among)
                ids[:, :found], scores[:, :found] = best
        if dropped is not None:
            ids, scores = keep(ids, scores, (ids != PAD) & ~dropped.contains(ids), k)
        return Ranking(ids, scores)

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool (m,): which ids are in it."""
        return locate(self._ids, ids)[1]

    def count(self, *, allowed=None, excluded=None) -> int:
        """How many of the held ids a search with these filters may find; see `search`."""
        if allowed is None and excluded is None:
            return len(self)
        return Selection(self._ids, IdSet.of(allowed), IdSet.of(excluded)).count

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """float32 (n, dim): what is kept of these vectors, in the order asked; a copy.

        For the cosine, a backend may keep vectors of length one. Numbers kept in fewer bits, and codes, come back as
        what they stand for.

        Raises
        ------
        KeyError : an id is not in the index.
        """
        with self._lock.read():
            ids = as_ids(ids)
            absent = ids[~locate(self._ids, ids)[1]]
            if len(absent):
                raise KeyError(f"no vector is kept of {name_ids(absent)}: not in the index")
            return self._kept(ids) if len(ids) else np.empty((0, self.dim or 0), np.float32)

    def save(self, path: str | Path) -> Path:
        """Write everything into one file. What was there before stays until the new file is complete.

        Raises
        ------
        IndexFileError : the disk is full, or the file can't be written; the old one is untouched.
        """
        with self._lock.read():
            header = {"spec": self.spec, "dim": self.dim, "count": len(self), "next_id": self._next_id}
            return write_atomically(path, encode(header, {"ids": self._ids, **self._state()}))

    @classmethod
    def load(cls, path: str | Path, mmap: bool = False) -> Self:
        """`load_index`, for a file that is known to hold this kind of index."""
        index = load_index(path, mmap)
        if not isinstance(index, cls):
            raise IndexFileError(f"{path} holds {index.spec}, not a {cls.__name__}. Open it with load_index(path).")
        return index

    def _new_ids(self, ids, count: int) -> np.ndarray:
        if ids is None:
            return np.arange(self._next_id, self._next_id + count, dtype=np.int64)
        ids = as_ids(ids)
        if ids.shape != (count,):
            raise ValueError(f"ids must have shape ({count},), one a vector; got {ids.shape}")
        if (ids < 0).any():
            raise ValueError(f"ids must not be negative, got {ids[ids < 0][0]}")
        values, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise ValueError(f"ids must be unique: {name_ids(values[times > 1])} given twice")
        taken = values[locate(self._ids, values)[1]]
        if len(taken):
            raise ValueError(f"{name_ids(taken)} already in the index: remove first, or choose others")
        return ids

    @abstractmethod
    def _add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """float32 (n, dim), which may be the caller's own array, and rising new int64 (n,); n may be 0."""

    @abstractmethod
    def _remove(self, ids: np.ndarray) -> None:
        """Rising int64 (m,), all present."""

    def _clear(self) -> None:
        """Drop everything."""
        if len(self):
            self._remove(self._ids)

    def _tune(self, options: dict) -> None:
        """All options, some of ``search_options`` changed: check them, then work by them."""
        self.options = options

    @abstractmethod
    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 (q, dim) with q ≥ 1, and 1 ≤ k ≤ n, to ids and scores (q, k) as a Ranking wants them, -1 and all.

        Several threads may be in it at a time; nothing is added or removed meanwhile, nor while `_state` is saved.
        """

    def _search_among(self, queries: np.ndarray, k: int, among: Selection) -> tuple[np.ndarray, np.ndarray]:
        """`_search` for a part of the ids, of which there are at least ``k``.

        This asks for more results and drops the rest. A library that can filter does so where that is faster.
        """
        ids, scores = self._overfetch(queries, k, among)
        short = np.flatnonzero(ids[:, -1] == PAD)
        if len(short):
            ids[short], scores[short] = self._search_filtered(queries[short], k, among)
        return ids, scores

    def _overfetch(self, queries: np.ndarray, k: int, among: Selection) -> tuple[np.ndarray, np.ndarray]:
        """Ask for more than ``k``, in growing steps for those queries that lack results, while that is worth it."""
        ids, scores = np.full((len(queries), k), PAD, np.int64), np.full((len(queries), k), -np.inf)
        rows, depth = np.arange(len(queries)), math.ceil(1.2 * k * len(self) / among.count) + 4
        while len(rows) and depth <= self.most and depth * _WORTH < among.count:
            step = max(1, _STEP_RESULTS // depth)
            for part in (rows[start : start + step] for start in range(0, len(rows), step)):
                found, near = self._search(queries[part], depth)
                ids[part], scores[part] = keep(found, near, among.passes(found), k)
            rows, depth = rows[ids[rows, -1] == PAD], 4 * depth
        return ids, scores

    def _search_filtered(self, queries: np.ndarray, k: int, among: Selection) -> tuple[np.ndarray, np.ndarray]:
        """`_search_among` where asking for more is not worth it: by the library's own filter if it has one.

        This compares with all that is allowed.
        """
        best, ids = (np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))), among.held[among.rows]
        for start in range(0, len(ids), _COMPARED):
            part = ids[start : start + _COMPARED]
            exact = open_index(f"exact:{self.metric}").add(self._kept(part), part)
            near = exact.search(queries, min(k, len(part)))
            best = best_first(np.hstack([best[0], near.ids]), np.hstack([best[1], near.scores]), k)
        return best

    @abstractmethod
    def _kept(self, ids: np.ndarray) -> np.ndarray:
        """int64 (n,) with n ≥ 1, all present, in any order and perhaps repeated → float32 (n, dim)."""

    @abstractmethod
    def _state(self) -> "dict[str, np.ndarray | Streamed]":
        """All that has to be saved beside the ids, as named arrays."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """The reverse of `_state`, called when ids and dim are set; the arrays are read only.

        ValueError says that they can't be what `_state` gave.
        """


class StoredIndex(Index):
    """An index that keeps all vectors in one float32 array, rows by rising id."""

    def __init__(self, metric: str = "cosine", **options):
        super().__init__(metric, **options)
        self._vectors = self._buffer = np.empty((0, 0), np.float32)
        #: Rows of the buffer in use, by this index and those that `extended` made from it.
        self._used = [0]

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes + self._ids.nbytes

    def extended(self, vectors: np.ndarray, ids: np.ndarray) -> Self:
        """Another index with more vectors behind these; this one stays as it is.

        Both share memory: the cost depends on what is added, and on average not on what was there.

        ids : int64 (n,), above all ids that are held.

        Raises
        ------
        ValueError : as `add`.
        """
        longer = copy.copy(self)
        longer._lock = ReadWriteLock()
        return longer.add(vectors, ids)

    def _clear(self):
        self._vectors = self._buffer = np.empty((0, 0), np.float32)
        self._used = [0]
        self._changed(0)

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        """What is stored of float32 (n, dim): by default the vectors themselves."""
        return vectors

    def _changed(self, kept: int) -> None:
        """Called after the vectors changed, all but the first ``kept`` rows: drop here what was computed from them."""

    def _add(self, vectors, ids):
        vectors = self._prepare(vectors)
        before, after = len(self), len(self) + len(vectors)
        if before and len(ids) and ids[0] < self._ids[-1]:
            self._vectors = self._buffer = np.insert(self._vectors, np.searchsorted(self._ids, ids), vectors, axis=0)
            self._used = [after]
            self._changed(0)
            return
        fits = after <= len(self._buffer) and self._buffer.shape[1] == vectors.shape[1] and self._used[0] == before
        if not fits or not self._buffer.flags.writeable:
            # Room for half as much again, so that many small adds don't each copy everything.
            room = after if not before else max(after, before + before // 2)
            synthetic = np.empty((room, vectors.shape[1]), np.float32)
            if before:
                synthetic[:before] = self._vectors
            self._buffer, self._used = synthetic, [before]
        self._buffer[before:after] = vectors
        self._used[0] = after
        self._vectors = self._buffer[:after]
        self._changed(before)

    def _remove(self, ids):
        self._vectors = self._buffer = self._vectors[~np.isin(self._ids, ids)]
        self._used = [len(self._vectors)]
        self._changed(0)

    def _kept(self, ids):
        return self._vectors[np.searchsorted(self._ids, ids)]

    def _state(self):
        return {"vectors": self._vectors}

    def _restore(self, arrays):
        vectors = arrays["vectors"]
        if vectors.shape != (len(self), self.dim or 0) or vectors.dtype != np.float32:
            raise ValueError(f"vectors of shape {vectors.shape} and type {vectors.dtype}")
        self._vectors = self._buffer = vectors
        self._used = [len(vectors)]
        self._changed(0)
