"""The figures and measurements of notebook 03."""

import cv2
import keras
import numpy as np
import pytest

from helpers.images import reading, samples
from helpers.lessons.augmentation_effects import detail, one_matrix, pixel_grid


@pytest.fixture(scope="module")
def photos():
    """uint8 (3, 64, 64, 3)."""
    (_, pixels) = next(reading.batches(samples.photos().subset([0, 100, 200]), 64))
    return pixels


def test_detail_of_a_step_is_that_of_its_laplacian():
    """At an edge of height h, the Laplacian is h and -h in the two adjacent columns."""
    step = np.zeros((1, 8, 8, 3), np.uint8)
    step[:, :, 4:] = 10
    everywhere = np.ones((8, 8), bool)
    assert detail(step, everywhere) == pytest.approx([2 * 8 * 10**2 / 64])
    assert detail(step, np.arange(8)[None].repeat(8, 0) == 3) == pytest.approx([100])
    assert detail(step, np.arange(8)[None].repeat(8, 0) < 3) == [0]


def test_a_blurred_photograph_has_less_detail(photos):
    everywhere = np.ones((64, 64), bool)
    blurred = np.stack([cv2.blur(image, (3, 3)) for image in photos])
    assert (detail(blurred, everywhere) < 0.5 * detail(photos, everywhere)).all()


def test_a_grid_has_names_and_titles(photos):
    figure = pixel_grid({"first": photos[:2], "second": photos[1:]}, [["a", "b"], ["c", "d"]])
    cells = figure.axes
    assert [cell.get_title() for cell in cells] == ["a", "b", "c", "d"]
    assert [cell.get_ylabel() for cell in cells] == ["first", "", "second", ""]
    assert (cells[3].images[0].get_array() == photos[2]).all()


def test_rows_of_different_lengths_are_refused(photos):
    with pytest.raises(ValueError, match="shorter than argument 1"):
        pixel_grid({"first": photos, "second": photos[:1]})


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (keras.layers.RandomRotation((0.1, 0.1), fill_mode="nearest"), {"angle": 0.1}),
        (keras.layers.RandomTranslation((0.1, 0.1), (-0.2, -0.2), fill_mode="nearest"), {"down": 0.1, "right": -0.2}),
        (keras.layers.RandomZoom((-0.2, -0.2), fill_mode="nearest"), {"zoom": -0.2}),
    ],
    ids=["rotation", "translation", "zoom"],
)
def test_one_matrix_agrees_with_a_keras_layer(photos, layer, arguments):
    pixels = photos.astype(np.float32)
    expected = np.asarray(layer(pixels, training=True))
    assert np.abs(expected - pixels).mean() > 5
    assert np.abs(one_matrix(pixels, **arguments) - expected).mean() < 0.05


def test_one_matrix_flips(photos):
    np.testing.assert_allclose(one_matrix(photos.astype(np.float32), flip=True), photos[:, :, ::-1], atol=0.01)


def test_one_matrix_is_three_layers_in_a_row():
    """On an image of coordinates, whose linear interpolation is exact."""
    y, x = np.mgrid[:64, :64].astype(np.float32)
    coordinates = np.stack([x, y, np.ones_like(x)], axis=-1)[None]
    how = {"fill_mode": "constant"}
    layers = [
        keras.layers.RandomRotation((0.05, 0.05), **how),
        keras.layers.RandomTranslation((0.1, 0.1), (-0.1, -0.1), **how),
        keras.layers.RandomZoom((0.1, 0.1), **how),
    ]
    expected = np.asarray(keras.Sequential(layers)(coordinates, training=True))[0]
    found = one_matrix(coordinates, angle=0.05, down=0.1, right=-0.1, zoom=0.1, **how)[0]
    inside = (expected[..., 2] > 0.9999) & (found[..., 2] > 0.9999)
    assert inside.mean() > 0.5 and np.abs(found - expected)[inside].max() < 0.05
