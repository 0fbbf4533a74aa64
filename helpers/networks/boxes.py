"""Boxes in images: x, y, width, height in pixels; their overlap, and non-maximum suppression."""

import numpy as np

#: Boxes of one class with a larger intersection over union (IoU) show the same object.
NMS_IOU = 0.5


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of each first box with each second box: (n, 4) and (m, 4) → float64 (n, m).

    Boxes are x, y, width, height. Two boxes without area have an IoU of 0.

    >>> iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 2, 2], [0, 0, 2, 2], [5, 5, 1, 1]])).round(3).tolist()
    [[0.333, 1.0, 0.0]]
    """
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    union = np.prod(a[:, 2:], axis=1)[:, None] + np.prod(b[:, 2:], axis=1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, max_iou: float = NMS_IOU) -> np.ndarray:
    """Non-maximum suppression in each class, by OpenCV: int64 rows of the boxes that are kept, best score first.

    A box is removed if it overlaps a box of its class with a better score, which is kept, by more than ``max_iou``.

    Parameters
    ----------
    boxes : floating (n, 4), x, y, width, height.
    scores : floating (n,), in 0 … 1.
    classes : integers (n,).
    max_iou : in 0 … 1.
    """
    import cv2

    if not 0 <= max_iou <= 1:
        raise ValueError(f"max_iou must be from 0 to 1, got {max_iou}")
    if not len(boxes):
        return np.empty(0, np.int64)
    # The threshold is below all scores, because OpenCV removes scores that equal it.
    kept = cv2.dnn.NMSBoxesBatched(
        np.asarray(boxes, np.float64),  # type: ignore[arg-type]  # OpenCV's stubs only have lists
        np.asarray(scores, np.float32),  # type: ignore[arg-type]
        np.asarray(classes, np.int32),  # type: ignore[arg-type]
        -1.0,
        max_iou,
    )
    return np.asarray(kept, np.int64)


def clip(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """The parts of boxes that are inside of an image: (n, 4) → float32 (n, 4).

    A box outside of it gets a width or height of 0.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    size = np.array([width, height])
    low = np.clip(boxes[:, :2], 0, size)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size)
    return np.hstack([low, np.maximum(high - low, 0)]).astype(np.float32)
