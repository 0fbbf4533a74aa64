"""Checks of the exercises of notebook 17: the ceiling of MAP@k."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import returned


def exercise_1(highest: float) -> None:
    """The highest MAP@100 with 500 relevant images."""
    assert highest != 1, "trec_eval divides by all relevant images, not by the 100 results"
    assert abs(highest - 100 / 500) < 1e-9, "each of the first 100 results has a precision of 1; divide their sum"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, int], float]) -> None:
    """The mean ceiling; classes have different sizes, and one query has no relevant image."""
    rng = np.random.default_rng(17)
    for count, k in ((40, 100), (40, 5), (300, 7), (300, 100)):
        gallery = rng.choice(4, size=count, p=[0.6, 0.25, 0.1, 0.05])
        queries = np.append(rng.integers(4, size=12), 9)
        relevant = (queries[:, None] == gallery).sum(axis=1)
        relevant = relevant[relevant > 0]
        expected = (np.minimum(relevant, k) / relevant).mean()
        found = float(returned(function(queries, gallery, k)))
        assert np.isfinite(found), "a query without a relevant image has no AP; leave it out of the mean"
        assert abs(found - expected) < 1e-9, (
            f"for {count} gallery images and k = {k} the ceiling is {expected:.4f}, but you return "
            f"{found:.4f}; check classes with more and with fewer than k images, and queries without a relevant image"
        )
