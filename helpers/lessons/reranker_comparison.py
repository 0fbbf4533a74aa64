"""Compares the gain and the time of re-ranking methods on the results of the same first search."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.evaluation import runner
from helpers.evaluation.intervals import SMALL_P_VALUE, holm, paired_difference
from helpers.evaluation.metrics import Scores, evaluate
from helpers.evaluation.protocol import Protocol
from helpers.search.index import open_index
from helpers.search.ranking import Ranking


@dataclass(frozen=True, eq=False)
class FirstSearch:
    """The results of a search, and the data that re-ranking methods need.

    Attributes
    ----------
    protocol : a protocol whose queries are disjoint from the gallery.
    ranking : the whole gallery for each query; scores are cosines.
    neighbors : the nearest gallery images of each gallery image, itself included; row *i* for row *i* of ``gallery``.
    queries, gallery : float32 (q, d) and (n, d), the feature vectors.
    """

    protocol: Protocol
    ranking: Ranking
    neighbors: Ranking
    queries: np.ndarray
    gallery: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        """int64 (n,): the id of each row of ``gallery``."""
        return self.protocol.gallery


#: Re-ranks the results of a search.
Method = Callable[[FirstSearch], Ranking]


def first_search(protocol: Protocol, vectors: np.ndarray, columns: int = 61) -> FirstSearch:
    """Search the gallery by cosine, for all queries and for each gallery image.

    protocol : its queries must be disjoint from the gallery (`Protocol.check_disjoint`).
    vectors : float32 (n, d), row *i* for id *i* of the protocol.
    columns : neighbors of a gallery image, itself included; at most the whole gallery.
    """
    protocol.check_disjoint()
    index = open_index("exact:cosine")
    ranking = runner.run(protocol, vectors, index)
    queries, gallery = vectors[protocol.queries], vectors[protocol.gallery]
    return FirstSearch(protocol, ranking, index.search(gallery, min(columns, len(gallery))), queries, gallery)


@dataclass(frozen=True, eq=False)
class RerankerComparison:
    """The result of `compare_rerankers`.

    Attributes
    ----------
    protocols : task → its protocol. before : task → scores of the first search.
    after : (task, method) → scores after re-ranking.
    milliseconds : (task, method) → time per query. It includes the computations for the whole gallery.
    """

    protocols: dict[str, Protocol]
    before: dict[str, Scores]
    after: dict[tuple[str, str], Scores]
    milliseconds: dict[tuple[str, str], float]

    def gains(self, task: str, method: str, metric: str = "mAP") -> np.ndarray:
        """float64 (a,): the score after minus the score before, for each query with a relevant image."""
        return self.after[task, method].values[metric] - self.before[task].values[metric]

    def table(self, metric: str = "mAP", by_class: bool = False, seed: int = 0) -> pd.DataFrame:
        """One row per task and method: ``task, method, queries, before, after, gain, low, high, p, ms``.

        ``low`` and ``high`` bound the gain (95 %, paired bootstrap over the queries); ``p`` is corrected by Holm's
        method for all rows.

        by_class : draw whole classes in the bootstrap, because queries of a class share their relevant images. The
            interval then also holds for other classes.
        """
        # The smallest corrected p-value, tests / (1 + resamples), must be small.
        resamples = max(2000, int(len(self.after) / SMALL_P_VALUE) + 1)
        lines = []
        for (task, method), scores in self.after.items():
            protocol, before = self.protocols[task], self.before[task]
            classes = protocol.labels[protocol.queries[before.rows]] if by_class else None
            test = paired_difference(
                scores.values[metric], before.values[metric], resamples=resamples, seed=seed, clusters=classes
            )
            lines.append(
                (task, method, before.n_queries, before.mean(metric), scores.mean(metric), test.difference, test.low)
                + (test.high, test.p_value, self.milliseconds[task, method])
            )
        columns = ["task", "method", "queries", "before", "after", "gain", "low", "high", "p", "ms"]
        table = pd.DataFrame(lines, columns=columns)
        return table.assign(p=holm(table["p"].to_numpy()))


def compare_rerankers(tasks: Mapping[str, FirstSearch], methods: Mapping[str, Method]) -> RerankerComparison:
    """Re-rank the results of each task with each method, and score them before and after.

    Raises ValueError: a method added or dropped results; re-ranking may only change their order.
    """
    # Methods import these in their first call. The import must not count as their time.
    import joblib  # noqa: F401
    import scipy.sparse  # noqa: F401

    before = {task: evaluate(found.ranking, found.protocol) for task, found in tasks.items()}
    after, milliseconds = {}, {}
    for task, found in tasks.items():
        for name, method in methods.items():
            start = time.perf_counter()
            ordered = method(found)
            spent = time.perf_counter() - start
            if not np.array_equal(np.sort(ordered.ids, axis=1), np.sort(found.ranking.ids, axis=1)):
                raise ValueError(f"{name} on {task} added or dropped results; re-ranking may only change their order")
            after[task, name] = evaluate(ordered, found.protocol)
            milliseconds[task, name] = 1000 * spent / len(found.ranking)
    return RerankerComparison({task: found.protocol for task, found in tasks.items()}, before, after, milliseconds)
