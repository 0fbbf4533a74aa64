"""The checks of notebook 04's exercises accept correct results only."""

import keras
import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def by_loops(image, kernels, stride=1):
    side = len(kernels)
    shape = [(length - side) // stride + 1 for length in image.shape[:2]]
    output = np.zeros((*shape, kernels.shape[-1]))
    for row, column in np.ndindex(*shape):
        top, left = row * stride, column * stride
        window = image[top : top + side, left : left + side]
        output[row, column] = np.tensordot(window, kernels, axes=3)
    return output


def test_correct_results():
    assert check_exercise("04.1", 107_649_000)
    assert check_exercise("04.2", by_loops)


def test_the_correct_function_agrees_with_keras():
    rng = np.random.default_rng(0)
    image, kernels = rng.standard_normal((10, 7, 3)), rng.standard_normal((3, 3, 3, 4))
    by_keras = keras.ops.conv(image[None], kernels, strides=2, padding="valid")[0]
    np.testing.assert_allclose(by_loops(image, kernels, 2), by_keras, atol=1e-5)


@pytest.mark.parametrize("parameters", [107_648_000, 107_648, 4_305_960, 107_649_001, "107649000"])
def test_a_wrong_number_of_parameters(parameters):
    assert check_exercise("04.1", parameters) is False


@pytest.mark.parametrize(
    "function",
    [
        lambda image, kernels, stride=1: by_loops(image, kernels),
        lambda image, kernels, stride=1: by_loops(image, kernels[::-1, ::-1], stride),
        lambda image, kernels, stride=1: by_loops(image, kernels, stride)[..., 0],
        lambda image, kernels, stride=1: by_loops(image, kernels[..., ::-1], stride),
        lambda image, kernels, stride=1: by_loops(image[..., :1], kernels[:, :, :1], stride),
    ],
)
def test_a_wrong_convolution(function):
    assert check_exercise("04.2", function) is False


def test_a_function_without_code_is_not_checked():
    assert check_exercise("04.2", lambda image, kernels, stride=1: None) is None
