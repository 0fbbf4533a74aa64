"""GrabCut finds a colored disk in a box; masks and their IoU."""

import numpy as np
import pytest

from helpers.features import masks
from helpers.images import scenes
from helpers.images.reading import read_image


def disk():
    """A red disk with a radius of 15 on noisy green, uint8 (60, 80, 3), and its mask."""
    y, x = np.mgrid[:60, :80]
    inside = (x - 40) ** 2 + (y - 30) ** 2 <= 15**2
    noise = np.random.default_rng(0).integers(0, 30, (60, 80, 3))
    image = np.where(inside[..., None], [200, 30, 30], [30, 150, 40]) + noise
    return image.astype(np.uint8), inside


def test_grab_cut_finds_a_disk():
    image, inside = disk()
    box = (22, 12, 37, 37)
    found = masks.grab_cut(image, box)
    assert found.dtype == bool and masks.mask_iou(found, inside) > 0.97
    assert masks.mask_iou(masks.box_mask(box, 80, 60), inside) < 0.6
    # The same result again, whatever random numbers OpenCV used before.
    assert (masks.grab_cut(image, box) == found).all()


def test_grab_cut_improves_the_boxes_of_scenes():
    known = scenes.load()
    pixels, box, inside = read_image(known.images.paths[0]), known.of(0)[0].box, known.masks(0)[0]
    by_box = masks.mask_iou(masks.box_mask(box, *pixels.shape[1::-1]), inside)
    assert masks.mask_iou(masks.grab_cut(pixels, box), inside) > by_box + 0.2


def test_a_box_of_the_whole_image_is_its_object():
    image, _ = disk()
    assert masks.grab_cut(image, (0, 0, 80, 60)).all()


def test_a_wrong_box():
    with pytest.raises(ValueError, match="is outside of the image, which has 80 × 60 pixels"):
        masks.grab_cut(disk()[0], (90, 0, 20, 20))


def test_pixels_outside_of_the_mask_are_filled():
    image, inside = disk()
    cut = masks.without_background(image, inside)
    assert (cut[inside] == image[inside]).all() and (cut[~inside] == 255).all() and cut.dtype == np.uint8


def test_the_iou_of_masks():
    first, second = np.zeros((2, 4, 4), bool)
    assert masks.mask_iou(first, second) == 0
    first[:2], second[1:3] = True, True
    assert masks.mask_iou(first, second) == pytest.approx(4 / 12)
    assert masks.box_mask((1.4, 0.6, 2, 9), 4, 4).sum() == 6  # rounded and clipped
