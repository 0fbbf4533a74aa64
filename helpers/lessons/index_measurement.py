"""What an index costs and what it finds: recall against exact search, time as a user has it, memory.

Times are those of this computer with what else it is doing; only two that were taken side by side can be compared.
"""

import contextlib
import hashlib
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers import paths
from helpers.files import write_atomically
from helpers.search.index import BACKENDS, Index, check_k, load_index, open_index
from helpers.search.ranking import PAD, Ranking, rank

if TYPE_CHECKING:
    import pandas as pd

#: Queries that are asked before the clock runs: caches fill, libraries start their threads.
WARM_UP = 20
#: Queries that are asked one at a time, at most.
SINGLES = 200
#: A batch is asked so often, but not again once this many seconds have gone.
_ROUNDS, _SECONDS = 3, 2.0
#: Vectors that truth is found in at a time.
_STEP = 2**16


@dataclass(frozen=True)
class Measured:
    """One index at one setting.

    Attributes
    ----------
    spec : with the options of the search.
    count, dim : of the vectors in it. k : answers a query.
    recall : of the true ``k`` nearest, the part that was found; the mean over the queries.
    recall_error : standard error of that mean.
    milliseconds, milliseconds95 : of one query in a call of its own: median and 95th percentile.
    per_second : queries, when all are asked in one call.
    bytes : `Index.nbytes`.
    threads : that OpenMP or BLAS may take in this process, by their own choice unless somebody set it. An index may
        take fewer (Annoy, and USearch for a single query, take one).
    """

    spec: str
    count: int
    dim: int
    k: int
    queries: int
    recall: float
    recall_error: float
    milliseconds: float
    milliseconds95: float
    per_second: float
    bytes: int
    threads: int

    @property
    def megabytes(self) -> float:
        return self.bytes / 1e6

    def row(self) -> dict:
        """As a line of a table."""
        line = asdict(self)
        return line | {"megabytes": self.megabytes}


def build(spec: str, vectors: np.ndarray) -> tuple[Index, float]:
    """A new index with the vectors in it, ids 0, 1, 2 …, ready to be searched; and the seconds that took.

    Annoy makes its trees when it is first searched, which counts here.
    """
    # Exact search imports it at its first call, which must not count as time to build.
    import scipy.spatial.distance  # noqa: F401

    index = open_index(spec)
    start = time.perf_counter()
    index.add(vectors)
    index.search(vectors[:1], 1)
    return index, time.perf_counter() - start


def measure(index: Index, queries: np.ndarray, truth: Ranking, k: int = 10) -> Measured:
    """Ask everything in one call, then up to `SINGLES` queries one by one; a few that don't count go before each.

    Parameters
    ----------
    queries : float (q, dim), not in the index. truth : what exact search finds, see `exact_truth`; ``k`` columns or
        more.

    Raises
    ------
    ValueError : no query, not one row of ``truth`` a query, or too few columns.
    """
    recalls, per_second = _batch(index, queries, truth, k)
    for query in queries[:WARM_UP]:
        index.search(query[None], k)
    spent = np.array([_seconds(index, query[None], k) for query in queries[:SINGLES]])
    return Measured(
        spec=index.spec,
        count=len(index),
        dim=index.dim,
        k=k,
        queries=len(queries),
        recall=float(recalls.mean()),
        recall_error=standard_error(recalls),
        milliseconds=float(1000 * np.median(spent)),
        milliseconds95=float(1000 * np.percentile(spent, 95)),
        per_second=per_second,
        bytes=index.nbytes,
        threads=threads(),
    )


def _batch(index: Index, queries: np.ndarray, truth: Ranking, k: int) -> tuple[np.ndarray, float]:
    check_queries(queries, truth, k)
    index.search(queries[:WARM_UP], k)
    spent = []
    while len(spent) < _ROUNDS and sum(spent) < _SECONDS:
        start = time.perf_counter()
        found = index.search(queries, k)
        spent.append(time.perf_counter() - start)
    return recalls(found, truth, k), float(len(queries) / np.median(spent))


def _seconds(index: Index, query: np.ndarray, k: int) -> float:
    start = time.perf_counter()
    index.search(query, k)
    return time.perf_counter() - start


def check_queries(queries: np.ndarray, truth: Ranking, k: int) -> None:
    """
    Raises
    ------
    ValueError : no query, not one row of ``truth`` a query, or too few columns for ``k``.
    """
    if not len(queries) or len(queries) != len(truth):
        raise ValueError(f"truth must have one row a query, and at least one: got {len(truth)} for {len(queries)}")
    if truth.k < check_k(k):
        raise ValueError(f"recall of {k} answers needs {k} true ones, truth has {truth.k}: make it with k={k}")


def recalls(found: Ranking, truth: Ranking, k: int) -> np.ndarray:
    """float64 (q,): the part of each query's true first ``k`` that is among the first ``k`` found.

    Where a vector as near as the last true one was found instead of it, that counts as missed.
    """
    true = truth.ids[:, :k]
    hits = (true[:, :, None] == found.ids[:, None, :k]).any(axis=2) & (true != PAD)
    return hits.sum(axis=1) / (true != PAD).sum(axis=1)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of float (q,); 0 for a single one, which tells nothing."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def exact_truth(
    vectors: np.ndarray, queries: np.ndarray, k: int = 10, metric: str = "cosine", cache: bool = True
) -> Ranking:
    """The true ``k`` nearest, by `ExactIndex`, a part of the vectors at a time; row *i* of them is of id *i*.

    cache : keep it in the cache's ``truth``, by the content of vectors and queries, and read it there if it is known.
    """
    path = paths.cache_dir() / "truth" / f"{_key(vectors, queries, k, metric)}.npz"
    if cache and path.exists():
        # A damaged file is made anew.
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as stored:
            return Ranking(stored["ids"], stored["scores"])
    best = Ranking(np.empty((len(queries), 0)), np.empty((len(queries), 0)))
    for start in range(0, len(vectors), _STEP):
        part = vectors[start : start + _STEP]
        found = open_index(f"exact:{metric}").add(part, np.arange(start, start + len(part))).search(queries, k)
        best = rank(np.hstack([best.ids, found.ids]), np.hstack([best.scores, found.scores]), k)
    if cache:
        write_atomically(path, lambda file: np.savez(file, ids=best.ids, scores=best.scores))
    return best


def _key(vectors: np.ndarray, queries: np.ndarray, k: int, metric: str) -> str:
    digest = hashlib.blake2b(f"{vectors.shape} {queries.shape} {k} {metric}".encode(), digest_size=16)
    for array in (vectors, queries):
        for start in range(0, len(array), _STEP):
            digest.update(np.ascontiguousarray(array[start : start + _STEP], np.float32).data)
    return digest.hexdigest()


def save_and_open(index: Index, path: str | Path) -> tuple[float, float]:
    """Seconds to save an index, and to open it memory-mapped and answer one query."""
    start = time.perf_counter()
    index.save(path)
    saved = time.perf_counter() - start
    start = time.perf_counter()
    load_index(path, mmap=True).search(np.ones((1, index.dim), np.float32), 1)
    return saved, time.perf_counter() - start


def threads() -> int:
    """That OpenMP or BLAS may take in this process; 1 where neither is loaded."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def table(rows: list[Measured]) -> "pd.DataFrame":
    """One line an index at one setting."""
    import pandas as pd

    return pd.DataFrame([row.row() for row in rows])


def sufficient(rows: "pd.DataFrame", recall: float = 0.95) -> "pd.Series":
    """Of one index at rising efforts, the first line that finds so much; where none does, the one that finds most.

    rows : a column ``recall``, one line an effort.
    """
    enough = rows["recall"] >= recall
    return rows.loc[enough.idxmax() if enough.any() else rows["recall"].idxmax()]


def milliseconds_at(rows: "pd.DataFrame", recall: float) -> float | None:
    """Of a query that finds just so much, between the efforts around it; None where no effort finds as much.

    rows : of one index at rising efforts, columns ``recall, milliseconds``.
    """
    reached = np.maximum.accumulate(rows["recall"])
    return None if recall > reached.iloc[-1] else float(np.interp(recall, reached, rows["milliseconds"]))


def estimated_bytes(spec: str, count: int, dim: int) -> int:
    """What `Index.nbytes` of an index will be, to within a tenth, without making one.

    For ``exact``, ``sklearn``, ``faiss``, ``usearch`` and ``annoy``; the libraries' own documentation and layout.

    Raises
    ------
    ValueError : there is no such spec, or it is one of another backend, whose memory is that of a server.
    """
    # Asked first: to open a server's index is to connect to it, or to make its file.
    scheme = spec.partition(":")[0]
    if scheme in BACKENDS and scheme not in _ESTIMATES:
        raise ValueError(f"the memory of {spec} can't be estimated; it can for: {', '.join(_ESTIMATES)}")
    index = open_index(spec)
    return round(_ESTIMATES[index.scheme](index, count, dim))


_NUMBER = {"float32": 4, "float16": 2, "int8": 1, "none": 0, "f32": 4, "f16": 2, "i8": 1}


def _faiss_bytes(index: Index, count: int, dim: int) -> float:
    option = index.options.get
    vectors = _NUMBER[option("storage", "float32")] * dim * count
    # An id for the project, and one for FAISS; centroids of lists are float32.
    ids = 16 * count
    lists = 4 * dim * option("lists", min(4 * count**0.5, count / 39))
    if index.kind == "flat":
        return vectors + ids
    if index.kind == "ivf":
        return vectors + ids + lists
    if index.kind == "hnsw":
        # Twice m links on the lowest level, an offset and a level; one vector in m is on the next one, and so on.
        m = option("m", 32)
        return vectors + ids + (8 * m + 12 + 4 * m / (m - 1)) * count
    codes = option("bytes") or max(size for size in range(1, max(1, dim // 8) + 1) if dim % size == 0)
    refine = _NUMBER[option("refine", "float16")] * dim * count
    compressed = codes * count + ids + refine + 1024 * dim
    if index.kind == "pq":
        return compressed
    # The map beside the lists' own ids, and the rotation.
    return compressed + lists + (8 * count if refine else 0) + 4 * dim * dim


def _usearch_bytes(index: Index, count: int, dim: int) -> float:
    option = index.options.get
    links = option("connectivity", 16)
    # Numbers lie in one row of arenas; heads and links, as in HNSW, in another; each piece at a multiple of 64.
    numbers = -(-_NUMBER[option("dtype", "f32")] * dim // 64) * 64
    nodes = -(-(14 + 8 * links) // 64) * 64 + (4 + 4 * links) / (links - 1)
    return _arenas(numbers * count) + _arenas(nodes * count) + 14 * count


def _arenas(need: float) -> int:
    """USearch takes 8 MiB, then twice as much as the last time, and so on."""
    total, step = 0, 2**23
    while total < need:
        total, step = total + step, 2 * step
    return total


def _annoy_bytes(index: Index, count: int, dim: int) -> float:
    # A leaf's ids fill what a vector would; a split keeps the normal of its plane. About two thirds of a leaf are used.
    node, leaf = 4 * dim + 12, dim + 2
    return node * count + index.options.get("trees", 30) * node * 3 * count / leaf + 16 * count


_ESTIMATES = {
    "exact": lambda index, count, dim: (4 * dim + 16) * count,
    "sklearn": lambda index, count, dim: (12 * dim + 8) * count,
    "faiss": _faiss_bytes,
    "usearch": _usearch_bytes,
    "annoy": _annoy_bytes,
}
