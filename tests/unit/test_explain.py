"""Explanations of similarity: exact shares of real networks, occlusion by hand, and locations in the image."""

import warnings

import numpy as np
import pytest

from helpers.features import explain as module
from helpers.features.deep import NetworkExtractor
from helpers.features.explain import MAX_CELLS, METHODS, explain
from helpers.features.registry import open_extractor
from helpers.images import att_faces, reading, samples
from helpers.visualization.heatmaps import overlay

SIDE = 160


@pytest.fixture(scope="module")
def photos():
    every = samples.photos()
    return [reading.read_image(every.paths[row]) for row in range(0, len(every), 40)]


@pytest.fixture(autouse=True)
def enough_time(monkeypatch):
    """The number of cells must not depend on other programs."""
    monkeypatch.setattr(module, "SECONDS", 600)


@pytest.fixture(scope="module")
def histogram():
    return open_extractor("hsv-histogram")


def cosine(name_or_extractor, first, second):
    opened = open_extractor(name_or_extractor) if isinstance(name_or_extractor, str) else name_or_extractor
    one, other = opened.extract_arrays([first, second]).astype(np.float64)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def share_of_left(shares):
    """Share of the positive contributions in the left half of a map."""
    positive = np.maximum(shares, 0)
    half = np.clip(shares.shape[1] / 2 - np.arange(shares.shape[1]), 0, 1)
    return float((positive @ half).sum() / positive.sum())


def collages(photos):
    """(query, collage of it and another photograph, whether it is on the left)."""
    for one, other in zip(photos, photos[1:] + photos[:1], strict=True):
        halves = [reading.resize(image, SIDE) for image in (one, other)]
        yield one, np.concatenate(halves, axis=1), True
        yield one, np.concatenate(halves[::-1], axis=1), False


# ---- shares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", [None, "max", "gem"])
def test_the_shares_of_a_real_network_sum_to_its_cosine(resnet50, photos, pooling):
    opened = resnet50 if pooling is None else open_extractor(f"resnet50-{pooling}")
    found = explain(opened, photos[0], photos[1])
    assert found.method == "shares"
    assert found.similarity == pytest.approx(cosine(opened, photos[0], photos[1]), abs=1e-5)
    for shares in (found.query_map, found.result_map):
        assert shares.dtype == np.float32 and shares.shape == (7, 7)
        assert shares.sum() == pytest.approx(found.similarity, abs=1e-4)
        # Not uniform.
        assert shares.max() > 1.5 * shares.mean()


@pytest.mark.parametrize("pooling", module._SHARES)
def test_shares_of_a_map_sum_to_the_pooled_vector(pooling):
    from helpers.features.pooling import POOLINGS

    # With ties, and with an inactive channel.
    fmap = np.random.default_rng(0).integers(0, 4, (5, 8, 16)).astype(np.float32)
    fmap[:, :, 3] = 0
    parts = module._SHARES[pooling](fmap.astype(np.float64))
    assert parts.shape == fmap.shape
    assert np.allclose(parts.sum(axis=(0, 1)), POOLINGS[pooling](fmap[None])[0], atol=1e-5)


def test_the_maximum_is_shared_among_ties():
    fmap = np.array([[[3.0, 1.0], [0.0, 1.0]], [[3.0, 0.0], [2.0, 0.0]]])
    assert module._maximum_shares(fmap).tolist() == [[[1.5, 0.5], [0.0, 0.5]], [[1.5, 0.0], [0.0, 0.0]]]


def test_the_half_of_a_collage_that_shows_the_query_counts_most(resnet50, photos):
    every = collages(photos[:4])
    lefts = [(share_of_left(explain(resnet50, query, both).result_map), left) for query, both, left in every]
    # Chance is 0.5; measured 0.55 to 0.79.
    assert all((share > 0.5) == left for share, left in lefts), lefts
    assert np.mean([share if left else 1 - share for share, left in lefts]) > 0.6


@pytest.mark.parametrize(("rule", "shape"), [("pad", (7, 3)), ("crop", (18, 8))])
def test_shares_with_padding_and_cropping(resnet50, photos, rule, shape):
    """Of a tall image in a square, the shares of borders are not in the map, and cropped parts have none."""
    tall = reading.resize(photos[1], (240, 106))
    opened = NetworkExtractor("resnet50", resize=rule)
    found = explain(opened, tall, photos[2])
    assert found.query_map.shape == shape
    assert found.similarity == pytest.approx(cosine(opened, tall, photos[2]), abs=1e-5)
    if rule == "pad":
        # The image is 62 to 161 of 224 pixels of the square with its borders: columns 1.9375 … 5.03125 of 7.
        square = explain(resnet50, *(reading.resize(image, 224, "pad") for image in (tall, photos[2])))
        expected = square.query_map.sum(axis=0) @ (0, 0.0625, 1, 1, 1, 0.03125, 0)
        assert found.query_map.sum() == pytest.approx(expected, abs=1e-4)
        assert found.similarity == pytest.approx(square.similarity, abs=1e-5) and found.similarity > expected + 0.05
    else:
        assert found.query_map.sum() == pytest.approx(found.similarity, abs=1e-4)
        assert not found.query_map[:4].any() and not found.query_map[-4:].any() and found.query_map[9].any()


@pytest.mark.parametrize("rule", reading.RESIZE_RULES)
@pytest.mark.parametrize("shape", [(200, 200), (120, 300), (331, 97), (40, 1500)])
def test_locations_agree_with_resizing(rule, shape):
    """A red field in the middle of an image is at the expected location."""
    # A very long image keeps little of its length if cropped, few pixels of its width if padded.
    parts = [(0.3, 0.7) if side == min(shape) else (0.47, 0.54) for side in shape]
    field = [(round(start * side), round(end * side)) for (start, end), side in zip(parts, shape, strict=True)]
    image = np.zeros((*shape, 3), np.uint8)
    image[field[0][0] : field[0][1], field[1][0] : field[1][1], 0] = 255
    size = 224
    resized = reading.resize(image, size, rule)
    red = (resized[:, :, 0] > 127) & (resized[:, :, 1] < 127)
    for axis, (start, end) in enumerate(module._spans(shape, size, rule)):
        found = np.flatnonzero(red.any(axis=1 - axis))
        expected = [size * (start + (end - start) * edge / shape[axis]) for edge in field[axis]]
        assert found[0] == pytest.approx(max(0, expected[0]), abs=1.5)
        assert found[-1] + 1 == pytest.approx(min(size, expected[1]), abs=1.5)


def test_sums_are_preserved_over_the_image():
    shares = np.random.default_rng(0).normal(size=(7, 7))
    assert np.allclose(module._over_image(shares, (90, 300), 224, "squash"), shares)
    cropped = module._over_image(shares, (224, 448), 224, "crop")
    assert cropped.shape == (8, 16) and cropped.sum() == pytest.approx(shares.sum())
    # Padded to a third: the image is in the rows from 2⅓ to 4⅔.
    padded = module._over_image(shares, (75, 225), 225, "pad")
    assert padded.shape == (2, 7)
    assert padded.sum() == pytest.approx(shares[3:4].sum() + (shares[2] + shares[4]).sum() * 2 / 3)


def test_layers_without_a_map(monkeypatch):
    """VGG's fc1 has no locations; its pooled maps have."""
    monkeypatch.setattr("helpers.networks.weights.origin", lambda name: {"source": "", "sha256": "0"})
    assert open_extractor("vgg16").pools is None and open_extractor("vgg16-max").pools == "max"
    assert open_extractor("efficientnetv2l").pools == "average" and open_extractor("resnet50-rmac").pools == "rmac"
    with pytest.raises(ValueError, match="fc1 is not pooled"):
        open_extractor("vgg16").maps(np.zeros((1, 224, 224, 3), np.uint8))


@pytest.mark.parametrize("normalized", [True, False])
def test_distances_of_normalized_vectors_have_shares_of_the_cosine(resnet50, photos, monkeypatch, normalized):
    monkeypatch.setattr(resnet50, "normalize", normalized)
    monkeypatch.setattr(module, "MAX_CELLS", 2)
    found = explain(resnet50, photos[0], photos[1], "euclidean")
    one, other = resnet50.extract_arrays(photos[:2]).astype(np.float64)
    assert found.similarity == pytest.approx(-np.linalg.norm(one - other), rel=1e-5)
    assert found.method == ("cosine shares" if normalized else "occlusion")
    if normalized:
        assert found.query_map.sum() == pytest.approx(one @ other, abs=1e-4)


# ---- occlusion ----------------------------------------------------------------------------------------


def test_occlusion_by_hand(histogram, photos, monkeypatch):
    query, result = photos[0], reading.resize(photos[1], (140, 70))
    monkeypatch.setattr(module, "MAX_CELLS", 32)
    found = explain(histogram, query, result)
    before = cosine(histogram, query, result)
    assert found.method == "occlusion" and found.similarity == pytest.approx(before, abs=1e-6)
    # Twice as high as wide: 8 × 4 cells of 17.5 pixels, patches of twice that side.
    assert found.result_map.shape == (8, 4)
    for cell, rows, columns in (
        ((0, 0), (0, 26), (0, 26)),
        ((3, 2), (44, 79), (26, 61)),
        ((7, 3), (114, 140), (44, 70)),
    ):
        covered = result.copy()
        covered[rows[0] : rows[1], columns[0] : columns[1]] = 127
        assert found.result_map[cell] == pytest.approx(before - cosine(histogram, query, covered), abs=1e-3), cell


def test_occlusion_finds_the_half_of_a_collage_that_shows_the_query(histogram, photos):
    lefts = [
        (share_of_left(explain(histogram, query, both).result_map), left) for query, both, left in collages(photos)
    ]
    assert all((share > 0.5) == left for share, left in lefts), lefts
    assert np.mean([share if left else 1 - share for share, left in lefts]) > 0.65


@pytest.mark.parametrize("third", [0, 1, 2])
@pytest.mark.parametrize("wide", [True, False])
def test_occlusion_finds_the_third_of_a_long_image(histogram, monkeypatch, wide, third):
    """The extractor squashes; the map has the proportions of the image, in approximately square cells."""
    query = np.full((90, 90, 3), (200, 30, 30), np.uint8)
    strip = [np.full((90, 90, 3), (30, 60, 200), np.uint8)] * 3
    strip[third] = query
    monkeypatch.setattr(module, "MAX_CELLS", 27)
    found = explain(histogram, query, np.concatenate(strip, axis=1 if wide else 0))
    assert found.result_map.shape == ((3, 9) if wide else (9, 3))
    along = found.result_map.sum(axis=0 if wide else 1)
    assert np.argmax(along) // 3 == third
    assert along[3 * third : 3 * third + 3].min() > 0 and along.sum() < 3 * along[3 * third : 3 * third + 3].sum()


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_occlusion_with_distances(histogram, photos, metric):
    query, both, left = next(collages(photos))
    found = explain(histogram, query, both, metric)
    one, other = histogram.extract_arrays([query, both]).astype(np.float64)
    distance = np.abs(one - other).sum() if metric == "manhattan" else np.linalg.norm(one - other)
    assert found.method == "occlusion" and found.similarity == pytest.approx(-distance)
    assert (share_of_left(found.result_map) > 0.5) == left


def test_the_number_of_passes_is_bounded(photos):
    opened, extracted = open_extractor("pixels"), []
    monitored = opened.extract_arrays
    opened.extract_arrays = lambda images: extracted.extend(images) or monitored(images)
    large, strip = reading.resize(photos[0], (1500, 2000)), reading.resize(photos[1], (3, 900))
    found = explain(opened, large, strip)
    assert found.query_map.size <= MAX_CELLS and found.query_map.shape == (6, 8)
    assert found.result_map.shape[0] == 1 and found.result_map.size <= MAX_CELLS
    # Both images twice, because they are shrunk, and once or twice for the time.
    assert len(extracted) <= 2 * MAX_CELLS + 8
    # Occluded images are small, but the similarity is that of the original images.
    assert max(max(image.shape) for image in extracted[4:]) <= 640
    assert found.similarity == pytest.approx(cosine("pixels", large, strip), abs=1e-6)


def test_a_slow_extractor_gets_fewer_cells(histogram, photos, monkeypatch):
    passes, extract = [], histogram.extract_arrays
    clock = iter(range(10**6))

    def slow(images):
        passes.extend(images)
        # A tenth of a second for each image.
        for _ in images:
            next(clock)
        return extract(images)

    monkeypatch.setattr(histogram, "extract_arrays", slow)
    monkeypatch.setattr(module, "SECONDS", 4)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock) / 10)
    found = explain(histogram, photos[0], photos[1])
    # 4 s are 40 images of 0.1 s, and the clock itself takes 0.1 s for each pair.
    assert 9 <= found.query_map.size <= 13 and 9 <= found.result_map.size <= 13
    monkeypatch.setattr(module, "SECONDS", 0.01)
    passes.clear()
    found = explain(histogram, photos[0], photos[1])
    assert found.query_map.size <= 9 and len(passes) <= 2 * 9 + 6


def test_a_covered_face_gives_no_warning(monkeypatch):
    monkeypatch.setattr(module, "MAX_CELLS", 4)
    faces = att_faces.load()
    one, other = (reading.read_image(path) for path in faces.paths[:2])
    opened = open_extractor("dlib-face", size=250)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explain(opened, one, other)
    assert found.similarity > 0.9
    # With 2 × 2 cells, a patch covers the whole face, and the similarity drops to 0.
    assert found.query_map.max() == pytest.approx(found.similarity, abs=1e-6)


def test_plain_images(histogram, monkeypatch):
    monkeypatch.setattr(module, "MAX_CELLS", 9)
    plain = np.full((50, 50, 3), 255, np.uint8)
    found = explain(histogram, plain, plain)
    assert found.similarity == pytest.approx(1) and found.query_map.shape == (3, 3)
    assert np.allclose(found.query_map, found.result_map) and (found.query_map > 0).all()


def test_bad_input_is_refused(histogram, photos):
    with pytest.raises(ValueError, match="no metric 'hamming'; known: cosine, euclidean, manhattan"):
        explain(histogram, photos[0], photos[1], "hamming")
    for bad in (photos[0][:, :, 0], photos[0] / 255, np.empty((0, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="an image must be uint8"):
            explain(histogram, photos[0], bad)
    assert set(METHODS) == {"shares", "cosine shares", "occlusion"} and all(METHODS.values())


# ---- the overlay --------------------------------------------------------------------------------------


def test_the_overlay_is_bright_where_the_map_is(photos):
    image = np.full((60, 120, 3), 128, np.uint8)
    shares = np.zeros((2, 4), np.float32)
    shares[0, 3], shares[1, 0] = 0.5, -3
    shown = overlay(image, shares, 0.5)
    assert shown.shape == image.shape and shown.dtype == np.uint8
    light = shown.mean(axis=2)
    assert light.argmax() % 120 >= 90 and light.argmax() // 120 < 30
    # Zero and negative contributions are equally dark.
    assert np.array_equal(shown[50, 5], shown[5, 5]) and light[50, 5] < 60 < light[5, 115]
    assert overlay(image, shares, 1).mean() < shown.mean()
    assert np.array_equal(overlay(image, np.zeros((2, 4)), 0), overlay(image, np.full((2, 4), -1), -1))
