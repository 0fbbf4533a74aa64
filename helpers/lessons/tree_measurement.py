"""Brute force and the search trees of scikit-learn: the time of a search, and the distances that it computes."""

from collections.abc import Iterable, Mapping
from time import perf_counter

import numpy as np
import pandas as pd
from sklearn.neighbors import BallTree, KDTree, NearestNeighbors
from threadpoolctl import threadpool_limits

#: Values of the parameter ``algorithm`` of `sklearn.neighbors.NearestNeighbors`.
ALGORITHMS = ("brute", "kd_tree", "ball_tree")
#: The number of times that a search is repeated, and the seconds after which it is not repeated again.
_ROUNDS, _SECONDS = 7, 0.3
_TREES = {"kd_tree": KDTree, "ball_tree": BallTree}


def milliseconds(algorithm: str, gallery: np.ndarray, queries: np.ndarray, k: int = 10) -> float:
    """Milliseconds per query for the ``k`` nearest by Euclidean distance: the best of several searches on one thread.

    All queries are searched in one call. The time to build the index is not included.

    algorithm : one of `ALGORITHMS`. gallery, queries : float (n, dim), (q, dim).
    """
    with threadpool_limits(1):
        model = NearestNeighbors(n_neighbors=k, algorithm=algorithm).fit(gallery)
        seconds: list[float] = []
        while len(seconds) < _ROUNDS and sum(seconds) < _SECONDS:
            start = perf_counter()
            model.kneighbors(queries)
            seconds.append(perf_counter() - start)
    return 1000 * min(seconds) / len(queries)


def compared(algorithm: str, gallery: np.ndarray, queries: np.ndarray, k: int = 10) -> float:
    """Distances that a search computes, as a share of the gallery; brute force computes 1.

    A ball tree also computes distances to the centers of its balls. Its share can therefore exceed 1.
    """
    if algorithm == "brute":
        return 1.0
    tree = _TREES[algorithm](gallery)
    tree.reset_n_calls()
    tree.query(queries, k)
    return tree.get_n_calls() / len(queries) / len(gallery)


def measure(
    vectors: Mapping[str, np.ndarray], dims: Iterable[int], counts: Iterable[int], n_queries: int, k: int = 10
) -> pd.DataFrame:
    """Costs of each algorithm for the first ``dim`` numbers of vectors and galleries of several sizes.

    Parameters
    ----------
    vectors : name → float (n, d). The last ``n_queries`` rows are the queries, the first ``count`` rows the gallery.
    dims : numbers of dimensions; those above d are left out.

    Returns
    -------
    One row per combination: vectors, algorithm, count, dim, milliseconds, compared.

    Raises ValueError: there are fewer than ``count`` vectors besides the queries.
    """
    counts, dims = list(counts), list(dims)
    rows = []
    for name, array in vectors.items():
        if len(array) - n_queries < max(counts):
            raise ValueError(f"{name}: {max(counts)} vectors and {n_queries} queries are needed, got {len(array)} rows")
        for dim in (dim for dim in dims if dim <= array.shape[1]):
            part = np.ascontiguousarray(array[:, :dim])
            for count in counts:
                data = part[:count], part[-n_queries:], k
                rows += [
                    (name, algorithm, count, dim, milliseconds(algorithm, *data), compared(algorithm, *data))
                    for algorithm in ALGORITHMS
                ]
    return pd.DataFrame(rows, columns=["vectors", "algorithm", "count", "dim", "milliseconds", "compared"])


def summary(table: pd.DataFrame, over: str, group: str) -> pd.DataFrame:
    """The distances that the trees compute, and the fastest algorithm, with one column per value of ``over``.

    table : the result of `measure`. over : ``dim`` or ``count``. group : a column; the rows are in its order.
    """
    rows = []
    for name, part in table.groupby(group, sort=False):
        for algorithm in _TREES:
            shares = part[part["algorithm"] == algorithm].set_index(over)["compared"]
            rows.append({group: name, "": f"{algorithm}: distances computed", **shares.map("{:.3f}".format)})
        fastest = part.loc[part.groupby(over)["milliseconds"].idxmin()].set_index(over)["algorithm"]
        rows.append({group: name, "": "fastest", **fastest})
    return pd.DataFrame(rows).fillna("–")
