"""Regions: detections of files and pixels, proposals without classes, and fixed grids."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.features import regions
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
    found = regions.propose(image, limit=8)
    assert len(found) == 8 and found.dtype == np.float32
    area = found[:, 2] * found[:, 3]
    assert (np.diff(area) <= 0).all()
    assert np.triu(boxes.iou(found, found), 1).max() <= regions.PROPOSAL_IOU + 0.01
    every = regions.propose(image, limit=1000)
    assert len(every) > len(found) and np.array_equal(every[: len(found)], found)
    assert (every[:, 2:] >= np.array(image.shape[1::-1]) * regions.MIN_SIDE - 1e-3).all()
    assert ((found[:, :2] + found[:, 2:]) <= np.array(image.shape[1::-1]) + 1e-3).all()
    # OpenCV's order is random, so two calls would differ without an order of our own.
    assert np.array_equal(found, regions.propose(image, limit=8))


@pytest.mark.parametrize("shape", [(20, 20), (1, 1), (3, 500)])
def test_proposals_of_a_small_image(shape):
    found = regions.propose(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    assert len(found) <= regions.PROPOSALS and (found[:, :2] + found[:, 2:] <= np.array(shape[::-1]) + 1e-3).all()


def test_wrong_settings_of_proposals():
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
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


@pytest.mark.parametrize(("levels", "overlap"), [(0, 0.4), (2, 1.0), (2, -0.1)])
def test_wrong_settings_of_a_grid(levels, overlap):
    with pytest.raises(ValueError, match="overlap at least 0 and less than 1"):
        regions.grid(10, 10, levels, overlap)


# ---- regions of images --------------------------------------------------------------------------------


def test_the_regions_of_a_detector(small, tmp_path):
    """Box 0 is red and blue, which is one region; an image without objects has none."""
    files = [write(tmp_path / "a.png", scene(SIDE, SIDE, BOXES[0], (255, 0, 250))), tmp_path / "absent.png"]
    files.append(write(tmp_path / "b.png", np.zeros((SIDE, SIDE, 3), np.uint8)))
    source = regions.region_source("detector", small)
    with pytest.warns(UnreadableImageWarning, match=r"1 of 3 images .*\n.*absent.png"):
        first, second, third = source.find(files)
    assert first.boxes.tolist() == [[*map(float, BOXES[0])]] and first.class_names == ("red",)
    assert first.scores == pytest.approx([1], abs=1e-5) and second is None and len(third) == 0


@pytest.mark.parametrize("name", ["grid", "proposals"])
def test_the_regions_without_a_detector(name):
    image = reading.read_image(pairs.box()[1])
    (found,) = regions.region_source(name).find([image])
    height, width = image.shape[:2]
    assert 5 <= len(found) <= regions.LIMIT and found.boxes.dtype == np.float32
    assert set(found.class_names) == {None} and found.scores.tolist() == [1] * len(found)
    assert boxes.iou(found.boxes, [[0, 0, width, height]]).max() <= regions.WHOLE_IOU
    assert (found.boxes == np.rint(found.boxes)).all()
    if name == "grid":
        corners, exact = found.boxes.copy(), regions.grid(width, height)[1:].astype(np.float64)
        corners[:, 2:] += corners[:, :2]
        exact[:, 2:] += exact[:, :2]
        assert np.abs(corners - exact).max() <= 0.5 + 1e-4


def test_an_unknown_source():
    with pytest.raises(ValueError, match="'boxes'; known: detector, grid, proposals"):
        regions.region_source("boxes")


def test_the_fingerprint_of_a_source(small, tmp_path, monkeypatch):
    source = regions.region_source("detector", small)
    assert (
        source.fingerprint.startswith("detector-") and source.fingerprint != regions.region_source("grid").fingerprint
    )
    (tmp_path / "labels.txt").write_text("red\ngreen\nviolet\n")
    other = detectors.from_file(tmp_path / "model.xml", tmp_path / "labels.txt")
    again = detectors.from_file(tmp_path / "model.xml", tmp_path / "labels.txt")
    assert small.fingerprint != other.fingerprint == again.fingerprint
    assert regions.region_source("detector", other).fingerprint != source.fingerprint
    monkeypatch.setattr(regions, "REGION_THRESHOLD", 0.3)
    assert regions.region_source("detector", small).fingerprint != source.fingerprint


def test_distinct_regions():
    found = np.array([[0, 0, 50, 40], [2, 0, 50, 40], [60, 10, 15, 30], [1, 1, 98, 58], [40, 10, 30, 30]], np.float32)
    names = ["Vehicle", "Car", "Mug", "Desk", None]
    kept = regions.distinct(found, np.array([0.5, 0.8, 0.9, 0.95, 0.7]), names, 100, 60)
    assert kept.boxes.tolist() == [[2, 0, 50, 40], [40, 10, 30, 30]] and kept.class_names == ("Car", None)
    assert kept.scores == pytest.approx([0.8, 0.7])


def test_the_number_of_regions_is_limited():
    corners = np.mgrid[:10, :10].reshape(2, -1).T * 20
    found = np.hstack([corners, np.full((100, 2), 18)]).astype(np.float32)
    kept = regions.distinct(found, np.linspace(0.1, 1, 100), [None] * 100, 200, 200)
    assert kept.boxes.tolist() == found[:69:-1].tolist()


@given(sides, sides, st.lists(st.tuples(*[st.integers(-50, 700)] * 2, *[st.integers(0, 700)] * 2), max_size=30))
def test_the_properties_of_distinct_regions(width, height, found):
    clipped = boxes.clip(np.array(found).reshape(-1, 4), width, height)
    kept = regions.distinct(clipped, np.ones(len(clipped)), [None] * len(clipped), width, height)
    assert np.triu(boxes.iou(kept.boxes, kept.boxes), 1).max(initial=0) <= regions.MAX_IOU + 1e-6
    assert {tuple(box) for box in kept.boxes.tolist()} <= {tuple(box) for box in clipped.tolist()}
    assert (kept.boxes[:, 2:] >= regions.SHORTEST).all()


# ---- a box of a person --------------------------------------------------------------------------------


def test_a_box_of_a_person():
    assert regions.check_box((0, 10, 100, 40), 100, 50).tolist() == [0, 10, 100, 40]
    assert regions.check_box([0.5, 0, 8, 8], 100, 50).dtype == np.float32


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((50, 10, 60, 20), "the box 50, 10, 60, 20 is partly outside of the image, which has 100 × 50 pixels"),
        ((-1, 10, 20, 20), "partly outside of the image"),
        ((10, 10, 0, 20), "positive width and height"),
        ((60, 40, -50, -30), r"positive width and height. A box is x, y, width, height, in pixels.$"),
        ((50, 20, 90, 45), "partly outside.*Are these the corners"),
        ((120, 20, 30, 20), "is outside of the image"),
        ((10, 20, 7, 20), "too small: both sides need at least 8 pixels"),
        ((1, 2, 3), "must be four finite numbers"),
        ((1, 2, np.nan, 4), "must be four finite numbers"),
    ],
)
def test_a_wrong_box_of_a_person(box, message):
    with pytest.raises(ValueError, match=message):
        regions.check_box(box, 100, 50)


def test_results_are_computed_ahead_and_stay_in_order():
    taken, second_is_done = [], threading.Event()

    def items():
        for item in range(6):
            taken.append(item)
            yield item

    def compute(item):
        if item == 0:
            assert second_is_done.wait(10)
        elif item == 1:
            second_is_done.set()
        return item * item

    with ThreadPoolExecutor(2) as pool:
        found = regions.computed_ahead(pool, compute, items(), 2)
        assert next(found) == (0, 0) and taken == [0, 1, 2]
        assert list(found) == [(item, item * item) for item in range(1, 6)]


def test_an_error_ends_what_is_computed_ahead():
    computed = []

    def compute(item):
        if item == 1:
            raise UnreadableImage("damaged")
        computed.append(item)
        return item

    with ThreadPoolExecutor(1) as pool:
        found = regions.computed_ahead(pool, compute, range(100), 3)
        assert next(found) == (0, 0)
        with pytest.raises(UnreadableImage, match="damaged"):
            next(found)
    assert max(computed) < 8


@pytest.mark.parametrize("name", ["detector", "grid", "proposals"])
def test_regions_of_files_are_those_of_their_upright_pixels(name, small, tmp_path):
    """Files are decoded without a copy of their pixels, and images in memory are given as arrays."""
    drawn = scene(SIDE, 2 * SIDE, BOXES[1], (255, 0, 0))
    color = drawn if name == "detector" else reading.read_image(pairs.box()[1])
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(color).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(color).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(color).convert("P").save(tmp_path / "palette.png")
    files = sorted(tmp_path.glob("*.png"))
    arrays = [reading.read_image(file) for file in files]
    assert arrays[2].shape[:2] == color.shape[1::-1]
    source = regions.region_source(name, small if name == "detector" else None)
    for one, other in zip(source.find(files), source.find(arrays), strict=True):
        assert len(one) and np.array_equal(one.boxes, other.boxes) and one.class_names == other.class_names
