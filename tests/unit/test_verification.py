"""Same or different: pairs, both errors at every threshold, intervals over people."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from helpers.evaluation import protocol as protocol_module
from helpers.evaluation import verification
from helpers.evaluation.builders import leave_one_out, query_gallery
from helpers.evaluation.verification import (
    Pairs,
    accuracy_across_people,
    assign_folds,
    error_curve,
    error_intervals,
    pairs,
    similarities,
)
from helpers.images.imageset import ImageSet

SAME, DIFFERENT = [0.9, 0.8, 0.4], [0.7, 0.3, 0.2, 0.1]


def image_set(labels, groups=None):
    labels = np.asarray(labels)
    names = tuple("abcdefghijklmnopqrstuvwxyz"[: labels.max() + 1])
    return ImageSet("people", tuple(Path(f"{i}.jpg") for i in range(len(labels))), labels, names, groups)


def listed(found):
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


# ---- pairs --------------------------------------------------------------------------------------------------


def test_all_pairs_worked_by_hand():
    # Two of a, two of b, two without a class. 0 and 2 are copies; for 1, image 3 is excluded.
    protocol = replace(
        leave_one_out(image_set([0, 0, 1, 1, -1, -1], groups=[7, -1, 7, -1, -1, -1]), "p"), excluded={1: (3,)}
    )
    found = pairs(protocol)
    assert listed(found) == {(0, 1), (2, 3), (0, 3), (1, 2)} | {(i, j) for i in range(4) for j in (4, 5)}
    assert {pair for pair, same in zip(listed(found), found.same, strict=False)} == listed(found)
    assert {(a, b) for a, b, same in zip(found.first, found.second, found.same, strict=True) if same} == {
        (0, 1),
        (2, 3),
    }


def test_copies_and_images_outside_the_protocol_are_not_paired():
    images = image_set([0, 0, 0, 1, 1], groups=[3, 3, -1, -1, -1])
    assert listed(pairs(leave_one_out(images, "p"))) >= {(0, 2), (1, 2), (3, 4)}
    assert (0, 1) not in listed(pairs(leave_one_out(images, "p")))
    # Image 4 is neither a query nor in the gallery.
    assert listed(pairs(query_gallery(images, [0, 3], [1, 2], "p"))) == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_a_sample_is_drawn_from_all_without_repeats():
    protocol = leave_one_out(image_set(np.repeat(np.arange(20), 5).tolist() + [-1] * 30), "p")
    everything = pairs(protocol)
    assert everything.same.sum() == 20 * 10 and (~everything.same).sum() == 190 * 25 + 100 * 30
    for different in (100, 7000):  # drawn, and selected from the list of all
        some = pairs(protocol, different, seed=1)
        assert (some.same.sum(), (~some.same).sum()) == (200, different)
        assert len(listed(some)) == 200 + different and listed(some) <= listed(everything)
        assert listed(pairs(protocol, different, seed=1)) == listed(some)
        assert listed(pairs(protocol, different, seed=2)) != listed(some)


def test_every_pair_is_as_likely_to_be_drawn():
    protocol = leave_one_out(image_set(np.repeat(np.arange(6), 2)), "p")  # 60 pairs of different people
    drawn = np.zeros((12, 12), int)
    for seed in range(400):
        some = pairs(protocol, different=10, seed=seed)
        drawn[some.first[~some.same], some.second[~some.same]] += 1
    counts = drawn[drawn > 0]
    assert len(counts) == 60 and counts.mean() == pytest.approx(400 * 10 / 60)
    assert counts.min() >= 35 and counts.max() <= 103  # 67 ± 4.5 standard deviations of 7.5


def test_too_many_or_too_few_pairs(monkeypatch):
    protocol = leave_one_out(image_set([0, 0, 1, 1]), "p")
    with pytest.raises(ValueError, match="cannot draw 5 pairs of different people: there are 4"):
        pairs(protocol, different=5)
    with pytest.raises(ValueError, match="cannot draw 0 pairs of different people"):
        pairs(protocol, different=0)
    monkeypatch.setattr(verification, "MOST_PAIRS", 5)
    with pytest.raises(ValueError, match="6 pairs are too many to list; draw a sample"):
        pairs(protocol)
    assert len(pairs(protocol, different=1)) == 3


# ---- scores -------------------------------------------------------------------------------------------------


def test_similarities_by_hand(monkeypatch):
    among = Pairs(np.array([0, 0, 1]), np.array([1, 2, 3]), np.array([0, 0, 1, 1]))
    vectors = np.array([[3, 4], [4, 3], [0, 0], [-8, -6]], np.float32)
    assert similarities(vectors, among) == pytest.approx([24 / 25, 0, -1])
    monkeypatch.setattr(protocol_module, "CHUNK", 2)
    assert similarities(vectors, among) == pytest.approx([24 / 25, 0, -1])
    with pytest.raises(ValueError, match=r"shape \(4, d\)"):
        similarities(vectors[:3], among)
    vectors[3] = np.nan
    with pytest.raises(ValueError, match="1 vectors contain NaN or infinity, the first is that of image 3"):
        similarities(vectors, among)


# ---- the curve ----------------------------------------------------------------------------------------------


def test_the_curve_worked_by_hand():
    curve = error_curve(SAME, DIFFERENT)
    assert curve.thresholds.tolist() == [0.1, 0.2, 0.3, 0.4, 0.7, 0.8, 0.9, np.inf]
    assert curve.false_accept == pytest.approx([1, 0.75, 0.5, 0.25, 0.25, 0, 0, 0])
    assert curve.false_reject == pytest.approx([0, 0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert curve.n_different == 4
    # A score at the threshold is accepted.
    assert curve.at(0.7) == pytest.approx((0.25, 1 / 3)) and curve.at(0.71) == pytest.approx((0, 1 / 3))
    assert curve.at(-5) == (1, 0) and curve.at(5) == (0, 1)
    assert [curve.threshold_at(rate) for rate in (0.25, 0.49, 0.5, 1)] == [0.4, 0.4, 0.3, 0.1]
    assert curve.equal_error() == pytest.approx(((1 / 4 + 1 / 3) / 2, 0.7))


def test_separate_scores_have_no_error():
    curve = error_curve([0.8, 0.9], [0.1, 0.2])
    assert curve.equal_error() == (0, 0.8)
    assert curve.at(0.5) == (0, 0)


def test_minus_infinity_is_never_accepted():
    curve = error_curve([-np.inf, 2.0], [1.0, -np.inf])
    assert curve.at(-1e300) == (0.5, 0.5) and curve.at(1.5) == (0, 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_agrees(seed):
    rng = np.random.default_rng(seed)
    same, different = rng.integers(0, 30, 40) / 10 + 0.7, rng.integers(0, 30, 300) / 10  # with ties
    curve = error_curve(same, different)
    truth = np.r_[np.ones(40), np.zeros(300)]
    false_positive, true_positive, thresholds = roc_curve(truth, np.r_[same, different], drop_intermediate=False)
    assert curve.thresholds[::-1] == pytest.approx(thresholds)
    assert curve.false_accept[::-1] == pytest.approx(false_positive)
    assert 1 - curve.false_reject[::-1] == pytest.approx(true_positive)
    for rate in (0.01, 0.05, 0.3):
        threshold = curve.threshold_at(rate)
        assert np.mean(different >= threshold) <= rate < np.mean(different >= np.nextafter(threshold, -1) - 0.1)


@pytest.mark.parametrize(
    ("same", "different", "message"),
    [
        ([], [1], "scores_same must be a list of at least one"),
        ([1], [[1]], "scores_different must be"),
        ([np.nan], [1], "scores_same contains NaN"),
        ([1], [np.inf], "scores_different contains NaN or infinity"),
    ],
)
def test_invalid_scores_are_refused(same, different, message):
    with pytest.raises(ValueError, match=message):
        error_curve(same, different)


@pytest.mark.parametrize("rate", [0, 0.2, 1.5, np.nan])
def test_a_rate_that_can_not_be_measured(rate):
    with pytest.raises(ValueError, match="between 1/4"):
        error_curve(SAME, DIFFERENT).threshold_at(rate)


# ---- intervals ----------------------------------------------------------------------------------------------


def crowd(people, each, spread, seed=0):
    """Pairs and scores of people, some of whom look alike: one part of a score depends on the two people."""
    rng = np.random.default_rng(seed)
    among = pairs(leave_one_out(image_set(np.repeat(np.arange(people), each)), "p"))
    effects = rng.normal(0, spread, people)
    scores = 3.0 * among.same + effects[among.people[among.first]] + effects[among.people[among.second]]
    return among, scores + rng.normal(0, 1, len(among))


def test_intervals_agree_with_a_slow_bootstrap_over_people():
    among, scores = crowd(5, 3, 1.0)
    found = error_intervals(among, scores, 1.5, resamples=40, seed=3)
    rng, rows = np.random.default_rng(3), []
    for _ in range(40):
        times = np.bincount(rng.integers(5, size=5), minlength=5)
        bag = {True: [], False: []}
        for a, b, score in zip(among.people[among.first], among.people[among.second], scores, strict=True):
            bag[bool(a == b)] += [score] * int(times[a] if a == b else times[a] * times[b])
        curve = error_curve(bag[True], bag[False])
        rows.append((*curve.at(1.5), curve.equal_error().rate))
    low, high = np.quantile(rows, [0.025, 0.975], axis=0)
    # If two thresholds are equally near, rounding may select either.
    assert [*found.false_accept, *found.false_reject] == pytest.approx([low[0], high[0], low[1], high[1]])
    assert tuple(found.equal_error) == pytest.approx((low[2], high[2]), abs=0.02)


def test_differences_between_people_widen_the_interval():
    among, scores = crowd(20, 5, 1.0)
    curve = error_curve(scores[among.same], scores[~among.same])
    rate, threshold = curve.equal_error()
    found = error_intervals(among, scores, threshold)
    for interval, value in zip((found.false_accept, found.false_reject, found.equal_error),
                               (*curve.at(threshold), rate), strict=True):  # fmt: skip
        assert interval.low < value < interval.high
    # Independent pairs would give a far too narrow interval.
    naive = 1.96 * np.sqrt(rate * (1 - rate) / (~among.same).sum())
    assert found.false_accept.high - found.false_accept.low > 3 * 2 * naive
    assert error_intervals(among, scores, threshold) == found
    assert error_intervals(among, scores, threshold, seed=1) != found


def test_no_error_has_no_width_and_two_people_have_no_interval():
    among, _ = crowd(6, 3, 0)
    found = error_intervals(among, among.same.astype(float), 0.5)
    assert (found.false_accept, found.false_reject, found.equal_error) == ((0, 0),) * 3
    among, scores = crowd(2, 3, 0)
    assert np.isnan(error_intervals(among, scores, 1.5).false_accept).all()


def test_intervals_refuse_invalid_arguments():
    among, scores = crowd(4, 3, 0)
    with pytest.raises(ValueError, match="one per pair"):
        error_intervals(among, scores[1:], 0.5)
    with pytest.raises(ValueError, match="no NaN"):
        error_intervals(among, np.full(len(among), np.nan), 0.5)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        error_intervals(among, scores, 0.5, resamples=0)
    only = Pairs(among.first[among.same], among.second[among.same], among.people)
    with pytest.raises(ValueError, match="same and of different people"):
        error_intervals(only, scores[among.same], 0.5)


# ---- other people -------------------------------------------------------------------------------------------


def test_folds_keep_a_person_together_and_divide_people_with_pairs():
    among = pairs(leave_one_out(image_set(np.repeat(np.arange(12), 3).tolist() + [-1] * 20), "p"))
    fold = assign_folds(among, 4)
    assert all(len(set(fold[among.people == person])) == 1 for person in range(12))
    assert np.bincount(fold[:36]).tolist() == [9] * 4 and np.bincount(fold[36:]).tolist() == [5] * 4
    assert not np.array_equal(fold, assign_folds(among, 4, seed=1))
    with pytest.raises(ValueError, match="at least 2 folds"):
        assign_folds(among, 1)


def test_accuracy_of_clear_and_of_random_scores():
    among, _ = crowd(20, 4, 0)
    clear = accuracy_across_people(among, among.same + np.random.default_rng(0).random(len(among)) / 2, folds=5)
    assert clear.accuracies.tolist() == [1] * 5 and ((clear.thresholds > 0.5) & (clear.thresholds < 1)).all()
    assert (clear.mean, clear.standard_error) == (1, 0)
    chance = accuracy_across_people(among, np.random.default_rng(0).random(len(among)), folds=5)
    assert chance.mean == pytest.approx(0.5, abs=0.06) and chance.standard_error > 0
    # Rejecting every pair has an accuracy of 0.5, although most pairs are of different people.
    flat = accuracy_across_people(among, np.zeros(len(among)), folds=5)
    assert flat.mean == 0.5


def test_the_threshold_comes_from_other_people():
    among, _ = crowd(12, 4, 0)
    scores = among.same.astype(float)
    inside = (assign_folds(among, 4)[among.first] == 2) & (assign_folds(among, 4)[among.second] == 2)
    # The people of one fold look alike: the threshold 0.85, chosen with them, would make no error.
    scores[inside & ~among.same] = 0.7
    found = accuracy_across_people(among, scores, folds=4)
    assert found.thresholds == pytest.approx([0.85, 0.85, 0.5, 0.85])
    assert found.accuracies.tolist() == [1, 1, 0.5, 1]


def test_too_many_folds():
    among, scores = crowd(4, 3, 0)
    with pytest.raises(ValueError, match="use fewer folds"):
        accuracy_across_people(among, scores, folds=4)
    with pytest.raises(ValueError, match="one per pair"):
        accuracy_across_people(among, scores[1:])
