"""Checks of the exercises of notebook 05: parameters of a head, and a batch normalization in both modes."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer

_DIM, _CLASSES = 2048, 37


def exercise_1(parameters: int) -> None:
    """The number of trainable parameters of a dense head on ResNet50's embeddings."""
    assert parameters != _DIM * _CLASSES, "each class also has a bias"
    assert parameters != _DIM * 10 + 10, "this is the number for 10 classes"
    assert parameters == _DIM * _CLASSES + _CLASSES, "multiply the length of the embedding by the number of classes"


def exercise_2(function: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """The batch normalization, compared with a reference implementation on random maps, in both modes."""
    rng = np.random.default_rng(5)
    for training, momentum, epsilon, shape in (
        (False, 0.99, 1e-3, (3, 4, 5, 2)), (True, 0.99, 1e-3, (6, 3, 2, 4)), (True, 0.6, 0.1, (2, 5, 5, 3)),
    ):  # fmt: skip
        x = rng.normal(2, 3, shape)
        mean, variance = rng.normal(size=shape[-1]), rng.uniform(0.5, 2, shape[-1])
        found = answer(function, x, mean, variance, training, momentum=momentum, epsilon=epsilon)
        assert len(found) == 3, "return the output, the moving mean and the moving variance"
        expected = _normalized(x, mean, variance, training, momentum, epsilon)
        for name, value, right in zip(("output", "moving mean", "moving variance"), found, expected, strict=True):
            value = np.asarray(value)
            assert value.shape == right.shape, f"the {name} has the shape {right.shape}, but you return {value.shape}"
            assert np.allclose(value, right), (
                f"the {name} differs with training={training}, momentum {momentum} and epsilon {epsilon}"
            )


def _normalized(
    x: np.ndarray, mean: np.ndarray, variance: np.ndarray, training: bool, momentum: float, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reference implementation."""
    if not training:
        return (x - mean) / np.sqrt(variance + epsilon), mean, variance
    center, spread = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    means, variances = (momentum * a + (1 - momentum) * b for a, b in ((mean, center), (variance, spread)))
    return (x - center) / np.sqrt(spread + epsilon), means, variances
