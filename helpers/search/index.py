"""Index: what every place that keeps vectors and finds the nearest ones has in common, and the file it is saved in."""

import contextlib
import hashlib
import importlib
import json
import os
import secrets
import struct
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import parse_qsl, urlencode

import numpy as np

from helpers.search.ranking import PAD, Ranking

#: What a metric may be called → its name.
METRIC_NAMES = {
    "cosine": "cosine",
    "cos": "cosine",
    "euclidean": "euclidean",
    "l2": "euclidean",
    "manhattan": "manhattan",
    "l1": "manhattan",
    "cityblock": "manhattan",
}

#: Scheme of a spec → where its class is, imported when first asked for. A new backend is one line here and one file.
BACKENDS = {
    "exact": "helpers.search.exact:ExactIndex",
    "sklearn": "helpers.search.sklearn:SklearnIndex",
    "annoy": "helpers.search.annoy:AnnoyIndex",
    "faiss": "helpers.search.faiss:FaissIndex",
    "usearch": "helpers.search.usearch:UsearchIndex",
    "milvus": "helpers.search.milvus:MilvusIndex",
    "elasticsearch": "helpers.search.elastic:ElasticIndex",
}

FORMAT_VERSION = 1
_MAGIC = b"LOOKALIKE INDEX\n"
_START = struct.Struct(f"<{len(_MAGIC)}sII")  # magic, version, length of the header
_ALIGN = 64  # arrays start at multiples of this, so that a mapped file can be computed on as it is


class IndexFileError(OSError):
    """A file is no index, is damaged, or can't be written; the message names it and the remedy."""


class UnsupportedByIndex(NotImplementedError):
    """What an index is built with can't do this; the message names the library and the remedy."""


class Index(ABC):
    """Keeps vectors by id and finds the nearest ones.

    Scores are higher for better answers whatever the metric: cosine similarity, or a distance negated.
    Searching from several threads is safe, and so is adding or removing meanwhile: a search sees the index as it was
    before or after, and an `add` waits until the searches that run are done.

    A backend sets the class attributes, and writes `_add`, `_remove`, `_search`, `_kept`, `_state`, `_restore` and
    `nbytes`; what it is handed has been checked.

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

    def __init__(self, metric: str = "cosine", **options):
        if METRIC_NAMES.get(metric) not in self.metrics:
            raise ValueError(f"{self.scheme} has no metric {metric!r}; it has: {', '.join(self.metrics)}")
        self.metric = METRIC_NAMES[metric]
        self.options = {name: value for name, value in options.items() if value is not None}
        self.dim: int | None = None
        self._ids = np.empty(0, np.int64)
        self._next_id = 0
        self._gate = _Gate()

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
        with self._gate.alone():
            vectors = _as_vectors(vectors, self.dim)
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
        with self._gate.alone():
            ids = np.unique(_as_ids(ids))
            absent = ids[~np.isin(ids, self._ids)]
            if len(absent):
                raise KeyError(f"{_some(absent)} can't be removed: not in the index")
            if len(ids):
                self._remove(ids)
                self._ids = self._ids[~np.isin(self._ids, ids)]
        return self

    def clear(self) -> Self:
        """Take everything out, and forget the dimension and the ids that were used."""
        with self._gate.alone():
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
        with self._gate.alone():
            for name in options:
                if name not in self.search_options:
                    raise ValueError(
                        f"{self.scheme}:{self._kind} can't change {name!r} once it is open; it can: "
                        f"{', '.join(self.search_options) or 'nothing'}"
                    )
            self._tune({name: value for name, value in (self.options | options).items() if value is not None})
        return self

    def search(self, vectors: np.ndarray, k: int = 10) -> Ranking:
        """The ``k`` best answers to each query; where fewer are held or found, the Ranking is padded with -1.

        An approximate index may find fewer than it holds, and others than the best.

        vectors : float (q, dim).

        Raises
        ------
        ValueError : the index is empty, ``k`` is not positive, a query has the wrong dimension, NaN or infinity.
        """
        k = check_k(k)
        with self._gate.together():
            if not len(self):
                raise ValueError("the index is empty: add vectors before searching")
            queries = _as_vectors(vectors, self.dim)
            ids = np.full((len(queries), k), PAD, np.int64)
            scores = np.full((len(queries), k), -np.inf)
            found = min(k, len(self))
            if len(queries):
                ids[:, :found], scores[:, :found] = self._search(queries, found)
        return Ranking(ids, scores)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """float32 (n, dim): what is kept of these vectors, in the order asked; a copy.

        For the cosine, a backend may keep vectors of length one. Numbers kept in fewer bits, and codes, come back as
        what they stand for.

        Raises
        ------
        KeyError : an id is not in the index.
        """
        with self._gate.together():
            ids = _as_ids(ids)
            absent = ids[~np.isin(ids, self._ids)]
            if len(absent):
                raise KeyError(f"no vector is kept of {_some(absent)}: not in the index")
            return self._kept(ids) if len(ids) else np.empty((0, self.dim or 0), np.float32)

    def save(self, path: str | Path) -> Path:
        """Write everything into one file. What was there before stays until the new file is complete.

        Raises
        ------
        IndexFileError : the disk is full, or the file can't be written; the old one is untouched.
        """
        with self._gate.together():
            header = {"spec": self.spec, "dim": self.dim, "count": len(self), "next_id": self._next_id}
            return write_atomically(path, _encode(header, {"ids": self._ids, **self._state()}))

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
        ids = _as_ids(ids)
        if ids.shape != (count,):
            raise ValueError(f"ids must have shape ({count},), one a vector; got {ids.shape}")
        if (ids < 0).any():
            raise ValueError(f"ids must not be negative, got {ids[ids < 0][0]}")
        values, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise ValueError(f"ids must be unique: {_some(values[times > 1])} given twice")
        taken = values[np.isin(values, self._ids)]
        if len(taken):
            raise ValueError(f"{_some(taken)} already in the index: remove first, or choose others")
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
        self._buffer = np.empty((0, 0), np.float32)
        self._vectors = self._buffer

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes + self._ids.nbytes

    def _clear(self):
        self._vectors = self._buffer = np.empty((0, 0), np.float32)
        self._changed()

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        """What is stored of float32 (n, dim): by default the vectors themselves."""
        return vectors

    def _changed(self) -> None:
        """Called after the vectors changed: drop here what was computed from them."""

    def _add(self, vectors, ids):
        vectors = self._prepare(vectors)
        before, after = len(self), len(self) + len(vectors)
        if before and len(ids) and ids[0] < self._ids[-1]:
            self._buffer = np.insert(self._vectors, np.searchsorted(self._ids, ids), vectors, axis=0)
        else:
            fits = after <= len(self._buffer) and self._buffer.shape[1] == vectors.shape[1]
            if not fits or not self._buffer.flags.writeable:
                # Room for half as much again, so that many small adds don't each copy everything.
                room = after if not before else max(after, before + before // 2)
                grown = np.empty((room, vectors.shape[1]), np.float32)
                if before:
                    grown[:before] = self._vectors
                self._buffer = grown
            self._buffer[before:after] = vectors
        self._vectors = self._buffer[:after]
        self._changed()

    def _remove(self, ids):
        self._vectors = self._buffer = self._vectors[~np.isin(self._ids, ids)]
        self._changed()

    def _kept(self, ids):
        return self._vectors[np.searchsorted(self._ids, ids)]

    def _state(self):
        return {"vectors": self._vectors}

    def _restore(self, arrays):
        vectors = arrays["vectors"]
        if vectors.shape != (len(self), self.dim or 0) or vectors.dtype != np.float32:
            raise ValueError(f"vectors of shape {vectors.shape} and type {vectors.dtype}")
        self._vectors = self._buffer = vectors
        self._changed()


class _Gate:
    """Many searches together, or one change alone; who comes first is let in first, so that neither starves."""

    def __init__(self):
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._inside = 0
        self._taken = False

    def together(self) -> contextlib.AbstractContextManager:
        return self._pass(alone=False)

    def alone(self) -> contextlib.AbstractContextManager:
        return self._pass(alone=True)

    @contextlib.contextmanager
    def _pass(self, alone: bool) -> Iterator[None]:
        me = object()
        with self._condition:
            self._queue.append(me)
            try:
                self._condition.wait_for(
                    lambda: self._queue[0] is me and not self._taken and not (alone and self._inside)
                )
                self._inside += 1
                self._taken = alone
            finally:
                # Also after an interrupt, or nobody behind would ever be let in.
                self._queue.remove(me)
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._taken = False
                self._condition.notify_all()


def open_index(spec: str) -> Index:
    """An empty index by its URL-like name: ``scheme:metric?option=value&option=value``.

    For example ``exact:cosine``, ``exact:euclidean?chunk=4096``, ``faiss:hnsw?m=32&search=128``,
    ``usearch:cosine?dtype=f16``, ``annoy:manhattan?trees=30``.

    Raises
    ------
    ValueError : the scheme, the metric or an option does not exist; the message lists what does.
    ImportError : the backend's package is not installed.
    """
    head, _, query = str(spec).partition("?")
    scheme, _, rest = head.partition(":")
    if scheme not in BACKENDS:
        raise ValueError(f"no index is called {scheme!r} (in {spec!r}); there are: {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[scheme].partition(":")
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise ValueError(f"{spec!r}: options are written name=value, with & between them") from error
    if len(dict(options)) < len(options):
        raise ValueError(f"{spec!r}: an option is given twice")
    return getattr(importlib.import_module(module), name).from_spec(rest, dict(options))


def load_index(path: str | Path, mmap: bool = False) -> Index:
    """The index that `Index.save` wrote, whatever its backend.

    mmap : leave the vectors on disk and let the system read what a search touches. Then only the header's
        checksum and the file's length are checked, the file has to stay where it is, and damage in what a library
        like FAISS wrote may give wrong answers or end the process. Annoy does without, see there.

    Raises
    ------
    FileNotFoundError : there is no such file.
    IndexFileError : it is truncated, damaged, no index, or of another format version.
    ImportError : the backend's package is not installed.
    """
    path = Path(path)
    header, arrays = _decode(path, mmap)
    try:
        index = open_index(header["spec"])
        # A copy, because a view would keep all of the file in memory as long as the index.
        ids = np.array(arrays.pop("ids"))
        if len(ids) != header["count"] or (ids[1:] <= ids[:-1]).any():
            raise ValueError(f"{len(ids)} ids for {header['count']} vectors, or not rising")
        index._ids, index.dim, index._next_id = ids, header["dim"], header["next_id"]
        index._restore(arrays)
    except (ValueError, KeyError, TypeError) as error:
        raise IndexFileError(f"{path} can't be opened: {error}. Make the index again and save it.") from error
    return index


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """float32 (n, dim) brought to length one, a new array; the zero vector stays zero."""
    unit = np.empty_like(vectors)
    for start in range(0, len(vectors), 4096):
        # In float64, where no square overflows or vanishes.
        part = vectors[start : start + 4096].astype(np.float64)
        length = np.sqrt((part * part).sum(axis=1, keepdims=True))
        unit[start : start + 4096] = part / np.where(length > 0, length, 1)
    return unit


def check_magnitude(vectors: np.ndarray, most: float, where: str) -> None:
    """Refuse what a library would turn into infinity, and then leave out or put last.

    Raises
    ------
    ValueError : a number of the vectors exceeds ``most``.
    """
    largest = np.abs(vectors).max(initial=0)
    if largest > most:
        raise ValueError(
            f"a number of {largest:.3g} is too large for {where}, which goes up to {most:.3g}: "
            "scale the vectors, or use exact:euclidean"
        )


def check_count(name: str, value: int) -> int:
    """An option that counts something, as an int.

    Raises
    ------
    ValueError : it is not a whole number of at least 1.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def check_k(k: int) -> int:
    """``k`` as an int.

    Raises
    ------
    ValueError : it is not a whole number of at least 1.
    """
    return check_count("k", k)


class Streamed:
    """The bytes that a library writes by itself, saved as uint8 (n,) without being in memory as a whole.

    write : called with a function that takes bytes; twice, and it must hand over the same bytes both times.
    """

    def __init__(self, write: Callable[[Callable[[bytes], object]], object]):
        self.write = write


def write_atomically(path: str | Path, parts: Iterable) -> Path:
    """Write parts one after the other; at any moment the file is either the old or the new one.

    parts : bytes-like, or `Streamed`.

    Raises
    ------
    IndexFileError : the disk is full, or the file can't be written; the old one is untouched.
    """
    path = Path(path)
    # In the same folder: a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            for part in parts:
                if isinstance(part, Streamed):
                    part.write(file.write)
                else:
                    file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise IndexFileError(
            f"{path} can't be written: {error}. What was there before is kept. "
            "Free some space or save to another folder."
        ) from error
    finally:
        # Where the folder itself is the trouble, there is nothing to take away.
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def _encode(header: dict, arrays: dict[str, np.ndarray | Streamed]) -> Iterable:
    """Start · header as JSON · SHA-256 of both · the arrays, raw and aligned, whose SHA-256 the header holds."""
    body, table, offset, digest = [], [], 0, hashlib.sha256()
    for name, array in arrays.items():
        if isinstance(array, Streamed):
            dtype, size = np.dtype(np.uint8), _digest(array, digest)
            body.append(array)
            shape = (size,)
        else:
            # Little-endian whatever the machine.
            dtype = array.dtype.newbyteorder("<")
            array = np.ascontiguousarray(array, dtype=dtype)
            shape, size = array.shape, array.nbytes
            body.append(array.reshape(-1).view(np.uint8).data)
            digest.update(body[-1])
        table.append({"name": name, "dtype": dtype.str, "shape": shape, "offset": offset})
        body.append(bytes(-size % _ALIGN))
        digest.update(body[-1])
        offset += size + len(body[-1])
    header = header | {"arrays": table, "body_bytes": offset, "body_sha256": digest.hexdigest()}
    text = json.dumps(header).encode()
    start = _START.pack(_MAGIC, FORMAT_VERSION, len(text)) + text
    head = start + hashlib.sha256(start).digest()
    return [head, bytes(-len(head) % _ALIGN), *body]


def _digest(streamed: Streamed, digest) -> int:
    """Feed the bytes to a hash; how many they are."""
    size = 0

    def take(part: bytes) -> None:
        nonlocal size
        digest.update(part)
        size += len(part)

    streamed.write(take)
    return size


def _decode(path: Path, mmap: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """Header and arrays of a file that `_encode` made, checked."""
    try:
        content = np.memmap(path, np.uint8, "r") if mmap else np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist. Write an index there with Index.save.") from error
    except (OSError, ValueError) as error:  # memmap refuses an empty file
        raise IndexFileError(f"{path} can't be read: {error}. Give a file that Index.save wrote.") from error
    header, body = _decode_header(path, content)
    if len(body) != header["body_bytes"]:
        what = "truncated" if len(body) < header["body_bytes"] else "too long"
        raise IndexFileError(
            f"{path} is {what}: {len(body)} bytes of vectors instead of {header['body_bytes']}. "
            "Copy it again, or make the index again and save it."
        )
    if not mmap and hashlib.sha256(body.data).hexdigest() != header["body_sha256"]:
        raise _damaged(path)
    arrays = {}
    for entry in header["arrays"]:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        end = entry["offset"] + dtype.itemsize * int(np.prod(shape))
        arrays[entry["name"]] = body[entry["offset"] : end].view(dtype).reshape(shape)
    return header, arrays


def _decode_header(path: Path, content: np.ndarray) -> tuple[dict, np.ndarray]:
    start = content[: _START.size].tobytes()
    if not start.startswith(_MAGIC):
        # A file cut within the first bytes can't be told from another kind of file.
        raise IndexFileError(f"{path} is not an index, or truncated. Give a file that Index.save wrote.")
    if len(start) < _START.size:
        raise _damaged(path)
    _, version, length = _START.unpack(start)
    if version != FORMAT_VERSION:
        raise IndexFileError(
            f"{path} has format version {version}; this library reads {FORMAT_VERSION}. "
            "Make the index again and save it, or use the library that wrote it."
        )
    end = _START.size + length
    head, digest = content[:end].tobytes(), content[end : end + 32].tobytes()
    if hashlib.sha256(head).digest() != digest:
        raise _damaged(path)
    return json.loads(head[_START.size :]), content[end + 32 + -(end + 32) % _ALIGN :]


def _damaged(path: Path) -> IndexFileError:
    return IndexFileError(
        f"{path} is truncated or damaged: its checksum is wrong. Copy it again, or make the index again and save it."
    )


def _as_vectors(vectors, dim: int | None) -> np.ndarray:
    """C-ordered float32 (n, dim) with finite numbers; the same array where it is that already."""
    try:
        given = np.asarray(vectors)
        if given.dtype.kind == "c":
            raise TypeError("complex numbers")
        # Too large for float32 becomes infinite, which is refused below.
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(given, dtype=np.float32) if given.ndim else given
    except (TypeError, ValueError) as error:
        raise ValueError(f"vectors must be numbers in an array of shape (n, dim): {error}") from error
    if array.ndim != 2:
        hint = "; one vector v is v[None]" if array.ndim == 1 else ""
        raise ValueError(f"vectors must have shape (n, dim), got {array.shape}{hint}")
    if dim is not None and array.shape[1] != dim:
        raise ValueError(f"got vectors of {array.shape[1]} numbers, the index holds {dim}: another describer?")
    if array.shape[1] == 0:
        raise ValueError(f"vectors must have at least one number each, got shape {array.shape}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = "NaN" if np.isnan(array[row]).any() else "infinity (or a number too large for float32)"
        raise ValueError(f"row {row} holds {what} ({int(bad.sum())} of {len(array)} rows do): leave such rows out")
    return array


def _as_ids(ids) -> np.ndarray:
    """int64 (n,) of whole numbers; a copy."""
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"ids must be whole numbers in an array of shape (n,), got {array.dtype} {array.shape}")
    return array.astype(np.int64)


def _some(ids: np.ndarray) -> str:
    """A few ids in words."""
    shown = ", ".join(map(str, ids[:5]))
    return f"{'id' if len(ids) == 1 else 'ids'} {shown}{f' … ({len(ids)} in all)' if len(ids) > 5 else ''}"
