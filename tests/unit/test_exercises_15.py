"""The checks of notebook 15's exercises accept correct solutions only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise
from helpers.networks import boxes


def suppress(candidates, scores, classes, max_iou):
    """OpenCV's suppression."""
    return boxes.suppress(candidates, scores, classes, max_iou).tolist()


def by_loop(candidates, scores, classes, max_iou):
    kept = []
    for row in np.argsort(-scores).tolist():
        rivals = [other for other in kept if classes[other] == classes[row]]
        if all(iou(candidates[row], candidates[other]) <= max_iou for other in rivals):
            kept.append(row)
    return kept


def iou(first, second):
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    common = max(0.0, across) * max(0.0, down)
    return common / (first[2] * first[3] + second[2] * second[3] - common)


def test_correct_solutions():
    assert check_exercise("15.1", 9 / 19) and check_exercise("15.1", 0.474)
    assert check_exercise("15.2", suppress)
    assert check_exercise("15.2", by_loop)


@pytest.mark.parametrize("overlap", [900 / 1200, 900 / 1600, 900 / 2800, 0.47, 1, "0.474"])
def test_a_wrong_overlap(overlap):
    assert check_exercise("15.1", overlap) is False


def in_place(candidates, scores, classes, max_iou):
    kept = suppress(candidates, scores, classes, max_iou)
    candidates[:, 2:] += candidates[:, :2]
    return kept


@pytest.mark.parametrize(
    "function",
    [
        lambda *arguments: suppress(*arguments[:2], np.zeros(len(arguments[0])), arguments[3]),
        lambda *arguments: suppress(*arguments)[::-1],
        lambda *arguments: sorted(suppress(*arguments)),
        lambda *arguments: suppress(*arguments[:3], 0.5),
        lambda *arguments: list(range(len(arguments[0]))),
        lambda *arguments: suppress(*arguments) + suppress(*arguments),
        in_place,
    ],
)
def test_a_wrong_suppression(function):
    assert check_exercise("15.2", function) is False


def test_a_missing_solution():
    assert check_exercise("15.1", None) is None
    assert check_exercise("15.2", lambda candidates, scores, classes, max_iou: None) is None
