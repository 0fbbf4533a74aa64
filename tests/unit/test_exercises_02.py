"""The checks of notebook 02's exercises accept correct results only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def first_of_each(groups):
    kept = groups < 0
    kept[np.unique(groups, return_index=True)[1]] = True
    return kept


def by_loop(groups):
    seen, kept = set(), []
    for group in groups.tolist():
        kept.append(group < 0 or group not in seen)
        seen.add(group)
    return np.array(kept, dtype=bool)


def test_correct_results():
    assert check_exercise("02.1", 4)
    assert check_exercise("02.2", first_of_each)
    assert check_exercise("02.2", by_loop)


@pytest.mark.parametrize("function", [first_of_each, by_loop])
def test_a_correct_function_keeps_the_first_image_of_a_group(function):
    groups = np.array([3, -1, 3, 0, -1, 0, 3])
    assert np.flatnonzero(function(groups)).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("label", [1, 2, 5, 11, "4"])
def test_a_wrong_label(label):
    assert check_exercise("02.1", label) is False


@pytest.mark.parametrize(
    "function",
    [
        lambda groups: groups < 0,
        lambda groups: np.isin(np.arange(len(groups)), np.unique(groups, return_index=True)[1]),
        lambda groups: np.flatnonzero(first_of_each(groups)),
        lambda groups: first_of_each(groups).astype(int),
        lambda groups: ~first_of_each(groups),
        lambda groups: groups.fill(-1) or groups < 0,
    ],
    ids=[
        "all groups removed",
        "images without group removed",
        "rows",
        "integers",
        "duplicates",
        "changes its argument",
    ],
)
def test_a_wrong_function(function):
    assert check_exercise("02.2", function) is False


def test_a_function_without_code():
    assert check_exercise("02.2", lambda groups: None) is None
