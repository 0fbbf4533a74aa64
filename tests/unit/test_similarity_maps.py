"""Similarity maps sum to the cosine."""

import numpy as np
import pytest

from helpers.features.similarity_maps import similarity_maps


def test_by_hand():
    # Pooled: (1, 0) and (1/2, 1/2); cosine = 1/√2. In the second, only the first location has the direction (1, 0).
    first = np.array([[[2.0, 0.0], [0.0, 0.0]]])
    second = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    one, other = similarity_maps(first, second)
    assert one == pytest.approx(np.array([[1, 0]]) / np.sqrt(2))
    assert other == pytest.approx(np.array([[1], [0]]) / np.sqrt(2))


def test_maps_of_different_shapes_sum_to_the_cosine():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(7, 7, 64)), rng.normal(size=(5, 9, 64))
    a, b = first.mean((0, 1)), second.mean((0, 1))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    one, other = similarity_maps(first, second)
    assert one.shape == (7, 7) and other.shape == (5, 9)
    assert one.sum() == pytest.approx(cosine) and other.sum() == pytest.approx(cosine)
    assert similarity_maps(first * 3, second)[0] == pytest.approx(one)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="two maps"):
        similarity_maps(np.ones((7, 7, 3)), np.ones((7, 7, 4)))
    with pytest.raises(ValueError, match="zero everywhere"):
        similarity_maps(np.zeros((7, 7, 3)), np.ones((7, 7, 3)))
