"""What indexes in a server have in common: requests in parts, retries, and a record of what was done."""

import contextlib
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike

from helpers.search.index import Index, Streamed
from helpers.search.index.checks import as_ids, name_ids
from helpers.search.index.filters import Selection
from helpers.search.index.locks import ReadWriteLock
from helpers.search.ranking import PAD, best_first

#: Bytes that a file name and a path may have in UTF-8.
NAME_BYTES, PATH_BYTES = 1024, 4096

#: A filter of more ids than this takes a server longer than a deeper search.
_LISTED = 1000
#: Ids in a request that needs no vectors.
_IDS_PER_REQUEST = 1000

_UNTOUCHED, _UNCERTAIN, _DONE = range(3)
_NONE = np.empty(0, np.int64)
T = TypeVar("T")
_KEYS: dict[str, str] = {}


class ServerUnavailable(ConnectionError):
    """A server is unreachable, too slow or too busy after all retries; the message names it and the remedy."""


class ServerRefused(OSError):
    """A server refused a request, or its response is invalid.

    uncertain : whether the server may have executed the request all the same.
    """

    def __init__(self, message: str, uncertain: bool = False):
        super().__init__(message)
        self.uncertain = uncertain


class TemporaryFailure(Exception):
    """Raised by a backend if the same request may succeed later; `RemoteIndex` handles it.

    uncertain : whether the server may have executed the request, and only its response was lost.
    """

    def __init__(self, reason: str, uncertain: bool):
        super().__init__(reason)
        self.uncertain = uncertain


class PartialChange(OSError):
    """A part of an addition or removal was done; the index's ``ids`` agree with the server.

    Attributes
    ----------
    done, missing : int64, ascending: ids that were added or removed, and ids that were not.
    uncertain : int64, ascending: ids that were sent before the server failed to respond. The index checks them before
        it does anything else.
    """

    _done: ClassVar[str]

    def __init__(self, done: np.ndarray, missing: np.ndarray, uncertain: np.ndarray, reason: object):
        self.done, self.missing, self.uncertain = done, missing, uncertain
        total = len(done) + len(missing) + len(uncertain)
        parts = [f"{len(done)} of {total} vectors were {self._done}{_named(done)}"]
        if len(missing):
            parts.append(f"{len(missing)} were not{_named(missing)}")
        if len(uncertain):
            parts.append(f"{len(uncertain)} are uncertain{_named(uncertain)}")
        remedy = "Repeat the call with the missing ids."
        if len(uncertain):
            remedy = f"Call refresh() when the server is available, which updates `ids`. {remedy}"
        super().__init__(f"{', '.join(parts)}. {reason} {remedy}")


class PartlyIndexed(PartialChange):
    """Only a part of the vectors was added."""

    _done = "added"


class PartlyRemoved(PartialChange):
    """Only a part of the vectors was removed."""

    _done = "removed"


@dataclass(frozen=True)
class RetryPolicy:
    """The number of attempts, and the seconds between them.

    The wait doubles up to ``longest``, less a random part of up to a half, so that clients that were rejected together
    do not return together (Brooker, Exponential Backoff and Jitter, AWS Architecture Blog 2015,
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, there "equal jitter").
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 10.0

    def waits(self) -> Iterator[float]:
        for attempt in range(self.attempts - 1):
            yield min(self.longest, self.first * 2**attempt) * random.uniform(0.5, 1)


@dataclass(frozen=True)
class Payload:
    """Stored with a vector in a server: the image's file name, its path or key, and its label (-1 for none).

    Raises ValueError: a name of more than 1024 bytes, a path of more than 4096, or one that is not valid UTF-8.
    """

    name: str = ""
    path: str = ""
    label: int = -1

    def __post_init__(self) -> None:
        for what, text, most in (("name", self.name, NAME_BYTES), ("path", self.path, PATH_BYTES)):
            try:
                length = len(text.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"the {what} {text!r} cannot be written as UTF-8: rename the file") from error
            if length > most:
                raise ValueError(f"a {what} may have {most} bytes, {text[:60]!r}… has {length}")
        object.__setattr__(self, "label", int(self.label))


class Rejected(NamedTuple):
    """One row of a request that the server rejected, the reason, and whether a retry may succeed."""

    row: int
    reason: str
    retry: bool


class _ChangesLock(ReadWriteLock):
    """One change at a time; searches do not wait, because the server isolates them."""

    def __init__(self) -> None:
        self.read, self.write = contextlib.nullcontext(), threading.RLock()


def sign_in(address: str, key: str) -> None:
    """Use a key for a server (``host:port``): an API key of Elasticsearch, ``user:password`` of OpenSearch or Milvus.

    The key stays in this process; no spec, message or file contains it. Call this before opening an index.
    """
    _KEYS[address] = key


def key_for(address: str) -> str | None:
    """The key that `sign_in` got for a server."""
    return _KEYS.get(address)


def parse_location(scheme: str, rest: str, port: int, name: str | None = None) -> tuple[str, str]:
    """``//host:port/name`` as ``host:port`` and name, with a default port and perhaps a default name.

    Raises ValueError: another form, or a user or password in it.
    """
    form = f"{scheme}://host:{port}/name"
    parts = urlsplit(rest, allow_fragments=False)
    try:
        host, port = parts.hostname, parts.port or port
    except ValueError as error:
        raise ValueError(f"{scheme}:{rest} is not a location ({error}): write {form}") from error
    if "@" in parts.netloc:
        raise ValueError(f"a spec of {scheme} must not hold a user or password, because it is saved: use sign_in(…)")
    name = parts.path.strip("/") or name
    if not rest.startswith("//") or not host or not name:
        raise ValueError(f"{scheme}:{rest} is not a location: write {form}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", name


def chunks(sizes: np.ndarray, most_bytes: int, most_rows: int) -> Iterator[np.ndarray]:
    """Rows 0 … n - 1 in parts of at most ``most_rows`` and ``most_bytes``; a larger row is a part of its own.

    sizes : int64 (n,), bytes of each row.
    """
    ends = np.cumsum(sizes)
    start, before = 0, 0
    while start < len(ends):
        stop = int(np.searchsorted(ends, before + most_bytes, side="right"))
        stop = min(max(stop, start + 1), start + most_rows)
        yield np.arange(start, stop)
        start, before = stop, int(ends[stop - 1])


class RemoteIndex(Index):
    """An index whose vectors are in a server.

    Opening a spec connects, and reads the ids that are stored, page by page; they take 8 bytes each in this process.
    Differences from an index in memory:

    - An addition or removal is sent in parts. If only some of them succeed, `PartlyIndexed` or `PartlyRemoved` names
      them, and `ids` agrees with the server. If none does, the error is `ServerUnavailable` or `ServerRefused`.
    - Searches find changes of other processes at once; `ids` and `len` show them after `refresh`. An id that two
      processes add holds the later vector.
    - Default ids follow the highest id that is stored or was used here: the server does not remember removed ids.
    - `save` writes the spec and the ids, but no vectors. Loading opens the spec, and fails if the server's ids differ.
    - `clear` drops the collection. An engine needs an empty index, so clear one that holds vectors.
    - A search does not wait for a running addition; it finds the parts that are stored.

    A backend implements the abstract methods, which raise `TemporaryFailure` or `ServerRefused`, and calls `refresh`
    when it is connected.

    Attributes
    ----------
    timeout : seconds for one request.
    retries : the `RetryPolicy`.
    address : ``host:port``, or the file.
    """

    metrics = ("cosine", "euclidean")
    remote = True
    #: What to do if the server is unavailable.
    remedy: ClassVar[str]
    #: The largest number of ids in a filter, which is Elasticsearch's and OpenSearch's limit.
    max_listed: ClassVar[int] = 65_536
    #: The most bytes and rows in one request.
    chunk_bytes: int = 8 * 2**20
    chunk_rows: int = 5000
    #: Bytes of a number in a request.
    number_bytes: ClassVar[int]
    #: The name of the collection.
    _name: str

    def __init__(self, location: str, **options: Any):
        super().__init__(**options)
        if options.get("metric"):
            self.options["metric"] = self.metric
        self.location = self.address = location
        self.timeout: float = self.options.get("timeout", 30.0)
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout must be a number of seconds above 0, got {self.timeout}")
        self.retries = RetryPolicy()
        self._lock = _ChangesLock()
        self._uncertain = _NONE
        self._payloads: dict[int, Payload] = {}

    @property
    def _target(self) -> str:
        return self.location

    def sibling(self, suffix: str) -> str:
        """The spec of another collection of the same settings, named as this one with a suffix."""
        _, mark, options = self.spec.partition("?")
        return f"{self.scheme}:{self._sibling_location(suffix)}{mark}{options}"

    def _sibling_location(self, suffix: str) -> str:
        return f"//{self.address}/{self._name}{suffix}"

    @property
    def nbytes(self) -> int:
        """The float32 vectors in the server, and the ids here; the server's search structure is not known."""
        return 4 * (self.dim or 0) * len(self) + self._ids.nbytes

    def refresh(self) -> Self:
        """Read the ids from the server again.

        Raises
        ------
        ServerUnavailable : it is unreachable, too slow or too busy.
        ValueError : it stores something else under this name.
        """
        with self._lock.write:
            dim = self._retry(self._inspect)
            pages = [_NONE] if dim is None else [_NONE, *self._pages()]
            self.dim, self._ids, self._uncertain = dim, np.unique(np.concatenate(pages)), _NONE
            self._listed = self._ids
            self._reserve(self._ids)
        return self

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None, payload: Sequence[Payload] | None = None) -> Self:
        """As `Index.add`; ``payload`` has one entry for each vector, and is empty by default.

        Raises
        ------
        ValueError : as in `Index.add`, or not one payload per vector; nothing is sent.
        PartlyIndexed : some were added; repeat the call with the missing ones.
        ServerUnavailable, ServerRefused : none was added.
        """
        with self._lock.write:
            self._sync()
            if payload is not None:
                count = len(np.asarray(vectors))
                if len(payload) != count:
                    raise ValueError(f"payload must be one for each of {count} vectors, got {len(payload)}")
                ids = self._new_ids(ids, count)
                self._payloads = dict(zip(ids.tolist(), payload, strict=True))
            try:
                return super().add(vectors, ids)
            finally:
                self._payloads = {}

    def _search(self, queries: np.ndarray, k: int, selection: Selection | None = None) -> tuple[np.ndarray, np.ndarray]:
        if k > self.max_k:
            raise ValueError(f"{self.scheme} returns at most {self.max_k} results per query, {k} were requested")
        ids = np.full((len(queries), k), PAD, np.int64)
        scores = np.full((len(queries), k), -np.inf)
        for row, (found, near) in enumerate(self._results(queries, k, selection)):
            ids[row, : len(found)], scores[row, : len(found)] = found, near
        return best_first(ids, scores)

    def _search_selection(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        if _listed(selection) <= _LISTED:
            return self._search_filtered(queries, k, selection)
        return super()._search_selection(queries, k, selection)

    def _search_filtered(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        if _listed(selection) > self.max_listed:
            return super()._search_filtered(queries, k, selection)
        ids, scores = self._search(queries, k, selection)
        # The search of a graph may miss a small selection; one request reads all of its vectors.
        short = np.flatnonzero(ids[:, -1] == PAD) if selection.count <= _IDS_PER_REQUEST else _NONE
        if len(short):
            ids[short], scores[short] = super()._search_filtered(queries[short], k, selection)
        return ids, scores

    def payload(self, ids: ArrayLike) -> list[Payload]:
        """The payloads of these vectors, in the order of ``ids``.

        Raises KeyError: an id is not in the index.
        """
        self._sync()
        rows = self._read(as_ids(ids), ("name", "path", "label"), 0)
        return [Payload(row["name"], row["path"], row["label"]) for row in rows]

    def _reconstruct(self, ids: np.ndarray) -> np.ndarray:
        rows = self._read(ids, ("vector",), self.number_bytes * (self.dim or 0))
        return np.array([row["vector"] for row in rows], np.float32)

    def _read(self, ids: np.ndarray, fields: Sequence[str], row_bytes: int) -> list[Mapping]:
        """Fields of these ids, requested in parts; KeyError if the server no longer has an id."""
        found: dict[int, Mapping] = {}
        for rows in chunks(np.full(len(ids), row_bytes), self.chunk_bytes, _IDS_PER_REQUEST):
            found |= self._retry(partial(self._fetch, ids[rows], fields))
        missing = [i for i in ids.tolist() if i not in found]
        if missing:
            raise KeyError(f"{name_ids(np.array(missing))} not in {self.address}")
        return [found[i] for i in ids.tolist()]

    # ---- implemented by a backend ----------------------------------------------------------------------------------

    @abstractmethod
    def _inspect(self) -> int | None:
        """The dimension of the stored vectors, None if there is no collection; ValueError if it is not ours."""

    @abstractmethod
    def _pages(self) -> Iterator[np.ndarray]:
        """All ids, int64, page by page; each page is requested with `_retry`."""

    @abstractmethod
    def _create(self, dim: int) -> None:
        """Make the collection, unless it exists."""

    @abstractmethod
    def _drop(self) -> None:
        """Drop the collection, if it exists."""

    @abstractmethod
    def _send(self, vectors: np.ndarray, ids: np.ndarray, payload: list[Payload]) -> list[Rejected]:
        """Add one part, some of which may be stored already; returns the rejected rows."""

    @abstractmethod
    def _erase(self, ids: np.ndarray) -> list[Rejected]:
        """Remove one part; ids that do not exist are no error."""

    @abstractmethod
    def _results(
        self, queries: np.ndarray, k: int, selection: Selection | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and scores (at most k) of each query, in any order, each with `_retry`; filtered by the server."""

    @abstractmethod
    def _fetch(self, ids: np.ndarray, fields: Sequence[str]) -> dict[int, Mapping]:
        """Fields (``name``, ``path``, ``label``, ``vector``) of those of at most 1000 ids that are stored."""

    def _check_made(self, stored: Mapping[str, str], ours: Mapping[str, str]) -> None:
        """Raises ValueError if the collection was made with other settings."""
        for name, value in ours.items():
            if stored[name] != value:
                raise ValueError(
                    f"{self.address}: {self._name!r} was made with {name}={stored[name]}, not {value}: open it "
                    "with that, or choose another name"
                )

    def _check(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """Raises ValueError for vectors that the server cannot store, before anything is sent."""

    def _flush(self, count: int) -> None:
        """Called after all parts of an addition or removal."""

    def _clear(self) -> None:
        self._retry(self._drop)
        self._uncertain = _NONE

    # ---- requests --------------------------------------------------------------------------------------------------

    def _retry(self, call: Callable[[], T]) -> T:
        """Make a request until it succeeds or no attempt is left."""
        waits = self.retries.waits()
        while True:
            try:
                return call()
            except TemporaryFailure as error:
                self._wait(waits, error)

    def _wait(self, waits: Iterator[float], reason: Exception | str) -> None:
        wait = next(waits, None)
        if wait is None:
            message = f"{self.address} failed in {self.retries.attempts} attempts: {reason}. {self.remedy}"
            raise ServerUnavailable(message) from (reason if isinstance(reason, Exception) else None)
        time.sleep(wait)

    def _present(self, ids: np.ndarray) -> np.ndarray:
        """bool (n,): which ids are stored."""
        found: list[int] = []
        for start in range(0, len(ids), _IDS_PER_REQUEST):
            found += self._fetch(ids[start : start + _IDS_PER_REQUEST], ())
        return np.isin(ids, found)

    def _sync(self) -> None:
        """Check the ids that an error left uncertain."""
        if len(self._uncertain):
            with self._lock.write:
                present = self._retry(lambda: self._present(self._uncertain))
                self._register(self._uncertain[present])
                self._uncertain = _NONE

    def _register(self, ids: np.ndarray) -> None:
        self._ids = np.union1d(self._ids, ids)
        self._reserve(ids)

    def _reserve(self, ids: np.ndarray) -> None:
        self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)

    # ---- additions and removals ------------------------------------------------------------------------------------

    def _add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        self._check(vectors, ids)
        if self.dim is None:
            self._retry(lambda: self._create(vectors.shape[1]))
            self.dim = vectors.shape[1]
        payload = [self._payloads.get(i) or Payload() for i in ids.tolist()]
        # A character can take six bytes in JSON; 200 are for the syntax around the numbers.
        texts = [6 * (len(each.name) + len(each.path)) for each in payload]
        sizes = self.number_bytes * vectors.shape[1] + 200 + np.array(texts, np.int64)
        parts = chunks(sizes, self.chunk_bytes, self.chunk_rows)
        self._change(
            ids, parts, lambda rows: self._send(vectors[rows], ids[rows], [payload[row] for row in rows]), adding=True
        )

    def _remove(self, ids: np.ndarray) -> None:
        parts = chunks(np.zeros(len(ids), np.int64), self.chunk_bytes, _IDS_PER_REQUEST)
        self._change(ids, parts, lambda rows: self._erase(ids[rows]), adding=False)

    def _change(
        self, ids: np.ndarray, parts: Iterator[np.ndarray], send: Callable[[np.ndarray], list[Rejected]], adding: bool
    ) -> None:
        """Send all parts; after an error, update ``ids`` and report what was done."""
        state = np.full(len(ids), _UNTOUCHED)
        try:
            for part in parts:
                self._deliver(ids, state, part, send)
            self._retry(lambda: self._flush(len(ids)))
        except BaseException as error:
            # An interrupt must not wait for the server.
            if isinstance(error, Exception):
                self._settle(ids, state, adding)
            done, missing, uncertain = (ids[state == each] for each in (_DONE, _UNTOUCHED, _UNCERTAIN))
            self._uncertain = np.union1d(self._uncertain, uncertain)
            if adding:
                self._register(done)
                # An uncertain id was used, so it is not a default id any more.
                self._reserve(uncertain)
            else:
                self._ids = np.setdiff1d(self._ids, np.union1d(done, uncertain))
            if isinstance(error, OSError) and len(done) + len(uncertain):
                raise (PartlyIndexed if adding else PartlyRemoved)(done, missing, uncertain, error) from error
            raise

    def _deliver(
        self, ids: np.ndarray, state: np.ndarray, part: np.ndarray, send: Callable[[np.ndarray], list[Rejected]]
    ) -> None:
        """Send one part, and its rejected rows again; ``state`` (n,) records the progress."""
        waits, rows = self.retries.waits(), part
        while len(rows):
            reason: Exception | str = ""
            before, state[rows] = state[rows], _UNCERTAIN
            try:
                rejected = send(rows)
            except (TemporaryFailure, ServerRefused) as error:
                if not error.uncertain:
                    state[rows] = before
                if isinstance(error, ServerRefused):
                    raise
                reason = error
            else:
                state[rows] = _DONE
                rows = rows[np.array([each.row for each in rejected], np.int64)]
                state[rows] = _UNTOUCHED
                for row, each in zip(rows, rejected, strict=True):
                    if not each.retry:
                        raise ServerRefused(f"{self.address} refused id {ids[row]}: {each.reason}.")
                    reason = reason or each.reason
            if len(rows):
                self._wait(waits, reason)

    def _settle(self, ids: np.ndarray, state: np.ndarray, adding: bool) -> None:
        """After an error, check once which uncertain ids are stored, and let searches find what was done.

        If the server still fails, both are left out.
        """
        rows = np.flatnonzero(state == _UNCERTAIN)
        with contextlib.suppress(TemporaryFailure, OSError):
            state[rows] = np.where(self._present(ids[rows]) == adding, _DONE, _UNTOUCHED)
            if done := int(np.count_nonzero(state == _DONE)):
                self._flush(done)

    # ---- the file --------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, np.ndarray | Streamed]:
        return {}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        pass

    def _check_stored(self, changing: np.ndarray) -> None:
        differ = np.setdiff1d(np.setxor1d(self._ids, self._listed), changing)
        if len(differ):
            raise ValueError(
                f"{self.address} holds {len(self._listed)} vectors now, {len(self._ids)} when it was saved; "
                f"{len(differ)} ids differ{_named(differ)}. open_index({self.spec!r}) opens it in its present state"
            )


def _listed(selection: Selection) -> int:
    """The number of ids in the filter of a selection."""
    if selection.allowed is None and selection.excluded is not None:
        return len(selection.excluded)
    return selection.count


def _named(ids: np.ndarray) -> str:
    """A few ids in parentheses, for a message."""
    return f" ({name_ids(ids)})" if len(ids) else ""
