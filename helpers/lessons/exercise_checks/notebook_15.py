"""Checks of the exercises of notebook 15: the IoU of two boxes, and non-maximum suppression in each class."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer
from helpers.networks import boxes


def exercise_1(overlap: float) -> None:
    """The IoU of (0, 0, 40, 30) and (10, 0, 40, 40)."""
    common, first, second = 30 * 30, 40 * 30, 40 * 40
    assert abs(overlap - common / first) > 0.0005 and abs(overlap - common / second) > 0.0005, (
        "divide by the area of both boxes together, not of one of them"
    )
    assert abs(overlap - common / (first + second)) > 0.0005, "the common area is in both areas: count it once"
    assert abs(overlap - common / (first + second - common)) < 0.00051, "common area / area of both boxes together"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, np.ndarray, float], list[int]]) -> None:
    """Suppression in each class, compared with `boxes.suppress` on random boxes."""
    rng = np.random.default_rng(15)
    for n, count, max_iou in ((1, 1, 0.5), (30, 1, 0.3), (60, 4, 0.5), (60, 3, 0.7)):
        corners, sides = rng.uniform(0, 40, (n, 2)), rng.uniform(10, 40, (n, 2))
        candidates = np.hstack([corners, sides])
        scores, classes = rng.permutation(n) / n + 0.001, rng.integers(0, count, n)
        found = np.asarray(answer(function, candidates, scores, classes, max_iou))
        assert found.ndim == 1 and len(set(found.tolist())) == len(found), "return each kept row once, in one list"
        expected = boxes.suppress(candidates, scores, classes, max_iou).tolist()
        everywhere = boxes.suppress(candidates, scores, np.zeros(n, int), max_iou).tolist()
        assert expected == everywhere or sorted(found) != sorted(everywhere), "a box removes no box of another class"
        assert sorted(found) == sorted(expected), (
            f"a kept box removes each box of its class that has a lower score and an IoU above {max_iou}"
        )
        assert found.tolist() == expected, "return the best score first"
