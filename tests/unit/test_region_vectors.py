"""Feature vectors of regions: crops, the store, and unreadable images."""

import cv2
import numpy as np
import pytest

from helpers.features import region_vectors as module
from helpers.features.region_vectors import crop, region_vectors
from helpers.features.registry import open_extractor
from helpers.images import UnreadableImageWarning


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)


BOXES = [np.array([[0, 0, 40, 30], [10.2, 20.4, 50, 33.3]], np.float32), np.empty((0, 4), np.float32), [[5, 6, 70, 40]]]


def test_the_pixels_of_a_box(images):
    assert np.array_equal(crop(images[0], (10.2, 20.6, 50, 30.3)), images[0, 21:51, 10:60])
    assert crop(images[0], (79.9, 59.9, 0.01, 0.01)).shape == (1, 1, 3)
    assert np.array_equal(crop(images[0], (0, 0, 80, 60)), images[0])


def test_the_vectors_of_crops(images):
    extractor = open_extractor("hsv-histogram")
    found = region_vectors(extractor, list(images), BOXES, progress=False)
    assert [each.shape for each in found] == [(2, extractor.dim), (0, extractor.dim), (1, extractor.dim)]
    assert np.array_equal(found[0], extractor.extract_arrays([images[0, :30, :40], images[0, 20:54, 10:60]]))
    assert np.array_equal(found[2], extractor.extract_arrays([images[2, 6:46, 5:75]]))


def test_vectors_are_stored(images, tmp_path, own_cache, monkeypatch):
    extractor, files = open_extractor("hsv-histogram"), []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(files[-1]), image[:, :, ::-1])
    found = region_vectors(extractor, files, BOXES, progress=False)
    assert np.array_equal(found[0], region_vectors(extractor, list(images), BOXES, progress=False)[0])
    more = [BOXES[0], [[7, 7, 30, 30]], BOXES[2]]
    used = []
    monkeypatch.setattr(module, "crop", lambda image, box: used.append(box) or crop(image, box))
    again = region_vectors(extractor, files, more, progress=False)
    assert used == [[7, 7, 30, 30]] and np.array_equal(found[0], again[0]) and np.array_equal(found[2], again[2])


def test_an_unreadable_image_has_no_vectors(images, tmp_path, own_cache):
    (tmp_path / "a.png").write_bytes(b"no image")
    sources = [images[0], tmp_path / "a.png", images[2]]
    boxes = [BOXES[0], BOXES[0], BOXES[2]]
    with pytest.warns(UnreadableImageWarning, match=r"1 of 3 images .*\n.*a.png"):
        found = region_vectors(open_extractor("hsv-histogram"), sources, boxes, progress=False)
    assert found[1].shape == found[0].shape and np.isnan(found[1]).all() and np.isfinite(found[2]).all()
    failures = []
    region_vectors(open_extractor("hsv-histogram"), sources, boxes, progress=False, failures=failures)
    assert len(failures) == 1


def test_boxes_for_another_number_of_images(images):
    with pytest.raises(ValueError, match="got 2 for 3 images"):
        region_vectors(open_extractor("hsv-histogram"), list(images), BOXES[:2])
