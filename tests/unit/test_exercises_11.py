"""The checks of notebook 11's exercises accept correct results only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise
from helpers.networks.losses import ContrastiveLoss


def by_matrices(labels, embeddings, margin):
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = np.sqrt(np.maximum(2 - 2 * unit @ unit.T, 0))
    losses = np.where(labels[:, None] == labels, distances**2, np.maximum(0, margin - distances) ** 2) / 2
    return losses[~np.eye(len(labels), dtype=bool)].mean()


def test_correct_results():
    assert check_exercise("11.1", 2688)
    assert check_exercise("11.2", by_matrices)


def test_the_correct_function_agrees_with_the_library():
    rng = np.random.default_rng(0)
    labels, embeddings = np.repeat(np.arange(4), 3), rng.normal(size=(12, 5)).astype(np.float32)
    expected = float(ContrastiveLoss(margin=1.2)(labels, embeddings))
    assert by_matrices(labels, embeddings, 1.2) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("count", [3584, 1344, 2687, "2688"])
def test_a_wrong_number_of_triplets(count):
    assert check_exercise("11.1", count) is False


@pytest.mark.parametrize(
    "function",
    [
        lambda labels, embeddings, margin: by_matrices(labels, embeddings, 1.0),
        lambda labels, embeddings, margin: 2 * by_matrices(labels, embeddings, margin),
        lambda labels, embeddings, margin: by_matrices(labels[::-1], embeddings, margin),
    ],
)
def test_a_wrong_loss(function):
    assert check_exercise("11.2", function) is False


def test_a_function_without_code_is_not_checked():
    assert check_exercise("11.2", lambda labels, embeddings, margin: None) is None
