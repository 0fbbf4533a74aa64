"""Checks of the exercises of notebook 12: an expanded query, and k-reciprocal neighbors."""

import math
from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer


def exercise_1(cosine: float) -> None:
    """The cosine of (1, 0) and its sum with (0.6, 0.8) and (0.8, 0.6)."""
    total = np.array([1.0, 0.0]) + [0.6, 0.8] + [0.8, 0.6]
    assert not math.isclose(cosine, total[0], abs_tol=1e-3), "divide by the length of the sum"
    results_only = (total - [1.0, 0.0])[0] / np.linalg.norm(total - [1.0, 0.0])
    assert not math.isclose(cosine, results_only, abs_tol=1e-3), "the query itself is a part of the sum"
    expected = total[0] / np.linalg.norm(total)
    assert math.isclose(cosine, expected, abs_tol=1e-3), "add all three vectors, then divide x by the length"


def exercise_2(function: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Reciprocal pairs, compared with a reference implementation on random similarities."""
    rng = np.random.default_rng(12)
    for n, k in ((2, 1), (6, 2), (15, 4), (30, 8), (5, 4)):
        similarities = rng.permutation(n * n).reshape(n, n) / (n * n)
        similarities = (similarities + similarities.T) / 2 + rng.permutation(n)[:, None] * 1e-9
        similarities = np.maximum(similarities, similarities.T)
        # As cosines are: an image is most similar to itself.
        np.fill_diagonal(similarities, 1)
        found = np.asarray(answer(function, similarities, k))
        assert found.shape == (n, n) and found.dtype == bool, f"return bool ({n}, {n})"
        assert not found.diagonal().any(), "an image is not its own neighbor"
        assert np.array_equal(found, found.T), "if A is a reciprocal neighbor of B, B is one of A"
        expected = _reciprocal_pairs(similarities, k)
        assert not (found & ~expected).any(), (
            f"n = {n}, k = {k}: both must be among the {k} nearest neighbors of the other"
        )
        assert np.array_equal(found, expected), f"n = {n}, k = {k}: {(expected & ~found).sum() // 2} pairs are missing"


def _reciprocal_pairs(similarities: np.ndarray, k: int) -> np.ndarray:
    """The reference implementation."""
    others, near = similarities.copy(), np.zeros(similarities.shape, bool)
    np.fill_diagonal(others, -np.inf)
    np.put_along_axis(near, np.argsort(-others, axis=1, kind="stable")[:, :k], True, axis=1)
    return near & near.T
