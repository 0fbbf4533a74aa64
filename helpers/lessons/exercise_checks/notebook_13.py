"""Checks of the exercises of notebook 13: bytes of an exact search, and a search in lists."""

import math
from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import returned

#: Of the text of exercise 1.
VECTORS, DIM = 1_000_000, 2048


def exercise_1(gigabytes: float) -> None:
    """The gigabytes that an exact query reads."""
    assert not math.isclose(gigabytes, VECTORS * DIM / 1e9, rel_tol=1e-3), "a float32 number has four bytes"
    assert not math.isclose(gigabytes, 4 * VECTORS * DIM / 2**30, rel_tol=1e-3), "here a gigabyte has 10⁹ bytes"
    assert math.isclose(gigabytes, 4 * VECTORS * DIM / 1e9, rel_tol=1e-3), "multiply vectors, numbers and bytes"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]) -> None:
    """A search in the nearest lists; whole numbers give ties."""
    rng = np.random.default_rng(13)
    for count, lists, probes, k in ((40, 4, 1, 5), (60, 6, 2, 10), (30, 5, 5, 8), (12, 6, 1, 10)):
        gallery = rng.integers(-3, 4, (count, 3)).astype(float)
        centers = rng.normal(scale=2, size=(lists, 3))
        labels = rng.integers(0, lists, count)
        query = rng.integers(-3, 4, 3).astype(float)
        found = np.asarray(returned(function(query, gallery, centers, labels, probes, k))).astype(int)
        nearest = np.argsort(np.linalg.norm(centers - query, axis=1))[:probes]
        outside = [row for row in found if labels[row] not in nearest]
        assert not outside, f"row {outside[0]} lies in a list that is not among the {probes} nearest to the query"
        rows = np.flatnonzero(np.isin(labels, nearest))
        expected = rows[np.argsort(-(gallery[rows] @ query), kind="stable")][:k]
        assert len(found) == len(expected), (
            f"return {len(expected)} rows, not {len(found)}: k rows, or all rows of the lists if there are fewer"
        )
        assert np.all(np.diff(gallery[found] @ query) <= 0), "the highest product must be the first"
        assert np.array_equal(found, expected), "order equal products by row, and return rows of the gallery"
