"""Boxes: intersection over union by hand, and non-maximum suppression against a slow implementation."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.networks import boxes

#: No quotient of small whole numbers, so no IoU equals it.
MAX_IOU = np.pi / 7

side = st.integers(1, 30)
corner = st.integers(0, 60)
found_boxes = st.lists(
    st.tuples(corner, corner, side, side, st.integers(0, 2), st.integers(1, 20).map(lambda n: n / 20)), max_size=25
)


def slow_iou(a, b):
    across = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return across * down / (a[2] * a[3] + b[2] * b[3] - across * down)


def slow_suppress(found, scores, classes, max_iou):
    kept = []
    for row in sorted(range(len(found)), key=lambda row: -scores[row]):
        same = [other for other in kept if classes[other] == classes[row]]
        if all(slow_iou(found[row], found[other]) <= max_iou for other in same):
            kept.append(row)
    return kept


def test_iou_by_hand():
    whole = [0, 0, 10, 10]
    cases = {
        (0, 0, 10, 10): 1.0,
        (5, 0, 10, 10): 50 / 150,
        (5, 5, 10, 10): 25 / 175,
        (2, 2, 5, 5): 25 / 100,
        (10, 0, 10, 10): 0.0,  # they share a side
        (20, 20, 1, 1): 0.0,
        (3, 3, 0, 4): 0.0,
    }
    assert boxes.iou([whole], list(cases)) == pytest.approx(np.array([list(cases.values())]))
    assert boxes.iou([[1, 1, 0, 0]], [[1, 1, 0, 0]]).tolist() == [[0.0]]
    assert boxes.iou(np.empty((0, 4)), [whole]).shape == (0, 1)


@given(found_boxes)
def test_iou_agrees_with_a_loop(rows):
    found = np.array([row[:4] for row in rows]).reshape(-1, 4)
    expected = [[slow_iou(a, b) for b in found] for a in found]
    assert np.allclose(boxes.iou(found, found), np.array(expected).reshape(len(found), len(found)))


@given(found_boxes)
def test_suppression_agrees_with_a_loop(rows):
    found = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    classes, scores = (np.array([row[column] for row in rows]) for column in (4, 5))
    kept = boxes.suppress(found, scores, classes, MAX_IOU)
    assert kept.tolist() == slow_suppress(found, scores, classes, MAX_IOU)
    assert kept.dtype == np.int64


@given(found_boxes)
def test_suppression_of_one_class_is_nmsboxes(rows):
    found = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[5] for row in rows], np.float32)
    expected = cv2.dnn.NMSBoxes(found, scores, 0.0, MAX_IOU)
    assert boxes.suppress(found, scores, np.zeros(len(found)), MAX_IOU).tolist() == list(expected)


def test_suppression_with_fractions_of_pixels_and_a_score_of_zero():
    found = np.array([[0.1, 0.1, 0.2, 0.2], [0.15, 0.15, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1]])
    assert boxes.suppress(found, [0.9, 0.8, 0.0], [0, 0, 0], 0.3).tolist() == [0, 2]
    assert boxes.suppress(found, [0.8, 0.9, 0.0], [0, 1, 0], 0.3).tolist() == [1, 0, 2]


def test_a_wrong_threshold():
    with pytest.raises(ValueError, match="from 0 to 1, got 50"):
        boxes.suppress([[0, 0, 1, 1]], [1], [0], 50)


def test_clipping():
    found = boxes.clip([[-5, -5, 10, 10], [2, 3, 4, 5], [90, 40, 20, 20], [120, 0, 5, 5]], 100, 50)
    assert found.tolist() == [[0, 0, 5, 5], [2, 3, 4, 5], [90, 40, 10, 10], [100, 0, 0, 5]]
    assert found.dtype == np.float32
