"""The checks of notebook 07's exercises accept correct solutions only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def mutual(distances):
    rows = np.arange(len(distances))
    nearest, back = distances.argmin(axis=1), distances.argmin(axis=0)
    return np.column_stack([rows, nearest])[back[nearest] == rows]


def by_loop(distances):
    pairs = []
    for row, line in enumerate(distances):
        column = int(line.argmin())
        if int(distances[:, column].argmin()) == row:
            pairs.append((row, column))
    return np.array(pairs)


def test_correct_solutions():
    assert check_exercise("07.1", 72)
    assert check_exercise("07.2", mutual)
    assert check_exercise("07.2", by_loop)


@pytest.mark.parametrize("value", [1, None])
@pytest.mark.parametrize(
    ("exercise", "reason"),
    [
        ("07.9", "'07.9'; notebook 07 has 07.1, 07.2"),
        ("07", "'07'; notebook 07 has"),
        ("7.1", "'7.1'; an exercise is called"),
        ("99.1", "'99.1'; an exercise is called"),
    ],
)
def test_an_exercise_without_a_check_is_named(exercise, reason, value, capsys):
    with pytest.raises(ValueError, match=f"there is no check of exercise {reason}"):
        check_exercise(exercise, value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("draws", [71, 73, 7, 71.4, "72"])
def test_a_wrong_number_of_draws(draws):
    assert check_exercise("07.1", draws) is False


def in_place(distances):
    pairs = mutual(distances)
    distances[:] = 0
    return pairs


@pytest.mark.parametrize(
    "function",
    [
        lambda distances: np.column_stack([np.arange(len(distances)), distances.argmin(axis=1)]),
        lambda distances: mutual(distances)[:, ::-1],
        lambda distances: mutual(distances)[::-1],
        lambda distances: mutual(-distances),
        lambda distances: mutual(distances).ravel(),
        in_place,
    ],
    ids=["one side", "columns first", "unsorted", "farthest", "flat", "changes its argument"],
)
def test_a_wrong_cross_check(function):
    assert check_exercise("07.2", function) is False


def test_a_missing_solution():
    assert check_exercise("07.1", None) is None
    assert check_exercise("07.2", lambda distances: None) is None
