"""Scores as probabilities: of the images that score 0.7 for a tag, 70 % should show it.

Guo, Pleiss, Sun & Weinberger 2017, On calibration of modern neural networks. Fit the temperature on images that the
network was not trained on, and measure it on others (`helpers.evaluation.calibration.calibration_error`).
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
        from scipy.special import log_softmax

        labels = np.asarray(labels)
        logits = _logits(probabilities)
        if labels.shape != (len(logits),) or not len(labels) or labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise ValueError(f"expected one label in 0 … {logits.shape[1] - 1} for each of {len(logits)} images")

        def loss(log_temperature: float) -> float:
            likelihoods = log_softmax(logits * np.exp(-log_temperature), axis=1)
            return -float(likelihoods[np.arange(len(labels)), labels].mean())

        bounds = (np.log(_COLDEST), np.log(_HOTTEST))
        self.temperature = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
        return self

    def transform(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (n, c) → float32 (n, c); rows sum to 1."""
        from scipy.special import softmax

        return softmax(_logits(probabilities) / self.temperature, axis=1).astype(np.float32)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """float64 (n, c): logarithms of probabilities, which are logits up to a constant per row."""
    probabilities = np.asarray(probabilities, np.float64)
    valid = np.isfinite(probabilities) & (probabilities >= 0)
    if probabilities.ndim != 2 or not probabilities.shape[1] or not valid.all():
        raise ValueError(f"probabilities (n, c) must be finite and not negative, got {probabilities.shape}")
    return np.log(np.maximum(probabilities, _SMALLEST))
