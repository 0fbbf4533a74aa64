"""Checks of the exercises of notebook 01: the chance of a false alarm, and a search with a threshold."""

import math
from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import answer

#: The false accept rate and the size of the gallery in the text of exercise 1.
RATE, PEOPLE = 0.01, 200


def exercise_1(probability: float) -> None:
    """The probability of at least one false accept among independent comparisons."""
    none = (1 - RATE) ** PEOPLE
    assert not math.isclose(probability, none, abs_tol=2e-3), "this is the probability of no false accept"
    assert not math.isclose(probability, RATE, abs_tol=2e-3), "this is the rate of one comparison"
    assert 0 <= probability <= 1, "a probability is at most 1: do not add the rates"
    assert math.isclose(probability, 1 - none, abs_tol=2e-3), "start with the probability of no false accept"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, np.ndarray, float], int]) -> None:
    """A search by cosine similarity with a threshold; equal similarities may be in any order."""
    rng = np.random.default_rng(1)
    for count, dim in ((1, 2), (6, 3), (40, 2), (25, 5)):
        for _ in range(8):
            gallery, query = _vectors(rng, count, dim), _vectors(rng, 1, dim)[0]
            labels = 10 + rng.permutation(count)
            cosines = gallery @ query / (np.linalg.norm(gallery, axis=1) * np.linalg.norm(query))
            best = cosines.max()
            right = labels[cosines > best - 1e-9]
            for threshold in (-2.0, best - 1e-6, best + 1e-6):
                found = int(answer(function, query, gallery, labels, threshold))
                given = f"the largest similarity is {best:.6f} and the threshold {threshold:.6f}"
                if best < threshold:
                    assert found == -1, f"{given}: return -1, not {found}"
                    continue
                assert found != -1, f"{given}: return a label, not -1"
                assert found in labels, f"{found} is no label; return the label of a row, not the row"
                assert found in right, "another row has a larger cosine; the vectors do not have length one"


def _vectors(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Whole numbers as float64 (count, dim); no vector is zero."""
    vectors = rng.integers(-3, 4, (count, dim)).astype(float)
    vectors[~vectors.any(axis=1), 0] = 1
    return vectors
