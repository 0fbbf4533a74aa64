"""Annoy as an index: a forest that is made once and then searched where it lies on disk."""

import contextlib
import os
import tempfile
import threading
from pathlib import Path

import numpy as np

from helpers import extras
from helpers.search.index import (
    Index,
    IndexFileError,
    UnsupportedByIndex,
    check_count,
    check_magnitude,
)
from helpers.search.ranking import PAD, best_first
from helpers.vectors import l2_normalize

with extras.importing("annoy"):
    from annoy import AnnoyIndex as Forest

_METRICS = {"cosine": "angular", "euclidean": "euclidean", "manhattan": "manhattan"}
#: Vectors that are handed over at a time, as Python's own numbers.
_STEP = 1024


class AnnoyIndex(Index):
    """Bernhardsson 2013, https://github.com/spotify/annoy: trees of random planes.

    metric : ``cosine``, which may be called ``angular`` (Annoy's name), ``euclidean`` or ``manhattan``. The cosine is
        computed from Annoy's distance between unit vectors, d = √(2 - 2·cos), as 1 - d²/2 (0 with the zero vector).
    trees : more find more, and take more memory; 30.
    search : nodes that are looked at for a query; -1, the default, is trees · k. Search-time.

    Annoy keeps the vectors, no other copy is held. The trees are made by the first search or save after an `add`, and
    Annoy then writes all into a file without a name in the system's folder for temporary files, and maps it. Annoy
    can't add to finished trees: another `add` takes all vectors out again, and the next search makes all trees anew.
    Nor can it remove. Trees are made by all processors, the same ones from the same vectors on as many processors.

    Annoy can only map a file that holds nothing else: loading copies its part of the saved file into such a nameless
    file, whatever ``mmap`` says, so it takes as long as copying does, and as much room on disk.
    """

    scheme = "annoy"
    option_types = {"trees": int, "search": int}
    search_options = ("search",)

    def __init__(self, metric: str = "cosine", trees: int | None = None, search: int | None = None):
        super().__init__("cosine" if metric == "angular" else metric, trees=trees, search=search)
        self._check(self.options)
        self._clear()
        self._making = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Annoy's nodes, and the ids twice; before the first search there are vectors only."""
        nodes = (4 * (self.dim or 0) + 16) * len(self) if self._nodes is None else self._nodes.nbytes
        return nodes + self._order.nbytes + self._ids.nbytes

    def _check(self, options: dict) -> None:
        if "trees" in options:
            check_count("trees", options["trees"])
        if options.get("search", -1) != -1:
            check_count("search", options["search"])

    def _tune(self, options):
        self._check(options)
        super()._tune(options)

    def _clear(self):
        self._forest: Forest | None = None
        # int64 (n,): the ids by place, as they were added.
        self._order = np.empty(0, np.int64)
        # Annoy's nodes, in the file that it maps, once the trees are made.
        self._nodes: np.ndarray | None = None

    def _new_forest(self, dim: int) -> Forest:
        forest = Forest(dim, _METRICS[self.metric])
        forest.set_seed(0x5EED)
        return forest

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        if self.metric == "cosine":
            return l2_normalize(vectors, np.float64)
        check_magnitude(vectors, 1e17, f"annoy with {self.metric}")
        return vectors

    def _add(self, vectors, ids):
        if not len(ids):
            return
        if self.metric != "cosine":
            check_magnitude(vectors, 1e17, f"annoy with {self.metric}")
        forest = self._forest
        if forest is None or self._nodes is not None:
            forest = self._new_forest(vectors.shape[1])
            for place in range(len(self)):
                forest.add_item(place, self._forest.get_item_vector(place))
        place = len(self)
        for start in range(0, len(ids), _STEP):
            for vector in self._prepare(vectors[start : start + _STEP]).tolist():
                forest.add_item(place, vector)
                place += 1
        self._forest, self._nodes = forest, None
        self._order = np.concatenate([self._order, ids])

    def _remove(self, ids):
        raise UnsupportedByIndex(
            f"{self.spec} can't remove: Annoy has no way to. Use usearch or faiss:ivf, or clear the index and add what "
            "stays."
        )

    def _made(self) -> Forest:
        """The forest with its trees."""
        with self._making:
            if self._nodes is None:
                self._forest.build(self.options.get("trees", 30))
                # Saving makes Annoy let go of its memory and map the file instead.
                with _nameless() as path:
                    try:
                        self._forest.save(str(path))
                    except OSError as error:
                        raise _no_room(error) from error
                    self._nodes = np.memmap(path, np.uint8, "r")
        return self._forest

    def _search(self, queries, k):
        forest, nodes = self._made(), self.options.get("search", -1)
        ids = np.full((len(queries), k), PAD, np.int64)
        distances = np.zeros((len(queries), k))
        for row, query in enumerate(self._prepare(queries).tolist()):
            places, far = forest.get_nns_by_vector(query, k, nodes, include_distances=True)
            ids[row, : len(places)], distances[row, : len(places)] = self._order[places], far
        return best_first(ids, 1 - distances**2 / 2 if self.metric == "cosine" else 0.0 - distances, k)

    def _kept(self, ids):
        by_id = np.argsort(self._order)
        places = by_id[np.searchsorted(self._order[by_id], ids)]
        # Not while trees are made: Annoy then lets go of the memory that it reads from.
        with self._making:
            return np.array([self._forest.get_item_vector(place) for place in places.tolist()], np.float32)

    def _state(self):
        if not len(self):
            return {}
        self._made()
        return {"order": self._order, "annoy": self._nodes}

    def _restore(self, arrays):
        if not len(self):
            return
        # A copy of the first, because a view would keep all of the file in memory as long as the index.
        order, nodes = np.array(arrays["order"]), arrays["annoy"]
        if not np.array_equal(np.sort(order), self._ids):
            raise ValueError("the order of the vectors does not fit their ids")
        forest = self._new_forest(self.dim)
        with _nameless() as path:
            try:
                with path.open("wb") as file:
                    file.write(nodes.data)
            except OSError as error:
                raise _no_room(error) from error
            try:
                forest.load(str(path))
            except OSError as error:
                raise ValueError(f"Annoy says {error}") from error
            nodes = np.memmap(path, np.uint8, "r")
        if forest.get_n_items() < len(self) or not forest.get_n_trees():
            raise ValueError(f"Annoy has {forest.get_n_items()} vectors in {forest.get_n_trees()} trees")
        self._forest, self._order, self._nodes = forest, order, nodes


@contextlib.contextmanager
def _nameless():
    """The path of a new, empty file that goes when the last who has it open lets go."""
    try:
        handle, name = tempfile.mkstemp(suffix=".annoy")
    except OSError as error:
        raise _no_room(error) from error
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink()


def _no_room(error: OSError) -> IndexFileError:
    return IndexFileError(
        f"Annoy's trees can't be written into {tempfile.gettempdir()}: {error}. "
        "Free some space there, or set TMPDIR to another folder."
    )
