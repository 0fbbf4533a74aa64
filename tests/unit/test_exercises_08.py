"""The checks of notebook 08's exercises accept correct solutions only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def idf(counts):
    return np.log(len(counts) / np.maximum((counts > 0).sum(axis=0), 1))


def by_loop(counts):
    return np.array([np.log(len(counts) / max(1, sum(int(count > 0) for count in column))) for column in counts.T])


def of_all_counts(counts):
    return np.log(len(counts) / np.maximum(counts.sum(axis=0), 1))


def without_words_of_no_image(counts):
    with np.errstate(divide="ignore"):
        return np.log(len(counts) / (counts > 0).sum(axis=0))


def test_correct_solutions():
    assert check_exercise("08.1", 1.3863)
    assert check_exercise("08.2", idf)
    assert check_exercise("08.2", by_loop)


@pytest.mark.parametrize("value", [0.602, 2, 0.25, "1.386"])
def test_a_wrong_value(value):
    assert check_exercise("08.1", value) is False


@pytest.mark.parametrize(
    "function",
    [of_all_counts, without_words_of_no_image, lambda counts: idf(counts.T), lambda counts: 1 + idf(counts)],
    ids=["counts", "infinite", "transposed", "scikit-learn's 1"],
)
def test_a_wrong_function(function):
    assert check_exercise("08.2", function) is False


def test_a_missing_solution():
    assert check_exercise("08.1", None) is None
    assert check_exercise("08.2", lambda counts: None) is None
