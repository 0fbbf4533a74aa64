"""The pretrained detector on classes of real data sets: how often it finds the class, and its time."""

from time import perf_counter

import numpy as np
import pytest

from helpers import paths
from helpers.features import regions
from helpers.images import caltech101, imagenet, reading
from helpers.networks import boxes

pytestmark = [
    pytest.mark.measured,
    pytest.mark.ci,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: the detections need the data sets; set LOOKALIKE_MIRROR to their folder",
    ),
]

COUNT = 30


@pytest.mark.parametrize(
    ("load", "folder", "name", "minimum"),
    [
        (caltech101.load, "chair", "Chair", 26),
        (caltech101.load, "laptop", "Laptop", 27),
        (caltech101.load, "dalmatian", "Dog", 28),
        (imagenet.imagenette, "English springer", "Dog", 26),
    ],
)
def test_the_class_is_found(detector, load, folder, name, minimum):
    images = load()
    rows = np.flatnonzero(images.labels == images.class_names.index(folder))[:COUNT]
    started = perf_counter()
    found = regions.detect(images.subset(rows), detector)
    milliseconds = 1000 * (perf_counter() - started) / COUNT
    count = sum(name in each.names for each in found)
    print(f"{folder}: {name} in {count} of {COUNT} images, {milliseconds:.0f} ms an image with reading")
    assert len(found) == COUNT and count >= minimum
    assert milliseconds < 500  # 15 on two idle cores


def test_proposals_cover_more_objects_than_a_grid(detector):
    """Objects are the boxes of the detector; an IoU of 0.5 covers one."""
    images = imagenet.imagenette()
    images = images.subset(np.random.default_rng(0).choice(len(images), 160, replace=False))
    proposed, fixed, small = [], [], []
    for path, found in zip(images.paths, regions.detect(images, detector, threshold=0.4), strict=True):
        if len(found):
            image = reading.read_image(path)
            height, width = image.shape[:2]
            proposed += boxes.iou(found.boxes, regions.propose(image)).max(axis=1).tolist()
            fixed += boxes.iou(found.boxes, regions.grid(width, height, levels=3)).max(axis=1).tolist()
            small += (found.boxes[:, 2:].prod(axis=1) < width * height / 4).tolist()
    covered, by_grid = np.array(proposed) >= 0.5, np.array(fixed) >= 0.5
    print(f"{len(small)} objects: proposals {covered.mean():.3f}, grid {by_grid.mean():.3f}")
    print(f"{sum(small)} under a quarter: proposals {covered[small].mean():.3f}, grid {by_grid[small].mean():.3f}")
    assert len(small) > 100 and covered.mean() > by_grid.mean() + 0.08
    assert covered[small].mean() > by_grid[small].mean() + 0.1
