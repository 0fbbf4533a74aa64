"""The checks of notebook 03 accept correct solutions and refuse the usual mistakes."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def correct(vectors, groups, train, test):
    nearest = train[(vectors[test] @ vectors[train].T).argmax(axis=1)]
    return (groups[nearest] == groups[test]).mean()


def by_loop(vectors, groups, train, test):
    siblings = 0
    for row in test:
        products = [float(vectors[other] @ vectors[row]) for other in train]
        siblings += int(groups[train[products.index(max(products))]] == groups[row])
    return siblings / len(test)


def rows_of_train_as_rows_of_vectors(vectors, groups, train, test):
    nearest = (vectors[test] @ vectors[train].T).argmax(axis=1)
    return (groups[nearest] == groups[test]).mean()


def any_sibling(vectors, groups, train, test):
    return np.isin(groups[test], groups[train]).mean()


@pytest.mark.parametrize("given", [15 / 360, 0.0416667])
def test_the_factor_of_a_rotation(given, capsys):
    assert check_exercise("03.1", given) is True


@pytest.mark.parametrize(("given", "hint"), [(15, "degrees"), (np.deg2rad(15), "radians"), (0.0833, "documentation")])
def test_a_wrong_factor_gets_a_hint(given, hint, capsys):
    assert check_exercise("03.1", given) is False
    assert hint in capsys.readouterr().out


def test_the_share_of_siblings(capsys):
    assert check_exercise("03.2", correct) is True
    assert check_exercise("03.2", by_loop) is True


@pytest.mark.parametrize(
    "function",
    [
        rows_of_train_as_rows_of_vectors,
        any_sibling,
        lambda vectors, groups, train, test: groups[test] == groups[test],
        lambda vectors, groups, train, test: 100 * correct(vectors, groups, train, test),
    ],
)
def test_wrong_functions_are_refused(function, capsys):
    assert check_exercise("03.2", function) is False


def test_an_empty_function_is_not_checked(capsys):
    assert check_exercise("03.2", lambda vectors, groups, train, test: None) is None
