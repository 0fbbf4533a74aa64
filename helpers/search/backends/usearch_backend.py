"""USearch as an index: a graph that can change, and that can be searched on disk."""

# USearch makes symbols of its libraries global. If it is loaded before FAISS, `faiss.index_factory` crashes.
import faiss  # noqa: F401
import numpy as np
from usearch.index import Index as Graph
from usearch.index import Matches

from helpers.search.index import Index, Streamed, check_count
from helpers.search.ranking import PAD, best_first

#: Types of the stored numbers.
DTYPES = ("f32", "f16", "i8")

_METRICS = {"cosine": "cos", "euclidean": "l2sq"}
#: Vectors that are added at a time; USearch gets a prepared copy of them.
_STEP = 2**14
#: The first vectors are added one after the other: in parallel, some of them would become unreachable.
_FIRST = 1000
#: Fewer vectors than this do not justify a second thread.
_SHARED = 64


class UsearchIndex(Index):
    """Vardanian 2023, https://github.com/unum-cloud/usearch: HNSW (Malkov and Yashunin 2016).

    metric : ``cosine`` (0 with the zero vector) or ``euclidean``.
    connectivity : neighbors of a vector in the graph, twice as many on its lowest level; 16.
    expansion_add : candidates kept while a vector is added; 128.
    expansion_search : candidates kept while the graph is searched; 64. Search-time.
    dtype : type of the stored numbers: ``f32``, ``f16``, or, for the cosine only, ``i8``.

    Removed vectors are only marked; later additions take their room. Scores of ``f16`` and ``i8`` are estimates. Many
    equal vectors split the graph into parts, and a search may find fewer than k. After the first thousand vectors,
    USearch adds with all processors, so two builds of one gallery may differ in a few neighbors. The Python package has
    no filtered search, unlike the C++ library, so `Index` over-fetches.
    """

    scheme = "usearch"
    metrics = ("cosine", "euclidean")
    option_types = {"connectivity": int, "expansion_add": int, "expansion_search": int, "dtype": str}
    search_options = ("expansion_search",)

    def __init__(self, metric: str = "cosine", **options: int | str):
        super().__init__(metric, **options)
        self._dtype = self.options.get("dtype", "f32")
        self.largest = 65504.0 if self._dtype == "f16" else 1e17
        self._graph: Graph | None = None
        #: The mapped bytes of a graph that was loaded.
        self._blob: np.ndarray | None = None
        #: The same graph with a table of keys, made when a vector is read.
        self._by_key: Graph | None = None

    @property
    def nbytes(self) -> int:
        """What USearch has allocated or mapped."""
        graph = 0 if self._graph is None else self._graph.memory_usage
        return graph + (0 if self._blob is None else self._blob.nbytes) + self._ids.nbytes

    @property
    def _opened(self) -> Graph:
        assert self._graph is not None, "the index holds vectors"
        return self._graph

    def _check_options(self, options: dict) -> None:
        for name, value in options.items():
            if name != "dtype":
                check_count(name, value)
            elif value not in DTYPES:
                raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {value!r}")
        if options.get("connectivity") == 1:
            raise ValueError("connectivity must be at least 2: a graph of one neighbor each cannot be searched")
        if options.get("dtype") == "i8" and self.metric == "euclidean":
            raise ValueError("dtype i8 stores numbers from -1 to 1, so it is for cosine only: use f16 or f32")

    def _apply_search_options(self) -> None:
        if self._graph is not None:
            # The stubs lack the setter.
            self._graph.expansion_search = self.options.get("expansion_search", 64)  # type: ignore[misc]

    def _new_graph(self, dim: int | None, enable_key_lookups: bool = True) -> Graph:
        return Graph(
            ndim=dim or 0,
            metric=_METRICS[self.metric],
            dtype=self._dtype,
            connectivity=self.options.get("connectivity", 16),
            expansion_add=self.options.get("expansion_add", 128),
            expansion_search=self.options.get("expansion_search", 64),
            enable_key_lookups=enable_key_lookups,
        )

    def _make_writable(self) -> None:
        """Before a change: copies a mapped graph into memory."""
        if self._blob is not None:
            graph = self._new_graph(self.dim)
            graph.load(self._blob.data)
            self._graph, self._blob, self._by_key = graph, None, None

    def _add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        if not len(ids):
            return
        self._make_writable()
        graph = self._graph or self._new_graph(vectors.shape[1])
        start = 0
        while start < len(ids):
            first = len(graph) < _FIRST
            part = slice(start, start + (_FIRST if first else _STEP))
            threads = 1 if first else _threads(len(ids[part]))
            graph.add(ids[part].astype(np.uint64), self._prepare(vectors[part]), threads=threads)
            start = part.stop
        self._graph = graph

    def _remove(self, ids: np.ndarray) -> None:
        if len(ids) == len(self):
            self._clear()
            return
        self._make_writable()
        self._opened.remove(ids.astype(np.uint64))

    def _clear(self) -> None:
        self._graph = self._blob = self._by_key = None

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found = self._opened.search(self._prepare_queries(queries), k, threads=_threads(len(queries)))
        ids = np.full((len(queries), k), PAD, np.int64)
        distances = np.zeros((len(queries), k), np.float32)
        if isinstance(found, Matches):
            # The form for one query.
            ids[0, : len(found)], distances[0, : len(found)] = found.keys, found.distances
        else:
            # The rest of a row is uninitialized.
            real = np.arange(k) < found.counts[:, None]
            ids[real], distances[real] = found.keys[real], found.distances[real]
        if self.metric == "euclidean":
            scores = 0.0 - np.sqrt(np.maximum(distances, 0))
        else:
            scores = np.clip(1 - distances, -1, 1)
            # USearch gives two zero vectors the cosine 1.
            scores[~queries.any(axis=1)] = 0
        return best_first(ids, scores, k)

    def _reconstruct(self, ids: np.ndarray) -> np.ndarray:
        graph = self._opened
        if self._blob is not None:
            if self._by_key is None:
                self._by_key = self._new_graph(self.dim)
                self._by_key.view(self._blob.data)
            graph = self._by_key
        return np.array(graph.get(ids.astype(np.uint64), dtype="f32"), np.float32).reshape(len(ids), -1)

    def _state(self) -> dict[str, np.ndarray | Streamed]:
        if self._graph is None:
            return {}
        return {"usearch": self._blob if self._blob is not None else np.frombuffer(self._graph.save() or b"", np.uint8)}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        if not len(self) and "usearch" not in arrays:
            return
        blob = arrays["usearch"]
        # Without the table of keys, which only changes need, a graph opens without being read.
        graph = self._new_graph(self.dim, enable_key_lookups=False)
        try:
            graph.view(blob.data)
        except (RuntimeError, MemoryError) as error:
            raise ValueError(f"USearch reports: {error}") from error
        if (graph.ndim, len(graph)) != (self.dim, len(self)):
            raise ValueError(f"USearch has {len(graph)} vectors of {graph.ndim} numbers")
        self._graph, self._blob = graph, blob


def _threads(count: int) -> int:
    """USearch's number of threads for this many vectors; 0 stands for all processors."""
    return 1 if count < _SHARED else 0
