"""Ways to put answers into another order, side by side: on the same first answers, with what each gains and costs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from helpers.evaluation import runner
from helpers.evaluation.intervals import holm, paired_difference
from helpers.evaluation.metrics import Scores, evaluate
from helpers.evaluation.protocol import Protocol
from helpers.search.index import open_index
from helpers.search.ranking import Ranking

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class FirstSearch:
    """A first search, and all that a re-ranking may want to know.

    Attributes
    ----------
    rules : a protocol whose queries are not in the gallery.
    ranking : the whole gallery for each query; scores are cosines.
    neighbours : the gallery asked of itself, row *i* for row *i* of ``gallery``; each picture is among its own.
    queries, gallery : float32 (q, d) and (n, d), the vectors.
    """

    rules: Protocol
    ranking: Ranking
    neighbours: Ranking
    queries: np.ndarray
    gallery: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        """int64 (n,): the gallery's ids, row by row."""
        return self.rules.gallery


#: Puts the answers of a search into another order.
Method = Callable[[FirstSearch], Ranking]


def first_search(rules: Protocol, vectors: np.ndarray, columns: int = 61) -> FirstSearch:
    """Ask all queries, and the gallery of itself, by cosine.

    vectors : float32 (n, d), row *i* for id *i* of the protocol.
    columns : neighbours of a gallery picture, itself among them; the whole gallery where that is smaller.

    Raises
    ------
    ValueError : a query, or what never counts for it, stands in the gallery (`Protocol.check_disjoint`); bad vectors.
    """
    rules.check_disjoint()
    index = open_index("exact:cosine")
    ranking = runner.run(rules, vectors, index)
    queries, gallery = vectors[rules.queries], vectors[rules.gallery]
    return FirstSearch(rules, ranking, index.search(gallery, min(columns, len(gallery))), queries, gallery)


@dataclass(frozen=True, eq=False)
class RerankerComparison:
    """What `compare_rerankers` measured.

    Attributes
    ----------
    rules : task → its protocol. before : task → scores of the first answers.
    after : (task, method) → scores of the answers in their new order.
    milliseconds : (task, method) → of one query, what is computed for the whole gallery included, once for all queries.
    """

    rules: dict[str, Protocol]
    before: dict[str, Scores]
    after: dict[tuple[str, str], Scores]
    milliseconds: dict[tuple[str, str], float]

    def gains(self, task: str, method: str, metric: str = "mAP") -> np.ndarray:
        """float64 (a,): after less before, for each answerable query."""
        return self.after[task, method].values[metric] - self.before[task].values[metric]

    def table(self, metric: str = "mAP", by_class: bool = False, seed: int = 0) -> "pd.DataFrame":
        """One row a task and method: ``task, method, queries, before, after, gain, low, high, p, ms``.

        ``low`` and ``high`` bound the gain (95 %, paired bootstrap over the queries); ``p`` is Holm's, among all rows.

        by_class : draw whole classes in the bootstrap, as queries of one class share their right answers. The interval
            then speaks of other classes too.
        """
        import pandas as pd

        lines = []
        for (task, method), scores in self.after.items():
            rules, before = self.rules[task], self.before[task]
            classes = rules.labels[rules.queries[before.rows]] if by_class else None
            test = paired_difference(scores.values[metric], before.values[metric], seed=seed, clusters=classes)
            lines.append(
                (task, method, before.n_queries, before.mean(metric), scores.mean(metric), test.difference, test.low)
                + (test.high, test.p_value, self.milliseconds[task, method])
            )
        columns = ["task", "method", "queries", "before", "after", "gain", "low", "high", "p", "ms"]
        table = pd.DataFrame(lines, columns=columns)
        return table.assign(p=holm(table["p"].to_numpy()))


def compare_rerankers(tasks: Mapping[str, FirstSearch], methods: Mapping[str, Method]) -> RerankerComparison:
    """Put the answers of every task into the order of every method, and score both orders.

    Raises
    ------
    ValueError : a method added answers or lost some: re-ranking only orders what was found.
    """
    # Methods import these at their first call, which must not count as their time.
    import joblib  # noqa: F401
    import scipy.sparse  # noqa: F401

    before = {task: evaluate(found.ranking, found.rules) for task, found in tasks.items()}
    after, milliseconds = {}, {}
    for task, found in tasks.items():
        for name, method in methods.items():
            start = time.perf_counter()
            ordered = method(found)
            spent = time.perf_counter() - start
            if not np.array_equal(np.sort(ordered.ids, axis=1), np.sort(found.ranking.ids, axis=1)):
                raise ValueError(f"{name} on {task}: other answers than were found; a re-ranking only orders them")
            after[task, name] = evaluate(ordered, found.rules)
            milliseconds[task, name] = 1000 * spent / len(found.ranking)
    return RerankerComparison({task: found.rules for task, found in tasks.items()}, before, after, milliseconds)
