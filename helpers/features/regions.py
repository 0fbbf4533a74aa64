"""Regions of images: boxes of a detector, proposals without classes, and fixed grids.

Boxes are float32 (n, 4): x, y, width, height in pixels of the image.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from helpers.features import pooling
from helpers.features.extractor import check_rgb
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.networks import boxes, detectors
from helpers.networks.detectors import Detections, Detector, Prepared

#: Images that are read and computed at a time.
BATCH = 16

#: Long side in pixels at which selective search segments an image, and the minimum side of a proposal, relative to the
#: image's. Its time grows with the number of pixels.
PROPOSAL_SIDE, MIN_SIDE = 200, 0.1
#: Proposals of one image, and the IoU above which the smaller one of two is dropped. Of 130 objects in Imagenette
#: (boxes of the detector), 0.62 have a proposal with an IoU of 0.5 or more. With 0.6 it is 0.51, because many large
#: boxes are then alike, and with the 14 boxes of a grid 0.48 (`tests/measured/test_detector.py`).
PROPOSALS, PROPOSAL_IOU = 20, 0.4

#: Levels of a grid: level l has l × l boxes. Overlap of neighbors, relative to their side.
GRID_LEVELS, GRID_OVERLAP = 3, 0.4


@cache
def pretrained_detector() -> Detector:
    """`helpers.networks.detectors.pretrained`, opened once. Raises `WeightsUnavailable`."""
    return detectors.pretrained()


def detect(
    images: ImageSet | Sequence[str | Path | bytes | np.ndarray], detector: Detector | None = None, *,
    threshold: float | Mapping[str, float] = detectors.THRESHOLD, max_iou: float = boxes.NMS_IOU,
    limit: int = detectors.LIMIT, strict: bool = False,
) -> list[Detections]:  # fmt: skip
    """Find objects in images: one `Detections` for each image.

    Parameters
    ----------
    images : a set, or files, contents of files, or pixels: uint8 (height, width, 3) RGB.
    detector : by default the pretrained one.
    threshold, max_iou, limit : see `Detector.detect`.
    strict : raise `UnreadableImage` for the first image that cannot be read. By default such images have no detections,
        and one `UnreadableImageWarning` lists them.
    """
    detector = detector or pretrained_detector()
    found: list[Detections] = []
    failures: list[reading.UnreadableImage] = []
    for batch in _batches(images.paths if isinstance(images, ImageSet) else images, detector):
        readable = [image for image in batch if isinstance(image, Prepared)]
        computed = iter(detector.detect(readable, threshold, max_iou, limit))
        for image in batch:
            if isinstance(image, reading.UnreadableImage):
                if strict:
                    raise image
                failures.append(image)
                found.append(_none(detector))
            else:
                found.append(next(computed))
    reading.warn_unreadable(failures, len(found))
    return found


def _batches(
    images: Sequence[str | Path | bytes | np.ndarray], detector: Detector
) -> Iterator[list[Prepared | reading.UnreadableImage]]:
    """Read and resize images; the next batch is read while the current one is used."""

    def load(source: str | Path | bytes | np.ndarray) -> Prepared | reading.UnreadableImage:
        # Resized here, because a batch of large images would take gigabytes.
        try:
            return detector.prepare(check_rgb(source) if isinstance(source, np.ndarray) else reading.read_image(source))
        except reading.UnreadableImage as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(load, image) for image in images[:BATCH]]
        for start in range(0, len(images), BATCH):
            batch = [future.result() for future in ahead]
            ahead = [pool.submit(load, image) for image in images[start + BATCH :][:BATCH]]
            yield batch


def _none(detector: Detector) -> Detections:
    nothing = np.empty(0, np.float32)
    return Detections(nothing.reshape(0, 4), np.empty(0, np.int64), nothing, detector.class_names)


def propose(image: np.ndarray, limit: int = PROPOSALS, side: int = PROPOSAL_SIDE) -> np.ndarray:
    """Boxes that may contain an object of any class, by selective search: float32 (n, 4), the largest first.

    Uijlings et al., Selective Search for Object Recognition, 2013: similar neighbors of a segmentation are merged step
    by step, and each segment on the way gives a box. OpenCV orders them at random; here they are ordered by their area.

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB.
    limit : maximum number of boxes.
    side : the image is reduced to this long side in pixels, which bounds the time.
    """
    import cv2

    image = check_rgb(image)
    if limit < 1 or side < 1:
        raise ValueError(f"limit and side must be at least 1, got {limit} and {side}")
    height, width = image.shape[:2]
    scale = min(1, side / max(height, width))
    small = reading.resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    search.switchToSelectiveSearchFast()
    found = np.unique(np.asarray(search.process(), np.int64).reshape(-1, 4), axis=0)
    shape = np.array([small.shape[1], small.shape[0]])
    found = found[(found[:, 2:] >= MIN_SIDE * shape).all(axis=1)]
    area = found[:, 2].astype(np.float64) * found[:, 3] / shape.prod()
    kept = boxes.suppress(found, area, np.zeros(len(found)), PROPOSAL_IOU)[:limit]
    return boxes.clip(found[kept] * np.tile([width, height] / shape, 2), width, height)


def grid(width: int, height: int, levels: int = GRID_LEVELS, overlap: float = GRID_OVERLAP) -> np.ndarray:
    """Fixed boxes of an image: 1 × 1, 2 × 2, … levels × levels equal ones, which cover it: float32 (n, 4).

    overlap : of neighbors of a level, relative to their side, in 0 … 1 without 1.

    >>> grid(100, 50, levels=2, overlap=0).tolist()[1:3]
    [[0.0, 0.0, 50.0, 25.0], [50.0, 0.0, 50.0, 25.0]]
    """
    if levels < 1 or not 0 <= overlap < 1:
        raise ValueError(f"levels must be at least 1 and overlap from 0 to below 1, got {levels} and {overlap}")
    found = []
    for level in range(1, levels + 1):
        # The sides of a level, minus its overlaps, add up to the image's.
        side = 1 / (level - (level - 1) * overlap)
        starts = np.linspace(0, 1 - side, level)
        found += [(x, y, side, side) for y in starts for x in starts]
    return (np.array(found) * [width, height, width, height]).astype(np.float32)


def rmac_grid(width: int, height: int, levels: int = pooling.RMAC_LEVELS) -> np.ndarray:
    """The squares of R-MAC, see `helpers.features.pooling.squares`: float32 (n, 4)."""
    squares = pooling.squares(height, width, levels)
    return np.array([(left, top, side, side) for top, left, side in squares], np.float32)
