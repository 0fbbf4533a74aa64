"""The checks of notebook 01 accept correct solutions, and name the error of wrong ones."""

import math

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def cosines(query, gallery):
    return gallery @ query / np.linalg.norm(gallery, axis=1) / np.linalg.norm(query)


def identify(query, gallery, labels, threshold):
    similarity = cosines(query, gallery)
    return labels[similarity.argmax()] if similarity.max() >= threshold else -1


def by_loop(query, gallery, labels, threshold):
    similarities = []
    for vector in gallery:
        product = sum(x * y for x, y in zip(query, vector, strict=True))
        similarities.append(product / math.sqrt(sum(x * x for x in query) * sum(x * x for x in vector)))
    best = max(similarities)
    return labels[similarities.index(best)] if best >= threshold else -1


def by_product(query, gallery, labels, threshold):
    return labels[(gallery @ query).argmax()] if cosines(query, gallery).max() >= threshold else -1


def never_unknown(query, gallery, labels, threshold):
    return labels[cosines(query, gallery).argmax()]


def always_unknown(query, gallery, labels, threshold):
    return -1


def row(query, gallery, labels, threshold):
    similarity = cosines(query, gallery)
    return similarity.argmax() if similarity.max() >= threshold else -1


def last_of_equal(query, gallery, labels, threshold):
    return identify(query, gallery[::-1], labels[::-1], threshold)


def in_place(query, gallery, labels, threshold):
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    return identify(query, gallery, labels, threshold)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1 - 0.99**200, "right ✓"),
        (0.99**200, "of no false accept"),
        (0.01, "of one comparison"),
        (2.0, "do not add the rates"),
        (0.5, "start with the probability"),
    ],
)
def test_the_chance_of_a_false_alarm(value, hint, capsys):
    assert check_exercise("01.1", value) is (hint == "right ✓")
    assert hint in capsys.readouterr().out


def test_a_correct_search_is_accepted():
    assert check_exercise("01.2", identify) is True
    assert check_exercise("01.2", by_loop) is True
    assert check_exercise("01.2", lambda *arguments: int(identify(*arguments))) is True
    assert check_exercise("01.2", last_of_equal) is True


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (by_product, "the vectors do not have length one"),
        (never_unknown, "return -1, not"),
        (always_unknown, "return a label, not -1"),
        (row, "return the label of a row, not the row"),
        (in_place, "must not change its arguments"),
    ],
)
def test_a_wrong_search_gets_a_hint(function, hint, capsys):
    assert check_exercise("01.2", function) is False
    assert hint in capsys.readouterr().out


def test_a_function_without_code_is_not_checked():
    assert check_exercise("01.2", lambda query, gallery, labels, threshold: None) is None
