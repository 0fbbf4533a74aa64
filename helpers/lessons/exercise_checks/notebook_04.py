"""Checks of the exercises of notebook 04: parameters of a dense layer, and a convolution with channels and a stride."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import returned

#: The flattened map of the faces network for images of 250 × 250.
_MAP = 29 * 29 * 128


def exercise_1(parameters: int) -> None:
    """The number of parameters of the last layer for 1,000 people."""
    people = 1000
    assert parameters != _MAP * people, "the layer also has one bias per person"
    assert parameters == _MAP * people + people, "multiply the length of the flattened map by the number of people"


def exercise_2(function: Callable[..., np.ndarray]) -> None:
    """The convolution, compared with a reference implementation on random images; all sizes differ."""
    rng = np.random.default_rng(4)
    for height, width, side, channels, filters, stride in ((5, 7, 3, 1, 1, 1), (9, 6, 3, 4, 2, 1), (11, 8, 2, 3, 5, 3)):
        image = rng.standard_normal((height, width, channels))
        kernels = rng.standard_normal((side, side, channels, filters))
        found = np.asarray(returned(function(image, kernels, stride)))
        windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))[::stride, ::stride]
        expected = np.einsum("rcahw,hwaf->rcf", windows, kernels)
        assert found.shape == expected.shape, (
            f"an image {image.shape}, kernels {kernels.shape} and stride {stride} give {expected.shape}, "
            f"but you return {found.shape}"
        )
        assert np.allclose(found, expected), (
            f"the values differ for {channels} channels, {filters} filters and stride {stride}"
        )
