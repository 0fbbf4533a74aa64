"""Checks of the exercises of notebook 18: the memory of a graph, and results of several shards."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from helpers.lessons.exercises import returned

#: Of the text of exercise 1.
VECTORS, DIM, LINKS = 1_000_000, 256, 32


def exercise_1(gigabytes: float) -> None:
    """Gigabytes of the vectors in half precision, and of the links of the lowest level."""
    vectors, links = 2 * DIM * VECTORS / 1e9, 8 * LINKS * VECTORS / 1e9
    assert not math.isclose(gigabytes, vectors, rel_tol=1e-3), "these are the vectors without links"
    assert not math.isclose(gigabytes, 2 * vectors + links, rel_tol=1e-3), "half precision has two bytes per number"
    assert not math.isclose(gigabytes, vectors + links / 2, rel_tol=1e-3), "a vector has 2 · m links"
    assert math.isclose(gigabytes, vectors + links, rel_tol=1e-3), "add the bytes of a vector and those of its links"


def exercise_2(function: Callable[[Sequence[tuple[list[int], list[float]]], int], Sequence[int]]) -> None:
    """The merged results of shards, compared with a loop; shards may be empty, and replicas return an id twice."""
    rng = np.random.default_rng(18)
    for shards, length, k in ((1, 5, 3), (3, 4, 5), (5, 3, 20), (4, 0, 3), (6, 6, 10)):
        scores = rng.integers(0, 6, 40) / 4
        results = []
        for _ in range(shards):
            ids = sorted(rng.permutation(40)[:length].tolist(), key=lambda one: (-scores[one], one))
            results.append((ids, [float(scores[one]) for one in ids]))
        found = [int(one) for one in returned(function(results, k))]
        known = {one for ids, _ in results for one in ids}
        assert len(set(found)) == len(found), "an id that two replicas return must be in the result once"
        expected = sorted(known, key=lambda one: (-scores[one], one))[:k]
        assert len(found) == len(expected), (
            f"return {len(expected)} ids, not {len(found)}: k ids, or all ids if there are fewer"
        )
        assert set(found) <= known, "return ids of the results"
        assert found == expected, "order by score, highest first, and equal scores by id"
