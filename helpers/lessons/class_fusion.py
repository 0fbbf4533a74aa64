"""Concatenates feature vectors with the class that a classifier predicts, to show what this does to a search."""

import numpy as np

from helpers.vectors import l2_normalize


def with_prediction(vectors: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """float32 (n, d + classes): each vector, normalized, and its predicted class as a one-hot vector.

    For vectors with the cosine c, the cosine is (c + 1) / 2 if the predictions agree, and c / 2 if not. Without a
    negative c, all images with the query's predicted class come before all others: the search has become the
    classifier.

    vectors : float (n, d). predicted : int (n,), 0 … classes - 1.
    """
    vectors, predicted = np.asarray(vectors), np.asarray(predicted)
    if vectors.ndim != 2 or predicted.shape != vectors.shape[:1]:
        raise ValueError(f"one class per vector is needed, got shapes {vectors.shape} and {predicted.shape}")
    if not np.issubdtype(predicted.dtype, np.integer) or not ((predicted >= 0) & (predicted < classes)).all():
        raise ValueError(f"classes must be integers 0 … {classes - 1}")
    return np.concatenate([l2_normalize(vectors), np.eye(classes)[predicted]], axis=1).astype(np.float32)
