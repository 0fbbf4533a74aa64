"""USearch as an index: a graph that can be added to, removed from, and searched where it lies on disk."""

# USearch makes symbols of its libraries global. If it is loaded before FAISS, `faiss.index_factory` crashes.
import faiss  # noqa: F401
import numpy as np
from usearch.index import Index as Graph
from usearch.index import Matches

from helpers.search.index import Index, check_count, check_magnitude
from helpers.search.ranking import PAD, best_first
from helpers.vectors import l2_normalize

#: How a number may be kept.
DTYPES = ("f32", "f16", "i8")

_METRICS = {"cosine": "cos", "euclidean": "l2sq"}
#: Vectors that are added at a time; USearch is given a prepared copy of so many.
_STEP = 2**14
#: The first of a graph are added one after the other: of those that start one together, some no path leads to.
_FIRST = 1000
#: Fewer vectors than this are not worth a second thread.
_SHARED = 64


class UsearchIndex(Index):
    """Vardanian 2023, https://github.com/unum-cloud/usearch: HNSW (Malkov and Yashunin 2016).

    metric : ``cosine`` (0 with the zero vector) or ``euclidean``.
    connectivity : neighbors of a vector in the graph, twice as many on its lowest level; 16.
    expansion_add : candidates kept while a vector is added; 128.
    expansion_search : candidates kept while the graph is searched; 64. Search-time.
    dtype : how the numbers are kept: ``f32``, ``f16``, or, for the cosine alone, ``i8``.

    What is removed is only marked; its place is taken by what is added next. Scores of ``f16`` and ``i8`` are
    estimates. Where many vectors are equal, the graph of them falls into parts, and a search may find fewer than k.
    Beyond the first thousand vectors, USearch adds on all processors, so that two builds of one gallery may differ in
    a few neighbors. The Python package has no filtered search (USearch in C++ does), so `Index` asks for more results.
    """

    scheme = "usearch"
    metrics = ("cosine", "euclidean")
    option_types = {"connectivity": int, "expansion_add": int, "expansion_search": int, "dtype": str}
    search_options = ("expansion_search",)

    def __init__(
        self,
        metric: str = "cosine",
        connectivity: int | None = None,
        expansion_add: int | None = None,
        expansion_search: int | None = None,
        dtype: str | None = None,
    ):
        super().__init__(
            metric,
            connectivity=connectivity,
            expansion_add=expansion_add,
            expansion_search=expansion_search,
            dtype=dtype,
        )
        self._check(self.options)
        self._graph: Graph | None = None
        # What the graph looks into, where it was loaded: USearch copies none of it.
        self._blob: np.ndarray | None = None
        # The same once more, opened so that keys can be looked up; once a vector was asked for.
        self._by_key: Graph | None = None

    @property
    def nbytes(self) -> int:
        """What USearch has allocated, and what it looks into."""
        graph = 0 if self._graph is None else self._graph.memory_usage
        return graph + (0 if self._blob is None else self._blob.nbytes) + self._ids.nbytes

    @property
    def _dtype(self) -> str:
        return self.options.get("dtype", "f32")

    def _check(self, options: dict) -> None:
        for name, value in options.items():
            if name != "dtype":
                check_count(name, value)
            elif value not in DTYPES:
                raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {value!r}")
        if options.get("connectivity") == 1:
            raise ValueError("connectivity must be at least 2: a graph of one neighbor each can't be walked")
        if options.get("dtype") == "i8" and self.metric == "euclidean":
            raise ValueError("dtype i8 keeps numbers from -1 to 1, so it is for cosine only: take f16 or f32")

    def _tune(self, options):
        self._check(options)
        super()._tune(options)
        if self._graph is not None:
            self._graph.expansion_search = options.get("expansion_search", 64)

    def _new_graph(self, dim: int, **settings) -> Graph:
        return Graph(
            ndim=dim,
            metric=_METRICS[self.metric],
            dtype=self._dtype,
            connectivity=self.options.get("connectivity", 16),
            expansion_add=self.options.get("expansion_add", 128),
            expansion_search=self.options.get("expansion_search", 64),
            **settings,
        )

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        if self.metric == "cosine":
            return l2_normalize(vectors, np.float64)
        return np.ascontiguousarray(vectors)

    def _check_magnitude(self, vectors: np.ndarray) -> None:
        if self.metric == "euclidean":
            most = 65504.0 if self._dtype == "f16" else 1e17
            check_magnitude(vectors, most, f"usearch with euclidean and {self._dtype}")

    def _own(self) -> None:
        """Before a change: read what is only looked into, because USearch can't change that."""
        if self._blob is not None:
            graph = self._new_graph(self.dim)
            graph.load(memoryview(self._blob))
            self._graph, self._blob, self._by_key = graph, None, None

    def _add(self, vectors, ids):
        if not len(ids):
            return
        self._check_magnitude(vectors)
        self._own()
        graph = self._graph or self._new_graph(vectors.shape[1])
        start = 0
        while start < len(ids):
            first = len(graph) < _FIRST
            part = slice(start, start + (_FIRST if first else _STEP))
            threads = 1 if first else _threads(len(ids[part]))
            graph.add(ids[part].astype(np.uint64), self._prepare(vectors[part]), threads=threads)
            start = part.stop
        self._graph = graph

    def _remove(self, ids):
        if len(ids) == len(self):
            self._clear()
            return
        self._own()
        self._graph.remove(ids.astype(np.uint64))

    def _clear(self):
        self._graph = self._blob = self._by_key = None

    def _search(self, queries, k):
        self._check_magnitude(queries)
        found = self._graph.search(self._prepare(queries), k, threads=_threads(len(queries)))
        ids = np.full((len(queries), k), PAD, np.int64)
        distances = np.zeros((len(queries), k), np.float32)
        if isinstance(found, Matches):
            # One query comes back in another form.
            ids[0, : len(found)], distances[0, : len(found)] = found.keys, found.distances
        else:
            # What lies behind the answers was never written.
            real = np.arange(k) < found.counts[:, None]
            ids[real], distances[real] = found.keys[real], found.distances[real]
        if self.metric == "euclidean":
            scores = 0.0 - np.sqrt(np.maximum(distances, 0))
        else:
            scores = np.clip(1 - distances, -1, 1)
            # To USearch the zero vector is like itself.
            scores[~queries.any(axis=1)] = 0
        return best_first(ids, scores, k)

    def _kept(self, ids):
        graph = self._graph
        if self._blob is not None:
            if self._by_key is None:
                graph = self._new_graph(self.dim)
                graph.view(memoryview(self._blob))
                self._by_key = graph
            graph = self._by_key
        return np.array(graph.get(ids.astype(np.uint64), dtype="f32"), np.float32).reshape(len(ids), self.dim)

    def _state(self):
        if self._graph is None:
            return {}
        return {"usearch": self._blob if self._blob is not None else np.frombuffer(self._graph.save(), np.uint8)}

    def _restore(self, arrays):
        if "usearch" not in arrays:
            if len(self):
                raise ValueError("the part that USearch wrote is missing")
            return
        blob = arrays["usearch"]
        # Looking keys up is for changes; without it, a graph opens before it is read.
        graph = self._new_graph(self.dim, enable_key_lookups=False)
        try:
            graph.view(memoryview(blob))
        except (RuntimeError, MemoryError) as error:
            raise ValueError(f"USearch says {error}") from error
        if (graph.ndim, len(graph)) != (self.dim, len(self)):
            raise ValueError(f"USearch has {len(graph)} vectors of {graph.ndim} numbers")
        self._graph, self._blob = graph, blob


def _threads(count: int) -> int:
    """For so many vectors, as USearch wants it: 0 stands for all processors."""
    return 1 if count < _SHARED else 0
