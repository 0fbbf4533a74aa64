"""Known items: each change corresponds to its strength, and is the same at every call."""

import cv2
import numpy as np
import pytest

from helpers.images import reading, samples
from helpers.images.known_items import CHANGES, Change, all_changes, queries


@pytest.fixture(scope="module")
def photo():
    return reading.resize(reading.read_image(samples.photos().paths[40]), (120, 160))


def change(image, kind, strength, seed=0, other=None):
    return Change(kind, strength)(image, np.random.default_rng(seed), other)


def distance(a, b):
    return np.abs(a.astype(float) - b).mean()


def test_every_change_returns_images_and_does_not_modify_the_original(photo):
    before, others = photo.copy(), [photo, np.full((40, 200, 3), 90, np.uint8)]
    found = list(queries(others, others))
    assert len(found) == 2 * len(all_changes()) == 2 * sum(len(kind.strengths) for kind in CHANGES.values())
    for row, one, image in found:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and min(image.shape[:2]) > 0
        assert row in (0, 1) and one.kind in CHANGES
    assert np.array_equal(photo, before)


def test_changes_depend_on_the_seed_only(photo):
    changes = [Change("crop", 0.5), Change("noise", 10), Change("pasted", 0.5)]
    one, same, other = (
        [image for *_, image in queries([photo, photo[::-1]], [photo // 2], changes, seed)] for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_rotation(photo):
    assert np.array_equal(change(photo, "rotation", 90), cv2.rotate(photo, cv2.ROTATE_90_COUNTERCLOCKWISE))
    assert np.array_equal(change(photo, "rotation", 180), photo[::-1, ::-1])
    # 30°: the frame contains the whole image.
    assert change(photo, "rotation", 30).shape[:2] == (round(120 * 0.8660 + 160 * 0.5), round(160 * 0.8660 + 120 * 0.5))


def test_scale_and_crop(photo):
    assert change(photo, "scale", 0.25).shape == (30, 40, 3)
    assert change(photo, "scale", 2).shape == (240, 320, 3)
    cut = change(photo, "crop", 0.5)
    assert cut.shape == (60, 80, 3)
    assert cv2.matchTemplate(photo, cut, cv2.TM_SQDIFF).min() == 0, "an unchanged part of the image"
    assert len({change(photo, "crop", 0.5, seed).tobytes() for seed in range(5)}) == 5


@pytest.mark.parametrize("kind", ["blur", "noise", "perspective"])
def test_stronger_changes_differ_more(photo, kind):
    distances = [distance(photo, change(photo, kind, strength)) for strength in CHANGES[kind].strengths]
    assert distances == sorted(distances) and distances[0] > 0


def test_brightness_jpeg_and_noise(photo):
    assert np.array_equal(change(photo, "brightness", 0.5), np.rint(photo * 0.5).astype(np.uint8))
    assert (change(photo, "brightness", 2)[photo >= 128] == 255).all()
    qualities = [distance(photo, change(photo, "jpeg", quality)) for quality in (50, 25, 10, 5)]
    assert qualities == sorted(qualities)
    assert qualities[0] < 10, "red stays red"
    gray = np.full((200, 200, 3), 127, np.uint8)
    assert change(gray, "noise", 20).std() == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("shape", [(300, 300, 3), (50, 400, 3), (20, 20, 3)])
def test_a_crop_is_pasted_into_another_image(photo, shape):
    frame = np.full(shape, 3, np.uint8)
    found = change(photo, "pasted", 0.5, other=frame)
    assert min(found.shape[0] / 60, found.shape[1] / 80) >= 1
    inside = (found != 3).any(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    cut = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert cut.shape[:2] == (60, 80) and cv2.matchTemplate(photo, cut, cv2.TM_SQDIFF).min() == 0
    assert (frame == 3).all()


def test_invalid_input(photo):
    with pytest.raises(ValueError, match="no change 'melt'; known: rotation, scale"):
        change(photo, "melt", 1)
    with pytest.raises(ValueError, match="into another image: give one"):
        change(photo, "pasted", 0.5)
    assert str(Change("scale", 0.25)) == "scale 0.25"
