"""Checks of the exercises of notebook 14: ConSE of two classes, and the hinge rank loss."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer


def exercise_1(cosine: float) -> None:
    """The cosine of a ConSE vector of two orthogonal classes with the first of them."""
    vector = 0.6 * np.array([1.0, 0.0]) + 0.2 * np.array([0.0, 1.0])
    expected = vector[0] / np.linalg.norm(vector)
    assert abs(cosine - vector[0]) > 0.01, "that is the product with the vector before it was divided by its length"
    assert abs(cosine - 0.75) > 0.001, "the sum of the probabilities is not the length of the vector"
    assert abs(cosine - expected) < 0.00051, "add the two weighted vectors, and divide the sum by its length"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]) -> None:
    """The hinge rank loss, on random vectors."""
    rng = np.random.default_rng(14)
    for n, classes, dim, margin in ((1, 2, 3, 0.1), (5, 4, 8, 0.3), (12, 9, 5, 1.0)):
        outputs = 3 * rng.standard_normal((n, dim))
        targets = rng.standard_normal((classes, dim))
        targets /= np.linalg.norm(targets, axis=1, keepdims=True)
        labels = rng.integers(0, classes, n)
        found = np.asarray(answer(function, outputs, labels, targets, margin))
        assert found.shape == (n,), f"return one loss per image, shape ({n},), not {found.shape}"
        products = outputs @ targets.T
        expected = _losses(products / np.linalg.norm(outputs, axis=1, keepdims=True), labels, margin)
        assert not np.allclose(found, expected + margin), "the true name itself adds no margin"
        undivided = _losses(products, labels, margin)
        assert not np.allclose(found, undivided), "divide the outputs by their lengths first"
        assert np.allclose(found, expected), "sum max(0, margin − cosine with the true name + cosine with another name)"


def _losses(cosines: np.ndarray, labels: np.ndarray, margin: float) -> np.ndarray:
    """The reference implementation: float64 (n,), for the cosines (n, classes) of images and names."""
    own = np.take_along_axis(cosines, labels[:, None], axis=1)
    # The term of the true name is the margin.
    return np.maximum(0, margin - own + cosines).sum(axis=1) - margin
