"""Scores as probabilities: of the images that score 0.7 for a tag, 70 % should show it.

Guo, Pleiss, Sun & Weinberger 2017, On calibration of modern neural networks (temperature scaling); Zadrozny & Elkan
2002, Transforming classifier scores into accurate multiclass probability estimates (isotonic regression). Fit them on
images that the network was not trained on, and measure them on others
(`helpers.evaluation.calibration.calibration_error`).
"""

from typing import Self

import numpy as np

#: Bounds of the temperature.
_COLDEST, _HOTTEST = 0.05, 20.0
#: Smaller probabilities count as this one, because 0 has no logarithm.
_SMALLEST = 1e-30


class TemperatureScaling:
    """Divides the logits of class probabilities by a temperature; the order of the classes does not change.

    temperature : above 1 for a network that is too sure, below 1 for one that is not sure enough.
    """

    def __init__(self, temperature: float = 1.0):
        if not (np.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = float(temperature)

    def fit(self, probabilities: np.ndarray, labels: np.ndarray) -> Self:
        """Choose the temperature with the highest likelihood of int64 (n,) labels, given probabilities (n, c)."""
        from scipy.optimize import minimize_scalar

        labels = np.asarray(labels)
        logits = _logits(probabilities)
        if labels.shape != (len(logits),) or not len(labels) or labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise ValueError(f"expected one label in 0 … {logits.shape[1] - 1} for each of {len(logits)} images")
        true = logits[np.arange(len(labels)), labels]

        def loss(log_temperature: float) -> float:
            scaled = np.exp(-log_temperature)
            return float((_log_sum(logits * scaled) - true * scaled).mean())

        bounds = (np.log(_COLDEST), np.log(_HOTTEST))
        self.temperature = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
        return self

    def transform(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (n, c) → float32 (n, c); rows sum to 1."""
        logits = _logits(probabilities) / self.temperature
        return np.exp(logits - _log_sum(logits)[:, None]).astype(np.float32)


class IsotonicScores:
    """Scores of any kind, such as cosines → the share of pairs of an image and a tag that are right (scikit-learn).

    A higher score never gets a lower probability. The scores of an image need not sum to 1.
    """

    def fit(self, scores: np.ndarray, right: np.ndarray) -> Self:
        """Learn from scores (n, c) of images and tags, and bool (n, c), whether the tag is right."""
        from sklearn.isotonic import IsotonicRegression

        scores, right = np.asarray(scores, np.float64), np.asarray(right)
        if scores.shape != right.shape or not scores.size or right.dtype != bool or not np.isfinite(scores).all():
            raise ValueError(f"expected finite scores and bool of one shape, got {scores.shape} and {right.shape}")
        self._model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores.ravel(), right.ravel())
        return self

    def transform(self, scores: np.ndarray) -> np.ndarray:
        """Scores (n, c) → float32 (n, c) in 0 … 1."""
        if not hasattr(self, "_model"):
            raise ValueError("IsotonicScores must be fitted first")
        scores = np.asarray(scores, np.float64)
        return self._model.predict(scores.ravel()).reshape(scores.shape).astype(np.float32)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """float64 (n, c): logarithms of probabilities, which are logits up to a constant per row."""
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not probabilities.shape[1] or not (probabilities >= 0).all():
        raise ValueError(f"probabilities (n, c) must be finite and not negative, got {probabilities.shape}")
    return np.log(np.maximum(probabilities, _SMALLEST))


def _log_sum(logits: np.ndarray) -> np.ndarray:
    """float64 (n,): log Σ exp of each row."""
    from scipy.special import logsumexp

    return logsumexp(logits, axis=1)
