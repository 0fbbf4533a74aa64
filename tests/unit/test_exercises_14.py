"""The checks of notebook 14's exercises accept correct solutions only."""

import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise
from helpers.networks.word_maps import HingeRankLoss


def losses(outputs, labels, targets, margin):
    cosines = (outputs / np.linalg.norm(outputs, axis=1, keepdims=True)) @ targets.T
    rows = np.arange(len(labels))
    terms = np.maximum(0, margin - cosines[rows, labels][:, None] + cosines)
    terms[rows, labels] = 0
    return terms.sum(axis=1)


def of_keras(outputs, labels, targets, margin):
    return np.asarray(HingeRankLoss(targets, margin).call(labels, outputs.astype(np.float32)))


def test_correct_solutions():
    assert check_exercise("14.1", 3 / np.sqrt(10)) and check_exercise("14.1", 0.949)
    assert check_exercise("14.2", losses) and check_exercise("14.2", of_keras)


@pytest.mark.parametrize("cosine", [0.6, 0.75, 0.9, 0.95, 0.316, "0.949"])
def test_a_wrong_cosine(cosine):
    assert check_exercise("14.1", cosine) is False


def undivided(outputs, labels, targets, margin):
    cosines = outputs @ targets.T
    rows = np.arange(len(labels))
    terms = np.maximum(0, margin - cosines[rows, labels][:, None] + cosines)
    terms[rows, labels] = 0
    return terms.sum(axis=1)


def with_the_true_name(outputs, labels, targets, margin):
    return losses(outputs, labels, targets, margin) + margin


def in_place(outputs, labels, targets, margin):
    outputs /= np.linalg.norm(outputs, axis=1, keepdims=True)
    return losses(outputs, labels, targets, margin)


@pytest.mark.parametrize(
    "function",
    [
        undivided,
        with_the_true_name,
        in_place,
        lambda *arguments: losses(*arguments).mean(),
        lambda outputs, labels, targets, margin: losses(outputs, labels, targets, 0.1),
        lambda outputs, labels, targets, margin: losses(-outputs, labels, targets, margin),
    ],
)
def test_a_wrong_loss(function):
    assert check_exercise("14.2", function) is False


def test_a_missing_solution():
    assert check_exercise("14.1", None) is None
    assert check_exercise("14.2", lambda outputs, labels, targets, margin: None) is None
