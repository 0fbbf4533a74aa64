"""Checks of the exercises of notebook 06: bytes of vectors, and a projection with partial whitening."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer

_FLAT, _AXES = 7 * 7 * 2048, 256


def exercise_1(ratio: float) -> None:
    """Bytes of a flattened float32 map, divided by those of 256 axes in int8."""
    assert ratio != _FLAT / _AXES, "a float32 has four bytes, an int8 has one"
    assert ratio != 4 * 2048 / _AXES, "this is the ratio for a pooled map; a flattened map keeps all positions"
    assert ratio != _AXES / (4 * _FLAT), "divide the bytes of the longer vector by those of the shorter one"
    assert ratio == 4 * _FLAT / _AXES, "multiply height, width and channels, then the bytes of one number"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, int, float], np.ndarray]) -> None:
    """The projection, compared with a reference implementation by cosine similarities: the sign of an axis is free."""
    rng = np.random.default_rng(6)
    for count, dim, axes, whitening in ((60, 5, 5, 1), (60, 5, 2, 0), (40, 8, 3, 0.25), (200, 12, 6, 0.5)):
        scaled = rng.normal(size=(count, dim)) * np.geomspace(9, 0.5, dim)
        training = scaled @ np.linalg.qr(rng.normal(size=(dim, dim)))[0] + 4
        vectors = rng.normal(size=(7, dim)) * 3 + 2
        found = np.asarray(answer(function, training, vectors, axes, whitening))
        assert found.shape == (7, axes), f"with dim={axes} return the shape (7, {axes}), not {found.shape}"
        assert np.allclose(np.linalg.norm(found, axis=1), 1), "each result must have the length 1"
        expected = _projected(training, vectors, axes, whitening)
        assert np.allclose(found @ found.T, expected @ expected.T, atol=1e-6), (
            f"the similarities differ with dim={axes} and whitening={whitening}: subtract the mean of the training "
            "vectors, take their axes, and divide by a power of their standard deviations"
        )


def _projected(training: np.ndarray, vectors: np.ndarray, dim: int, whitening: float) -> np.ndarray:
    """The reference implementation, by the singular value decomposition."""
    mean = training.mean(axis=0)
    _, deviations, axes = np.linalg.svd((training - mean) / np.sqrt(len(training) - 1), full_matrices=False)
    rotated = (vectors - mean) @ axes[:dim].T / deviations[:dim] ** whitening
    return rotated / np.linalg.norm(rotated, axis=1, keepdims=True)
