"""Checks of the exercises of notebook 02: the number of a class, and a set without duplicates."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer


def exercise_1(label: int) -> None:
    """The label that Keras gives to ``class_2`` among ``class_1`` to ``class_12``."""
    order = sorted(f"class_{number}" for number in range(1, 13))
    assert label != 1, "the order is that of text, not that of numbers"
    assert label != order.index("class_2") + 1, "labels begin with 0"
    assert label == order.index("class_2"), "sort the twelve names as Python sorts text"


def exercise_2(function: Callable[[np.ndarray], np.ndarray]) -> None:
    """A mask that keeps one image of each group, for random groups."""
    rng = np.random.default_rng(2)
    cases = [np.array([-1, -1, -1]), np.array([4, 4, 4]), np.array([7]), np.array([1, -1, 0, 1, -1, 0])]
    cases += [rng.integers(-1, high, size) for high, size in ((3, 10), (20, 50), (2, 30))]
    for groups in cases:
        kept = np.asarray(answer(function, groups))
        assert kept.shape == groups.shape and kept.dtype == bool, (
            f"return a Boolean mask of shape {groups.shape}, not {kept.dtype} {kept.shape}"
        )
        expected = groups < 0
        expected[np.unique(groups, return_index=True)[1]] = True
        assert np.array_equal(kept, expected), (
            f"for the groups {groups.tolist()} the images {np.flatnonzero(expected).tolist()} remain, "
            f"but you keep {np.flatnonzero(kept).tolist()}"
        )
