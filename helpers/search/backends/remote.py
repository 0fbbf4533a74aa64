"""What indexes that live in a server have in common: parts, patience with a busy server, and who is in afterwards."""

import contextlib
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import numpy as np

from helpers.search.index import Index
from helpers.search.index.filters import Selection
from helpers.search.ranking import PAD

#: Bytes that a file name and a path may have in UTF-8.
NAME_BYTES, PATH_BYTES = 1024, 4096

#: With more ids than this, a server takes longer to read the list than to return some more results.
_LISTED = 1000

_UNTOUCHED, _DOUBTFUL, _DONE = range(3)
_NONE = np.empty(0, np.int64)
T = TypeVar("T")
_KEYS: dict[str, str] = {}


class ServerUnavailable(ConnectionError):
    """A server is away, too slow or too busy, for as long as was tried; the message names it and the remedy."""


class ServerRefused(OSError):
    """A server answered that it won't, or something that makes no sense.

    doubtful : whether what was asked may have been done all the same.
    """

    def __init__(self, message: str, doubtful: bool = False):
        super().__init__(message)
        self.doubtful = doubtful


class TryAgain(Exception):
    """What a backend raises when the same request may succeed later; nobody outside sees it.

    doubtful : whether the server may have done what was asked, and only its answer was lost.
    """

    def __init__(self, reason: str, doubtful: bool):
        super().__init__(reason)
        self.doubtful = doubtful


class _Partly(OSError):
    _what: ClassVar[str]
    _left: ClassVar[str]

    def __init__(self, done: np.ndarray, missing: np.ndarray, doubtful: np.ndarray, why: object):
        self.missing, self.doubtful = missing, doubtful
        parts = [f"{len(done)} of {len(done) + len(missing) + len(doubtful)} vectors are {self._what}{_these(done)}"]
        if len(missing):
            parts.append(f"{len(missing)} are not{_these(missing)}")
        if len(doubtful):
            parts.append(f"of {len(doubtful)} it is not known{_these(doubtful)}")
        remedy = self._left
        if len(doubtful):
            remedy = f"Call refresh() when the server is there again: then `ids` knows. {remedy}"
        super().__init__(f"{', '.join(parts)}. {why} {remedy}")


class PartlyIndexed(_Partly):
    """Some of the vectors that were added are in, some are not; the index's ``ids`` agree with the server.

    Attributes
    ----------
    indexed, missing : int64, rising: ids that are in, and that are not.
    doubtful : int64, rising: ids that were sent, and the server went before it could say.
        The index asks about them before it does anything else.
    """

    _what, _left = "in", "Add those that are missing again."

    def __init__(self, done, missing, doubtful, why):
        super().__init__(done, missing, doubtful, why)
        self.indexed = done


class PartlyRemoved(_Partly):
    """Some of the vectors that were removed are gone, some are not: ``removed``, ``missing`` and ``doubtful``."""

    _what, _left = "removed", "Remove those that are left again."

    def __init__(self, done, missing, doubtful, why):
        super().__init__(done, missing, doubtful, why)
        self.removed = done


@dataclass(frozen=True)
class Patience:
    """How often a request is made, and the seconds between.

    The wait doubles up to ``longest``, and a random part of up to a half is taken off it, so that those who were
    turned away together don't come back together (Brooker, Exponential Backoff and Jitter, AWS Architecture Blog
    2015, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, there "equal jitter").
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 10.0

    def waits(self) -> Iterator[float]:
        for turn in range(self.attempts - 1):
            yield min(self.longest, self.first * 2**turn) * random.uniform(0.5, 1)


@dataclass(frozen=True)
class Payload:
    """What a server keeps beside a vector: the image's file name, its path or key, and its label (-1 for none).

    Raises
    ------
    ValueError : a name of more than 1024 bytes, a path of more than 4096, or one that is no UTF-8.
    """

    name: str = ""
    path: str = ""
    label: int = -1

    def __post_init__(self):
        for what, text, most in (("name", self.name, NAME_BYTES), ("path", self.path, PATH_BYTES)):
            try:
                length = len(text.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"the {what} {text!r} can't be written as UTF-8: rename the file") from error
            if length > most:
                raise ValueError(f"a {what} may have {most} bytes, {text[:60]!r}… has {length}")
        object.__setattr__(self, "label", int(self.label))


class Place(NamedTuple):
    """Where in which server: ``//host:port/name``."""

    address: str
    name: str


class Rejected(NamedTuple):
    """One row of a part that the server did not take: its place in the part, why, and whether it may later."""

    row: int
    reason: str
    later: bool


class _Changes:
    """One change at a time; searches pass, since the server sees to it that they do no harm."""

    def __init__(self):
        self._lock = threading.RLock()

    def read(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def write(self) -> contextlib.AbstractContextManager:
        return self._lock


def sign_in(address: str, key: str) -> None:
    """Show a server (``host:port``) this key: an API key of Elasticsearch, a token of Milvus (``user:password``).

    It is kept in this process only. It is in no spec, no printed line and no file; sign in before opening an index.
    """
    _KEYS[address] = key


def key_for(address: str) -> str | None:
    """What `sign_in` was given for this server."""
    return _KEYS.get(address)


def parse_place(scheme: str, rest: str, port: int, name: str | None = None) -> Place:
    """``//host:port/name`` with a default port, and a default name where there is one.

    Raises
    ------
    ValueError : it is written otherwise, or holds a user or password.
    """
    written = f"{scheme}://host:{port}/name"
    parts = urlsplit(rest, allow_fragments=False)
    try:
        host, port = parts.hostname, parts.port or port
    except ValueError as error:
        raise ValueError(f"{scheme}:{rest} is no place ({error}): write {written}") from error
    if "@" in parts.netloc:
        raise ValueError(f"a spec of {scheme} holds no user or password, it is saved and printed: use sign_in(…)")
    name = parts.path.strip("/") or name
    if not rest.startswith("//") or not host or not name:
        raise ValueError(f"{scheme}:{rest} is no place: write {written}")
    return Place(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", name)


def chunks(sizes: np.ndarray, most_bytes: int, most_rows: int) -> Iterator[np.ndarray]:
    """Rows 0 … n - 1 in parts of at most so many rows and bytes; a row that is larger goes alone.

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
    """An index whose vectors are in a server, which knows best what it holds.

    Opening a spec connects, and lists the ids that are stored, page by page; they are kept here (8 bytes each).
    Where that differs from an index in memory:

    - An add or a removal goes in parts. After an error some of them may be done: `PartlyIndexed` and `PartlyRemoved`
      say which, and `ids` agrees with the server. Where nothing was done, the error is `ServerUnavailable` or
      `ServerRefused`.
    - What another process changes is found by searches at once, by `ids` and `len` after `refresh`. An id that two
      processes add holds the vector that came last.
    - Without ids, vectors go on from the highest id that is stored or was used here: the server does not remember
      ids that were removed.
    - `save` writes the spec and the ids, no vectors. Loading opens the spec, and is an error where the server holds
      other ids by now.
    - `clear` drops the collection. An engine starts with an empty index, so clear one that holds something.
    - A search does not wait for an add that runs; it finds what is in by then.

    A backend writes `_inspect`, `_pages`, `_create`, `_drop`, `_send`, `_erase`, `_present`, `_fetch`,
    `_fetch_vectors` and `_search`, which raise `TryAgain` or `ServerRefused`, and calls `refresh` when it is connected.

    Attributes
    ----------
    timeout : seconds that one request may take.
    patience : how a request is repeated.
    address : ``host:port``, or the file.
    """

    metrics = ("cosine", "euclidean")
    remote = True
    #: What to do when the server is away.
    remedy: ClassVar[str]
    #: The most ids that a filter may list, which is Elasticsearch's limit.
    listable: ClassVar[int] = 65_536
    #: The most bytes and rows in one request.
    chunk_bytes: ClassVar[int] = 8 * 2**20
    chunk_rows: ClassVar[int] = 5000
    #: Bytes that a number takes on its way.
    number_bytes: ClassVar[int]

    def __init__(self, place: str, metric: str | None = None, timeout: float | None = None, **options):
        super().__init__(metric or "cosine", timeout=timeout, **options)
        if timeout is not None and not 0 < timeout < float("inf"):
            raise ValueError(f"timeout must be a number of seconds above 0, got {timeout}")
        if metric:
            self.options["metric"] = self.metric
        self.place, self.address = place, place
        self.timeout = 30.0 if timeout is None else timeout
        self.patience = Patience()
        self._lock = _Changes()
        self._doubtful = _NONE
        self._offered: dict[int, Payload] = {}

    @property
    def spec(self) -> str:
        query = urlencode(sorted(self.options.items()))
        return f"{self.scheme}:{self.place}" + (f"?{query}" if query else "")

    @property
    def nbytes(self) -> int:
        """The float32 vectors in the server, and the ids here.

        What the server builds over the vectors, or keeps of them more than once, is not known and not counted.
        """
        return 4 * (self.dim or 0) * len(self) + self._ids.nbytes

    def refresh(self) -> Self:
        """Ask the server anew what it holds.

        Raises
        ------
        ServerUnavailable : it is away, too slow or too busy.
        ValueError : it holds something else under this name than the spec says.
        """
        with self._lock.write():
            dim = self._ask(self._inspect)
            pages = [_NONE] if dim is None else [_NONE, *self._pages()]
            self.dim, self._ids, self._doubtful = dim, np.unique(np.concatenate(pages)), _NONE
            self._listed = self._ids
            self._go_on_from(self._ids)
        return self

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None, payload: Sequence[Payload] | None = None) -> Self:
        """Put vectors in, in parts.

        vectors, ids : as in `Index.add`.
        payload : one for each vector; without it, they are empty.

        Raises
        ------
        ValueError : as in `Index.add`; or not one payload a vector; nothing was sent then.
        PartlyIndexed : some are in; add those again that are missing.
        ServerUnavailable, ServerRefused : none is in.
        """
        with self._lock.write():
            self._settle()
            count = len(vectors)
            if payload is not None:
                if len(payload) != count:
                    raise ValueError(f"payload must be one for each of {count} vectors, got {len(payload)}")
                ids = self._new_ids(ids, count)
                self._offered = dict(zip(ids.tolist(), payload, strict=True))
            try:
                return super().add(vectors, ids)
            finally:
                self._offered = {}

    def remove(self, ids: np.ndarray) -> Self:
        """Take vectors out, in parts; their ids may be added again.

        Raises
        ------
        KeyError : an id is not in the index; nothing is removed then.
        PartlyRemoved : some are gone.
        ServerUnavailable, ServerRefused : none is gone.
        """
        self._settle()
        return super().remove(ids)

    def search(self, vectors, k=10, *, allowed=None, excluded=None):
        self._settle()
        return super().search(vectors, k, allowed=allowed, excluded=excluded)

    def _search_among(self, queries, k, among):
        if _listed(among) <= _LISTED:
            return self._search_filtered(queries, k, among)
        return super()._search_among(queries, k, among)

    def _search_filtered(self, queries, k, among):
        if _listed(among) > self.listable:
            return super()._search_filtered(queries, k, among)
        ids, scores = self._search(queries, k, among)
        # A graph may find nothing of the little that is allowed.
        short = np.flatnonzero(ids[:, -1] == PAD) if among.count <= _LISTED else ()
        if len(short):
            ids[short], scores[short] = super()._search_filtered(queries[short], k, among)
        return ids, scores

    def save(self, path):
        self._settle()
        return super().save(path)

    def payload(self, ids: np.ndarray) -> list[Payload]:
        """What is kept beside these vectors, in the order asked.

        Raises
        ------
        KeyError : an id is not in the index.
        """
        self._settle()
        ids = np.asarray(ids, np.int64).reshape(-1)
        return self._all_of(ids, self._fetch, np.zeros(len(ids), np.int64))

    def vectors(self, ids):
        self._settle()
        return super().vectors(ids)

    def _kept(self, ids):
        sizes = np.full(len(ids), self.number_bytes * self.dim)
        return np.array(self._all_of(ids, self._fetch_vectors, sizes), np.float32)

    def _all_of(self, ids: np.ndarray, fetch: Callable[[np.ndarray], dict[int, T]], sizes: np.ndarray) -> list[T]:
        """What the server keeps of each of these ids, in parts of so many bytes; KeyError where it has one no more."""
        found: dict[int, T] = {}
        for rows in chunks(sizes, self.chunk_bytes, 1000):
            found |= self._ask(lambda rows=rows: fetch(ids[rows]))
        absent = [i for i in ids.tolist() if i not in found]
        if absent:
            raise KeyError(f"ids without a vector in {self.address}: {absent[:5]}{' …' if len(absent) > 5 else ''}")
        return [found[i] for i in ids.tolist()]

    # ---- what a backend writes -----------------------------------------------------------------------------------

    @abstractmethod
    def _inspect(self) -> int | None:
        """The dimension of what is stored, or None where nothing was made yet; ValueError where it is not ours."""

    @abstractmethod
    def _pages(self) -> Iterator[np.ndarray]:
        """All ids, int64, page by page; each page is asked for with `_ask`."""

    @abstractmethod
    def _create(self, dim: int) -> None:
        """Make the collection, unless it is there."""

    @abstractmethod
    def _drop(self) -> None:
        """Drop the collection, if it is there."""

    @abstractmethod
    def _send(self, vectors: np.ndarray, ids: np.ndarray, payload: list[Payload]) -> list[Rejected]:
        """Put one part in, some of which may be in already; what of it was not taken."""

    @abstractmethod
    def _erase(self, ids: np.ndarray) -> list[Rejected]:
        """Take one part out; it is no error where an id is gone already."""

    @abstractmethod
    def _present(self, ids: np.ndarray) -> np.ndarray:
        """Which of these ids are stored."""

    @abstractmethod
    def _search(self, queries: np.ndarray, k: int, among: Selection | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As in `Index`; the server filters where ``among`` is given."""

    @abstractmethod
    def _fetch(self, ids: np.ndarray) -> dict[int, Payload]:
        """The payloads of at most 1000 ids."""

    @abstractmethod
    def _fetch_vectors(self, ids: np.ndarray) -> dict[int, Sequence[float]]:
        """The vectors of at most 1000 ids."""

    def _check(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        """ValueError for what the server can't take, before anything is sent."""

    def _written(self, count: int) -> None:
        """Called when all parts of an add or a removal are in."""

    def _clear(self):
        self._ask(self._drop)
        self._doubtful = _NONE

    # ---- asking --------------------------------------------------------------------------------------------------

    def _ask(self, call: Callable[[], T]) -> T:
        """One request that may be made again, until it succeeds or patience ends."""
        waits = self.patience.waits()
        while True:
            try:
                return call()
            except TryAgain as error:
                self._wait(waits, error)

    def _wait(self, waits: Iterator[float], why: object) -> None:
        wait = next(waits, None)
        if wait is None:
            message = f"{self.address} did not serve in {self.patience.attempts} attempts: {why}. {self.remedy}"
            raise ServerUnavailable(message) from (why if isinstance(why, Exception) else None)
        time.sleep(wait)

    def _settle(self) -> None:
        """Ask about what was left in doubt by an error."""
        if len(self._doubtful):
            with self._lock.write():
                self._take_in(self._ask(lambda: self._present(self._doubtful)))
                self._doubtful = _NONE

    def _take_in(self, ids: np.ndarray) -> None:
        self._ids = np.union1d(self._ids, ids)
        self._go_on_from(ids)

    def _go_on_from(self, ids: np.ndarray) -> None:
        if len(ids):
            self._next_id = max(self._next_id, int(ids.max()) + 1)

    # ---- adding and removing -------------------------------------------------------------------------------------

    def _add(self, vectors, ids):
        self._check(vectors, ids)
        if self.dim is None:
            self._ask(lambda: self._create(vectors.shape[1]))
            self.dim = vectors.shape[1]
        payload = [self._offered.get(i) or Payload() for i in ids.tolist()]
        # A sign can take six bytes in JSON; 200 pay for what stands around the numbers.
        texts = [6 * (len(each.name) + len(each.path)) for each in payload]
        sizes = self.number_bytes * vectors.shape[1] + 200 + np.array(texts, np.int64)
        state = np.full(len(ids), _UNTOUCHED)

        def send(rows):
            return self._send(vectors[rows], ids[rows], [payload[row] for row in rows])

        try:
            self._deliver(ids, state, chunks(sizes, self.chunk_bytes, self.chunk_rows), send)
        except BaseException as error:
            done, left, doubtful = self._account(ids, state, error, _DONE)
            self._take_in(done)
            # An id in doubt was used, so it is not given again by itself.
            self._go_on_from(doubtful)
            if isinstance(error, OSError) and len(done) + len(doubtful):
                raise PartlyIndexed(done, left, doubtful, error) from error
            raise

    def _remove(self, ids):
        state = np.full(len(ids), _UNTOUCHED)
        parts = chunks(np.zeros(len(ids), np.int64), self.chunk_bytes, 1000)
        try:
            self._deliver(ids, state, parts, lambda rows: self._erase(ids[rows]))
        except BaseException as error:
            done, left, doubtful = self._account(ids, state, error, _UNTOUCHED)
            self._ids = np.setdiff1d(self._ids, np.union1d(done, doubtful))
            if isinstance(error, OSError) and len(done) + len(doubtful):
                raise PartlyRemoved(done, left, doubtful, error) from error
            raise

    def _deliver(self, ids, state, parts, send) -> None:
        """Send part after part, the rejected rows of one again before the next; ``state`` (n,) says how far it is."""
        for part in parts:
            waits, rows = self.patience.waits(), part
            while len(rows):
                before, state[rows] = state[rows], _DOUBTFUL
                try:
                    rejected = send(rows)
                except (TryAgain, ServerRefused) as error:
                    if not error.doubtful:
                        state[rows] = before
                    if isinstance(error, ServerRefused):
                        raise
                    why = error
                else:
                    state[rows] = _DONE
                    places = rows[[each.row for each in rejected]] if rejected else rows[:0]
                    state[places] = _UNTOUCHED
                    for place, each in zip(places, rejected, strict=True):
                        if not each.later:
                            raise ServerRefused(f"{self.address} refused id {ids[place]}: {each.reason}.")
                    rows, why = places, rejected[0].reason if rejected else ""
                if len(rows):
                    self._wait(waits, why)
        self._ask(lambda: self._written(len(ids)))

    def _account(self, ids, state, error, if_present) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids that are done, that are not, and of which nobody knows, after an error; asks once about the doubtful.

        if_present : the state of an id that the server turns out to hold.
        """
        doubtful = state == _DOUBTFUL
        # Who interrupts wants no more waiting.
        if doubtful.any() and isinstance(error, Exception):
            try:
                present = np.isin(ids[doubtful], self._present(ids[doubtful]))
            except (TryAgain, OSError):
                pass
            else:
                state[doubtful] = np.where(present, if_present, _DONE + _UNTOUCHED - if_present)
        done, left, doubtful = (ids[state == each] for each in (_DONE, _UNTOUCHED, _DOUBTFUL))
        self._doubtful = np.union1d(self._doubtful, doubtful)
        return done, left, doubtful

    # ---- the file ------------------------------------------------------------------------------------------------

    def _state(self):
        return {}

    def _restore(self, arrays):
        if not np.array_equal(self._ids, self._listed):
            differ = np.setxor1d(self._ids, self._listed)
            raise ValueError(
                f"{self.address} holds {len(self._listed)} vectors now, {len(self._ids)} when it was saved; "
                f"{len(differ)} ids differ{_these(differ)}. As it is now, open_index({self.spec!r}) opens it"
            )


def _listed(among: Selection) -> int:
    """How many ids a filter has to list."""
    return len(among.excluded) if among.allowed is None else among.count


def _these(ids: np.ndarray) -> str:
    """A few of the ids, for a message."""
    if not len(ids):
        return ""
    shown = ", ".join(map(str, ids[:4].tolist()))
    return f" ({shown}, … {ids[-1]})" if len(ids) > 4 else f" ({shown})"
