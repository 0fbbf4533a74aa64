"""The checks of the exercises of notebook 06 accept right solutions, and name the mistake of wrong ones."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from helpers.features import projection
from helpers.lessons.exercises import check_exercise


def with_sklearn(training, vectors, dim, whitening):
    pca = PCA(dim).fit(training)
    return normalize(pca.transform(vectors) / np.sqrt(pca.explained_variance_) ** whitening)


def by_eigenvectors(training, vectors, dim, whitening):
    values, axes = np.linalg.eigh(np.cov(training.T))
    values, axes = values[::-1][:dim], axes[:, ::-1][:, :dim]
    return normalize((vectors - training.mean(axis=0)) @ axes / values ** (whitening / 2))


def test_right_solutions_pass():
    assert check_exercise("06.1", 1568)
    assert check_exercise("06.2", with_sklearn)
    assert check_exercise("06.2", by_eigenvectors)


def test_the_reference_agrees_with_the_helper():
    def helper(training, vectors, dim, whitening):
        return projection.learn(training, dim, "random vectors", whitening)(vectors).astype(np.float64)

    assert check_exercise("06.2", helper)


@pytest.mark.parametrize(
    ("value", "hint"), [(392, "four bytes"), (32, "keeps all positions"), (1 / 1568, "divide"), (7, "multiply")]
)
def test_a_wrong_value_gets_a_hint(value, hint, capsys):
    assert check_exercise("06.1", value) is False
    assert hint in capsys.readouterr().out


def by_the_variance(training, vectors, dim, whitening):
    pca = PCA(dim).fit(training)
    return normalize(pca.transform(vectors) / pca.explained_variance_**whitening)


def with_their_own_mean(training, vectors, dim, whitening):
    return with_sklearn(training, vectors - vectors.mean(axis=0) + training.mean(axis=0), dim, whitening)


def learned_from_the_vectors(training, vectors, dim, whitening):
    return with_sklearn(vectors, vectors, dim, whitening)


def always_whitened(training, vectors, dim, whitening):
    return normalize(PCA(dim, whiten=True).fit(training).transform(vectors))


def not_normalized(training, vectors, dim, whitening):
    return PCA(dim, whiten=True).fit(training).transform(vectors)


def all_axes(training, vectors, dim, whitening):
    return with_sklearn(training, vectors, training.shape[1], whitening)


def in_place(training, vectors, dim, whitening):
    found = with_sklearn(training, vectors, dim, whitening)
    vectors -= training.mean(axis=0)
    return found


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (by_the_variance, "similarities differ with dim=5 and whitening=1"),
        (with_their_own_mean, "subtract the mean of the training"),
        (learned_from_the_vectors, "similarities differ"),
        (always_whitened, "similarities differ with dim=2 and whitening=0"),
        (not_normalized, "must have the length 1"),
        (all_axes, "return the shape (7, 2)"),
        (in_place, "must not change"),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_wrong_functions_get_a_hint(function, hint, capsys):
    assert check_exercise("06.2", function) is False
    assert hint in capsys.readouterr().out


def test_a_missing_solution_is_no_mistake():
    assert check_exercise("06.1", None) is None
    assert check_exercise("06.2", lambda *_: None) is None
