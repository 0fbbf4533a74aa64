"""The checks of notebook 17's exercises accept correct solutions only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def ceiling(queries, gallery, k):
    relevant = (queries[:, None] == gallery).sum(axis=1)
    relevant = relevant[relevant > 0]
    return (np.minimum(relevant, k) / relevant).mean()


def by_loop(queries, gallery, k):
    values = []
    for query in queries:
        relevant = int((gallery == query).sum())
        if relevant:
            values.append(min(relevant, k) / relevant)
    return float(np.mean(values))


def with_zeros(queries, gallery, k):
    relevant = (queries[:, None] == gallery).sum(axis=1)
    return (np.minimum(relevant, k) / np.maximum(relevant, 1)).mean()


def with_nan(queries, gallery, k):
    relevant = (queries[:, None] == gallery).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (np.minimum(relevant, k) / relevant).mean()


def test_correct_solutions():
    assert check_exercise("17.1", 0.2)
    assert check_exercise("17.2", ceiling)
    assert check_exercise("17.2", by_loop)


@pytest.mark.parametrize("highest", [1, 0.02, 5, "0.2"])
def test_a_wrong_ceiling(highest):
    assert check_exercise("17.1", highest) is False


@pytest.mark.parametrize(
    "function",
    [
        lambda queries, gallery, k: 1.0,
        lambda queries, gallery, k: k * len(queries) / len(gallery),
        with_zeros,
        with_nan,
    ],
    ids=["always 1", "without classes", "missing classes count 0", "NaN"],
)
def test_a_wrong_function(function):
    assert check_exercise("17.2", function) is False


def test_a_missing_solution():
    assert check_exercise("17.1", None) is None
    assert check_exercise("17.2", lambda queries, gallery, k: None) is None
