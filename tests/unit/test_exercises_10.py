"""The checks of the exercises of notebook 10 accept right solutions, and name the mistake of wrong ones."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def ndcg(hits, n_relevant, k):
    discount = 1 / np.log2(np.arange(2, k + 2))
    first = hits[:k]
    return (first * discount[: len(first)]).sum() / discount[: min(n_relevant, k)].sum()


def test_right_solutions_pass():
    assert check_exercise("10.1", 5 / 12)
    assert check_exercise("10.1", 0.417)
    assert check_exercise("10.2", ndcg)


@pytest.mark.parametrize(
    ("value", "hint"), [(5 / 6, "hits found"), (13 / 24, "rank 6"), (1 / 3, "min(R, k)"), (0.5, "sum the precision")]
)
def test_a_wrong_value_gets_a_hint(value, hint, capsys):
    assert check_exercise("10.1", value) is False
    assert hint in capsys.readouterr().out


def natural_logarithm(hits, n_relevant, k):
    discount = 1 / np.log(np.arange(2, k + 2))
    return (hits[:k] * discount[: len(hits[:k])]).sum()


def ideal_of_the_hits_found(hits, n_relevant, k):
    return ndcg(hits, max(1, hits[:k].sum()), k)


def ideal_of_all_relevant(hits, n_relevant, k):
    return ndcg(hits, n_relevant, k) * ndcg(np.ones(k, bool), k, k) * _sum(min(n_relevant, k)) / _sum(n_relevant)


def _sum(n):
    return (1 / np.log2(np.arange(2, n + 2))).sum()


def without_the_cut(hits, n_relevant, k):
    return ndcg(hits, n_relevant, max(k, len(hits)))


def sorts_in_place(hits, n_relevant, k):
    hits.sort()
    return ndcg(hits[::-1], n_relevant, k)


@pytest.mark.parametrize(
    "function",
    [natural_logarithm, ideal_of_the_hits_found, ideal_of_all_relevant, without_the_cut, sorts_in_place],
    ids=lambda function: function.__name__,
)
def test_wrong_functions_fail(function):
    assert check_exercise("10.2", function) is False


def test_a_missing_solution_is_no_mistake():
    assert check_exercise("10.1", None) is None
    assert check_exercise("10.2", lambda hits, n_relevant, k: None) is None
