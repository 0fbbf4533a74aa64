"""Index: what all backends that store vectors and find the nearest ones have in common."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

import numpy as np
from numpy.typing import ArrayLike

from helpers.search.index.checks import as_ids, as_new_ids, as_vectors, check_held, check_k, name_ids
from helpers.search.index.factory import METRIC_NAMES, open_index
from helpers.search.index.filters import Filter, IdSet, IdsPerQuery, Selection, keep, locate, split_excluded
from helpers.search.index.locks import ReadWriteLock
from helpers.search.index.storage import IndexFileError, Streamed, load_index, save_arrays
from helpers.search.ranking import PAD, Ranking, best_first
from helpers.vectors import l2_normalize, unit_query

#: A filtered search compares with all selected vectors if they are fewer than this times the depth of an over-fetch.
_EXACT_FACTOR = 8
#: Vectors compared at a time, and results in memory at a time.
_COMPARED, _STEP_RESULTS = 8192, 2**22


class UnsupportedByIndex(NotImplementedError):
    """The library behind an index cannot do this; the message names the library and the remedy."""


class Index(ABC):
    """Stores vectors by id and finds the nearest ones.

    Higher scores are better whatever the metric: cosine similarity, or a negated distance.
    All methods may be called from several threads. A search sees the index before or after an addition, and an `add`
    waits for the running searches.

    A backend sets the class attributes, and implements `_add`, `_remove`, `_search`, `_reconstruct`, `_state`,
    `_restore` and `nbytes`, whose arguments are already checked. If its library can filter, it implements
    `_search_filtered` too.

    Attributes
    ----------
    metric : ``"cosine"``, ``"euclidean"`` or ``"manhattan"``.
    options : the options that were given and are not None.
    dim : length of a vector; None until the first add.
    """

    #: The part of the spec before the colon.
    scheme: ClassVar[str]
    #: The metrics of the backend.
    metrics: ClassVar[tuple[str, ...]] = ("cosine", "euclidean", "manhattan")
    #: The backend's options → how the text of one is parsed.
    option_types: ClassVar[dict[str, Callable[[str], Any]]] = {}
    #: Options that affect only searches; `tune` can change them at any time.
    search_options: tuple[str, ...] = ()
    #: Whether the vectors are in a server: then the spec opens what is stored there, and `add` takes a payload.
    remote: ClassVar[bool] = False
    #: The largest possible number of results per query.
    max_k: ClassVar[float] = math.inf
    #: The largest number in a vector, for another metric than the cosine.
    largest: float = math.inf

    def __init__(self, metric: str = "cosine", **options: object):
        if METRIC_NAMES.get(metric) not in self.metrics:
            raise ValueError(f"{self.scheme} has no metric {metric!r}; it has: {', '.join(self.metrics)}")
        self.metric = METRIC_NAMES[metric]
        self.options: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        self._check_options(self.options)
        self.dim: int | None = None
        #: Replaced after a change, never modified: `IdSet` caches rows by its identity.
        self._ids = np.empty(0, np.int64)
        self._next_id = 0
        self._lock = ReadWriteLock()

    @classmethod
    def from_spec(cls, rest: str, options: dict[str, str]) -> Self:
        """Called by `open_index` with the part after the scheme, and the options as text."""
        unknown = sorted(options.keys() - cls.option_types.keys())
        if unknown:
            raise ValueError(
                f"{cls.scheme} has no option {unknown[0]!r}; it has: {', '.join(sorted(cls.option_types)) or 'none'}"
            )
        parsed = {}
        for name, text in options.items():
            try:
                parsed[name] = cls.option_types[name](text)
            except ValueError as error:
                raise ValueError(f"{cls.scheme}: option {name} cannot be {text!r} ({error})") from error
        return cls(rest, **parsed)

    @property
    def spec(self) -> str:
        """The name by which `open_index` opens an empty index like this one."""
        query = urlencode(sorted(self.options.items()))
        return f"{self.scheme}:{self._target}" + (f"?{query}" if query else "")

    @property
    def _target(self) -> str:
        """The part of the spec between the colon and the options."""
        return self.metric

    @property
    def ids(self) -> np.ndarray:
        """int64 (n,): the stored ids, ascending, read-only."""
        view = self._ids.view()
        view.setflags(write=False)
        return view

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory for the vectors and the search structure."""

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        size = f"{len(self)} vectors of {self.dim} numbers" if self.dim else "empty"
        return f"{type(self).__name__}({self.spec!r}, {size})"

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None) -> Self:
        """Add vectors; after an error none is added.

        vectors : float (n, dim), stored as float32. The first add sets ``dim``.
        ids : int64 (n,), unique and not negative; by default they follow the highest id ever added.
        """
        with self._lock.write:
            self._sync()
            vectors = self._checked(vectors)
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

    def remove(self, ids: ArrayLike) -> Self:
        """Remove vectors; their ids may be added again.

        Raises KeyError: an id is not in the index, and nothing is removed; UnsupportedByIndex: the backend cannot.
        """
        with self._lock.write:
            self._sync()
            ids = np.unique(as_ids(ids))
            check_held(ids, self.contains(ids), "cannot be removed: not in the index")
            if len(ids):
                self._remove(ids)
                self._ids = self._ids[~np.isin(self._ids, ids)]
        return self

    def clear(self) -> Self:
        """Remove everything, and forget the dimension and the used ids."""
        with self._lock.write:
            self._clear()
            self._ids = np.empty(0, np.int64)
            self.dim, self._next_id = None, 0
        return self

    def tune(self, **options: object) -> Self:
        """Change options that affect only searches (``search_options``), without a rebuild.

        They become part of ``spec`` and are saved with the index. None stands for the default.
        """
        with self._lock.write:
            for name in options:
                if name not in self.search_options:
                    raise ValueError(
                        f"{self.scheme}:{self._target} cannot change {name!r} once it is open; it can change: "
                        f"{', '.join(self.search_options) or 'nothing'}"
                    )
            changed = {name: value for name, value in (self.options | options).items() if value is not None}
            self._check_options(changed)
            self.options = changed
            self._apply_search_options()
        return self

    def search(
        self, vectors: ArrayLike, k: int = 10, *, allowed: Filter = None, excluded: Filter | IdsPerQuery = None
    ) -> Ranking:
        """The ``k`` best results of each query; the Ranking is padded with -1 if there are fewer.

        An approximate index may miss some of the best. Filters are as exact as the index: the results of an exact one
        are the best among the selected vectors.

        vectors : float (q, dim).
        allowed : int64 (m,), the only ids that may be found; ids that are not in the index are ignored. Prepare an
            `IdSet` to filter many searches by the same ids.
        excluded : ids that must not be found, even if they are allowed. `IdsPerQuery` gives each query its own.
        """
        depth = k = check_k(k)
        dropped, hidden = None, None
        if allowed is not None or excluded is not None:
            allowed, (dropped, hidden) = IdSet.of(allowed), split_excluded(excluded, k, self.max_k)
        with self._lock.read:
            self._sync()
            if not len(self):
                raise ValueError("the index is empty: add vectors before searching")
            queries = self._checked(vectors)
            held = len(self)
            if dropped is not None:
                if self.remote:
                    # The server may hold excluded ids that this process does not know.
                    held += min(dropped.max_size, int(np.count_nonzero(~self.contains(dropped.ids))))
                depth = max(k, min(k + dropped.max_size, held))
            filtered = allowed is not None or hidden is not None
            selection = Selection(self._ids, allowed, hidden) if filtered else None
            found = min(depth, held if selection is None else selection.count)
            if not (len(queries) and found):
                ids, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
            # A server may hold more than this process knows.
            elif selection is None or (selection.count == len(self) and not self.remote):
                ids, scores = self._search(queries, found)
            else:
                ids, scores = self._search_selection(queries, found, selection)
        scores = scores.astype(np.float64)
        if ids.shape[1] < depth:
            missing = ((0, 0), (0, depth - ids.shape[1]))
            ids = np.pad(ids, missing, constant_values=PAD)
            scores = np.pad(scores, missing, constant_values=-np.inf)
        if dropped is not None:
            ids, scores = keep(ids, scores, (ids != PAD) & ~dropped.contains(ids), k)
        return Ranking.of_sorted(ids, scores)

    def contains(self, ids: np.ndarray) -> np.ndarray:
        """bool (m,): which ids are in the index."""
        return locate(self._ids, ids)[1]

    def count(self, *, allowed: Filter = None, excluded: Filter = None) -> int:
        """How many stored ids a search with these filters may find; see `search`."""
        if allowed is None and excluded is None:
            return len(self)
        return Selection(self._ids, IdSet.of(allowed), IdSet.of(excluded)).count

    def vectors(self, ids: ArrayLike) -> np.ndarray:
        """float32 (n, dim): the stored vectors, in the order of ``ids``; a copy.

        For the cosine, a backend may store vectors of length one. Numbers stored in fewer bits, and codes, are
        converted back.

        Raises KeyError: an id is not in the index.
        """
        with self._lock.read:
            self._sync()
            ids = as_ids(ids)
            check_held(ids, self.contains(ids), "has no vector: not in the index")
            return self._reconstruct(ids) if len(ids) else np.empty((0, self.dim or 0), np.float32)

    def save(self, path: str | Path) -> Path:
        """Write everything into one file, which replaces an existing one only when it is complete.

        Raises IndexFileError: the disk is full, or the file cannot be written; the old one is kept.
        """
        with self._lock.read:
            self._sync()
            header = {"spec": self.spec, "dim": self.dim, "count": len(self), "next_id": self._next_id}
            return save_arrays(path, header, {"ids": self._ids, **self._state()})

    @classmethod
    def load(cls, path: str | Path, mmap: bool = False) -> Self:
        """`load_index`, for a file of this kind of index; IndexFileError if it is of another kind."""
        index = load_index(path, mmap)
        if not isinstance(index, cls):
            raise IndexFileError(f"{path} holds {index.spec}, not a {cls.__name__}. Open it with load_index(path).")
        return index

    def _sync(self) -> None:  # noqa: B027
        """Called before the ids are used, which a server may have changed."""

    def _checked(self, vectors: ArrayLike) -> np.ndarray:
        """`as_vectors`. The library would turn too large numbers into infinity, and rank them last."""
        checked = as_vectors(vectors, self.dim)
        limited = self.metric != "cosine" and self.largest < math.inf
        if limited and (number := np.abs(checked).max(initial=0)) > self.largest:
            raise ValueError(
                f"a number of {number:.3g} is too large for {self.spec}, whose limit is {self.largest:.3g}: "
                "scale the vectors, or use exact:euclidean"
            )
        return checked

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        """The form of float32 (n, dim) that the library gets: by default of length one for the cosine."""
        return l2_normalize(vectors, np.float64) if self.metric == "cosine" else vectors

    def _prepare_queries(self, queries: np.ndarray) -> np.ndarray:
        """`_prepare` of float32 (q, dim) for a search."""
        one = len(queries) == 1 and self.metric == "cosine"
        return unit_query(queries) if one else self._prepare(queries)

    def _new_ids(self, ids: ArrayLike | None, count: int) -> np.ndarray:
        if ids is None:
            return np.arange(self._next_id, self._next_id + count, dtype=np.int64)
        ids = as_new_ids(ids, count)
        taken = np.sort(ids[self.contains(ids)])
        if len(taken):
            raise ValueError(f"{name_ids(taken)} already in the index: remove first, or choose others")
        return ids

    @abstractmethod
    def _add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """float32 (n, dim), which may be the caller's own array, and ascending new int64 (n,); n may be 0."""

    @abstractmethod
    def _remove(self, ids: np.ndarray) -> None:
        """Ascending int64 (m,), all present."""

    def _clear(self) -> None:
        """Remove everything."""
        if len(self):
            self._remove(self._ids)

    def _check_options(self, options: dict) -> None:  # noqa: B027
        """Raises ValueError if an option has an invalid value."""

    def _apply_search_options(self) -> None:  # noqa: B027
        """Called after some of ``search_options`` changed."""

    @abstractmethod
    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 (q, dim), q ≥ 1, and 1 ≤ k ≤ n, to ids and scores (q, k) in the form of a Ranking.

        Several threads may call it at a time; nothing is added or removed meanwhile, nor while `_state` is saved.
        """

    def _search_selection(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        """`_search` in a selection of at least ``k`` ids: over-fetch, and `_search_filtered` if that is not enough.

        A backend overrides it if its library filters faster than that.
        """
        ids, scores = self._overfetch(queries, k, selection)
        short = np.flatnonzero(ids[:, -1] == PAD)
        if len(short):
            ids[short], scores[short] = self._search_filtered(queries[short], k, selection)
        return ids, scores

    def _overfetch(
        self, queries: np.ndarray, k: int, selection: Selection, times: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search deeper than ``k``, and four times as deep again for queries that lack results, while that is faster.

        times : the depth as a multiple of the first one.
        """
        # If a result is selected with probability `part`, this depth suffices for about 98 % of the queries (two
        # standard deviations of the negative binomial distribution).
        part = selection.count / len(self)
        depth = times * math.ceil((k + 2 * math.sqrt(k * (1 - part))) / part)
        if depth > self.max_k or depth * _EXACT_FACTOR >= selection.count:
            return np.full((len(queries), k), PAD, np.int64), np.full((len(queries), k), -np.inf)
        step = max(1, _STEP_RESULTS // depth)
        best = []
        for start in range(0, len(queries), step):
            found, near = self._search_deeper(queries[start : start + step], depth, math.ceil(times * k / part))
            best.append(keep(found, near.astype(np.float64), selection.contains(found), k))
        ids, scores = best[0] if len(best) == 1 else map(np.concatenate, zip(*best, strict=True))
        short = np.flatnonzero(ids[:, -1] == PAD)
        if len(short):
            ids[short], scores[short] = self._overfetch(queries[short], k, selection, 4 * times)
        return ids, scores

    def _search_deeper(self, queries: np.ndarray, k: int, likely: int) -> tuple[np.ndarray, np.ndarray]:
        """`_search` for a filter that will probably need only the first ``likely`` results.

        A backend overrides it if its library reads more vectors for a larger ``k``.
        """
        return self._search(queries, k)

    def _search_filtered(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        """`_search_selection` if over-fetching is not faster; a backend overrides it with its library's own filter.

        By default it compares with all selected vectors.
        """
        best, ids = (np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))), selection.ids
        for start in range(0, len(ids), _COMPARED):
            part = ids[start : start + _COMPARED]
            exact = open_index(f"exact:{self.metric}").add(self._reconstruct(part), part)
            near = exact.search(queries, min(k, len(part)))
            best = best_first(np.hstack([best[0], near.ids]), np.hstack([best[1], near.scores]), k)
        return best

    @abstractmethod
    def _reconstruct(self, ids: np.ndarray) -> np.ndarray:
        """int64 (n,), n ≥ 1, all present, in any order, perhaps repeated → float32 (n, dim)."""

    @abstractmethod
    def _state(self) -> dict[str, np.ndarray | Streamed]:
        """Everything that is saved in addition to the ids, as named arrays."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """The reverse of `_state`, called when ids and dim are set; the arrays are read-only.

        It raises ValueError if they are invalid.
        """

    def _check_stored(self, changing: np.ndarray) -> None:  # noqa: B027
        """Called after `_restore`. Raises ValueError if a server has other ids, apart from those of ``changing``."""


class StoredIndex(Index):
    """An index that stores all vectors in one float32 array, in ascending order of id."""

    def __init__(self, metric: str = "cosine", **options: object):
        super().__init__(metric, **options)
        self._set(np.empty((0, 0), np.float32))

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes + self._ids.nbytes

    def extended(self, vectors: np.ndarray, ids: np.ndarray) -> Self:
        """Another index with more vectors at the end; this one does not change.

        Both share memory: the average cost depends on the number of new vectors only.

        ids : int64 (n,). If one is not above all stored ids, everything is copied.
        """
        longer = copy.copy(self)
        longer._lock = ReadWriteLock()
        return longer.add(vectors, ids)

    def _set(self, vectors: np.ndarray) -> None:
        self._vectors = self._buffer = vectors
        #: Rows of the buffer in use, by this index and those that `extended` made from it.
        self._used = [len(vectors)]
        self._changed(0)

    def _clear(self) -> None:
        self._set(np.empty((0, 0), np.float32))

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        """The stored form of float32 (n, dim): by default the vectors themselves."""
        return vectors

    def _changed(self, kept: int) -> None:
        """Called after all vectors but the first ``kept`` changed: drops what was computed from them."""

    def _add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        given, vectors = vectors, self._prepare(vectors)
        before, after = len(self), len(self) + len(vectors)
        if not before and vectors is not given and vectors.flags.owndata:
            # No copy of the prepared vectors, which nothing else refers to.
            self._set(vectors)
            return
        if before and len(ids) and ids[0] < self._ids[-1]:
            self._set(np.insert(self._vectors, np.searchsorted(self._ids, ids), vectors, axis=0))
            return
        fits = after <= len(self._buffer) and self._buffer.shape[1] == vectors.shape[1] and self._used[0] == before
        if not fits or not self._buffer.flags.writeable:
            # Room for half as much again, so that many small additions do not each copy everything.
            room = after if not before else max(after, before + before // 2)
            larger = np.empty((room, vectors.shape[1]), np.float32)
            if before:
                larger[:before] = self._vectors
            self._buffer, self._used = larger, [before]
        self._buffer[before:after] = vectors
        self._used[0] = after
        self._vectors = self._buffer[:after]
        self._changed(before)

    def _remove(self, ids: np.ndarray) -> None:
        self._set(self._vectors[~np.isin(self._ids, ids)])

    def _reconstruct(self, ids: np.ndarray) -> np.ndarray:
        return self._vectors[np.searchsorted(self._ids, ids)]

    def _state(self) -> dict[str, np.ndarray | Streamed]:
        return {"vectors": self._vectors}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        vectors = arrays["vectors"]
        if vectors.shape != (len(self), self.dim or 0) or vectors.dtype != np.float32:
            raise ValueError(f"vectors of shape {vectors.shape} and type {vectors.dtype}")
        self._set(vectors)
