"""FAISS as an index: exact, by lists, by a graph, and by compressed codes."""

# FAISS's stubs describe only a part of its SWIG interface.
# mypy: disable-error-code="arg-type, attr-defined, call-arg, union-attr"

import math
from collections.abc import Callable, Iterator

import faiss
import numpy as np

from helpers.search.index import Index, Streamed, UnsupportedByIndex, check_count
from helpers.search.index.filters import IdSet, Selection
from helpers.search.ranking import PAD, best_first

#: Kind → its options besides ``metric``.
KINDS = {
    "flat": ("storage",),
    "ivf": ("storage", "lists", "probes"),
    "hnsw": ("storage", "m", "construction", "search"),
    "pq": ("bytes", "refine", "depth"),
    "opq": ("lists", "probes", "bytes", "refine", "depth"),
}

#: Type of the stored numbers → its name in FAISS's factory.
_STORAGE = {"float32": "Flat", "float16": "SQfp16", "int8": "SQ8"}
_REFINE = {"none": "", "float32": ",RFlat", "float16": ",Refine(SQfp16)", "int8": ",Refine(SQ8)"}
#: Vectors per list that FAISS requires for good centroids.
_PER_LIST = 39
#: Fewer vectors than this are compared one by one, which is as fast.
_TRAINABLE = 1000
#: Vectors that are added at a time; FAISS gets a prepared copy of them.
_STEP = 2**14
#: The most vectors that train the centroids of codes, and the iterations of k-means and of the rotation.
_PQ_SAMPLE, _PQ_ROUNDS, _OPQ_ROUNDS = 2**14, 10, 4
#: The largest number whose square fits float32, or that fits float16.
_LARGEST = {"float32": 1e17, "float16": 65504.0, "int8": 1e17}


class FaissIndex(Index):
    """Douze et al. 2024, https://arxiv.org/abs/2401.08281; the spec is ``faiss:kind?option=value``.

    kind : ``flat`` — compares with everything, in float32.
        ``ivf`` — k-means divides the gallery into lists; a search reads the lists nearest to the query.
        ``hnsw`` — a graph of near neighbors (Malkov and Yashunin 2016, https://arxiv.org/abs/1603.09320); no removal.
        ``pq`` — compares with everything, by codes of a few bytes (Jégou et al. 2011, "Product quantization for
        nearest neighbor search"), and compares the best of these again.
        ``opq`` — lists of such codes, after a rotation that suits them (Ge et al. 2013, "Optimized product
        quantization").
    metric : ``cosine`` (0 with the zero vector) or ``euclidean``.
    storage : type of the stored numbers: ``float32``, ``float16``, or ``int8`` (256 steps between the extremes of each
        dimension in the training vectors; numbers beyond are clipped).
    lists : by default 4·√n, but at least 39 vectors per list, for the n vectors at the time of training.
    probes : lists that a search reads; by default √lists, at least 16. Search-time.
    m : neighbors of a vector in the graph, 2·m on its lowest level; 32.
    construction : candidates kept while a vector is added to the graph; 100.
    search : candidates kept while the graph is searched; 64. Search-time.
    bytes : of a code. It must divide the dimension; by default, the greatest divisor of at most an eighth of it.
    refine : storage of the vectors with which the best codes are compared again; ``float16``, or ``none``.
    depth : the number of codes that are compared again is depth · k; 10. Search-time.

    Lists, codes and ``int8`` are trained on a sample of the first vectors. Until there are 1,000 vectors, and 10 for
    each of the given ``lists``, all are stored in float32 and compared one by one. Training happens once: to add
    vectors little by little, give ``lists``, or start with a large part.

    For a selection of less than half of the vectors, ``flat``, ``ivf`` and ``opq`` are filtered by FAISS's
    `IDSelector`, and smaller selections search more lists. FAISS cannot filter ``pq``, and filters ``hnsw`` slowly.

    Scores are FAISS's, in float32. Those of ``float16``, ``int8`` and codes are estimates, whose cosine may slightly
    exceed 1. Small Euclidean distances of ``flat`` are estimates, too, because FAISS computes |q|² - 2qg + |g|² for 20
    queries or more. FAISS chooses among equal vectors. It uses OpenMP's threads.
    """

    scheme = "faiss"
    metrics = ("cosine", "euclidean")
    option_types = {
        "metric": str, "storage": str, "lists": int, "probes": int, "m": int, "construction": int, "search": int,
        "bytes": int, "refine": str, "depth": int,
    }  # fmt: skip

    def __init__(self, kind: str = "flat", metric: str = "cosine", **options: int | str):
        if kind not in KINDS:
            raise ValueError(f"faiss has no kind {kind!r}; it has: {', '.join(KINDS)}")
        self.kind = kind
        self.search_options = tuple(name for name in ("probes", "search", "depth") if name in KINDS[kind])
        super().__init__(metric, **options)
        self._storage = self.options.get("storage", "float32")
        self._refine = self.options.get("refine", "float16") if "refine" in KINDS[kind] else "none"
        self._trains = kind in ("ivf", "pq", "opq") or self._storage == "int8"
        self.largest = _LARGEST[self._storage if self._refine == "none" else self._refine]
        if self.metric != "cosine":
            self.options["metric"] = self.metric
        self._index: faiss.Index | None = None
        #: The mapped bytes of an index that was loaded.
        self._blob: np.ndarray | None = None
        #: The ascending ids and where each vector is, made when a vector is read; None after a change.
        self._positions: tuple[np.ndarray, ...] | None = None

    @property
    def _target(self) -> str:
        return self.kind

    @property
    def nbytes(self) -> int:
        """The index in FAISS's file format, and the ids; reserved memory is not counted."""
        if self._index is None:
            return self._ids.nbytes
        if self._blob is not None:
            return self._blob.nbytes + self._ids.nbytes
        sizes: list[int] = []
        self._write(lambda part: sizes.append(len(part)))
        return sum(sizes) + self._ids.nbytes

    def _check_options(self, options: dict) -> None:
        known = KINDS[self.kind]
        for name, value in options.items():
            if name == "metric":
                continue
            if name not in known:
                raise ValueError(f"faiss:{self.kind} has no option {name!r}; it has: {', '.join(('metric', *known))}")
            choices = {"storage": _STORAGE, "refine": _REFINE}.get(name)
            if choices is None:
                check_count(name, value)
            elif value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        if options.get("m") == 1:
            raise ValueError("m must be at least 2: a graph of one neighbor each cannot be searched")
        if options.get("refine") == "none" and "depth" in options:
            raise ValueError("depth is the number of codes to refine, but refine is none: omit one of them")

    def _apply_search_options(self) -> None:
        for layer in _layers(self._index):
            if isinstance(layer, faiss.IndexIVF):
                layer.nprobe = self.options.get("probes", max(16, round(math.sqrt(layer.nlist))))
            elif isinstance(layer, faiss.IndexHNSW):
                layer.hnsw.efSearch = self.options.get("search", 64)
            elif isinstance(layer, faiss.IndexRefine):
                layer.k_factor = self.options.get("depth", 10)

    @property
    def _waiting(self) -> bool:
        """Whether there are not enough vectors yet for training."""
        return self._trains and isinstance([*_layers(self._index)][-1], faiss.IndexFlat)

    def _recipe(self, count: int, dim: int) -> str:
        """The argument of `faiss.index_factory` for ``count`` vectors."""
        if self._trains and count < max(_TRAINABLE, 10 * self.options.get("lists", 0)):
            return "IDMap,Flat"
        lists = f"IVF{self.options.get('lists', max(1, min(round(4 * math.sqrt(count)), count // _PER_LIST)))}"
        stored, refine = _STORAGE[self._storage], _REFINE[self._refine]
        if self.kind == "flat":
            return f"IDMap,{stored}"
        if self.kind == "ivf":
            return f"{lists},{stored}"
        if self.kind == "hnsw":
            return f"IDMap,HNSW{self.options.get('m', 32)},{stored}"
        code = self._code_bytes(dim)
        if self.kind == "pq":
            return f"IDMap,PQ{code}{refine}"
        # FAISS refines by position, so ids need a map; lists store ids themselves.
        return f"{'IDMap,' if refine else ''}OPQ{code},{lists},PQ{code}{refine}"

    def _code_bytes(self, dim: int) -> int:
        divisors = [size for size in range(1, dim + 1) if dim % size == 0]
        code = self.options.get("bytes", max(size for size in divisors if size <= max(1, dim // 8)))
        if code not in divisors:
            raise ValueError(f"bytes must divide the dimension {dim}, got {code}; it can be {divisors}")
        return code

    def _add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        if not len(ids):
            return
        self._make_writable()
        self._positions = None
        index, held, held_ids = self._index, None, None
        if index is None or self._waiting:
            recipe = self._recipe(len(self) + len(ids), vectors.shape[1])
            if index is None or recipe != "IDMap,Flat":
                if index is not None:
                    held_ids = faiss.vector_to_array(index.id_map)
                    held = index.index.reconstruct_n(0, len(held_ids))
                index = self._make(recipe, vectors, held)
        if held is not None:
            index.add_with_ids(held, held_ids)
        for start in range(0, len(ids), _STEP):
            part = slice(start, start + _STEP)
            index.add_with_ids(self._prepare(vectors[part]), ids[part])
        if index is not self._index:
            self._index = index
            self._apply_search_options()

    def _make(self, recipe: str, vectors: np.ndarray, held: np.ndarray | None) -> faiss.Index:
        """A trained and empty index, for the vectors that are held and those that are added."""
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "cosine" else faiss.METRIC_L2
        index = faiss.index_factory(vectors.shape[1], recipe, metric)
        sample, rotation = 4 * _TRAINABLE, None
        for layer in _layers(index):
            if isinstance(layer, faiss.IndexIVF):
                sample = max(sample, 2 * _PER_LIST * layer.nlist)
                layer.cp.min_points_per_centroid = 1
            if isinstance(layer, faiss.IndexHNSW):
                layer.hnsw.efConstruction = self.options.get("construction", 100)
            if isinstance(layer, faiss.IndexPQ | faiss.IndexIVFPQ):
                sample = max(sample, _PQ_SAMPLE)
                layer.do_polysemous_training = False  # takes minutes, for a filter that is not used here
                _train_briefly(layer.pq)
            if isinstance(layer, faiss.IndexPreTransform):
                rotation = faiss.downcast_VectorTransform(layer.chain.at(0))
                codes = faiss.ProductQuantizer(rotation.d_out, rotation.M, 8)
                _train_briefly(codes)
                rotation.pq = codes
                rotation.niter, rotation.niter_pq_0, rotation.max_train_points = _OPQ_ROUNDS, _PQ_ROUNDS, _PQ_SAMPLE
        if not index.is_trained:
            index.train(self._sample(vectors, held, sample))
        if rotation is not None:
            rotation.pq = None  # freed with this function
        return index

    def _sample(self, vectors: np.ndarray, held: np.ndarray | None, size: int) -> np.ndarray:
        """float32 (at most size, dim): a prepared sample of both."""
        before = 0 if held is None else len(held)
        count = before + len(vectors)
        rows = np.arange(count)
        if count > size:
            rows = np.sort(np.random.default_rng(0).choice(count, size, replace=False))
        new = self._prepare(vectors[rows[rows >= before] - before])
        return new if held is None else np.concatenate([held[rows[rows < before]], new])

    def _make_writable(self) -> None:
        """Before a change: copies a mapped index into FAISS's memory."""
        if self._blob is None:
            return
        blob, position = self._blob, 0

        def read(size: int) -> bytes:
            nonlocal position
            part = blob[position : position + size].tobytes()
            position += len(part)
            return part

        self._index = faiss.read_index(faiss.PyCallbackIOReader(read))
        self._blob = None
        self._apply_search_options()

    def _remove(self, ids: np.ndarray) -> None:
        if self.kind == "hnsw" or self._refine != "none":
            what = "a graph of FAISS" if self.kind == "hnsw" else "a FAISS index that refines"
            other = "faiss:ivf or usearch" if self.kind == "hnsw" else f"faiss:{self.kind}?refine=none or faiss:ivf"
            raise UnsupportedByIndex(
                f"{self.spec} cannot remove, because {what} cannot. Use {other}, or clear the index and add the other "
                "vectors."
            )
        self._make_writable()
        self._positions = None
        self._index.remove_ids(ids)

    def _clear(self) -> None:
        self._index = self._blob = self._positions = None

    def _search(
        self, queries: np.ndarray, k: int, parameters: faiss.SearchParameters | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, ids = self._index.search(self._prepare_queries(queries), k, params=parameters)
        if self.metric == "euclidean":
            scores = 0.0 - np.sqrt(np.maximum(scores, 0))
        elif self.kind in ("flat", "ivf", "hnsw") and self._storage == "float32":
            _clip_cosines(scores)
        return best_first(ids, scores, k)

    def _search_selection(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        # For large selections an over-fetch is faster: a flat index filters vector by vector, not by a product.
        if selection.count < len(self) / 2 and self._filters:
            return self._search_filtered(queries, k, selection)
        return super()._search_selection(queries, k, selection)

    def _search_filtered(self, queries: np.ndarray, k: int, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        if not self._filters:
            return super()._search_filtered(queries, k, selection)
        parameters = _parameters(self._index, _selector(selection), selection.count / len(self))
        ids, scores = self._search(queries, k, parameters)
        short = np.flatnonzero(ids[:, -1] == PAD)
        if len(short):
            ids[short], scores[short] = super()._search_filtered(queries[short], k, selection)
        return ids, scores

    @property
    def _filters(self) -> bool:
        """FAISS cannot filter an `IndexPQ`, and a graph search also visits vectors that are not selected."""
        *_, innermost = _layers(self._index)
        return not isinstance(innermost, faiss.IndexHNSW | faiss.IndexPQ)

    def _reconstruct(self, ids: np.ndarray) -> np.ndarray:
        vectors = np.empty((len(ids), self.dim or 0), np.float32)
        if self._positions is None:
            # FAISS's own lookup of an id takes a pass over all ids.
            mapped = isinstance(self._index, faiss.IndexIDMap)
            held, *where = [faiss.vector_to_array(self._index.id_map)] if mapped else _list_positions(self._lists)
            order = np.argsort(held, kind="stable")
            self._positions = held[order], order, *where
        held, order, *where = self._positions
        positions = order[np.searchsorted(held, ids)]
        if not where:
            self._index.index.reconstruct_batch(positions, vectors)
            return vectors
        numbers, offsets = where
        lists = self._lists
        rows = np.empty((len(ids), lists.d), np.float32)
        for row, position in zip(rows, positions, strict=True):
            lists.reconstruct_from_offset(int(numbers[position]), int(offsets[position]), faiss.swig_ptr(row))
        if isinstance(self._index, faiss.IndexPreTransform):
            self._index.reverse_chain(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(vectors))
            return vectors
        return rows

    @property
    def _lists(self) -> faiss.IndexIVF:
        return next(layer for layer in _layers(self._index) if isinstance(layer, faiss.IndexIVF))

    def _write(self, write: Callable[[bytes], object]) -> None:
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(write))

    def _state(self) -> dict[str, np.ndarray | Streamed]:
        if self._index is None:
            return {}
        return {"faiss": self._blob if self._blob is not None else Streamed(self._write)}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        if not len(self) and "faiss" not in arrays:
            return
        blob = arrays["faiss"]
        try:
            index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(blob), blob.nbytes))
        except (RuntimeError, MemoryError) as error:
            raise ValueError(f"FAISS reports: {error}") from error
        if (index.d, index.ntotal) != (self.dim, len(self)):
            raise ValueError(f"FAISS has {index.ntotal} vectors of {index.d} numbers")
        self._index, self._blob = index, blob
        self._apply_search_options()


def _clip_cosines(scores: np.ndarray) -> None:
    """Clip float32 (q, k) in place to −1 … 1, which rounding errors exceed; each row is in descending order."""
    # For one query, the two comparisons take less time than clipping.
    if len(scores) > 1 or scores.item(0) > 1 or scores.item(-1) < -1:
        np.clip(scores, -1, 1, out=scores)


def _train_briefly(codes: faiss.ProductQuantizer) -> None:
    codes.cp.niter = _PQ_ROUNDS
    codes.cp.max_points_per_centroid = _PQ_SAMPLE // codes.ksub
    codes.cp.min_points_per_centroid = 1


def _list_positions(lists: faiss.IndexIVF) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 (n,) each: the ids in the lists, the list of each, and its position in the list."""
    inverted, sizes = lists.invlists, [lists.invlists.list_size(number) for number in range(lists.nlist)]
    # Copies, because FAISS owns the memory.
    ids = [faiss.rev_swig_ptr(inverted.get_ids(number), size).copy() for number, size in enumerate(sizes) if size]
    offsets = [np.arange(size) for size in sizes]
    return np.concatenate(ids), np.repeat(np.arange(lists.nlist), sizes), np.concatenate(offsets)


def _selector(selection: Selection) -> faiss.IDSelector:
    if selection.excluded is None:
        return _members(selection.allowed)
    others = faiss.IDSelectorNot(_members(selection.excluded))
    return others if selection.allowed is None else faiss.IDSelectorAnd(_members(selection.allowed), others)


def _members(ids: IdSet) -> faiss.IDSelector:
    """A bitmap, which is faster than a hash table, unless the ids are sparse."""
    if ids.ids[-1] < max(2**20, 256 * len(ids)):
        return faiss.IDSelectorBitmap(ids.bitmap)
    return faiss.IDSelectorBatch(ids.ids)


def _parameters(index: faiss.Index, selector: faiss.IDSelector, part: float) -> faiss.SearchParameters:
    """The filter of each layer; a smaller ``part`` of selected vectors searches more lists."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIDMap):
        inner = faiss.downcast_index(index.index)
        # The map translates ids only in the outermost parameters, but refining reads them in its inner ones.
        refines = isinstance(inner, faiss.IndexRefine)
        return _parameters(inner, faiss.IDSelectorTranslated(index.id_map, selector) if refines else selector, part)
    if isinstance(index, faiss.IndexRefine):
        base = _parameters(index.base_index, selector, part)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=base)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_parameters(index.index, selector, part))
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(index.nlist, math.ceil(index.nprobe / part)))
    return faiss.SearchParameters(sel=selector)


def _layers(index: faiss.Index | None) -> Iterator[faiss.Index]:
    """An index and the indexes inside it: ids → refining → rotation → lists, graph or codes."""
    while index is not None:
        index = faiss.downcast_index(index)
        yield index
        index = getattr(index, "base_index", None) or getattr(index, "index", None)
