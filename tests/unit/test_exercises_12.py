"""The checks of notebook 12 accept correct solutions, and name the error of wrong ones."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def nearest_others(similarities, k):
    without_self = similarities - 2 * np.eye(len(similarities))
    near = np.zeros(similarities.shape, dtype=bool)
    np.put_along_axis(near, np.argsort(-without_self, axis=1)[:, :k], True, axis=1)
    return near


def reciprocal(similarities, k):
    near = nearest_others(similarities, k)
    return near & near.T


def by_loop(similarities, k):
    n = len(similarities)
    near = [
        set(sorted((other for other in range(n) if other != row), key=lambda other: -similarities[row, other])[:k])
        for row in range(n)
    ]
    return np.array([[other in near[row] and row in near[other] for other in range(n)] for row in range(n)])


def counting_itself(similarities, k):
    order = np.argsort(-similarities, axis=1)
    near = np.zeros(similarities.shape, dtype=bool)
    np.put_along_axis(near, order[:, :k], True, axis=1)
    return near & near.T & ~np.eye(len(near), dtype=bool)


def with_diagonal(similarities, k):
    return reciprocal(similarities, k) | np.eye(len(similarities), dtype=bool)


def either(similarities, k):
    near = nearest_others(similarities, k)
    return near | near.T


def in_place(similarities, k):
    np.fill_diagonal(similarities, -1)
    return reciprocal(similarities, k)


@pytest.mark.parametrize(
    ("value", "hint"),
    [(0.864, "right ✓"), (2.4, "divide by the length"), (0.707, "the query itself"), (0.5, "add all three")],
)
def test_the_cosine_of_an_expanded_query(value, hint, capsys):
    assert check_exercise("12.1", value) is (hint == "right ✓")
    assert hint in capsys.readouterr().out


def test_correct_pairs_are_accepted():
    assert check_exercise("12.2", reciprocal) is True
    assert check_exercise("12.2", by_loop) is True


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (nearest_others, "one of A"),
        (either, "both must be among"),
        (counting_itself, "pairs are missing"),
        (with_diagonal, "not its own neighbor"),
        (in_place, "must not change its arguments"),
        (lambda similarities, k: reciprocal(similarities, k).astype(int), "return bool"),
    ],
)
def test_wrong_pairs_get_a_hint(function, hint, capsys):
    assert check_exercise("12.2", function) is False
    assert hint in capsys.readouterr().out


def test_a_function_without_code_is_not_checked():
    assert check_exercise("12.2", lambda similarities, k: None) is None
