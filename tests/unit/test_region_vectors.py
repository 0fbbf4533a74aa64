"""Feature vectors of regions: crops, shared maps, the store, and unreadable images."""

import cv2
import numpy as np
import pytest

from helpers.features import region_vectors as module
from helpers.features.composite import Projected
from helpers.features.deep import NetworkExtractor
from helpers.features.projection import Projection
from helpers.features.region_vectors import crop, find_regions, region_fingerprint, region_method, region_vectors
from helpers.features.regions import region_source
from helpers.features.registry import open_extractor
from helpers.features.store import RegionStore
from helpers.images import UnreadableImageWarning, reading
from helpers.vectors import l2_normalize


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


def test_boxes_for_another_number_of_images(images):
    with pytest.raises(ValueError, match="got 2 for 3 images"):
        region_vectors(open_extractor("hsv-histogram"), list(images), BOXES[:2])


# ---- shared maps --------------------------------------------------------------------------------------


@pytest.fixture
def network(monkeypatch):
    """An extractor whose network is replaced: each cell of the map has the mean color of its 32 × 32 pixels."""

    def maps(self, pixels):
        cells = self.size // 32
        return pixels.reshape(len(pixels), cells, 32, cells, 32, 3).mean(axis=(2, 4)).astype(np.float32)

    monkeypatch.setattr(NetworkExtractor, "maps", maps)
    # Its weights are in a base dependency, so they are never missing.
    return open_extractor("efficientnet-lite0")


def test_the_vectors_of_shared_maps(network, images, tmp_path):
    """The mean color of a box is that of its pixels in the resized image, with fractional edges of the map's cells."""
    side = network.at_size(320).size
    assert network.at_size(320) is network.at_size(320) and round(network.size * module.MAP_SCALE) == side
    (tmp_path / "a.png").write_bytes(b"no image")
    sources, boxes = [images[0], tmp_path / "a.png", images[2]], [BOXES[0], BOXES[0], BOXES[2]]
    with pytest.warns(UnreadableImageWarning, match=r"1 of 3 images .*\n.*a.png"):
        found = region_vectors(network, sources, boxes, cache=False, progress=False)
    assert np.isnan(found[1]).all() and len(found[1]) == 2
    blocks = reading.resize(images[2], side).reshape(10, 32, 10, 32, 3).mean(axis=(1, 3)).repeat(32, 0).repeat(32, 1)
    # 80 × 60 pixels became 320 × 320, so the box 5, 6, 70, 40 became 20, 32, 280, 213.3.
    expected = l2_normalize(blocks[32:245, 20:300].mean(axis=(0, 1))[None])
    assert found[2] == pytest.approx(expected, abs=2e-3)


def test_a_projection_of_shared_maps(network, images):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(3, 2)))[0].astype(np.float32)
    projection = Projection(np.full(3, 0.5, np.float32), axes, np.array([2, 1], np.float32), 1.0, "noise")
    network.dim = 3
    found = region_vectors(Projected(network, projection), list(images), BOXES, progress=False)
    plain = region_vectors(network, list(images), BOXES, progress=False)
    assert np.array_equal(found[0], projection(plain[0])) and found[1].shape == (0, 2)


def test_vectors_of_maps_are_stored_apart(network, images, tmp_path, own_cache):
    network.dim = 3
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    first = region_vectors(network, [tmp_path / "a.png"], BOXES[:1], progress=False)
    again = region_vectors(network, [tmp_path / "a.png"], BOXES[:1], progress=False)
    assert np.array_equal(first[0], again[0])
    assert [path.name for path in (own_cache / "regions").glob("*.sqlite")] == [f"{network.fingerprint}-maps320.sqlite"]


def test_regions_and_their_vectors_from_one_reading(network, images, tmp_path, own_cache, monkeypatch):
    network.dim = 3
    files = [tmp_path / f"{number}.png" for number in range(20)]
    for number, file in enumerate(files):
        cv2.imwrite(str(file), images[number % 3] // (1 + number))
    files[7].write_bytes(b"no image")
    grid = region_source("grid")
    with pytest.warns(UnreadableImageWarning, match=r"1 of 20 images .*\n.*7.png"):
        found = find_regions(grid, network, files)
    assert found[7] is None and all(len(each) > 5 for each in found if each)
    readable, boxes = [file for file in files if file != files[7]], [each.boxes for each in found if each]
    assert [each.boxes.tolist() for each in grid.find(readable)] == [each.tolist() for each in boxes]
    computed = region_vectors(network, readable, boxes, cache=False, progress=False)
    monkeypatch.setattr(NetworkExtractor, "maps", None)
    stored = region_vectors(network, readable, boxes, progress=False)
    assert all(np.array_equal(one, other) for one, other in zip(stored, computed, strict=True))
    assert find_regions(grid, network, readable)[3].boxes.tolist() == boxes[3].tolist()


def test_batches_of_which_some_are_stored_or_unreadable(network, tmp_path, own_cache):
    """While one batch is searched, the vectors of another one are computed; each image gets its own."""
    network.dim = 3
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number:02}.png" for number in range(56)]
    for number, file in enumerate(files):
        cv2.imwrite(str(file), rng.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8))
    grid = region_source("grid")
    find_regions(grid, network, files[40:45])
    for file in files[16:32]:  # a whole batch
        file.write_bytes(b"no image")
    with pytest.warns(UnreadableImageWarning, match="16 of 56 images"):
        found = find_regions(grid, network, files)
    assert [row for row, each in enumerate(found) if each is None] == list(range(16, 32))
    readable = [*files[:16], *files[32:]]
    boxes = [each.boxes for each in found if each]
    assert [each.boxes.tolist() for each in grid.find(readable)] == [each.tolist() for each in boxes]
    with RegionStore(region_fingerprint(network), network.dim) as store:
        assert len(store) == len(readable)
    computed = region_vectors(network, readable, boxes, cache=False, progress=False)
    stored = region_vectors(network, readable, boxes, progress=False)
    assert all(np.array_equal(one, other) for one, other in zip(stored, computed, strict=True))


def test_regions_whose_vectors_come_from_crops(images, tmp_path, own_cache):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    found = find_regions(region_source("grid"), open_extractor("hsv-histogram"), [tmp_path / "a.png"])
    assert len(found[0]) > 5 and not (own_cache / "regions").exists()


@pytest.mark.parametrize(
    ("name", "settings", "method"),
    [
        ("efficientnet-lite0", {}, "maps"),
        ("efficientnet-lite0-gem", {}, "maps"),
        ("efficientnet-lite0-gem-pcaw64", {}, "maps"),
        ("efficientnet-lite0-rmac", {}, "crops"),
        ("efficientnet-lite0", {"resize": "crop"}, "crops"),
        ("hsv-histogram", {}, "crops"),
    ],
)
def test_the_method_of_an_extractor(network, name, settings, method):
    assert region_method(open_extractor(name, **settings)) == method


def test_a_method_that_an_extractor_lacks(images):
    with pytest.raises(ValueError, match="hsv-histogram has no method 'maps' for regions; use 'crops'"):
        region_vectors(open_extractor("hsv-histogram"), list(images), BOXES, method="maps")
