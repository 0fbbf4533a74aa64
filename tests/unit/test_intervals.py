"""Bootstrap intervals and the paired test."""

import numpy as np
import pytest
from scipy import stats

from helpers.evaluation import intervals
from helpers.evaluation.intervals import (
    bootstrap_interval,
    bootstrap_intervals,
    paired_difference,
    paired_differences,
    simultaneous_differences,
)


def test_agrees_with_the_normal_approximation():
    # Mean of 2000 draws of a standard deviation of 2: ± 1.96 · 2 / sqrt(2000) = ± 0.0877.
    values = np.random.default_rng(0).normal(5, 2, 2000)
    low, high = bootstrap_interval(values, resamples=4000)
    assert low == pytest.approx(values.mean() - 0.0877, abs=0.008)
    assert high == pytest.approx(values.mean() + 0.0877, abs=0.008)


def test_coverage_is_about_the_level():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.random(60) < 0.7, resamples=300, seed=seed)
        covered += low <= 0.7 <= high
    # 95 % of 200 is 190; the percentile interval of 60 binary values is known to be a little too narrow.
    assert 176 <= covered <= 199


def test_more_queries_have_a_narrower_interval():
    values = np.random.default_rng(1).random(400)
    few, many = (np.subtract(*bootstrap_interval(values[:n])[::-1]) for n in (40, 400))
    assert few > 2 * many > 0


def test_the_result_depends_on_the_seed_only(monkeypatch):
    values = np.random.default_rng(2).random(50)
    first = bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) == first
    assert bootstrap_interval(values, seed=4) != first
    monkeypatch.setattr(intervals, "CHUNK", 70)  # one resample at a time
    assert bootstrap_interval(values, seed=3) == pytest.approx(first, abs=1e-12)


def test_several_metrics_have_the_same_intervals_as_each_alone():
    rng = np.random.default_rng(3)
    columns = {"a": rng.random(30), "b": rng.random(30)}
    together = bootstrap_intervals(columns)
    for name, values in columns.items():
        assert together[name] == pytest.approx(bootstrap_interval(values), abs=1e-12)


def test_clusters_widen_the_interval_of_dependent_queries():
    # 10 classes, 20 equal queries each: 200 values, but only 10 independent ones.
    per_class = np.random.default_rng(4).random(10)
    values, classes = np.repeat(per_class, 20), np.repeat(np.arange(10), 20)
    clustered = bootstrap_interval(values, clusters=classes)
    assert np.subtract(*clustered[::-1]) > 3 * np.subtract(*bootstrap_interval(values)[::-1])
    assert clustered == pytest.approx(bootstrap_interval(per_class), abs=1e-12)


def test_clusters_are_weighted_by_their_size():
    # Drawn twice with replacement from {three 0s} and {one 1}: means 0 (1/4), 1/4 (1/2), 1 (1/4).
    draws = intervals._resampled_means(np.array([[0], [0], [0], [1.0]]), np.array(list("aaab")), 2000, 0)
    means, counts = np.unique(draws, return_counts=True)
    assert means.tolist() == [0, 0.25, 1] and counts / 2000 == pytest.approx([0.25, 0.5, 0.25], abs=0.05)
    assert bootstrap_interval([0, 0, 0, 1.0], clusters=["a", "a", "a", "b"]) == (0, 1)


def test_one_query_or_one_cluster_has_no_interval():
    assert np.isnan(bootstrap_interval([0.5])).all()
    assert np.isnan(bootstrap_interval([0.5, 0.6, 0.7], clusters=[1, 1, 1])).all()
    single = paired_difference([0.5], [0.25])
    assert single.difference == 0.25
    assert np.isnan([single.low, single.high, single.p_value]).all()


def test_equal_values_have_no_width():
    assert bootstrap_interval(np.ones(20)) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": []}, "one value per query"),
        ({"values": np.ones((2, 2))}, r"shape \(q,\)"),
        ({"values": [0.1, np.nan]}, "NaN or infinity, first at query 1"),
        ({"values": [np.inf, 0.1]}, "NaN or infinity, first at query 0"),
        ({"values": [0.1, 0.2], "resamples": 0}, "resamples must be at least 1"),
        ({"values": [0.1, 0.2], "clusters": [1]}, r"clusters must have shape \(2,\)"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)


def test_columns_of_different_queries_are_refused():
    with pytest.raises(ValueError, match="same queries"):
        bootstrap_intervals({"a": [0.1, 0.2], "b": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match=r"same queries, got shapes \(2,\) and \(3,\)"):
        paired_difference([0.1, 0.2], [0.1, 0.2, 0.3])


def test_pairing_finds_a_difference_although_the_intervals_overlap():
    # Queries differ widely; b is worse by about 0.02 on each.
    rng = np.random.default_rng(5)
    a = rng.random(100)
    b = a - 0.02 + rng.normal(0, 0.01, 100)
    assert bootstrap_interval(a).low < bootstrap_interval(b).high  # the intervals overlap
    result = paired_difference(a, b)
    assert result.difference == pytest.approx(a.mean() - b.mean())
    assert 0 < result.low < result.difference < result.high
    assert result.p_value == pytest.approx(1 / 2001)  # the least that 2000 resamples can give
    turned = paired_difference(b, a)
    assert (turned.difference, turned.low, turned.high) == pytest.approx(
        (-result.difference, -result.high, -result.low)
    )


def test_no_difference_has_a_p_value_of_one():
    same = paired_difference(np.arange(9.0), np.arange(9.0))
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("differences", [[1, 0, 1, 1, -3, 1], [-3, -3, 3, -1, 3, -1], [0, 2, 1, 0, -2]])
def test_rounding_does_not_decide_the_p_value(differences):
    # Sums of integers are exact. Those of tenths are rounded, and some draws equal to the mean would be missed.
    zeros = np.zeros(len(differences))
    exact = paired_difference(differences, zeros, resamples=1000).p_value
    assert paired_difference(np.array(differences) / 10, zeros, resamples=1000).p_value == exact


def test_the_p_value_worked_by_hand():
    # One of three queries differs. A draw contains it 0, 1, 2 or 3 times (8, 12, 6, 1 of 27): all but 1 is as extreme.
    result = paired_difference([1, 0, 0], [0, 0, 0], resamples=4000)
    assert result.p_value == pytest.approx(15 / 27, abs=0.03)


def test_a_constant_difference_is_certain():
    values = np.random.default_rng(6).random(40)
    result = paired_difference(values + 0.1, values)
    assert result.low == pytest.approx(0.1)
    assert result.p_value == pytest.approx(1 / 2001)


def test_without_a_difference_p_values_are_uniform():
    rng = np.random.default_rng(7)
    small = sum(
        paired_difference(rng.random(50), rng.random(50), resamples=200, seed=seed).p_value <= 0.1
        for seed in range(200)
    )
    assert 8 <= small <= 36  # 20 expected; binomial, so within about 4 standard deviations of 4.2


def test_the_p_value_agrees_with_the_t_test():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(8)
    a = rng.random(200)
    b = a + rng.normal(0.01, 0.12, 200)
    assert paired_difference(a, b, resamples=5000).p_value == pytest.approx(ttest_rel(a, b).pvalue, abs=0.03)


def test_several_methods_have_the_same_differences_as_each_alone():
    rng = np.random.default_rng(4)
    b, clusters = rng.random(60), np.repeat(np.arange(12), 5)
    methods = {"first": rng.random(60), "same": b, "third": b + rng.normal(0.03, 0.1, 60)}
    for groups in (None, clusters):
        together = intervals.paired_differences(methods, b, resamples=300, seed=3, clusters=groups)
        assert list(together) == list(methods)
        for name, found in together.items():
            alone = paired_difference(methods[name], b, resamples=300, seed=3, clusters=groups)
            for one, other in ((found.difference, alone.difference), (found.low, alone.low), (found.high, alone.high)):
                assert one == pytest.approx(other, abs=1e-12)
            assert found.p_value == alone.p_value
    found = intervals.paired_differences(methods, b, resamples=300, seed=3)["third"]
    interval = intervals.bootstrap_interval(methods["third"] - b, resamples=300, seed=3)
    assert (found.low, found.high) == pytest.approx(interval, abs=1e-12)
    with pytest.raises(ValueError, match="same queries"):
        intervals.paired_differences({"short": b[:-1]}, b)


def test_a_paired_result_as_text():
    assert str(intervals.PairedResult(0.0171, 0.004, 0.0329, 0.024)) == "+0.017 [+0.004, +0.033], p = 0.0240"


def test_the_smallest_p_values_of_resampling_are_shown_as_below_a_hundredth():
    certain = intervals.paired_difference(np.linspace(0.5, 0.9, 40), np.zeros(40))
    assert certain.p_value == 1 / 2001 and str(certain).endswith("], p < 0.01")
    eighteen = intervals.holm(np.full(18, certain.p_value))
    assert 0.005 < eighteen[0] < 0.01 and intervals.format_p_value(eighteen[0]) == "< 0.01"
    shown = [intervals.format_p_value(p, 3) for p in (0.0, 0.00999, 0.01, 0.0525, 1.0, float("nan"))]
    assert shown == ["< 0.01", "< 0.01", "0.010", "0.052", "1.000", "nan"]


class TestWilson:
    @pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 7), (50, 100), (1443, 1500)])
    def test_agrees_with_scipy(self, right, n):
        from scipy.stats import binomtest

        expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert intervals.wilson_interval(right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)

    def test_shares_of_0_and_1_have_a_width(self):
        # By hand: z² / (n + z²) with z = 1.96 is 3.84 / 23.84.
        low, high = intervals.wilson_interval(0, 20)
        assert (low, high) == pytest.approx((0, 0.1611), abs=1e-4) and low >= 0
        low, high = intervals.wilson_interval(1, 20)
        assert (low, high) == pytest.approx((1 - 0.1611, 1), abs=1e-4) and high <= 1

    @pytest.mark.parametrize(("share", "n"), [(0.5, 0), (-0.1, 9), (1.1, 9), (np.nan, 9)])
    def test_bad_input_is_refused(self, share, n):
        with pytest.raises(ValueError, match="share must lie between 0 and 1, n must be at least 1"):
            intervals.wilson_interval(share, n)


class TestHolm:
    def test_by_hand(self):
        # Sorted 0.01, 0.02, 0.03, 0.04, times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; none falls below the one before.
        assert intervals.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])

    def test_is_at_most_1_and_does_not_change_a_single_test(self):
        assert intervals.holm([0.5, 0.9, 0.6]).tolist() == [1, 1, 1]
        assert intervals.holm([0.03]).tolist() == [0.03]
        assert len(intervals.holm([])) == 0

    @pytest.mark.parametrize("values", [[0.1, 1.2], [-0.1], [np.nan], [[0.1]]])
    def test_values_outside_0_and_1_are_refused(self, values):
        with pytest.raises(ValueError, match="between 0 and 1"):
            intervals.holm(values)

    def test_false_positives_are_rare(self):
        """2,000 families of 21 tests without any difference: at most 5 % of them have a significant one."""
        p_values = np.random.default_rng(0).uniform(size=(2000, 21))
        found = np.array([(intervals.holm(family) < 0.05).any() for family in p_values])
        assert (p_values < 0.05).any(axis=1).mean() > 0.6 and found.mean() < 0.065


# ---- all pairs together ---------------------------------------------------------------------------------


def methods_of_noise(rng, methods, queries):
    return {f"m{i}": column for i, column in enumerate(rng.normal(size=(methods, queries)))}


@pytest.mark.parametrize("methods", [2, 5])
def test_simultaneous_intervals_have_the_width_of_the_studentized_range(methods):
    # Independent methods of equal variance are Tukey's case, whose quantile scipy computes. For two, it is 1.96 √2.
    columns = methods_of_noise(np.random.default_rng(0), methods, 2000)
    critical = stats.studentized_range.ppf(0.95, methods, np.inf) / np.sqrt(2)
    for difference, low, high in simultaneous_differences(columns).values():
        assert (high - low) / 2 == pytest.approx(critical * np.sqrt(2 / 2000), rel=0.06)
        assert (high + low) / 2 == pytest.approx(difference)


def test_the_best_of_equal_methods_is_rarely_called_better():
    false_alarms, naive = 0, 0
    for seed in range(150):
        columns = methods_of_noise(np.random.default_rng(seed), 6, 60)
        best = max(columns, key=lambda name: columns[name].mean())
        others = {name: values for name, values in columns.items() if name != best}
        found = simultaneous_differences(columns, resamples=400)
        false_alarms += any(not found[best, name].includes_zero for name in others)
        naive += any(result.high < 0 for result in paired_differences(others, columns[best], resamples=400).values())
    # 5 % of 150 are 7.5; intervals of single pairs are wrong several times as often.
    assert false_alarms <= 15 and naive >= 30


def test_simultaneous_differences_by_hand():
    found = simultaneous_differences({"a": [1, 1, 1, 1], "b": [1, 1, 1, 1], "c": [0, 1, 0, 1]})
    assert found["a", "b"] == (0, 0, 0) and found["a", "b"].includes_zero
    assert found["a", "c"].difference == 0.5
    assert found["c", "a"] == tuple(-number for number in (0.5, found["a", "c"].high, found["a", "c"].low))
    assert len(found) == 6


def test_clusters_are_the_units_of_simultaneous_differences():
    a, b = np.random.default_rng(3).random((2, 30))
    alone = simultaneous_differences({"a": a, "b": b})
    repeated = simultaneous_differences(
        {"a": np.repeat(a, 4), "b": np.repeat(b, 4)}, clusters=np.repeat(np.arange(30), 4)
    )
    assert repeated["a", "b"] == pytest.approx(alone["a", "b"])
    one = simultaneous_differences({"a": a, "b": b}, clusters=np.zeros(30, int))["a", "b"]
    assert np.isnan([one.low, one.high]).all() and one.includes_zero


def test_simultaneous_differences_need_two_methods_on_the_same_queries():
    with pytest.raises(ValueError, match="at least two methods are needed, got a"):
        simultaneous_differences({"a": [1, 2]})
    with pytest.raises(ValueError, match="same queries"):
        simultaneous_differences({"a": [1, 2], "b": [1, 2, 3]})
