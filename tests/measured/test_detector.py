"""The pretrained detector on classes of real data sets: how often it finds the class, and its time."""

from time import perf_counter

import numpy as np
import pytest

from helpers import paths
from helpers.features import regions
from helpers.images import caltech101, imagenet

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
