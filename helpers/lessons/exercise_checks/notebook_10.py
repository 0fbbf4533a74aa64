"""Checks of the exercises of notebook 10: an average precision, and nDCG@k."""

import math
from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer


def exercise_1(average_precision: float) -> None:
    """AP@5 normalized of a ranking with hits at ranks 1, 3 and 6 and R = 4."""
    expected = (1 / 1 + 2 / 3) / 4
    late, found = (1 / 1 + 2 / 3 + 3 / 6) / 4, (1 / 1 + 2 / 3) / 2
    assert not math.isclose(average_precision, late, abs_tol=2e-3), "AP@5 does not use the hit at rank 6"
    assert not math.isclose(average_precision, found, abs_tol=2e-3), "do not divide by the number of hits found"
    assert not math.isclose(average_precision, expected * 4 / 5, abs_tol=2e-3), "min(R, k) is not k here"
    assert math.isclose(average_precision, expected, abs_tol=2e-3), "sum the precision at each hit up to rank 5"


def exercise_2(function: Callable[[np.ndarray, int, int], float]) -> None:
    """nDCG@k, compared with a loop over the ranks on random rankings, some shorter than k or without a hit."""
    rng = np.random.default_rng(10)
    cases = [([True, False, True], 2, 3), ([False, False], 3, 2), ([True], 4, 5), ([False, True, True], 2, 1)]
    for length, total, k in ((8, 3, 5), (20, 12, 10), (6, 9, 10), (30, 5, 30)):
        hits = np.zeros(length, dtype=bool)
        hits[rng.choice(length, min(length, total) - 1, replace=False)] = True
        cases.append((hits.tolist(), total, k))
    for relevant, total, k in cases:
        value = float(answer(function, np.array(relevant, dtype=bool), total, k))
        expected = _ndcg(relevant, total, k)
        assert math.isclose(value, expected, abs_tol=1e-6), (
            f"nDCG@{k} of hits {[int(hit) for hit in relevant]} with R = {total} is {expected:.4f}, "
            f"but you return {value:.4f}"
        )


def _ndcg(hits: list[bool], total: int, k: int) -> float:
    """The reference implementation, one rank at a time."""
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits[:k], start=1) if hit)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(total, k) + 1))
