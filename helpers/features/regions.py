"""Regions of images: boxes of a detector, proposals without classes, and fixed grids.

Boxes are float32 (n, 4): x, y, width, height in pixels of the upright image, as `helpers.images.reading.read_image`
gives it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from helpers.features.extractor import check_rgb
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, computed_ahead
from helpers.networks import boxes, detectors
from helpers.networks.detectors import Detections, Detector, Prepared

#: Files, contents of files, or pixels: uint8 (height, width, 3) RGB.
Images = ImageSet | Sequence[str | Path | bytes | np.ndarray]

Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")

#: Images that are computed at a time, and threads that read them.
BATCH, WORKERS = 16, 2

#: Sources of regions, see `region_source`.
SOURCES = ("detector", "grid", "proposals")
#: Maximum number of regions of an image.
LIMIT = 30
#: Of two boxes with a larger IoU, one is kept; a box with a larger IoU with the whole image is dropped.
MAX_IOU, WHOLE_IOU = 0.7, 0.9
#: Boxes with a shorter side, in pixels, are dropped.
SHORTEST = 16
#: Minimum score of the detections that become regions. It is lower than that of a shown detection, because a box may be
#: good although its class is wrong. Chosen on scenes that `data/make_scenes.py` draws with another seed: 0.05 had a
#: better mAP than 0.1, 0.2, 0.3 and 0.5.
REGION_THRESHOLD = 0.05
#: Side in pixels of the pretrained detector's input for regions. It takes two fifths of the time of the 300 pixels of
#: `detect`. Most things have none of its classes, and a smaller input puts more boxes around them: on 900 scenes that
#: `data/make_scenes.py` draws with three other seeds, the mAP of objects under a quarter is 0.429 instead of 0.415.
#: Objects of its classes are found less often, in 0.88 instead of 0.96 of photographs of four classes.
REGION_INPUT = 160
#: Maximum number of regions of an image that come from a detector. With 30, the mAP of these scenes is 0.429 instead of
#: 0.419, from a third more vectors.
DETECTED = 20
#: A box that a person gives must have sides of at least this length, in pixels.
SHORTEST_GIVEN = 8

#: Long side in pixels at which selective search segments an image, and the minimum side of a proposal, relative to the
#: image's. Its time grows with the number of pixels. The mAP of the scenes above is 0.427; with 200 pixels, a blur of
#: 0.8 and texture, it is 0.436, in three times the time.
PROPOSAL_SIDE, MIN_SIDE = 112, 0.1
#: The scale of its segmentation (k of Felzenszwalb & Huttenlocher 2004), and the blur before it.
PROPOSAL_SCALE, PROPOSAL_SIGMA = 200, 0.4
#: What it compares of neighbors, as in OpenCV's names of its strategies. Texture would add a third of the time.
PROPOSAL_SIMILARITIES = ("Color", "Size", "Fill")
#: Proposals of one image, and the IoU above which the smaller one of two is dropped. Of 130 objects in Imagenette
#: (boxes of the detector), 0.58 have a proposal with an IoU of 0.5 or more; 0.48 have one of the 14 boxes of a grid
#: of three levels (`tests/measured/test_detector.py`), and 0.52 one of the 30 boxes of four levels. OpenCV's "fast"
#: mode makes more segmentations, takes nine times as long, and covers 0.61.
PROPOSALS, PROPOSAL_IOU = 20, 0.4

#: Levels of a grid: level l has l × l boxes. Overlap of neighbors, relative to their side. With four levels instead of
#: three, more queries of two objects find their scene (0.83 instead of 0.79 of 100 on the scenes of notebook 15, and
#: 0.65 instead of 0.60 on scenes of another seed).
GRID_LEVELS, GRID_OVERLAP = 4, 0.4


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one image, the best ones first.

    boxes : float32 (n, 4), whole pixels inside of the image, without the whole image.
    class_names : the detected class of each box; None for boxes of a grid or a proposer.
    scores : float32 (n,): the detector's score; 1 for boxes of a grid or a proposer.
    """

    boxes: np.ndarray
    class_names: tuple[str | None, ...]
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, eq=False)
class RegionSource:
    """Finds the regions of images: a detector, a grid, or proposals; see `region_source`.

    name : one of `SOURCES`.
    settings : everything that changes the regions, as plain JSON; part of the fingerprint.
    load : what ``find_loaded`` needs of an image, RGB and upright. Threads call it.
    find_loaded : the regions of a batch of images, given the results of ``load``.
    """

    name: str
    settings: dict
    load: Callable[[Image.Image], Any]
    find_loaded: Callable[[list], list[Regions]]

    @property
    def fingerprint(self) -> str:
        """The name and a hash of all settings. Equal fingerprints find the same regions."""
        common = {"limit": LIMIT, "iou": [MAX_IOU, WHOLE_IOU], "shortest": SHORTEST}
        digest = hashlib.sha256(json.dumps(self.settings | common, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    def find(self, images: Images) -> list[Regions | None]:
        """The regions of each image; None for an image that cannot be read. One warning lists these images.

        Boxes with nearly the same place are found once, whatever their classes; boxes that are tiny or nearly the whole
        image are left out; and an image has at most `LIMIT` regions.
        """
        found = list(computed_each(images, self.load, self.find_loaded))
        reading.warn_unreadable([each for each in found if isinstance(each, UnreadableImage)], len(found))
        return [None if isinstance(each, UnreadableImage) else each for each in found]


def region_source(name: str, detector: Detector | None = None) -> RegionSource:
    """A source of regions by its name in `SOURCES`; a ValueError for another name.

    detector : for the source ``detector``, by default the pretrained one with the input `REGION_INPUT`.
    """
    if name not in SOURCES:
        raise ValueError(f"no source of regions is called {name!r}; known: {', '.join(SOURCES)}")
    if name == "detector":
        return _detector_source(detector or pretrained_detector(REGION_INPUT))
    settings: dict[str, dict] = {
        "grid": {"levels": GRID_LEVELS, "overlap": GRID_OVERLAP},
        "proposals": {
            "proposals": PROPOSALS, "side": PROPOSAL_SIDE, "minimum": MIN_SIDE, "nms": PROPOSAL_IOU,
            "scale": PROPOSAL_SCALE, "sigma": PROPOSAL_SIGMA, "similarities": PROPOSAL_SIMILARITIES,
        },
    }  # fmt: skip

    def load(image: Image.Image) -> Regions:
        found = grid(image.width, image.height) if name == "grid" else propose(image)
        return distinct(found, np.ones(len(found)), [None] * len(found), image.width, image.height)

    return RegionSource(name, settings[name], load, list)


def _detector_source(detector: Detector) -> RegionSource:
    settings = {
        "detector": detector.fingerprint, "threshold": REGION_THRESHOLD, "nms": boxes.NMS_IOU, "most": DETECTED,
    }  # fmt: skip

    def find_loaded(images: list[Prepared]) -> list[Regions]:
        found = detector.detect(images, REGION_THRESHOLD)
        return [
            distinct(one.boxes, one.scores, one.names, image.width, image.height, DETECTED)
            for one, image in zip(found, images, strict=True)
        ]

    return RegionSource("detector", settings, detector.prepare, find_loaded)


def distinct(
    found: np.ndarray, scores: np.ndarray, class_names: Sequence[str | None], width: int, height: int,
    limit: int = LIMIT,
) -> Regions:  # fmt: skip
    """The regions of an image from boxes (n, 4) with their scores (n,): large enough, different, and at most ``limit``.

    Of nearly equal boxes, the one with the best score is kept, with its class.
    """
    kept = (found[:, 2:] >= SHORTEST).all(axis=1)
    kept &= boxes.iou(found, np.array([[0, 0, width, height]]))[:, 0] <= WHOLE_IOU
    rows = np.flatnonzero(kept)
    # Equal scores keep their order.
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    order = np.linspace(1, 0.5, len(rows))
    rows = rows[boxes.suppress(found[rows], order, np.zeros(len(rows)), MAX_IOU)[:limit]]
    return Regions(whole_pixels(found[rows]), tuple(class_names[row] for row in rows), scores[rows].astype(np.float32))


def whole_pixels(found: np.ndarray) -> np.ndarray:
    """Boxes with their sides moved to whole pixels: floating (n, 4) → float32 (n, 4)."""
    low = np.rint(found[:, :2])
    high = np.maximum(np.rint(found[:, :2] + found[:, 2:]), low + 1)
    return np.hstack([low, high - low]).astype(np.float32)


def check_box(box: Sequence[float] | np.ndarray, width: int, height: int) -> np.ndarray:
    """A box that a person gave for an image of this size, as float32 (4,); a ValueError says what is wrong with it."""
    found = np.asarray(box, np.float64)
    text = f"the box {', '.join(f'{number:g}' for number in found.ravel())}"
    if found.shape != (4,) or not np.isfinite(found).all():
        raise ValueError(f"{text} must be four finite numbers: x, y, width, height")
    x, y, w, h = found
    corners = " Are these the corners?" if x < w <= width and y < h <= height else ""
    order = f"A box is x, y, width, height, in pixels.{corners}"
    if w <= 0 or h <= 0:
        raise ValueError(f"{text} must have a positive width and height. {order}")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise ValueError(f"{text} is outside of the image, which has {width} × {height} pixels. {order}")
    # Numbers that were computed in float32 may exceed it by a rounding error.
    if min(x, y) < 0 or x + w > width * (1 + 1e-6) or y + h > height * (1 + 1e-6):
        raise ValueError(f"{text} is partly outside of the image, which has {width} × {height} pixels. {order}")
    if min(w, h) < SHORTEST_GIVEN:
        raise ValueError(f"{text} is too small: both sides need at least {SHORTEST_GIVEN} pixels. {order}")
    return boxes.clip(found, width, height)[0]


@cache
def pretrained_detector(size: int = detectors.PRETRAINED_SIZE) -> Detector:
    """`helpers.networks.detectors.pretrained`, opened once for each size. Raises `WeightsUnavailable`."""
    return detectors.pretrained(size)


def detect(
    images: Images, detector: Detector | None = None, *,
    threshold: float | Mapping[str, float] = detectors.THRESHOLD, limit: int = detectors.LIMIT, strict: bool = False,
) -> list[Detections]:  # fmt: skip
    """Find objects in images: one `Detections` for each image.

    Parameters
    ----------
    images : a set, or files, contents of files, or pixels: uint8 (height, width, 3) RGB.
    detector : by default the pretrained one.
    threshold, limit : see `Detector.detect`.
    strict : raise `UnreadableImage` for the first image that cannot be read. By default such images have no detections,
        and one `UnreadableImageWarning` lists them.
    """
    detector = detector or pretrained_detector()
    compute = partial(detector.detect, threshold=threshold, limit=limit)
    found = []
    for each in computed_each(images, detector.prepare, compute):
        if strict and isinstance(each, UnreadableImage):
            raise each
        found.append(each)
    reading.warn_unreadable([each for each in found if isinstance(each, UnreadableImage)], len(found))
    numbers = np.empty(0, np.float32)
    nothing = Detections(numbers.reshape(0, 4), np.empty(0, np.int64), numbers, detector.class_names)
    return [nothing if isinstance(each, UnreadableImage) else each for each in found]


def loaded(images: Images, load: Callable[[Image.Image], Loaded], ahead: int) -> Iterator[Loaded | UnreadableImage]:
    """Read images and call ``load`` on each, RGB and upright, in threads; the results are in order.

    ahead : number of images that are loaded before they are used. They stay in memory.
    """

    def one(source: str | Path | bytes | np.ndarray) -> Loaded | UnreadableImage:
        try:
            return load(_pillow(source)) if isinstance(source, np.ndarray) else reading.decode(source, load)
        except UnreadableImage as error:
            return error

    with ThreadPoolExecutor(WORKERS) as pool:
        sources: Iterable[str | Path | bytes | np.ndarray] = images.paths if isinstance(images, ImageSet) else images
        for _, found in computed_ahead(pool, one, sources, ahead):
            yield found


def computed_each(
    images: Images, load: Callable[[Image.Image], Loaded], compute: Callable[[list[Loaded]], Iterable[Computed]]
) -> Iterator[Computed | UnreadableImage]:
    """Read images, call ``load`` on each in threads, and ``compute`` on batches of what it returns.

    The results are in order. That of an image that cannot be read is the error.
    """
    # Not the pixels, because a batch of large images would take gigabytes.
    items = loaded(images, load, 2 * BATCH)
    while batch := list(islice(items, BATCH)):
        computed = iter(compute([item for item in batch if not isinstance(item, UnreadableImage)]))
        yield from (item if isinstance(item, UnreadableImage) else next(computed) for item in batch)


def _pillow(image: np.ndarray | Image.Image) -> Image.Image:
    return Image.fromarray(check_rgb(image)) if isinstance(image, np.ndarray) else image


def propose(image: np.ndarray | Image.Image, limit: int = PROPOSALS) -> np.ndarray:
    """Boxes that may contain an object of any class, by selective search: float32 (n, 4), the largest first.

    Uijlings et al., Selective Search for Object Recognition, 2013: similar neighbors of a segmentation are merged step
    by step, and each segment on the way gives a box. OpenCV orders them at random; here they are ordered by their area.

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB, or Pillow's image.
    limit : maximum number of boxes.
    """
    import cv2

    image = _pillow(image)
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    width, height = image.size
    scale = min(1, PROPOSAL_SIDE / max(height, width))
    small = reading.resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    segmentation = cv2.ximgproc.segmentation
    search = segmentation.createSelectiveSearchSegmentation()
    search.addImage(cv2.cvtColor(small, cv2.COLOR_RGB2HSV))
    search.addGraphSegmentation(segmentation.createGraphSegmentation(PROPOSAL_SIGMA, PROPOSAL_SCALE))
    similarity = segmentation.createSelectiveSearchSegmentationStrategyMultiple()
    for name in PROPOSAL_SIMILARITIES:
        similarity.addStrategy(getattr(segmentation, f"createSelectiveSearchSegmentationStrategy{name}")(), 1)
    search.addStrategy(similarity)
    found = np.unique(np.asarray(search.process(), np.int64).reshape(-1, 4), axis=0)
    shape = np.array([small.shape[1], small.shape[0]])
    found = found[(found[:, 2:] >= MIN_SIDE * shape).all(axis=1)]
    area = found[:, 2].astype(np.float64) * found[:, 3] / shape.prod()
    kept = boxes.suppress(found, area, np.zeros(len(found)), PROPOSAL_IOU)[:limit]
    return boxes.clip(found[kept] * np.tile([width, height] / shape, 2), width, height)


def grid(width: int, height: int, levels: int = GRID_LEVELS, overlap: float = GRID_OVERLAP) -> np.ndarray:
    """Fixed boxes of an image: 1 × 1, 2 × 2, … levels × levels equal ones, which cover it: float32 (n, 4).

    overlap : of neighbors of a level, relative to their side, at least 0 and less than 1.

    >>> grid(100, 50, levels=2, overlap=0).tolist()[1:3]
    [[0.0, 0.0, 50.0, 25.0], [50.0, 0.0, 50.0, 25.0]]
    """
    if levels < 1 or not 0 <= overlap < 1:
        raise ValueError(
            f"levels must be at least 1 and overlap at least 0 and less than 1, got {levels} and {overlap}"
        )
    found = []
    for level in range(1, levels + 1):
        # The sides of a level, minus its overlaps, add up to the image's.
        side = 1 / (level - (level - 1) * overlap)
        starts = np.linspace(0, 1 - side, level)
        found += [(x, y, side, side) for y in starts for x in starts]
    return (np.array(found) * [width, height, width, height]).astype(np.float32)
