"""Vectors fused with the class that a classifier predicts: what that does to a search is a lesson, not a method."""

import numpy as np

from helpers.vectors import l2_normalize


def with_prediction(vectors: np.ndarray, predicted: np.ndarray, classes: int, weight: float = 1.0) -> np.ndarray:
    """float32 (n, d + classes): each vector, brought to length one, then ``weight`` at the place of its class.

    The cosine of two of them is (c + weight²) / (1 + weight²) where the predictions agree and c / (1 + weight²) where
    they don't, c the cosine of the vectors alone. With a weight of 1 or more, whoever was given the query's class comes
    before everyone else (as long as no c is negative): the search has become the classifier.

    Parameters
    ----------
    vectors : float (n, d). predicted : int (n,), 0 … classes - 1.

    Raises
    ------
    ValueError : not one class a vector, a class out of range, or a negative weight.
    """
    vectors, predicted = np.asarray(vectors), np.asarray(predicted)
    if vectors.ndim != 2 or predicted.shape != vectors.shape[:1]:
        raise ValueError(f"one class a vector is needed, got shapes {vectors.shape} and {predicted.shape}")
    if not np.issubdtype(predicted.dtype, np.integer) or not ((predicted >= 0) & (predicted < classes)).all():
        raise ValueError(f"classes must be whole numbers 0 … {classes - 1}")
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    of_class = weight * np.eye(classes)[predicted]
    return np.concatenate([l2_normalize(vectors), of_class], axis=1).astype(np.float32)
