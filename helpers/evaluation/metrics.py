"""Metrics, defined once; each with what chance gives and the most that is reachable.

For a query with R relevant images among N candidates (the gallery after exclusions):

- **top-k**: is any of the first k relevant (trec_eval's ``success_k``).
- **precision@k**, **recall@k**: relevant ones among the first k, over k, over R.
- **mAP**: mean over queries of the average precision AP: precision at each relevant rank, summed, over R (``map``).
- **mAP@k**: the same cut at k, still over R (``map_cut_k``); **mAP@k normalized**: over min(R, k).
- **nDCG@k**: discounted gain 1 / log2(rank + 1) over that of a perfect ranking (``ndcg_cut_k``; Järvelin &
  Kekäläinen 2002).

Sources: trec_eval (https://github.com/usnistgov/trec_eval); Manning, Raghavan & Schütze 2008, chapter 8.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from helpers.evaluation.intervals import bootstrap_intervals
from helpers.evaluation.protocol import Protocol, chunks
from helpers.images.imageset import NO_CLASS
from helpers.search.ranking import PAD, Ranking

if TYPE_CHECKING:
    import pandas as pd


class LeakyRanking(ValueError):
    """A ranking that answers with something that may not be counted, or is not in the gallery."""


class UnanswerableQueriesWarning(UserWarning):
    """Some queries have no relevant image in the gallery; they are counted here and left out of all means."""


@dataclass(frozen=True, eq=False)
class Scores:
    """One value a query and metric, and its chance and ceiling; over the answerable queries only.

    Parameters
    ----------
    values, chances, ceilings : metric → float64 (a,), a = answerable queries, in the protocol's order.
    rows : int64 (a,): which query rows of the protocol these are.
    n_unanswerable : queries that were left out.
    """

    values: dict[str, np.ndarray]
    chances: dict[str, np.ndarray]
    ceilings: dict[str, np.ndarray]
    rows: np.ndarray
    n_unanswerable: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names, in a fixed order."""
        return tuple(self.values)

    @property
    def n_queries(self) -> int:
        """Queries that the means are over."""
        return len(self.rows)

    def mean(self, metric: str) -> float:
        """The score.

        Raises
        ------
        KeyError : it was not computed (a ranking too short for it, for example).
        """
        return self._mean(self.values, metric)

    def mean_chance(self, metric: str) -> float:
        """What a random order of the candidates gives on average."""
        return self._mean(self.chances, metric)

    def mean_ceiling(self, metric: str) -> float:
        """What a perfect ranking gets."""
        return self._mean(self.ceilings, metric)

    def _mean(self, columns: dict[str, np.ndarray], metric: str) -> float:
        if metric not in columns:
            raise KeyError(f"{metric!r} was not computed; there are: {', '.join(columns)}")
        return float(columns[metric].mean())

    @cached_property
    def _intervals(self):
        return bootstrap_intervals(self.values)

    def table(self) -> "pd.DataFrame":
        """One row a metric: metric, value, low, high (95 % bootstrap over queries), chance, ceiling."""
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
    ranking : row *j* answers ``protocol.queries[j]``; as `helpers.evaluation.runner.run` returns it.
    ks : for top-k, precision and recall. map_ks : for mAP@k (both kinds) and nDCG@k.

    A metric that the ranking is too short for is left out: a k beyond its columns (while there are more candidates
    than columns), and mAP unless every candidate is ranked.

    Raises
    ------
    LeakyRanking : it holds the query itself, a copy of it, or an id outside the gallery.
    ValueError : not one row a query, a k below 1, or no query has a relevant image.
    """
    _check_rows(ranking, protocol)
    ks, map_ks = (tuple(sorted({int(k) for k in group})) for group in (ks, map_ks))
    if any(k < 1 for k in ks + map_ks):
        raise ValueError(f"k must be at least 1, got {ks} and {map_ks}")
    rows = np.flatnonzero(protocol.answerable)
    n_unanswerable = len(protocol.queries) - len(rows)
    if not len(rows):
        raise ValueError(f"{protocol.name}: no query has a relevant image in the gallery, there is nothing to score")
    if n_unanswerable:
        warnings.warn(
            f"{protocol.name}: {n_unanswerable} of {len(protocol.queries)} queries have no relevant image in the "
            "gallery; they are left out of all means",
            UnanswerableQueriesWarning,
            stacklevel=2,
        )
    depth = ranking.k
    complete = depth >= protocol.n_candidates[rows].max()
    ks, map_ks = (tuple(k for k in group if complete or k <= depth) for group in (ks, map_ks))
    parts = [_values(_hits(ranking, protocol, rows[part]), protocol.n_relevant[rows[part]], ks, map_ks, complete)
             for part in chunks(len(rows), max(depth, len(protocol)))]  # fmt: skip
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    chances, ceilings = _bounds(protocol.n_relevant[rows], protocol.n_candidates[rows], values)
    return Scores(values, chances, ceilings, rows, n_unanswerable)


def average_precision(
    hits: Sequence[bool] | np.ndarray, n_relevant: int, k: int | None = None, normalized: bool = False
) -> float:
    """Average precision of one ranking.

    Parameters
    ----------
    hits : bool (m,): is the answer at rank 1, 2, … relevant.
    n_relevant : R, the relevant images in the whole gallery, found or not.
    k : only the first k ranks count (AP@k); None is all.
    normalized : divide by min(R, k) instead of R.

    Raises
    ------
    ValueError : R < 1, more hits than R, or ``normalized`` without k.
    """
    hits = np.asarray(hits, dtype=bool)[:k]
    if n_relevant < 1 or hits.sum() > n_relevant:
        raise ValueError(f"R must be at least 1 and at least the number of hits ({hits.sum()}), got {n_relevant}")
    if normalized and k is None:
        raise ValueError("AP without a cut needs no normalizing: give k")
    divisor = min(n_relevant, k) if normalized else n_relevant
    return float(_precision_sum(hits[None])[0] / divisor)


def average_precision_over_hits(hits: Sequence[bool] | np.ndarray) -> float:
    """The WRONG average precision, over the hits found instead of over R; for the lesson that shows so.

    It never asks for what is missing: hits at ranks 1 and 4 of R = 5 give 0.75 instead of 0.30.
    """
    hits = np.asarray(hits, dtype=bool)
    return float(_precision_sum(hits[None])[0] / hits.sum()) if hits.any() else 0.0


def relevance_mask(ranking: Ranking, protocol: Protocol) -> np.ndarray:
    """bool (q, k): which answers are relevant to their query; false where a row ends early.

    Raises
    ------
    LeakyRanking, ValueError : as in `evaluate`.
    """
    _check_rows(ranking, protocol)
    return _hits(ranking, protocol, np.arange(len(ranking)))


def confusion(ranking: Ranking, protocol: Protocol) -> np.ndarray:
    """int64 (classes, classes + 1): class of the query × class of its first answer; the last column is "no class".

    All queries of a class count, also those that have no right answer; queries without any answer don't.

    Raises
    ------
    LeakyRanking : a first answer may not be counted (the query itself, say), or is not in the gallery.
    ValueError : not one row a query, or no column.
    """
    _check_rows(ranking, protocol)
    if not ranking.k:
        raise ValueError(f"{protocol.name}: the ranking has no column, so there is no first answer")
    best = ranking.head(1)
    for rows in chunks(len(best), len(protocol)):
        _hits(best, protocol, rows)
    classes = len(protocol.class_names)
    asked = protocol.labels[protocol.queries]
    first = ranking.ids[:, 0]
    counted = (asked != NO_CLASS) & (first != PAD)
    answered = protocol.labels[first[counted]]
    cells = asked[counted] * (classes + 1) + np.where(answered == NO_CLASS, classes, answered)
    return np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def per_class(scores: Scores, protocol: Protocol, metric: str) -> "pd.DataFrame":
    """One row a class that asked: class, queries, mean; in the order of the class names."""
    import pandas as pd

    asked = protocol.labels[protocol.queries[scores.rows]]
    table = pd.DataFrame({"class": asked, "value": scores.values[metric]}).groupby("class")["value"]
    summary = table.agg(queries="size", mean="mean").reset_index()
    summary["class"] = [protocol.class_names[label] for label in summary["class"]]
    return summary


def _check_rows(ranking: Ranking, protocol: Protocol) -> None:
    if len(ranking) != len(protocol.queries):
        raise ValueError(f"{protocol.name}: {len(protocol.queries)} queries, but the ranking has {len(ranking)} rows")


# ---- values -------------------------------------------------------------------------------------------


def _hits(ranking: Ranking, protocol: Protocol, rows: np.ndarray) -> np.ndarray:
    """bool (r, k): which answers are relevant."""
    ids = ranking.ids[rows]
    answered = ids != PAD
    if (ids >= len(protocol)).any():
        raise LeakyRanking(f"{protocol.name}: id {ids.max()} is unknown; ids end at {len(protocol) - 1}")
    outside = answered & ~protocol.in_gallery[ids]
    leaked = protocol.ignored_mask(rows, ids)
    for bad, why in ((outside, "which is not in the gallery"), (leaked, "which may never be counted for it")):
        if bad.any():
            row, place = np.argwhere(bad)[0]
            query, result = protocol.keys[protocol.queries[rows[row]]], protocol.keys[ids[row, place]]
            raise LeakyRanking(
                f"{protocol.name}: query {query!r} is answered by {result!r} at rank {place + 1}, {why}. "
                "Rankings made by runner.run hold no such answers."
            )
    return answered & (protocol.labels[ids] == protocol.labels[protocol.queries[rows]][:, None])


def _values(hits: np.ndarray, relevant: np.ndarray, ks, map_ks, complete: bool) -> dict[str, np.ndarray]:
    values = {f"top-{k}": hits[:, :k].any(axis=1).astype(np.float64) for k in ks}
    values |= {f"precision@{k}": hits[:, :k].sum(axis=1) / k for k in ks}
    values |= {f"recall@{k}": hits[:, :k].sum(axis=1) / relevant for k in ks}
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


def _bounds(relevant: np.ndarray, candidates: np.ndarray, metrics) -> tuple[dict, dict]:
    """Metric → (q,), by chance and at most. Computed once for each pair (R, N) that occurs."""
    pairs, which = np.unique(np.stack([relevant, candidates]), axis=1, return_inverse=True)
    which = which.ravel()
    chances, ceilings = {}, {}
    for metric in metrics:
        bound = np.array([_chance_and_ceiling(metric, int(r), int(n)) for r, n in pairs.T])
        chances[metric], ceilings[metric] = bound[which, 0], bound[which, 1]
    return chances, ceilings


def _chance_and_ceiling(metric: str, r: int, n: int) -> tuple[float, float]:
    """For R = r relevant among N = n candidates in uniformly random order, and in perfect order."""
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
    """Probability that none of the first k is relevant: C(n-r, k) / C(n, k), by logarithms against overflow."""
    from scipy.special import gammaln

    if k > n - r:
        return 0.0
    return float(np.exp(gammaln(n - r + 1) - gammaln(n - r - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)))


def _expected_precision_sum(r: int, n: int, k: int) -> float:
    """Expected sum of the precision at each hit among the first k of a random order.

    Rank i is relevant with probability r/n; given that, each of the i - 1 before it is with (r-1)/(n-1), so the
    precision there is on average (1 + (i-1)(r-1)/(n-1)) / i.
    """
    ranks = np.arange(1, k + 1)
    others = (ranks - 1) * ((r - 1) / (n - 1) if n > 1 else 0.0)
    return float(r / n * ((1 + others) / ranks).sum())
