"""Checks of the exercises of notebook 00: the chance of a first result, and a search."""

import math
from collections.abc import Callable

import numpy as np

from helpers.images import samples
from helpers.lessons.exercises import answer
from helpers.vectors import l2_normalize


def exercise_1(chance: float) -> None:
    """The probability that a random first result of the query of class 0 is relevant."""
    gallery = samples.with_distractors()
    images_of_class = int((gallery.labels == 0).sum())
    assert 0 <= chance <= 1, "a probability lies between 0 and 1"
    assert not math.isclose(chance, images_of_class / len(gallery), abs_tol=0.0005), "the query itself is ignored"
    expected = (images_of_class - 1) / (len(gallery) - 1)
    assert math.isclose(chance, expected, abs_tol=0.0005), "divide the relevant images by all images of the gallery"


def exercise_2(function: Callable[[np.ndarray, int, int], np.ndarray]) -> None:
    """A search on random vectors of various lengths."""
    rng = np.random.default_rng(7)
    for rows, k in ((2, 1), (6, 3), (40, 10), (9, 100)):
        vectors = rng.normal(size=(rows, 5)) * rng.uniform(0.1, 10, (rows, 1))
        query = int(rng.integers(rows))
        found = np.asarray(answer(function, vectors, query, k))
        unit = l2_normalize(vectors, np.float64)
        order = np.argsort(-(unit @ unit[query]), kind="stable")
        expected = order[order != query][:k]
        assert query not in found, "the query must not be one of its own results"
        assert found.shape == (len(expected),), f"return an array ({len(expected)},), not {found.shape}"
        assert np.array_equal(found, expected), "sort by the cosine similarity; the vectors have different lengths"
