"""Metrics, each with its chance level and ceiling.

For a query with R relevant images among N candidates (the gallery without the ignored images):

- **top-k**: 1 if any of the first k results is relevant, else 0 (trec_eval's ``success_k``).
- **precision@k**, **recall@k**: the number of relevant images among the first k, divided by k and by R.
- **mAP**: mean over queries of the average precision AP, the sum of the precision at each relevant rank, divided by R
  (``map``).
- **mAP@k**: the same cut at k, still divided by R (``map_cut_k``); **mAP@k normalized**: divided by min(R, k).
- **nDCG@k**: sum of the gains 1 / log2(rank + 1), divided by that of a perfect ranking (``ndcg_cut_k``; Järvelin &
  Kekäläinen 2002).

Sources: trec_eval (https://github.com/usnistgov/trec_eval); Manning, Raghavan & Schütze 2008, chapter 8.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from helpers.evaluation.intervals import Interval, bootstrap_intervals
from helpers.evaluation.protocol import Protocol, chunks
from helpers.evaluation.runner import check_rows
from helpers.images.imageset import NO_CLASS
from helpers.search.ranking import PAD, Ranking

if TYPE_CHECKING:
    import pandas as pd


class LeakyRanking(ValueError):
    """A ranking contains ignored images, or images that are not in the gallery."""


class NoRelevantImageWarning(UserWarning):
    """Some queries have no relevant image in the gallery; they are left out of all means."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The value of each metric for each query with a relevant image, with its chance level and ceiling.

    Parameters
    ----------
    values, chances, ceilings : metric → float64 (a,), in the protocol's order.
    rows : int64 (a,): the query rows of the protocol.
    n_without_relevant : the number of queries without a relevant image, which are left out.
    """

    values: dict[str, np.ndarray]
    chances: dict[str, np.ndarray]
    ceilings: dict[str, np.ndarray]
    rows: np.ndarray
    n_without_relevant: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(self.values)

    @property
    def n_queries(self) -> int:
        """The number of queries in the means."""
        return len(self.rows)

    def mean(self, metric: str) -> float:
        """The mean over queries."""
        return self._mean(self.values, metric)

    def mean_chance(self, metric: str) -> float:
        """The expected mean for a random order of the candidates."""
        return self._mean(self.chances, metric)

    def mean_ceiling(self, metric: str) -> float:
        """The mean for a perfect ranking."""
        return self._mean(self.ceilings, metric)

    def _mean(self, columns: dict[str, np.ndarray], metric: str) -> float:
        if metric not in columns:
            raise KeyError(f"{metric!r} was not computed; there are: {', '.join(columns)}")
        return float(columns[metric].mean())

    @cached_property
    def _intervals(self) -> dict[str, Interval]:
        return bootstrap_intervals(self.values)

    def table(self) -> "pd.DataFrame":
        """One row per metric: metric, value, low, high (95 % bootstrap over queries), chance, ceiling."""
        import pandas as pd

        return pd.DataFrame(
            [(m, self.mean(m), *self._intervals[m], self.mean_chance(m), self.mean_ceiling(m)) for m in self.metrics],
            columns=["metric", "value", "low", "high", "chance", "ceiling"],
        )


def evaluate(
    ranking: Ranking, protocol: Protocol, ks: Sequence[int] = (1, 3, 5, 10), map_ks: Sequence[int] = (10,)
) -> Scores:
    """Score a ranking under a protocol.

    Parameters
    ----------
    ranking : row *j* has the results of ``protocol.queries[j]``, as `helpers.evaluation.runner.run` returns it.
    ks : for top-k, precision and recall. map_ks : for mAP@k (both kinds) and nDCG@k.

    If the ranking does not contain all candidates, mAP and each k above its number of columns are left out.

    Raises
    ------
    LeakyRanking : it contains the query itself, a copy of it, or an id outside the gallery.
    ValueError : no query has a relevant image.
    """
    check_rows(ranking, protocol)
    ks, map_ks = (tuple(sorted({int(k) for k in group})) for group in (ks, map_ks))
    if any(k < 1 for k in ks + map_ks):
        raise ValueError(f"k must be at least 1, got {ks} and {map_ks}")
    rows = np.flatnonzero(protocol.has_relevant)
    n_without_relevant = len(protocol.queries) - len(rows)
    if not len(rows):
        raise ValueError(f"{protocol.name}: no query has a relevant image in the gallery")
    if n_without_relevant:
        warnings.warn(
            f"{protocol.name}: {n_without_relevant} of {len(protocol.queries)} queries have no relevant image in the "
            "gallery; they are left out of all means",
            NoRelevantImageWarning,
            stacklevel=2,
        )
    depth = ranking.k
    complete = depth >= protocol.n_candidates[rows].max()
    ks, map_ks = (tuple(k for k in group if complete or k <= depth) for group in (ks, map_ks))
    parts = [_values(_hits(ranking, protocol, rows[part]), protocol.n_relevant[rows[part]], ks, map_ks, complete)
             for part in chunks(len(rows), max(depth, len(protocol)))]  # fmt: skip
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    chances, ceilings = _bounds(protocol.n_relevant[rows], protocol.n_candidates[rows], values)
    return Scores(values, chances, ceilings, rows, n_without_relevant)


def average_precision(
    hits: Sequence[bool] | np.ndarray, n_relevant: int, k: int | None = None, normalized: bool = False
) -> float:
    """Average precision of one ranking.

    Parameters
    ----------
    hits : bool (m,): whether the result at rank 1, 2, … is relevant.
    n_relevant : R, the number of relevant images in the whole gallery, found or not.
    k : use only the first k ranks (AP@k); None is all.
    normalized : divide by min(R, k) instead of R.
    """
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    hits = np.asarray(hits, dtype=bool)[:k]
    if n_relevant < 1 or hits.sum() > n_relevant:
        raise ValueError(f"R must be at least 1 and at least the number of hits ({hits.sum()}), got {n_relevant}")
    if normalized and k is None:
        raise ValueError("only AP@k can be normalized: give k")
    divisor = min(n_relevant, k) if normalized and k is not None else n_relevant
    return float(_precision_sum(hits[None])[0] / divisor)


def average_precision_over_hits(hits: Sequence[bool] | np.ndarray) -> float:
    """The WRONG average precision, divided by the hits found instead of by R; for the lesson that shows the error.

    It ignores relevant images that were not found: hits at ranks 1 and 4 with R = 5 give 0.75 instead of 0.30.
    """
    hits = np.asarray(hits, dtype=bool)
    return float(_precision_sum(hits[None])[0] / hits.sum()) if hits.any() else 0.0


def relevance_mask(ranking: Ranking, protocol: Protocol) -> np.ndarray:
    """bool (q, k): which results are relevant to their query; padding is not."""
    check_rows(ranking, protocol)
    return _hits(ranking, protocol, np.arange(len(ranking)))


def confusion(ranking: Ranking, protocol: Protocol) -> np.ndarray:
    """int64 (classes, classes + 1): class of the query × class of its first result; the last column is "no class".

    Queries without a class and queries without a result are left out.

    Raises LeakyRanking: a first result is ignored for its query, or is not in the gallery.
    """
    check_rows(ranking, protocol)
    if not ranking.k:
        raise ValueError(f"{protocol.name}: the ranking has no column, so there is no first result")
    best = ranking.head(1)
    for rows in chunks(len(best), len(protocol)):
        _hits(best, protocol, rows)
    classes = len(protocol.class_names)
    labels = protocol.labels[protocol.queries]
    first = ranking.ids[:, 0]
    used = (labels != NO_CLASS) & (first != PAD)
    found = protocol.labels[first[used]]
    cells = labels[used] * (classes + 1) + np.where(found == NO_CLASS, classes, found)
    return np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def per_class(scores: Scores, protocol: Protocol, metric: str) -> "pd.DataFrame":
    """One row per class with a query: class, queries, mean; in the order of the class names."""
    import pandas as pd

    labels = protocol.labels[protocol.queries[scores.rows]]
    table = pd.DataFrame({"class": labels, "value": scores.values[metric]}).groupby("class")["value"]
    summary = table.agg(queries="size", mean="mean").reset_index()
    summary["class"] = [protocol.class_names[label] for label in summary["class"]]
    return summary


# ---- values -------------------------------------------------------------------------------------------


def _hits(ranking: Ranking, protocol: Protocol, rows: np.ndarray) -> np.ndarray:
    """bool (r, k): which results are relevant."""
    ids = ranking.ids[rows]
    results = ids != PAD
    if (ids >= len(protocol)).any():
        raise LeakyRanking(f"{protocol.name}: id {ids.max()} is unknown; ids end at {len(protocol) - 1}")
    outside = results & ~protocol.in_gallery[ids]
    leaked = protocol.ignored_mask(rows, ids)
    for bad, why in ((outside, "which is not in the gallery"), (leaked, "which is ignored for it")):
        if bad.any():
            row, rank = np.argwhere(bad)[0]
            query, result = protocol.keys[protocol.queries[rows[row]]], protocol.keys[ids[row, rank]]
            raise LeakyRanking(
                f"{protocol.name}: query {query!r} has the result {result!r} at rank {rank + 1}, {why}. "
                "Rankings of runner.run contain no such results."
            )
    return protocol.relevance(rows, ids)


def _values(
    hits: np.ndarray, relevant: np.ndarray, ks: Sequence[int], map_ks: Sequence[int], complete: bool
) -> dict[str, np.ndarray]:
    counts = {k: np.count_nonzero(hits[:, :k], axis=1) for k in ks}
    values: dict[str, np.ndarray] = {f"top-{k}": np.minimum(counts[k], 1.0) for k in ks}
    values |= {f"precision@{k}": counts[k] / k for k in ks}
    values |= {f"recall@{k}": counts[k] / relevant for k in ks}
    if complete:
        values["mAP"] = _precision_sum(hits) / relevant
    for k in map_ks:
        total = _precision_sum(hits[:, :k])
        values[f"mAP@{k}"] = total / relevant
        values[f"mAP@{k} normalized"] = total / np.minimum(relevant, k)
        gain = (hits[:, :k] * _discount(min(k, hits.shape[1]))).sum(axis=1)
        values[f"nDCG@{k}"] = gain / _ideal(relevant, k)
    return values


def _precision_sum(hits: np.ndarray) -> np.ndarray:
    """float64 (r,): precision at each hit, summed."""
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precision * hits).sum(axis=1)


def _discount(k: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, k + 2))


def _ideal(relevant: np.ndarray, k: int) -> np.ndarray:
    return np.cumsum(_discount(k))[np.minimum(relevant, k) - 1]


# ---- chance and ceiling -------------------------------------------------------------------------------


def _bounds(relevant: np.ndarray, candidates: np.ndarray, metrics: Iterable[str]) -> tuple[dict, dict]:
    """Metric → chance level (q,), and metric → ceiling (q,). Computed once for each pair (R, N)."""
    pairs, which = np.unique(np.stack([relevant, candidates]), axis=1, return_inverse=True)
    which = which.ravel()
    chances, ceilings = {}, {}
    for metric in metrics:
        bound = np.array([_chance_and_ceiling(metric, int(r), int(n)) for r, n in pairs.T])
        chances[metric], ceilings[metric] = bound[which, 0], bound[which, 1]
    return chances, ceilings


def _chance_and_ceiling(metric: str, r: int, n: int) -> tuple[float, float]:
    """The expected value for r relevant among n candidates in random order, and the value in perfect order."""
    name, _, cut = metric.partition("@") if "@" in metric else metric.partition("-")
    k = int(cut.removesuffix(" normalized")) if cut else n
    if name == "top":
        return 1 - _none_of_first(r, n, min(k, n)), 1.0
    if name == "precision":
        return r / n * min(k, n) / k, min(r, k) / k
    if name == "recall":
        return min(k, n) / n, min(r, k) / r
    if name == "nDCG":
        return float(r / n * _discount(min(k, n)).sum() / _ideal(np.array([r]), k)[0]), 1.0
    divisor = min(r, k) if metric.endswith("normalized") else r
    return _expected_precision_sum(r, n, min(k, n)) / divisor, min(r, k) / divisor


def _none_of_first(r: int, n: int, k: int) -> float:
    """Probability that none of the first k is relevant: C(n-r, k) / C(n, k). Logarithms avoid an overflow."""
    from scipy.special import gammaln

    if k > n - r:
        return 0.0
    return float(np.exp(gammaln(n - r + 1) - gammaln(n - r - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)))


def _expected_precision_sum(r: int, n: int, k: int) -> float:
    """Expected sum of the precision at each hit among the first k of a random order.

    Rank i is relevant with probability r/n; given that, each of the i - 1 ranks before it is relevant with
    probability (r-1)/(n-1), so the expected precision is (1 + (i-1)(r-1)/(n-1)) / i.
    """
    ranks = np.arange(1, k + 1)
    others = (ranks - 1) * ((r - 1) / (n - 1) if n > 1 else 0.0)
    return float(r / n * ((1 + others) / ranks).sum())
