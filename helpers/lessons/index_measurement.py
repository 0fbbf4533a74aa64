"""The costs of an index and its recall against exact search: time as a user experiences it, and memory.

Times depend on the computer and on what else it runs; compare only times that were measured together.
"""

import time
from dataclasses import asdict, dataclass
from functools import partial
from timeit import timeit

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_info

from helpers.features import results
from helpers.search.index import BACKENDS, Index, check_k, open_index
from helpers.search.ranking import PAD, Ranking, rank

#: Queries before the measurement, which fill caches and start threads.
WARM_UP = 20
#: The largest number of queries that are measured one at a time.
SINGLES = 200
#: A batch is repeated this often, unless it has taken this many seconds.
_ROUNDS, _SECONDS = 3, 2.0
#: Vectors in one step of the exact search.
_STEP = 2**16


@dataclass(frozen=True)
class Measurement:
    """One index with one setting.

    Attributes
    ----------
    spec : with the search options.
    count, dim : of its vectors. k : results per query.
    recall : the found part of the true ``k`` nearest; the mean over the queries.
    recall_error : standard error of that mean.
    milliseconds, milliseconds95 : of one query in a call of its own: median and 95th percentile.
    per_second : queries, if all are in one call.
    bytes : `Index.nbytes`.
    threads : of OpenMP or BLAS in this process. An index may use fewer (Annoy, and USearch for one query, use one).
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
        """One row of a table."""
        return asdict(self) | {"megabytes": self.megabytes}


def build(spec: str, vectors: np.ndarray) -> tuple[Index, float]:
    """A new index of the vectors, with ids 0, 1, 2 …, ready for searches; and the seconds that this took.

    It includes a first search, in which Annoy builds its trees.
    """
    # Exact search imports it in its first call, which is not a part of building.
    import scipy.spatial.distance  # noqa: F401

    index = open_index(spec)
    start = time.perf_counter()
    index.add(vectors)
    index.search(vectors[:1], 1)
    return index, time.perf_counter() - start


def measure(index: Index, queries: np.ndarray, truth: Ranking, k: int = 10) -> Measurement:
    """Search for all queries in one call, then for up to `SINGLES` one by one; each after a few unmeasured queries.

    Parameters
    ----------
    queries : float (q, dim), not in the index. truth : the results of exact search, see `exact_truth`.
    """
    if not len(queries) or len(queries) != len(truth):
        raise ValueError(f"truth must have one row per query, and at least one: got {len(truth)} for {len(queries)}")
    if truth.k < check_k(k):
        raise ValueError(f"recall of {k} results needs {k} true ones, truth has {truth.k}: make it with k={k}")
    index.search(queries[:WARM_UP], k)
    batches: list[float] = []
    while len(batches) < _ROUNDS and sum(batches) < _SECONDS:
        start = time.perf_counter()
        found = index.search(queries, k)
        batches.append(time.perf_counter() - start)
    for query in queries[:WARM_UP]:
        index.search(query[None], k)
    singles = [1000 * timeit(partial(index.search, query[None], k), number=1) for query in queries[:SINGLES]]
    recall = recalls(found, truth, k)
    return Measurement(
        spec=index.spec,
        count=len(index),
        dim=queries.shape[1],
        k=k,
        queries=len(queries),
        recall=float(recall.mean()),
        recall_error=standard_error(recall),
        milliseconds=float(np.median(singles)),
        milliseconds95=float(np.percentile(singles, 95)),
        per_second=float(len(queries) / np.median(batches)),
        bytes=index.nbytes,
        threads=threads(),
    )


def recalls(found: Ranking, truth: Ranking, k: int) -> np.ndarray:
    """float64 (q,): the part of each query's true first ``k`` that is among the first ``k`` found.

    Another vector at the same distance as the last true one counts as missed.
    """
    true = truth.ids[:, :k]
    hits = (true[:, :, None] == found.ids[:, None, :k]).any(axis=2) & (true != PAD)
    return hits.sum(axis=1) / (true != PAD).sum(axis=1)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of float (q,); 0 for a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def exact_truth(
    vectors: np.ndarray, queries: np.ndarray, k: int = 10, metric: str = "cosine", cache: bool = True
) -> Ranking:
    """The true ``k`` nearest by `ExactIndex`, in parts of the vectors; row *i* of them has id *i*.

    cache : store it in the cache, by the content of vectors and queries.
    """

    def search() -> dict[str, np.ndarray]:
        best = Ranking(np.empty((len(queries), 0)), np.empty((len(queries), 0)))
        for start in range(0, len(vectors), _STEP):
            part = vectors[start : start + _STEP]
            found = open_index(f"exact:{metric}").add(part, np.arange(start, start + len(part))).search(queries, k)
            best = rank(np.hstack([best.ids, found.ids]), np.hstack([best.scores, found.scores]), k)
        return {"ids": best.ids, "scores": best.scores}

    if not cache:
        return Ranking(**search())
    contents = {"vectors": results.fingerprint(vectors), "queries": results.fingerprint(queries)}
    return Ranking(**results.cached("truth", {**contents, "k": k, "metric": metric}, search))


def threads() -> int:
    """Threads that OpenMP or BLAS may use in this process; 1 if neither is loaded."""
    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def sufficient(rows: pd.DataFrame, recall: float = 0.95) -> pd.Series:
    """The first row of increasing efforts with this recall; if there is none, the row with the highest recall."""
    enough = rows["recall"] >= recall
    return rows.loc[enough.idxmax() if enough.any() else rows["recall"].idxmax()]


def milliseconds_at(rows: pd.DataFrame, recall: float) -> float | None:
    """Interpolated milliseconds per query at a recall; None if no effort reaches it.

    rows : of one index at increasing efforts, columns ``recall, milliseconds``.
    """
    reached = np.maximum.accumulate(rows["recall"].to_numpy())
    return None if recall > reached[-1] else float(np.interp(recall, reached, rows["milliseconds"]))


def estimated_bytes(spec: str, count: int, dim: int) -> int:
    """The future `Index.nbytes` of an index, to within a tenth, without building it.

    For ``exact``, ``sklearn``, ``faiss``, ``usearch`` and ``annoy``, from the libraries' documentation and layout.

    Raises ValueError: there is no such spec, or its memory is that of a server.
    """
    # Before opening, which would connect to a server or make a file.
    scheme = spec.partition(":")[0]
    if scheme in BACKENDS and scheme not in _ESTIMATES:
        raise ValueError(f"the memory of {spec} cannot be estimated; known: {', '.join(_ESTIMATES)}")
    index = open_index(spec)
    return round(_ESTIMATES[index.scheme](index, count, dim))


_NUMBER = {"float32": 4, "float16": 2, "int8": 1, "none": 0, "f32": 4, "f16": 2, "i8": 1}


def _faiss_bytes(index: Index, count: int, dim: int) -> float:
    option, kind = index.options.get, index.spec.partition(":")[2].partition("?")[0]
    vectors = _NUMBER[option("storage", "float32")] * dim * count
    # Two ids, for this library and for FAISS; centroids of lists are float32.
    ids = 16 * count
    lists = 4 * dim * option("lists", min(4 * count**0.5, count / 39))
    if kind == "flat":
        return vectors + ids
    if kind == "ivf":
        return vectors + ids + lists
    if kind == "hnsw":
        # 2·m links on the lowest level, an offset and a level; one vector in m is on the next level, and so on.
        m = option("m", 32)
        return vectors + ids + (8 * m + 12 + 4 * m / (m - 1)) * count
    codes = option("bytes") or max(size for size in range(1, max(1, dim // 8) + 1) if dim % size == 0)
    refine = _NUMBER[option("refine", "float16")] * dim * count
    compressed = codes * count + ids + refine + 1024 * dim
    if kind == "pq":
        return compressed
    # The map in addition to the lists' own ids, and the rotation.
    return compressed + lists + (8 * count if refine else 0) + 4 * dim * dim


def _usearch_bytes(index: Index, count: int, dim: int) -> float:
    option = index.options.get
    links = option("connectivity", 16)
    # Numbers are in one series of arenas, heads and links (as in HNSW) in another; pieces are aligned to 64 bytes.
    numbers = -(-_NUMBER[option("dtype", "f32")] * dim // 64) * 64
    nodes = -(-(14 + 8 * links) // 64) * 64 + (4 + 4 * links) / (links - 1)
    return _arenas(numbers * count) + _arenas(nodes * count) + 14 * count


def _arenas(need: float) -> float:
    """USearch allocates 8 MiB, then twice as much as the last time, and so on."""
    return 2**23 * (2 ** np.ceil(np.log2(1 + need / 2**23)) - 1)


def _annoy_bytes(index: Index, count: int, dim: int) -> float:
    # The ids of a leaf take the room of a vector; a split has the normal of its plane. Leaves are two thirds full.
    node, leaf = 4 * dim + 12, dim + 2
    return node * count + index.options.get("trees", 30) * node * 3 * count / leaf + 16 * count


_ESTIMATES = {
    "exact": lambda index, count, dim: (4 * dim + 16) * count,
    "sklearn": lambda index, count, dim: (12 * dim + 8) * count,
    "faiss": _faiss_bytes,
    "usearch": _usearch_bytes,
    "annoy": _annoy_bytes,
}
