"""The recommendation of a comparison; all expected results are worked out by hand."""

import pytest

from helpers.evaluation.intervals import Difference
from helpers.evaluation.recommendation import Measured, cheapest, queries_needed, recommend


def both(pairs):
    """The differences of both orders."""
    return pairs | {(b, a): Difference(-d, -high, -low) for (a, b), (d, low, high) in pairs.items()}


SLOW, FAST, POOR = (
    Measured(0.70, 0.66, 0.74, 200.0, 8192),
    Measured(0.69, 0.65, 0.73, 40.0, 5120),
    Measured(0.30, 0.27, 0.33, 4.0, 512),
)
TIED = both({
    ("slow", "fast"): Difference(0.01, -0.02, 0.04),
    ("slow", "poor"): Difference(0.40, 0.36, 0.44),
    ("fast", "poor"): Difference(0.39, 0.35, 0.43),
})  # fmt: skip


def test_the_cheaper_of_two_that_cannot_be_told_apart():
    found = recommend({"poor": POOR, "slow": SLOW, "fast": FAST}, TIED, 0.15, 200)
    assert (found.method, found.best, found.tied, found.worse) == ("fast", "slow", ("slow", "fast"), ("poor",))
    assert found.sentences == (
        "slow has the highest mAP on these 200 queries: 0.700 [0.660, 0.740].",
        "Its difference from fast is +0.010 [-0.020, +0.040]. This includes 0: these queries cannot tell the two "
        "apart.",
        "Use fast, the cheapest of them: 40.0 ms per query instead of 200 ms.",
        "Its mAP may be lower than that of slow by up to 0.040.",
        # The half width, 0.03, is three times the difference: nine times as many queries.
        "About 1,800 queries would be needed to tell a difference of this size from 0.",
        "poor is worse than slow, by at least 0.360.",
    )


def test_a_method_that_is_better_than_all_others():
    differences = TIED | both({("slow", "fast"): Difference(0.01, 0.004, 0.016)})
    found = recommend({"poor": POOR, "slow": SLOW, "fast": FAST}, differences, 0.15, 200)
    assert (found.method, found.tied, found.worse) == ("slow", ("slow",), ("fast", "poor"))
    assert found.sentences[1:] == (
        "It is better than every other method: the difference from fast, the next one, is 0.010 [0.004, 0.016].",
        "Use slow.",
        "If time matters more, use fast: from a query's file to the results, it takes 20 % of the time, and its mAP is "
        "lower by 0.010 [0.004, 0.016].",
    )


def test_a_faster_method_that_is_half_as_good_is_no_alternative():
    differences = both({("slow", "poor"): Difference(0.40, 0.36, 0.44)})
    # 0.70 and 0.30 are 0.55 and 0.15 above a random order.
    assert "If time matters" not in recommend({"slow": SLOW, "poor": POOR}, differences, 0.15, 200).text
    near = POOR._replace(score=0.43)
    assert "If time matters" in recommend({"slow": SLOW, "poor": near}, differences, 0.15, 200).text


def test_the_best_one_is_recommended_if_it_is_the_cheapest_too():
    cheap = SLOW._replace(milliseconds=30.0)
    found = recommend({"slow": cheap, "fast": FAST}, TIED, 0.15, 200)
    assert found.method == "slow"
    assert found.sentences[2] == "Use slow, the cheapest of them: 30.0 ms per query instead of 40.0 ms."
    assert not any("may be lower" in sentence for sentence in found.sentences)


def test_three_that_cannot_be_told_apart():
    near = {(a, b): Difference(0.01, -0.02, 0.04) for a, b in (("slow", "fast"), ("slow", "third"), ("fast", "third"))}
    third = FAST._replace(score=0.68, milliseconds=38.0, bytes=512)
    found = recommend({"slow": SLOW, "fast": FAST, "third": third}, both(near), 0.15, 200)
    # 38 and 40 ms are similar, so the bytes decide.
    assert found.method == "third" and found.tied == ("slow", "fast", "third")
    assert "cannot tell it from fast and third" in found.text and "for third" in found.text


def test_no_method_is_recommended_if_none_is_better_than_a_random_order():
    found = recommend({"slow": SLOW, "fast": FAST}, TIED, 0.66, 200)
    assert found.method is None
    assert "does not lie above 0.660, the mAP of a random order: none of the methods is recommended" in found.text
    alone = recommend({"slow": SLOW._replace(low=float("nan"), high=float("nan")), "fast": FAST}, TIED, 0.15, 1)
    assert (
        alone.method is None
        and "only one of these queries, so the score has no interval: none of the methods is" in alone.text
    )


def test_a_single_query_leaves_open_which_method_is_better():
    nan = float("nan")
    methods = {name: each._replace(low=nan, high=nan) for name, each in (("slow", SLOW), ("poor", POOR))}
    found = recommend(methods, both({("slow", "poor"): Difference(0.4, nan, nan)}), 0.15, 1)
    assert (found.method, found.tied, found.worse) == (None, ("slow", "poor"), ())


def test_notes_on_intervals_that_are_too_narrow():
    perfect = SLOW._replace(score=1.0, low=1.0, high=1.0)
    same = both({("slow", "fast"): Difference(0.0, 0.0, 0.0)})
    found = recommend({"slow": perfect, "fast": perfect._replace(milliseconds=40.0)}, same, 0.1, 20, unit="images")
    # The rule of three: 3 / 20.
    assert "fast has the same score for each query" in found.text and "15 % of other images" in found.text
    assert found.sentences[-1] == "With fewer than 30 images, the intervals are too narrow: use more images."
    assert found.best == found.method == "fast"
    assert "slow has the same score as fast for each query, so these queries cannot tell them apart." in found.text


def test_a_higher_top_1_of_another_method_is_named():
    methods = {"poor": POOR, "slow": SLOW, "fast": FAST}
    found = recommend(methods, TIED, 0.15, 200, first_right={"slow": 0.8, "fast": 0.9, "poor": 0.95})
    assert found.sentences[-1] == (
        "By the first result alone, poor is better on these queries (not tested): top-1 0.950 instead of 0.900."
    )
    equal = recommend(methods, TIED, 0.15, 200, first_right={"slow": 0.9, "fast": 0.9, "poor": 0.5})
    assert "first result" not in equal.text


@pytest.mark.parametrize(
    ("times", "sizes", "expected"),
    [((10, 12, 40), (900, 800, 1), "b"), ((10, 13, 40), (900, 800, 1), "a"), ((9, 9, 9), (5, 5, 5), "a")],
)
def test_cheapest(times, sizes, expected):
    methods = {name: Measured(0.5, 0.4, 0.6, time, size) for name, time, size in zip("abc", times, sizes, strict=True)}
    assert cheapest(methods) == expected


def test_queries_needed():
    assert queries_needed(Difference(0.02, -0.02, 0.06), 100) == 400
    assert queries_needed(Difference(0.04, 0.0, 0.08), 100) == 100
    assert queries_needed(Difference(0.0, -0.1, 0.1), 100) is None
    assert queries_needed(Difference(0.1, float("nan"), float("nan")), 1) is None


def test_a_number_of_queries_beyond_all_measure_is_not_named():
    close = both({("slow", "fast"): Difference(1e-6, -0.02, 0.02)})
    assert "would be needed" not in recommend({"slow": SLOW, "fast": FAST}, close, 0.15, 200).text
