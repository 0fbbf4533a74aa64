"""The checks of notebook 13 accept correct solutions, and name the error of wrong ones."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def search_lists(query, gallery, centers, labels, probes, k):
    nearest = np.argsort(((centers - query) ** 2).sum(axis=1), kind="stable")[:probes]
    rows = np.flatnonzero(np.isin(labels, nearest))
    return rows[np.lexsort((rows, -(gallery[rows] @ query)))[:k]]


def by_loop(query, gallery, centers, labels, probes, k):
    nearest = sorted(range(len(centers)), key=lambda row: sum((query - centers[row]) ** 2))[:probes]
    rows = [(-float(gallery[row] @ query), row) for row in range(len(gallery)) if labels[row] in nearest]
    return [row for _, row in sorted(rows)[:k]]


def in_all_lists(query, gallery, centers, labels, probes, k):
    return search_lists(query, gallery, centers, labels, len(centers), k)


def of_the_highest_products(query, gallery, centers, labels, probes, k):
    nearest = np.argsort(-(centers @ query), kind="stable")[:probes]
    rows = np.flatnonzero(np.isin(labels, nearest))
    return rows[np.lexsort((rows, -(gallery[rows] @ query)))[:k]]


def positions_in_the_lists(query, gallery, centers, labels, probes, k):
    rows = search_lists(query, gallery, centers, labels, probes, len(gallery))
    return np.argsort(-(gallery[np.sort(rows)] @ query), kind="stable")[:k]


def lowest_first(query, gallery, centers, labels, probes, k):
    return search_lists(query, gallery, centers, labels, probes, k)[::-1]


def one_too_few(query, gallery, centers, labels, probes, k):
    return search_lists(query, gallery, centers, labels, probes, k - 1)


@pytest.mark.parametrize(
    ("value", "hint"),
    [(8.192, "right ✓"), (2.048, "has four bytes"), (7.629, "10⁹ bytes"), (1.0, "multiply vectors")],
)
def test_the_bytes_of_an_exact_search(value, hint, capsys):
    assert check_exercise("13.1", value) is (hint == "right ✓")
    assert hint in capsys.readouterr().out


def test_a_correct_search_is_accepted():
    assert check_exercise("13.2", search_lists) is True
    assert check_exercise("13.2", by_loop) is True
    assert check_exercise("13.2", lambda *arguments: search_lists(*arguments).tolist()) is True


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (in_all_lists, "not among the"),
        (of_the_highest_products, "not among the"),
        (positions_in_the_lists, ""),
        (lowest_first, "highest product must be the first"),
        (one_too_few, "rows, not"),
    ],
)
def test_a_wrong_search_gets_a_hint(function, hint, capsys):
    assert check_exercise("13.2", function) is False
    assert hint in capsys.readouterr().out


def test_a_function_without_code_is_not_checked():
    assert check_exercise("13.2", lambda *arguments: None) is None
