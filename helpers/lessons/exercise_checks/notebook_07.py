"""Checks of the exercises of notebook 07: draws of RANSAC, and the cross check."""

import math
from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer


def exercise_1(draws: int) -> None:
    """The number of draws of four matches, of which half are correct, with success of at least 0.99."""
    all_correct = 0.5**4
    expected = math.ceil(math.log(1 - 0.99) / math.log(1 - all_correct))
    assert draws != round(math.log(1 - 0.99) / math.log(1 - 0.5)), "all four matches of a draw must be correct"
    assert draws == expected, "compute the probability that all draws contain a wrong match; it must be at most 0.01"


def exercise_2(function: Callable[[np.ndarray], np.ndarray]) -> None:
    """The cross check on random distances; the two sides have different sizes."""
    rng = np.random.default_rng(7)
    for shape in ((1, 1), (3, 5), (6, 4), (20, 30)):
        distances = rng.random(shape)
        found = np.asarray(answer(function, distances))
        rows, columns = np.arange(len(distances)), distances.argmin(axis=1)
        expected = np.column_stack([rows, columns])[distances.argmin(axis=0)[columns] == rows]
        assert found.ndim == 2 and found.shape[1] == 2, f"return an array (k, 2), not {found.shape}"
        assert len(found) == len(expected), (
            f"{len(expected)} pairs are mutual for random distances {shape}, but you return {len(found)}"
        )
        assert np.array_equal(found, expected), "a pair is (row, column), and the pairs are sorted by row"
