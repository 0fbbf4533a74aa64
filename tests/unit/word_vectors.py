"""Word vectors in memory, for tests."""

from collections.abc import Sequence

import numpy as np

from helpers.features.text import FREQUENCY_WEIGHT, WordVectors
from helpers.features.word_list import WordList


def word_vectors(
    words: Sequence[str], vectors: np.ndarray, name: str = "words", frequency_weight: float | None = FREQUENCY_WEIGHT
) -> WordVectors:
    """Word vectors from words and an array (n, dim)."""
    return WordVectors(WordList.of(words), np.asarray(vectors, np.float32), name, frequency_weight)
