"""Checks of the exercises of notebook 09: distance and similarity of unit vectors, and a search by hand."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from helpers.lessons.exercises import answer

#: The cosine similarity in the text of exercise 1.
COSINE = 0.68


def exercise_1(distance: float) -> None:
    """The Euclidean distance of two unit vectors, by their cosine similarity."""
    squared = 2 - 2 * COSINE
    assert not math.isclose(distance, squared, abs_tol=1e-3), "this is the square of the distance"
    assert not math.isclose(distance, 1 - COSINE, abs_tol=1e-3), "this is scikit-learn's cosine distance"
    assert math.isclose(distance, math.sqrt(squared), abs_tol=1e-3), "write |a - b|² as products, for |a| = |b| = 1"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, int, Sequence[int]], np.ndarray]) -> None:
    """A search by Euclidean distance; whole numbers give many ties."""
    rng = np.random.default_rng(9)
    for count, dim, k in ((1, 3, 1), (12, 2, 5), (60, 4, 10), (8, 2, 20)):
        gallery = rng.integers(0, 4, (count, dim)).astype(float)
        query = rng.integers(0, 4, dim).astype(float)
        for excluded in ([], [count - 1], sorted(set(rng.integers(0, count, 3).tolist()))):
            found = np.asarray(answer(function, query, gallery, k, excluded))
            order = np.argsort(((gallery - query) ** 2).sum(axis=1), kind="stable")
            expected = order[~np.isin(order, excluded)][:k]
            wrong = next((row for row in excluded if row in found), None)
            assert wrong is None, f"row {wrong} is excluded, but you return it"
            assert len(found) == len(expected), (
                f"{count} rows, {len(excluded)} excluded, k = {k}: return {len(expected)} rows, not {len(found)}"
            )
            distances = np.linalg.norm(gallery[found.astype(int)] - query, axis=1)
            assert (np.diff(distances) >= 0).all(), "the nearest row must be the first"
            assert np.array_equal(found, expected), "among equal distances, the smaller row number is the first"
