"""How sure a mean over queries is: bootstrap intervals, and two methods compared on the same queries.

Queries are a sample of those that could be asked; another sample gives another mean. The bootstrap shows
how different: it draws the queries again, with replacement, and looks at the means.

Sources: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval, chapter 13;
bootstrap tests, chapter 16). T. Sakai, Evaluating evaluation metrics based on the bootstrap, SIGIR 2006
(paired bootstrap test over queries). M. Smucker, J. Allan, B. Carterette, A comparison of statistical
significance tests for information retrieval evaluation, CIKM 2007 (bootstrap, t and randomization agree).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

#: Numbers drawn at a time.
CHUNK = 1_000_000


class Interval(NamedTuple):
    """Where the mean lies, most likely; (nan, nan) where one query alone says nothing about it."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedResult:
    """The mean of a - b over the same queries, its interval, and the two-sided p-value of "no difference"."""

    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.4f}"


def bootstrap_interval(
    values: np.ndarray,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    clusters: np.ndarray | None = None,
) -> Interval:
    """Percentile bootstrap interval of the mean over queries; the same seed gives the same interval.

    Parameters
    ----------
    values : (q,): one value a query.
    clusters : integers (q,), optional, e.g. the class of each query. Then whole clusters are drawn. Queries of
        one class share their right answers, so they are not independent: with clusters the interval speaks
        of other classes too, and is as a rule wider. Without, it speaks of other queries of these classes.

    Returns
    -------
    Interval. One query, or one cluster, shows no spread: (nan, nan), since a width of 0 would claim
    certainty. Equal values everywhere give a width of 0 for lack of anything better: with 20 queries all
    right, an error rate up to about 3/20 is still plausible.

    Raises
    ------
    ValueError : no value, NaN, shapes that differ, or a level outside (0, 1).
    """
    return bootstrap_intervals({"values": values}, level, resamples, seed, clusters)["values"]


def bootstrap_intervals(
    columns: Mapping[str, np.ndarray],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    clusters: np.ndarray | None = None,
) -> dict[str, Interval]:
    """``bootstrap_interval`` of several metrics (q,) on the same queries; the draws are made once."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    table = _table(columns)
    draws = _resampled_means(table, clusters, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return {name: Interval(float(low[i]), float(high[i])) for i, name in enumerate(columns)}


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    clusters: np.ndarray | None = None,
) -> PairedResult:
    """Is method ``a`` better than ``b``: both scored on the same queries, in the same order.

    Taking the difference query by query removes what all methods share, that some queries are hard; it is
    why two intervals may overlap while the difference is certain. The p-value is that of a bootstrap test
    (Efron & Tibshirani 1993, chapter 16; Sakai 2006): how often the mean of the differences, moved to 0,
    lies as far out as the one observed; at least 1 / (resamples + 1).

    a, b : (q,). For ``clusters``, one query and errors see ``bootstrap_interval``; then all but the
    difference is nan.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"both methods must be scored on the same queries, got shapes {a.shape} and {b.shape}")
    table = _table({"a": a, "b": b})
    differences = table[:, :1] - table[:, 1:]
    difference = float(differences.mean())
    low, high = bootstrap_interval(differences[:, 0], level, resamples, seed, clusters)
    if np.isnan(low):
        return PairedResult(difference, low, high, float("nan"))
    draws = _resampled_means(differences, clusters, resamples, seed)[:, 0]
    # Rounding must not decide whether a draw that lies exactly as far out counts.
    extreme = np.abs(draws - difference) >= abs(difference) - 1e-12
    return PairedResult(difference, low, high, float((1 + extreme.sum()) / (1 + resamples)))


def wilson_interval(share: float, n: int, level: float = 0.95) -> Interval:
    """Interval of a share of right answers among ``n`` (Wilson 1927): not of width 0 when all of them are right.

    Where several answers hang together, such as those to changed copies of one image, take the number of images
    for ``n``: as if they were one answer each, which is the wide side.

    Raises
    ------
    ValueError : no answer, a share or a level that is none.
    """
    if n < 1 or not 0 <= share <= 1 or not 0 < level < 1:
        raise ValueError(f"share and level must lie between 0 and 1, n must be at least 1; got {share}, {level}, {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(max(0.0, (middle - half) / (1 + z**2 / n)), min(1.0, (middle + half) / (1 + z**2 / n)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Each p-value as it counts among all of them: float (m,) → float64 (m,), at most 1, never below what was given.

    Of m tests at 5 %, m / 20 are expected to look significant by luck. The smallest p-value is multiplied by m, the
    next by m − 1 and so on, none falling below the one before: with all below 0.05 called significant, even one
    mistake is made in at most 5 % of such families (Holm 1979, A simple sequentially rejective multiple test
    procedure).

    Raises
    ------
    ValueError : a value is no probability.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values (m,) lie between 0 and 1, got {p_values}")
    order = np.argsort(p_values)
    raised = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raised))
    return adjusted


def _table(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """float64 (q, m), checked."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    for name, array in arrays.items():
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{name} must hold one value a query, shape (q,) with q >= 1, got {array.shape}")
        if not np.isfinite(array).all():
            where = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ValueError(f"{name} holds NaN or infinity, first at query {where}; leave unanswerable queries out")
    if len({array.shape for array in arrays.values()}) > 1:
        raise ValueError(f"all metrics must be on the same queries, got {[a.shape for a in arrays.values()]}")
    return np.column_stack(list(arrays.values()))


def _resampled_means(table: np.ndarray, clusters: np.ndarray | None, resamples: int, seed: int) -> np.ndarray:
    """float64 (resamples, m): the means of the table (q, m) over queries drawn again; nan from one unit."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    sums, sizes = _units(table, clusters)
    n = len(sizes)
    if n == 1:
        return np.full((resamples, table.shape[1]), np.nan)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, table.shape[1]))
    step = max(1, CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        # How often each unit was drawn: sums and sizes follow by one matrix product for all metrics.
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        means[start : start + rows] = (times @ sums) / (times @ sizes)[:, None]
    return means


def _units(table: np.ndarray, clusters: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn: sums (units, m) of the values and sizes (units,); a query is a unit of its own."""
    if clusters is None:
        return table, np.ones(len(table))
    clusters = np.asarray(clusters)
    if clusters.shape != (len(table),):
        raise ValueError(f"clusters must have shape ({len(table)},), one a query, got {clusters.shape}")
    _, unit = np.unique(clusters, return_inverse=True)
    sums = np.column_stack([np.bincount(unit, weights=column) for column in table.T])
    return sums, np.bincount(unit).astype(np.float64)
