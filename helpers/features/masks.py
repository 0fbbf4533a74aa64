"""Masks of objects: the pixels of a box that belong to its object, by GrabCut, and images without their background."""

from collections.abc import Sequence

import numpy as np

from helpers.features.extractor import check_rgb
from helpers.features.regions import check_box
from helpers.networks.boxes import clip

#: Rounds of GrabCut: each fits the colors of object and background, and cuts again.
ITERATIONS = 5
#: Color of the removed background, which the photographs of the sample have, too.
FILL = 255


def grab_cut(image: np.ndarray, box: Sequence[float] | np.ndarray, iterations: int = ITERATIONS) -> np.ndarray:
    """The pixels of the object in a box, by GrabCut (Rother, Kolmogorov & Blake 2004): bool (height, width).

    Pixels outside of the box are background. Inside of it, GrabCut divides pixels by two mixtures of colors and by the
    edges between them. If the box is the whole image, there is no background to learn from, and all its pixels belong
    to the object.

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB.
    box : x, y, width, height in pixels; see `helpers.features.regions.check_box`.
    """
    import cv2

    height, width = check_rgb(image).shape[:2]
    x, y, w, h = np.round(check_box(box, width, height)).astype(int).tolist()
    inside = box_mask((x, y, w, h), width, height)
    if inside.all():
        return inside
    labels = np.zeros((height, width), np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # The mixtures are initialized by k-means with OpenCV's random numbers.
    cv2.setRNGSeed(0)
    cv2.grabCut(bgr, labels, (x, y, w, h), background, foreground, iterations, cv2.GC_INIT_WITH_RECT)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def box_mask(box: Sequence[float] | np.ndarray, width: int, height: int) -> np.ndarray:
    """The pixels of a box in an image of this size: bool (height, width)."""
    x, y, w, h = np.round(clip(np.asarray(box), width, height)[0]).astype(int)
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks, bool (height, width); 0 if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def without_background(image: np.ndarray, mask: np.ndarray, fill: int = FILL) -> np.ndarray:
    """The image, uint8 (height, width, 3), with one gray value at all pixels outside of the mask."""
    return np.where(mask[..., None], image, np.uint8(fill))
