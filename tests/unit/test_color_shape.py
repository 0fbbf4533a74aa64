"""Histograms and HOG by hand and against scikit-image; concatenated extractors."""

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.feature import hog as skimage_hog

from helpers.features.color_shape import COLOR_SPACES, ColorHistogram, Hog, Pixels
from helpers.features.composite import Concatenated
from helpers.features.registry import open_extractor
from helpers.images import reading, samples
from helpers.images.folders import from_folder
from helpers.images.reading import UnreadableImageWarning
from helpers.search.engine import Engine


@pytest.fixture(scope="module")
def pixels():
    """Eight photographs, uint8 (8, 128, 128, 3)."""
    return np.stack([reading.resize(reading.read_image(path), 128) for path in samples.photos().paths[::30]])


def plain(*color):
    return np.full((1, 128, 128, 3), color, np.uint8)


# ---- histograms -----------------------------------------------------------------------------------------


def test_a_histogram_of_rgb_by_hand():
    halves = plain(255, 0, 0)
    halves[:, :64] = (0, 0, 255)
    found = ColorHistogram((2, 2, 2), space="rgb").compute(halves)[0].reshape(2, 2, 2)
    expected = np.zeros((2, 2, 2))
    expected[1, 0, 0] = expected[0, 0, 1] = np.sqrt(128 * 64)
    assert np.allclose(found, expected)


def test_a_histogram_of_gray_against_numpy(pixels):
    found = ColorHistogram(space="gray").compute(pixels)
    for image, histogram in zip(pixels, found, strict=True):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        assert np.allclose(histogram**2, np.histogram(gray, bins=64, range=(0, 256))[0], atol=0.01)


@pytest.mark.parametrize("space", COLOR_SPACES)
def test_every_pixel_is_counted_once(pixels, space):
    found = ColorHistogram(space=space).compute(pixels)
    assert found.dtype == np.float32 and found.shape == (len(pixels), ColorHistogram(space=space).dim)
    assert np.allclose((found**2).sum(axis=1), 128 * 128, atol=0.5)
    # The last bins include the brightest and most saturated pixels.
    for color in ((255, 255, 255), (0, 0, 0), (255, 0, 255), (0, 255, 0)):
        assert (ColorHistogram(space=space).compute(plain(*color)) ** 2).sum() == pytest.approx(128 * 128)


def test_gray_ignores_color_and_the_others_do_not():
    red, green = plain(255, 0, 0), plain(0, 130, 0)  # equally light
    cosines = {
        space: ColorHistogram(space=space).compute(red) @ ColorHistogram(space=space).compute(green).T
        for space in COLOR_SPACES
    }
    assert cosines.pop("gray") > 0 and not any(cosines.values())


def test_the_fingerprint_does_not_change():
    """Existing files of vectors have this name."""
    assert open_extractor("hsv-histogram").fingerprint == "hsv-histogram-c9bd90737482"


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="space must be one of gray, rgb, hsv, lab"):
        ColorHistogram(space="cmyk")
    with pytest.raises(ValueError, match="gray has 1 channels, got 3"):
        ColorHistogram((2, 2, 2), space="gray")
    with pytest.raises(
        ValueError, match="size must be a multiple of cell, and at least twice as large; got cell=24 and size=128"
    ):
        Hog(cell=24)


# ---- HOG ------------------------------------------------------------------------------------------------


def stripes(degrees, size=128):
    """A sine wave in a direction, in degrees clockwise from the x axis."""
    y, x = np.mgrid[:size, :size]
    along = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    return np.repeat((127.5 + 127 * np.sin(along / 3)).astype(np.uint8)[:, :, None], 3, axis=2)[None]


@pytest.mark.parametrize("bin_", range(9))
def test_each_direction_falls_into_its_bin(bin_):
    directions = Hog().compute(stripes(20 * bin_ + 10)).reshape(-1, 9).sum(axis=0)
    assert directions.argmax() == bin_ and directions[bin_] > 2.5 * np.delete(directions, bin_).mean()


def test_hog_against_scikit_image(pixels):
    """Similar, not equal: scikit-image neither interpolates between bins and cells nor weighs by distance."""
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pixels]
    settings = {"orientations": 9, "pixels_per_cell": (16, 16), "cells_per_block": (2, 2), "block_norm": "L2-Hys"}
    theirs = np.stack([skimage_hog(image, feature_vector=False, **settings) for image in gray])
    # OpenCV orders blocks and their cells by columns.
    ours = Hog().compute(pixels).reshape(-1, 7, 7, 2, 2, 9).transpose(0, 2, 1, 4, 3, 5)
    assert ours.shape == theirs.shape
    ours, theirs = ours.reshape(len(pixels), -1), theirs.reshape(len(pixels), -1)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (ours, theirs)]
    cosines = unit[0] @ unit[1].T
    assert np.diag(cosines).min() > 0.85
    assert (cosines.argmax(axis=1) == np.arange(len(pixels))).all()
    off = ~np.eye(len(pixels), dtype=bool)
    assert np.corrcoef((unit[0] @ unit[0].T)[off], (unit[1] @ unit[1].T)[off])[0, 1] > 0.95


def test_hog_of_a_flat_image_is_zero(own_cache):
    vectors = Hog().extract_arrays([np.full((40, 60, 3), 99, np.uint8)])
    assert vectors.shape == (1, 1764) and not vectors.any()


def test_hog_ignores_brightness(pixels):
    darker = (pixels * 0.6).astype(np.uint8)
    one, other = (Hog().compute(part) for part in (pixels, darker))
    assert np.abs(one - other).mean() < 0.02


# ---- concatenation ---------------------------------------------------------------------------------------------


@pytest.fixture
def photos():
    return samples.photos().subset(range(0, 60, 3))


def test_the_cosine_of_concatenated_vectors_is_the_weighted_mean(own_cache, photos):
    parts = [Pixels(), ColorHistogram(space="hsv")]
    concatenated = Concatenated(parts, (1, 3)).extract(photos)
    one, other = (part.extract(photos) for part in parts)
    assert np.allclose(concatenated @ concatenated.T, (one @ one.T + 3 * other @ other.T) / 4, atol=1e-5)


def test_open_by_name(own_cache, photos):
    engine = Engine("hog+hsv-histogram").fit(photos)
    assert engine.extractor.dim == 1764 + 128 and engine.extractor.name == "hog+hsv-histogram"
    assert engine.query(photos.paths[4], k=1)[0].id == 4
    names = ("hog+hsv-histogram", "hsv-histogram+hog", "hog+gray-histogram")
    assert len({open_extractor(name).fingerprint for name in names}) == 3
    with pytest.raises(KeyError, match="no extractor is called 'smell'"):
        open_extractor("hog+smell")


def test_arrays_and_files_give_the_same_vectors(own_cache, photos):
    concatenated = open_extractor("pixels+hog")
    arrays = [reading.read_image(path) for path in photos.paths]
    assert np.allclose(concatenated.extract_arrays(arrays), concatenated.extract(photos), atol=1e-6)


def test_one_warning_lists_unreadable_images(own_cache, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (30, 30), (200, 30, 30)).save(tmp_path / "whole.png")
    with pytest.warns(UnreadableImageWarning, match="1 of 2") as caught:
        vectors = open_extractor("pixels+rgb-histogram").extract(from_folder(tmp_path))
    assert len(caught) == 1 and np.isnan(vectors[0]).all() and np.isfinite(vectors[1]).all()


def test_concatenation_needs_parts_and_weights():
    for parts, weights in (([Pixels()], None), ([Pixels(), Hog()], (1,)), ([Pixels(), Hog()], (1, 0))):
        with pytest.raises(ValueError, match="two or more extractors and one positive weight each"):
            Concatenated(parts, weights)
