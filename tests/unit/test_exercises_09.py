"""The checks of notebook 09 accept correct solutions, and name the error of wrong ones."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def nearest(query, gallery, k, excluded):
    order = np.argsort(((gallery - query) ** 2).sum(axis=1), kind="stable")
    return order[~np.isin(order, excluded)][:k]


def by_loop(query, gallery, k, excluded):
    distances = [
        (sum((x - y) ** 2 for x, y in zip(query, vector, strict=True)), row)
        for row, vector in enumerate(gallery)
        if row not in excluded
    ]
    return [row for _, row in sorted(distances)[:k]]


def with_query_included(query, gallery, k, excluded):
    return np.argsort(((gallery - query) ** 2).sum(axis=1), kind="stable")[:k]


def excluded_too_late(query, gallery, k, excluded):
    found = with_query_included(query, gallery, k, excluded)
    return found[~np.isin(found, excluded)]


def farthest(query, gallery, k, excluded):
    order = np.argsort(-((gallery - query) ** 2).sum(axis=1), kind="stable")
    return order[~np.isin(order, excluded)][:k]


def ties_by_last_row(query, gallery, k, excluded):
    order = np.lexsort((-np.arange(len(gallery)), ((gallery - query) ** 2).sum(axis=1)))
    return order[~np.isin(order, excluded)][:k]


def in_place(query, gallery, k, excluded):
    gallery -= query
    return nearest(0, gallery, k, excluded)


def by_manhattan(query, gallery, k, excluded):
    order = np.argsort(np.abs(gallery - query).sum(axis=1), kind="stable")
    return order[~np.isin(order, excluded)][:k]


@pytest.mark.parametrize(
    ("value", "hint"),
    [(0.8, "right ✓"), (0.64, "square of the distance"), (0.32, "cosine distance"), (0.5, "as products")],
)
def test_the_distance_of_unit_vectors(value, hint, capsys):
    assert check_exercise("09.1", value) is (hint == "right ✓")
    assert hint in capsys.readouterr().out


def test_a_correct_search_is_accepted():
    assert check_exercise("09.2", nearest) is True
    assert check_exercise("09.2", by_loop) is True
    assert check_exercise("09.2", lambda *arguments: nearest(*arguments).tolist()) is True


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (with_query_included, "is excluded, but you return it"),
        (excluded_too_late, "rows, not"),
        (farthest, "the nearest row must be the first"),
        (ties_by_last_row, "the smaller row number"),
        (in_place, "must not change its arguments"),
        (by_manhattan, "the nearest row must be the first"),
    ],
)
def test_a_wrong_search_gets_a_hint(function, hint, capsys):
    assert check_exercise("09.2", function) is False
    assert hint in capsys.readouterr().out


def test_the_excluded_row_that_is_returned_is_named(capsys):
    returned = []

    def without_the_first_only(query, gallery, k, excluded):
        found = nearest(query, gallery, k, excluded[:1])
        returned[:] = [row for row in excluded if row in found]
        return found

    assert check_exercise("09.2", without_the_first_only) is False
    assert f"row {returned[0]} is excluded, but you return it" in capsys.readouterr().out


def test_a_function_without_code_is_not_checked():
    assert check_exercise("09.2", lambda query, gallery, k, excluded: None) is None
