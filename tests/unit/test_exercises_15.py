"""The checks of notebook 15's exercises accept correct solutions only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise
from helpers.networks import boxes


def suppress(candidates, scores, classes, max_iou):
    """OpenCV's suppression."""
    return boxes.suppress(candidates, scores, classes, max_iou).tolist()


def test_correct_solutions():
    assert check_exercise("15.1", 9 / 19) and check_exercise("15.1", 0.474)
    assert check_exercise("15.2", suppress)


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
