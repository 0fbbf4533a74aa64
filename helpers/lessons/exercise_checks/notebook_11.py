"""Checks of the exercises of notebook 11: triplets of a batch, and the contrastive loss."""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import pdist

from helpers.lessons.exercises import answer
from helpers.vectors import l2_normalize


def exercise_1(count: int) -> None:
    """The number of triplets of 8 identities with 4 images each."""
    images, positives, negatives = 8 * 4, 4 - 1, 7 * 4
    assert count != images * (positives + 1) * negatives, "an image is not its own positive"
    assert count != images * positives * negatives / 2, "(a, p, n) and (p, a, n) are two triplets: the anchors differ"
    assert count == images * positives * negatives, "multiply the numbers of anchors, of positives and of negatives"


def exercise_2(function: Callable[[np.ndarray, np.ndarray, float], float]) -> None:
    """The contrastive loss on random embeddings."""
    rng = np.random.default_rng(11)
    for count, identities, margin in ((2, 1, 1.0), (6, 3, 0.5), (12, 4, 1.0), (30, 5, 1.2)):
        labels, embeddings = rng.permutation(np.arange(count) % identities), rng.normal(size=(count, 8)) * 3
        found = float(answer(function, labels, embeddings, margin))
        distances = pdist(l2_normalize(embeddings, np.float64))
        losses = np.where(pdist(labels[:, None]) == 0, distances, np.maximum(margin - distances, 0)) ** 2 / 2
        expected = losses.mean()
        assert np.isclose(found, expected, atol=1e-6), (
            f"for {count} images and margin {margin} the loss is {expected:.4f}, but you return {found:.4f}: normalize "
            "the embeddings, leave out pairs of an image with itself, and divide by the number of pairs"
        )
