"""Checks of the exercises of notebook 03: the factor of a rotation, and a test for leaked copies."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import returned
from helpers.vectors import l2_normalize


def exercise_1(factor: float) -> None:
    """The factor of ``RandomRotation`` for at most 15 degrees."""
    assert abs(factor - 15) > 1e-6, "the layer does not count in degrees"
    assert abs(factor - np.deg2rad(15)) > 1e-6, "the layer does not count in radians"
    assert abs(factor - 15 / 360) < 1e-6, "read the documentation: keras.layers.RandomRotation?"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]) -> None:
    """The share of test rows whose nearest training row is a sibling, on random vectors."""
    rng = np.random.default_rng(3)
    for count, copies in ((8, 2), (20, 3), (30, 5)):
        groups = np.repeat(rng.permutation(100)[:count], copies)
        originals = np.repeat(rng.normal(size=(count, 6)), copies, axis=0)
        vectors = l2_normalize((originals + rng.normal(size=originals.shape)).astype(np.float32))
        order = rng.permutation(len(groups))
        test, train = np.split(order, [len(order) // 3])
        found = returned(function(vectors, groups, train, test))
        assert np.ndim(found) == 0, f"return one number, not an array of shape {np.shape(found)}"
        assert 0 <= found <= 1, f"a share lies between 0 and 1, but you return {found}"
        nearest = train[(vectors[test] @ vectors[train].T).argmax(axis=1)]
        expected = (groups[nearest] == groups[test]).mean()
        assert abs(found - expected) < 1e-6, (
            f"the share is {expected:.3f} for random vectors {vectors.shape}, but you return {found:.3f}; "
            "train and test are rows of vectors and groups"
        )
