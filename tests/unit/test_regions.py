"""Regions: detections of files and pixels, proposals without classes, and fixed grids."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.features import pooling, regions
from helpers.images import UnreadableImage, UnreadableImageWarning, pairs, reading, samples
from helpers.networks import boxes, detectors
from tests.unit.test_detector_files import BOXES, SIDE, columns, save, scene

sides = st.integers(1, 700)


@pytest.fixture
def small(tmp_path):
    """A detector of boxes that are red, green or blue."""
    return detectors.from_file(*save(tmp_path, columns))


def write(path, image):
    cv2.imwrite(str(path), image[:, :, ::-1])
    return path


def test_files_and_pixels_have_the_same_detections(small, tmp_path):
    images = [scene(SIDE, SIDE, box, color) for box in BOXES for color in ((255, 0, 0), (0, 0, 255))] * 4
    files = [write(tmp_path / f"{number}.png", image) for number, image in enumerate(images)]
    assert len(images) > regions.BATCH
    found = [regions.detect(given, small) for given in (images, files, [file.read_bytes() for file in files])]
    for one in found:
        assert [each.names for each in one] == [["red"], ["blue"]] * 12
        assert [each.boxes[0].tolist() for each in one] == [[*map(float, box)] for box in BOXES for _ in "rb"] * 4


def test_an_unreadable_image_has_no_detections(small, tmp_path):
    image = scene(SIDE, SIDE, BOXES[0], (255, 0, 0))
    files = [write(tmp_path / "a.png", image), tmp_path / "absent.png", write(tmp_path / "b.png", image)]
    with pytest.warns(UnreadableImageWarning, match=r"1 of 3 images .*\n.*absent.png"):
        found = regions.detect(files, small)
    assert [each.names for each in found] == [["red"], [], ["red"]] and found[1].boxes.shape == (0, 4)
    with pytest.raises(UnreadableImage, match="absent.png"):
        regions.detect(files, small, strict=True)


def test_no_images(small):
    assert regions.detect([], small) == []


def test_pixels_of_another_type(small):
    with pytest.raises(ValueError, match="must be uint8"):
        regions.detect([np.zeros((4, 4, 3))], small)


def test_a_set_of_images(small):
    images = samples.photos().subset(np.arange(3))
    assert len(regions.detect(images, small)) == 3


# ---- proposals ----------------------------------------------------------------------------------------


def test_a_box_of_the_proposals_covers_an_object():
    image = np.full((240, 320, 3), 90, np.uint8)
    objects = [(40, 60, 80, 100), (200, 30, 90, 60)]
    for (x, y, w, h), color in zip(objects, ((200, 30, 30), (30, 200, 60)), strict=True):
        image[y : y + h, x : x + w] = color
    found = regions.propose(image)
    assert boxes.iou(objects, found).max(axis=1).min() > 0.75


def test_proposals_of_a_photograph():
    image = reading.read_image(pairs.box()[1])
    found = regions.propose(image)
    assert 5 <= len(found) <= regions.PROPOSALS and found.dtype == np.float32
    area = found[:, 2] * found[:, 3]
    assert (np.diff(area) <= 0).all()
    assert np.triu(boxes.iou(found, found), 1).max() <= regions.PROPOSAL_IOU + 0.01
    every = regions.propose(image, limit=1000)
    assert len(every) > len(found) and np.array_equal(every[: len(found)], found)
    assert (every[:, 2:] >= np.array(image.shape[1::-1]) * regions.MIN_SIDE - 1e-3).all()
    assert ((found[:, :2] + found[:, 2:]) <= np.array(image.shape[1::-1]) + 1e-3).all()
    # OpenCV's order is random, so two calls would differ without an order of our own.
    assert np.array_equal(found, regions.propose(image))


@pytest.mark.parametrize("shape", [(20, 20), (1, 1), (3, 500)])
def test_proposals_of_a_small_image(shape):
    found = regions.propose(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    assert len(found) <= regions.PROPOSALS and (found[:, :2] + found[:, 2:] <= np.array(shape[::-1]) + 1e-3).all()


def test_wrong_settings_of_proposals():
    with pytest.raises(ValueError, match="at least 1, got 0 and 200"):
        regions.propose(np.zeros((4, 4, 3), np.uint8), limit=0)


# ---- grids --------------------------------------------------------------------------------------------


def test_a_grid_by_hand():
    assert regions.grid(100, 60, levels=2, overlap=0.5).tolist() == pytest.approx(
        np.array(
            [
                [0, 0, 100, 60],
                [0, 0, 200 / 3, 40], [100 / 3, 0, 200 / 3, 40], [0, 20, 200 / 3, 40], [100 / 3, 20, 200 / 3, 40],
            ]
        ),
        rel=1e-5,
    )  # fmt: skip


@given(sides, sides, st.integers(1, 4), st.floats(0, 0.8))
def test_each_level_of_a_grid_covers_the_image(width, height, levels, overlap):
    found = regions.grid(width, height, levels, overlap)
    assert len(found) == sum(level**2 for level in range(1, levels + 1))
    for level in range(1, levels + 1):
        start = sum(each**2 for each in range(1, level))
        part = found[start : start + level**2]
        assert part[:, :2].min(axis=0).tolist() == [0, 0]
        assert (part[:, :2] + part[:, 2:]).max(axis=0) == pytest.approx([width, height], rel=1e-5)
        if level > 1:
            first, second = part[0], part[1]
            assert first[0] + first[2] - second[0] == pytest.approx(overlap * first[2], abs=1e-3 * width)


@given(sides, sides)
def test_the_grid_of_rmac_has_its_squares(width, height):
    found = regions.rmac_grid(width, height)
    assert [(y, x, w) for x, y, w, _ in found.tolist()] == pooling.squares(height, width)
    assert (found[:, 2] == found[:, 3]).all()
    assert (found[:, :2] + found[:, 2:] <= [width, height]).all()


@pytest.mark.parametrize(("levels", "overlap"), [(0, 0.4), (2, 1.0), (2, -0.1)])
def test_wrong_settings_of_a_grid(levels, overlap):
    with pytest.raises(ValueError, match="overlap from 0 to below 1"):
        regions.grid(10, 10, levels, overlap)
