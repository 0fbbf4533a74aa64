"""Annoy as an index: a forest that is built once and then searched on disk."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from typing import Literal

import numpy as np

from helpers import extras
from helpers.search.index import Index, IndexFileError, Streamed, UnsupportedByIndex, check_count
from helpers.search.ranking import PAD, best_first

with extras.importing("annoy"):
    from annoy import AnnoyIndex as Forest

_METRICS: dict[str, Literal["angular", "euclidean", "manhattan"]] = {
    "cosine": "angular", "euclidean": "euclidean", "manhattan": "manhattan",
}  # fmt: skip
#: Vectors that are passed at a time, as Python numbers.
_STEP = 1024
#: A node of Annoy has room for this many items more than a vector has numbers; a smaller gallery is one node per tree.
_SMALL = 2


class AnnoyIndex(Index):
    """Bernhardsson 2013, https://github.com/spotify/annoy: trees of random planes.

    metric : ``cosine`` or its name in Annoy, ``angular``; ``euclidean`` or ``manhattan``. The cosine is computed from
        Annoy's distance between unit vectors, d = √(2 - 2·cos), as 1 - d²/2 (0 with the zero vector).
    trees : more trees find more, and take more memory; 30.
    search : nodes that a query reads; -1, the default, is trees · k. Search-time.

    Only Annoy stores the vectors. The first search or save after an `add` builds the trees, with all processors; the
    result depends on their number. Annoy then writes everything into a nameless file in the system's folder for
    temporary files, and maps it. It cannot add to finished trees: another `add` copies all vectors out again, and the
    next search builds all trees again. It cannot remove.

    Annoy can only map a file that holds nothing else. Therefore loading copies its part of the saved file into such a
    nameless file, whatever ``mmap`` says.
    """

    scheme = "annoy"
    option_types = {"trees": int, "search": int}
    search_options = ("search",)
    largest = 1e17

    def __init__(self, metric: str = "cosine", trees: int | None = None, search: int | None = None):
        super().__init__("cosine" if metric == "angular" else metric, trees=trees, search=search)
        self._clear()
        self._building = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Annoy's nodes, and the ids twice; before the first search only the vectors."""
        nodes = (4 * (self.dim or 0) + 16) * len(self) if self._nodes is None else self._nodes.nbytes
        return nodes + self._order.nbytes + self._ids.nbytes

    def _check_options(self, options: dict) -> None:
        if "trees" in options:
            check_count("trees", options["trees"])
        if options.get("search", -1) != -1:
            check_count("search", options["search"])

    def _clear(self) -> None:
        self._forest: Forest | None = None
        #: int64 (n,): the ids in the order of addition, which is Annoy's.
        self._order = np.empty(0, np.int64)
        #: Annoy's nodes in the file that it maps, after the trees are built.
        self._nodes: np.ndarray | None = None

    def _new_forest(self, dim: int) -> Forest:
        forest = Forest(dim, _METRICS[self.metric])
        forest.set_seed(0x5EED)
        return forest

    def _without_trees(self, forest: Forest) -> Forest:
        """A new forest with the vectors of a finished one, to which Annoy cannot add."""
        copied = self._new_forest(forest.f)
        for item in range(len(self)):
            copied.add_item(item, forest.get_item_vector(item))
        return copied

    def _add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        if not len(ids):
            return
        forest = self._forest
        if forest is None or self._nodes is not None:
            forest = self._new_forest(vectors.shape[1]) if forest is None else self._without_trees(forest)
        item = len(self)
        for start in range(0, len(ids), _STEP):
            for vector in self._prepare(vectors[start : start + _STEP]).tolist():
                forest.add_item(item, vector)
                item += 1
        self._forest, self._nodes = forest, None
        self._order = np.concatenate([self._order, ids])

    def _remove(self, ids: np.ndarray) -> None:
        raise UnsupportedByIndex(
            f"{self.spec} cannot remove, because Annoy cannot. Use usearch or faiss:ivf, or clear the index and add "
            "the other vectors."
        )

    def _built(self) -> Forest:
        """The forest with its trees."""
        with self._building:
            forest = self._forest
            assert forest is not None, "the index holds vectors"
            trees = self.options.get("trees", 30)
            while self._nodes is None:
                forest.build(trees)
                # After saving, Annoy maps the file and frees its memory.
                with _temporary_file() as path:
                    forest.save(path)
                    nodes = np.memmap(path, np.uint8, "r")
                # If two threads end at almost the same time, Annoy takes one or two roots of the file twice, and a
                # search reads other nodes. In a small gallery it always does, but there a search reads all nodes.
                if forest.get_n_trees() == trees or len(self) <= forest.f + _SMALL:
                    self._forest, self._nodes = forest, nodes
                else:
                    forest = self._without_trees(forest)
        return forest

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self._search_deeper(queries, k, k)

    def _search_deeper(self, queries: np.ndarray, k: int, likely: int) -> tuple[np.ndarray, np.ndarray]:
        forest = self._built()
        nodes = self.options.get("search", -1)
        if nodes == -1:
            # Annoy's own default, with the number of results that matter.
            nodes = forest.get_n_trees() * likely
        ids = np.full((len(queries), k), PAD, np.int64)
        distances = np.zeros((len(queries), k))
        for row, query in enumerate(self._prepare_queries(queries).tolist()):
            items, near = forest.get_nns_by_vector(query, k, nodes, include_distances=True)
            ids[row, : len(items)], distances[row, : len(items)] = self._order[items], near
        return best_first(ids, 1 - distances**2 / 2 if self.metric == "cosine" else 0.0 - distances, k)

    def _reconstruct(self, ids: np.ndarray) -> np.ndarray:
        by_id = np.argsort(self._order)
        items = by_id[np.searchsorted(self._order[by_id], ids)]
        # Not while trees are built, because Annoy then frees the memory that it reads from.
        with self._building:
            assert self._forest is not None, "the index holds vectors"
            return np.array([self._forest.get_item_vector(item) for item in items.tolist()], np.float32)

    def _state(self) -> dict[str, np.ndarray | Streamed]:
        if len(self):
            self._built()
        return {} if self._nodes is None else {"order": self._order, "annoy": self._nodes}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        if not len(self):
            return
        # A copy, because a view would keep the whole file in memory.
        order, nodes = np.array(arrays["order"]), arrays["annoy"]
        if not np.array_equal(np.sort(order), self._ids):
            raise ValueError("the order of the vectors does not fit their ids")
        forest = self._new_forest(self.dim or 0)
        with _temporary_file() as path:
            nodes.tofile(path)
            try:
                forest.load(path)
            except OSError as error:
                raise ValueError(f"Annoy reports: {error}") from error
            nodes = np.memmap(path, np.uint8, "r")
        if forest.get_n_items() < len(self) or not forest.get_n_trees():
            raise ValueError(f"Annoy has {forest.get_n_items()} vectors in {forest.get_n_trees()} trees")
        self._forest, self._order, self._nodes = forest, order, nodes


@contextlib.contextmanager
def _temporary_file() -> Iterator[str]:
    """The path of a new file, which is deleted at the end; a process that maps it keeps its content."""
    try:
        with tempfile.NamedTemporaryFile(suffix=".annoy") as file:
            yield file.name
    except OSError as error:
        raise IndexFileError(
            f"Annoy's trees cannot be written into {tempfile.gettempdir()}: {error}. "
            "Free some space there, or set TMPDIR to another folder."
        ) from error
