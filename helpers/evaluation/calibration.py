"""Reliability of scores that claim to be probabilities: is a tag with the score 0.7 right in 70 % of the images?"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def reliability(scores: np.ndarray, right: np.ndarray, bins: int = 10) -> "pd.DataFrame":
    """One row per bin of equal width that has scores: low, high, count, score (mean), right (share).

    scores : float (n,) in 0 … 1. right : bool (n,).
    """
    import pandas as pd

    scores, right = np.asarray(scores, np.float64), np.asarray(right)
    if scores.ndim != 1 or scores.shape != right.shape or not len(scores) or right.dtype != bool:
        raise ValueError(f"expected scores (n,) and bool (n,), got {scores.shape} and {right.dtype} {right.shape}")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must lie in 0 … 1")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    # The last bin contains 1.
    number = np.minimum((scores * bins).astype(int), bins - 1)
    rows = [
        (each / bins, (each + 1) / bins, int(inside.sum()), scores[inside].mean(), right[inside].mean())
        for each in range(bins)
        if (inside := number == each).any()
    ]
    return pd.DataFrame(rows, columns=["low", "high", "count", "score", "right"])


def calibration_error(scores: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: |mean score − share of right ones| of each bin, weighted by its count.

    Naeini, Cooper & Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning. It depends on the
    number of bins, and is never quite 0 for few images.
    """
    table = reliability(scores, right, bins)
    return float((table["count"] * (table["score"] - table["right"]).abs()).sum() / table["count"].sum())
