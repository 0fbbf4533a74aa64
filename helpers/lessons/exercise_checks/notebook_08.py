"""Checks of the exercises of notebook 08: the inverse document frequency."""

from collections.abc import Callable

import numpy as np

from helpers.lessons.exercises import returned


def exercise_1(idf: float) -> None:
    """The idf of a word in 250 of 1,000 images."""
    assert abs(idf - np.log10(1000 / 250)) > 1e-3, "use the natural logarithm"
    assert abs(idf - np.log(1000 / 250)) < 1e-3, "divide all images by the images with the word, then take ln"


def exercise_2(function: Callable[[np.ndarray], np.ndarray]) -> None:
    """The idf of all words, on random counts; some words occur in all images, some in none."""
    rng = np.random.default_rng(8)
    for images, words in ((1, 4), (30, 5), (50, 80)):
        counts = rng.poisson(rng.exponential(0.7, words), (images, words))
        counts[:, 0], counts[:, 1] = 0, 2
        found = np.asarray(returned(function(counts.copy())), dtype=float)
        assert found.shape == (words,), f"return one value per word, ({words},), not {found.shape}"
        assert np.isfinite(found).all(), "a word that is in no image counts as if it were in one image"
        expected = np.log(images / np.maximum((counts > 0).sum(axis=0), 1))
        assert np.allclose(found, expected), (
            f"random counts {counts.shape}: {(~np.isclose(found, expected)).sum()} of {words} values are wrong; "
            "count the images that contain a word, not how often it occurs"
        )
