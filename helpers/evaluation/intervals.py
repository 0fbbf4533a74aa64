"""Confidence intervals of means over queries, and tests that compare two methods on the same queries.

The queries are a sample, and another sample gives another mean. The bootstrap estimates this variation: it draws the
queries again, with replacement, and computes the mean of each draw.

Sources: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval, chapter 13; bootstrap
tests, chapter 16). T. Sakai, Evaluating evaluation metrics based on the bootstrap, SIGIR 2006 (paired bootstrap test
over queries). M. Smucker, J. Allan, B. Carterette, A comparison of statistical significance tests for information
retrieval evaluation, CIKM 2007 (bootstrap, t and randomization tests agree).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

#: Random numbers drawn at a time.
CHUNK = 1_000_000
#: Smaller p-values are shown as "< 0.01": resampling does not measure them exactly, and cannot return less than
#: 1 / (resamples + 1), or that times the number of tests after a correction.
SMALL_P_VALUE = 0.01
#: The level of all intervals, and the quantiles that are the bounds of percentile intervals.
LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, 1 - (1 - LEVEL) / 2


class Interval(NamedTuple):
    """The bounds of a confidence interval; (nan, nan) if there is only one query."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedResult:
    """The mean of a - b over the same queries, its interval, and its two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        p = format_p_value(self.p_value)
        sign = "" if p.startswith("<") else "= "
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p {sign}{p}"


def format_p_value(p_value: float, digits: int = 4) -> str:
    """A p-value as text: "< 0.01" if it is below `SMALL_P_VALUE`, else with ``digits`` decimals."""
    return f"< {SMALL_P_VALUE:g}" if p_value < SMALL_P_VALUE else f"{p_value:.{digits}f}"


def bootstrap_interval(
    values: np.ndarray, resamples: int = 2000, seed: int = 0, clusters: np.ndarray | None = None
) -> Interval:
    """95 % percentile bootstrap interval of the mean over queries; the same seed gives the same interval.

    Parameters
    ----------
    values : (q,): one value per query.
    clusters : integers (q,), such as the class of each query. Whole clusters are drawn, because queries of a class
        share their relevant images and are not independent. The interval then also holds for other classes, and is
        usually wider; without clusters it holds for other queries of the same classes.

    Returns
    -------
    (nan, nan) for a single query or cluster, which has no variation. Equal values give a width of 0, which is too
    narrow: if 20 of 20 queries succeed, an error rate of up to about 3/20 is still plausible.
    """
    return bootstrap_intervals({"values": values}, resamples, seed, clusters)["values"]


def bootstrap_intervals(
    columns: Mapping[str, np.ndarray], resamples: int = 2000, seed: int = 0, clusters: np.ndarray | None = None
) -> dict[str, Interval]:
    """`bootstrap_interval` of several metrics (q,) on the same queries; the draws are made once."""
    low, high = np.quantile(_resampled_means(_table(columns), clusters, resamples, seed), TAILS, axis=0)
    return {name: Interval(float(low[i]), float(high[i])) for i, name in enumerate(columns)}


def paired_difference(
    a: np.ndarray, b: np.ndarray, resamples: int = 2000, seed: int = 0, clusters: np.ndarray | None = None
) -> PairedResult:
    """Test whether method ``a`` scores better than ``b`` on the same queries.

    The difference per query removes the variation that both methods share because some queries are hard. Two intervals
    may therefore overlap although the difference is significant. The p-value is that of a bootstrap test (Efron &
    Tibshirani 1993, chapter 16; Sakai 2006): the share of draws whose mean difference, centered at 0, is at least as
    large as the observed one. It is at least 1 / (resamples + 1).

    a, b : (q,), in the same order. For ``clusters`` see `bootstrap_interval`. With one query or cluster, all
        but the difference is nan.
    """
    return paired_differences({"a": a}, b, resamples, seed, clusters)["a"]


def paired_differences(
    columns: Mapping[str, np.ndarray],
    b: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    clusters: np.ndarray | None = None,
) -> dict[str, PairedResult]:
    """`paired_difference` of several methods (q,) and the same ``b``; the draws are made once."""
    b = np.asarray(b, dtype=np.float64)
    shapes = {np.shape(values) for values in columns.values()} - {b.shape}
    if shapes:
        raise ValueError(f"both methods must be scored on the same queries, got shapes {shapes.pop()} and {b.shape}")
    differences = _table(columns) - _table({"b": b})
    draws = _resampled_means(differences, clusters, resamples, seed)
    lows, highs = np.quantile(draws, TAILS, axis=0)
    found = differences.mean(axis=0)
    # The tolerance counts draws that differ from the observed difference by rounding only.
    extreme = np.abs(draws - found) >= np.abs(found) - 1e-12
    p_values = np.where(np.isnan(lows), np.nan, (1 + extreme.sum(axis=0)) / (1 + resamples))
    rows = zip(found.tolist(), lows.tolist(), highs.tolist(), p_values.tolist(), strict=True)
    return {name: PairedResult(*row) for name, row in zip(columns, rows, strict=True)}


class Difference(NamedTuple):
    """The mean of a - b over the same queries, with its interval."""

    difference: float
    low: float
    high: float

    @property
    def includes_zero(self) -> bool:
        """Whether the queries leave open which of the two methods is better, as a single query does (bounds of nan)."""
        return not (self.low > 0 or self.high < 0)


def simultaneous_differences(
    columns: Mapping[str, np.ndarray], resamples: int = 10_000, seed: int = 0, clusters: np.ndarray | None = None
) -> dict[tuple[str, str], Difference]:
    """The differences a - b of all pairs of methods, with intervals that hold for all pairs together.

    With a probability of 95 %, no interval misses its true difference. The method that is best on these queries may
    therefore be compared with the others, although it was chosen by the same queries. Each interval is the difference ±
    c standard errors; c is the quantile of the largest deviation among all pairs, in standard errors (bootstrap of the
    maximum: Romano & Wolf 2005, Stepwise multiple testing as formalized data snooping; without the steps). For two
    methods, c is about 1.96.

    columns : name → (q,), at least two methods on the same queries. For ``clusters`` see `bootstrap_interval`; with one
        query or cluster, all bounds are nan.

    Returns
    -------
    (a, b) → difference, for both orders of each pair.
    """
    if len(columns) < 2:
        raise ValueError(f"at least two methods are needed, got {', '.join(columns) or 'none'}")
    table, names = _table(columns), list(columns)
    draws, means = _resampled_means(table, clusters, resamples, seed), table.mean(axis=0)
    first, second = np.triu_indices(len(names), 1)
    found = means[first] - means[second]
    errors, largest = np.empty(len(found)), np.zeros(resamples)
    for pair, (i, j) in enumerate(zip(first, second, strict=True)):
        drawn = draws[:, i] - draws[:, j]
        errors[pair] = drawn.std()
        # Two methods with the same values differ by rounding only.
        if errors[pair] > 1e-12:
            np.maximum(largest, np.abs(drawn - found[pair]) / errors[pair], out=largest)
    width = np.quantile(largest, LEVEL) * errors
    lows, highs = (found - width).tolist(), (found + width).tolist()
    results = {}
    for i, j, difference, low, high in zip(first, second, found.tolist(), lows, highs, strict=True):
        results[names[i], names[j]] = Difference(difference, low, high)
        results[names[j], names[i]] = Difference(-difference, -high, -low)
    return results


def wilson_interval(share: float, n: int) -> Interval:
    """95 % interval of a proportion among ``n`` trials (Wilson 1927); its width is not 0 for a share of 0 or 1.

    If trials are not independent, such as the queries made from one image, use the number of images for ``n``. The
    interval is then too wide rather than too narrow.
    """
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, n must be at least 1; got {share}, {n}")
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(max(0.0, (middle - half) / (1 + z**2 / n)), min(1.0, (middle + half) / (1 + z**2 / n)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values for the number of tests: float (m,) → float64 (m,), at most 1.

    The smallest p-value is multiplied by m, the next by m − 1 and so on, and none falls below the one before. If all
    adjusted values below 0.05 are called significant, the probability of at least one false positive is at most 5 %
    (Holm 1979, A simple sequentially rejective multiple test procedure).
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values (m,) must lie between 0 and 1, got {p_values}")
    order = np.argsort(p_values)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)))
    return adjusted


def _table(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """float64 (q, m), checked."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    for name, array in arrays.items():
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{name} must have one value per query, shape (q,) with q >= 1, got {array.shape}")
        if not np.isfinite(array).all():
            where = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ValueError(
                f"{name} contains NaN or infinity, first at query {where}; leave out queries without a relevant image"
            )
    if len({array.shape for array in arrays.values()}) > 1:
        raise ValueError(f"all metrics must be on the same queries, got {[a.shape for a in arrays.values()]}")
    return np.column_stack(list(arrays.values()))


def _resampled_means(table: np.ndarray, clusters: np.ndarray | None, resamples: int, seed: int) -> np.ndarray:
    """float64 (resamples, m): the means of the table (q, m) over resampled queries; nan for a single unit."""
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
        # The number of times that each unit was drawn. One matrix product then sums all metrics.
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        means[start : start + rows] = (times @ sums) / (times @ sizes)[:, None]
    return means


def _units(table: np.ndarray, clusters: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The units to draw: their sums of values (units, m) and sizes (units,). Without clusters, each query is a unit."""
    if clusters is None:
        return table, np.ones(len(table))
    clusters = np.asarray(clusters)
    if clusters.shape != (len(table),):
        raise ValueError(f"clusters must have shape ({len(table)},), one per query, got {clusters.shape}")
    _, unit = np.unique(clusters, return_inverse=True)
    sums = np.column_stack([np.bincount(unit, weights=column) for column in table.T])
    return sums, np.bincount(unit).astype(np.float64)
