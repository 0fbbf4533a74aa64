"""Index: vectors in, rankings out, whatever library does the work; and the short names that open one."""

import importlib
import io
import json
import os
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np

from helpers.search.ranking import PAD, Ranking

#: The layout of saved files; a reader refuses any other.
FORMAT = 1

#: Scheme of a spec → where its class is. A new backend is one line here and one file.
BACKENDS = {
    "exact": "helpers.search.exact:ExactIndex",
    "sklearn": "helpers.search.sklearn:SklearnIndex",
}


class IndexFileError(OSError):
    """A file that should hold an index and does not, or can't be written; the message names it and the remedy."""


class Index(ABC):
    """Holds vectors under ids and finds the nearest to a query's.

    A backend sets ``metrics`` and writes `_changed`, `_search`; checks, ids and files are here, once for all.

    Parameters
    ----------
    metric : one of the backend's ``metrics``.
    """

    #: The part of the spec before the colon.
    scheme: str
    #: What the backend can measure by.
    metrics: tuple[str, ...] = ("cosine", "euclidean", "manhattan")

    def __init__(self, metric: str, **options):
        if metric not in self.metrics:
            raise ValueError(f"{self.scheme} knows the metrics {', '.join(self.metrics)}; got {metric!r}")
        self.metric = metric
        self.options = options
        self._vectors: np.ndarray | None = None
        self._ids = np.empty(0, np.int64)

    @property
    def spec(self) -> str:
        """The name that opens an index like this one, e.g. ``"exact:cosine"``."""
        options = "&".join(f"{name}={value}" for name, value in sorted(self.options.items()))
        return f"{self.scheme}:{self.metric}" + (f"?{options}" if options else "")

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r}: {len(self)} vectors of {self.dim} numbers)"

    @property
    def dim(self) -> int | None:
        """Length of a vector; None before the first was added."""
        return None if self._vectors is None else self._vectors.shape[1]

    @property
    def ids(self) -> np.ndarray:
        """int64 (n,): the ids, in the order in which they were added."""
        return self._ids.copy()

    @property
    def nbytes(self) -> int:
        """Bytes that vectors and ids take in memory."""
        return 0 if self._vectors is None else self._vectors.nbytes + self._ids.nbytes

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> "Index":
        """Add vectors (n, d) under int64 ids (n,); without ids they are numbered on from the largest there is.

        Raises
        ------
        ValueError : another dimension, NaN or infinity, an id that is negative, stands twice or is there already.
        """
        vectors = self._checked(vectors)
        if ids is None:
            start = int(self._ids.max(initial=-1)) + 1
            ids = np.arange(start, start + len(vectors))
        ids = np.asarray(ids)
        if ids.shape != (len(vectors),) or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
            raise ValueError(f"expected one whole number as id for each of {len(vectors)} vectors, got {ids.shape} {ids.dtype}")
        ids = ids.astype(np.int64)
        if (ids < 0).any():
            raise ValueError(f"ids must not be negative, got {ids[ids < 0][0]}")
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"id {values[counts > 1][0]} stands twice")
        present = np.isin(ids, self._ids)
        if present.any():
            raise ValueError(f"id {ids[present][0]} is in the index already; remove it first")
        self._ids = np.concatenate([self._ids, ids])
        self._vectors = vectors.copy() if self._vectors is None else np.concatenate([self._vectors, vectors])
        self._changed()
        return self

    def remove(self, ids: np.ndarray) -> "Index":
        """Remove the vectors under these ids.

        Raises
        ------
        KeyError : an id is not in the index; nothing is removed then.
        """
        ids = np.asarray(ids, dtype=np.int64).ravel()
        absent = ids[~np.isin(ids, self._ids)]
        if len(absent):
            raise KeyError(f"id {absent[0]} is not in the index")
        kept = ~np.isin(self._ids, ids)
        self._ids = self._ids[kept]
        self._vectors = None if self._vectors is None else self._vectors[kept]
        self._changed()
        return self

    def search(self, vectors: np.ndarray, k: int) -> Ranking:
        """The ``k`` nearest to each of the vectors (q, d), best first.

        Where the index holds fewer than ``k``, rows are padded with -1.

        Raises
        ------
        ValueError : k < 1, an empty index, another dimension, NaN or infinity.
        """
        if isinstance(k, bool) or k != int(k) or k < 1:
            raise ValueError(f"k must be a whole number of at least 1, got {k}")
        if not len(self):
            raise ValueError("the index is empty: add vectors before searching")
        vectors = self._checked(vectors)
        found = self._search(vectors, min(int(k), len(self)))
        missing = int(k) - found.k
        if missing <= 0:
            return found
        pad = ((0, 0), (0, missing))
        return Ranking(
            np.pad(found.ids, pad, constant_values=PAD), np.pad(found.scores, pad, constant_values=-np.inf)
        )

    @abstractmethod
    def _changed(self) -> None:
        """Vectors were added or removed."""

    @abstractmethod
    def _search(self, vectors: np.ndarray, k: int) -> Ranking:
        """float32 (q, d), 1 <= k <= len(self) → Ranking (q, k)."""

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise ValueError(f"vectors must have shape (n, d), got {vectors.shape}; one vector is vector[None]")
        try:
            vectors = vectors.astype(np.float32, copy=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"vectors must be numbers, got {vectors.dtype}") from error
        if self.dim is not None and vectors.shape[1] != self.dim:
            raise ValueError(
                f"got vectors of {vectors.shape[1]} numbers, the index holds vectors of {self.dim}: "
                "were they made by another describer?"
            )
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{bad.sum()} of {len(vectors)} vectors hold NaN or infinity, the first is row {int(bad.argmax())}; "
                "a describer gives NaN for a picture that it could not read"
            )
        return vectors

    # ---- files ---------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write one file (a zip of plain arrays, no pickle), all at once or not at all.

        Raises
        ------
        IndexFileError : the file can't be written (a full disk, a read-only folder); an older one is untouched.
        """
        path = Path(path)
        header = {"format": FORMAT, "spec": self.spec, "count": len(self), "dim": self.dim}
        vectors = self._vectors if self._vectors is not None else np.empty((0, 0), np.float32)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), ids=self._ids, vectors=vectors)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise IndexFileError(
                f"{path} can't be written: {error}. Free some space or choose another folder; "
                "what was there before is untouched."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return path


def open_index(spec: str) -> Index:
    """An empty index by a URL-like name: ``"exact:cosine"``, ``"sklearn:euclidean?algorithm=ball_tree"``.

    Raises
    ------
    ValueError : the backend, its metric or an option is unknown; the message lists those that are.
    """
    scheme, _, rest = spec.partition(":")
    metric, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if scheme not in BACKENDS:
        raise ValueError(f"no index is called {scheme!r} (in {spec!r}); there are: {', '.join(BACKENDS)}")
    module, name = BACKENDS[scheme].split(":")
    backend = getattr(importlib.import_module(module), name)
    try:
        return backend(metric or "cosine", **options)
    except TypeError as error:
        raise ValueError(f"{spec!r} can't be opened: {error}") from error


def load_index(path: str | Path) -> Index:
    """Read what `Index.save` wrote, by whatever backend.

    Raises
    ------
    FileNotFoundError : there is no such file.
    IndexFileError : it is no index, is cut short or damaged, or is of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Write an index there with Index.save.")
    remedy = "Build the index again and save it."
    try:
        # Read whole: zip checks a sum for each array, and a damaged one is noticed here rather than in a search.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            ids, vectors = stored["ids"], stored["vectors"]
        version = header["format"]
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise IndexFileError(f"{path} is no index, is cut short or damaged ({error}). {remedy}") from error
    if version != FORMAT:
        raise IndexFileError(f"{path} has format {version!r}; this version of the project reads {FORMAT}. {remedy}")
    if (len(ids), len(vectors)) != (header["count"], header["count"]):
        raise IndexFileError(f"{path} says {header['count']} vectors but holds {len(vectors)}. {remedy}")
    index = open_index(header["spec"])
    return index.add(vectors, ids) if len(ids) else index
