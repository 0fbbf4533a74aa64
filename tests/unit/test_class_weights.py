"""Re-weighting of feature vectors by a class of ImageNet."""

import keras  # noqa: F401 (its first import starts a process, which the tests do not)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.features.class_weights import ClassWeights, reweighted
from helpers.features.deep import ClassScores, NetworkExtractor
from helpers.features.text import UnknownWords
from helpers.images import samples
from tests.unit.word_vectors import word_vectors


@pytest.fixture(scope="module")
def words():
    """A boat is nearest to the trimaran, then to the schooner."""
    table = {"boat": (4, 0), "trimaran": (4, 1), "schooner": (1, 1)}
    return word_vectors(list(table), np.array(list(table.values())), "w")


@pytest.fixture(scope="module")
def lite0(words):
    return ClassWeights("efficientnet-lite0", words)


def test_weights_are_those_of_the_classifier(lite0):
    """The logits of ImageNet's classes differ by the weights, see the test of the class scores."""
    images = samples.photos().subset([3, 77])
    scores = ClassScores("efficientnet-lite0").extract(images, progress=False).astype(np.float64)
    vectors = NetworkExtractor("efficientnet-lite0").extract(images, progress=False)
    logits = vectors @ lite0.kernel
    for row, logit in zip(scores, logits, strict=True):
        assert np.corrcoef(np.log(row), logit)[0, 1] > 0.99
    assert np.array_equal(lite0.weights("Tench"), lite0.kernel[:, 0])
    assert np.array_equal(lite0.weights("great_white_shark"), lite0.kernel[:, 2])


def test_another_text_means_the_nearest_class(lite0):
    assert lite0.classes("trimaran") == ["trimaran"] and lite0.classes("boat") == ["trimaran"]
    expected = (4 / 17**0.5) * lite0.weights("trimaran")
    np.testing.assert_allclose(lite0.weights("boat"), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(UnknownWords):
        lite0.weights("zyx")
    with pytest.raises(ValueError, match="no class of ImageNet is called 'boat'; other texts need word vectors"):
        ClassWeights("efficientnet-lite0").weights("boat")


def test_both_cranes_count(lite0):
    assert lite0.classes("crane") == ["crane", "crane"]


def test_a_network_with_another_embedding():
    with pytest.raises(ValueError, match="vgg16: the classifier's input is not the embedding, which is fc1"):
        ClassWeights("vgg16")


def test_reweighting_by_hand():
    found = reweighted(np.array([[1, 2, 2], [0, 0, 5]]), np.array([3, 2, 0]))
    np.testing.assert_allclose(found, [[0.6, 0.8, 0], [0, 0, 0]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"got \(1, 3\) and \(2,\)"):
        reweighted(np.ones((1, 3)), np.ones(2))


@given(st.integers(0, 2**32 - 1))
def test_a_weighted_query_scores_as_the_class(seed):
    """The order by the product with a weighted vector is that of the sum of both features times the weights."""
    random = np.random.default_rng(seed)
    query, gallery, weights = random.uniform(size=(1, 8)), random.uniform(size=(5, 8)), random.standard_normal(8)
    expected = (query * gallery * weights).sum(axis=1)
    assert (np.argsort(gallery @ reweighted(query, weights)[0]) == np.argsort(expected)).all()
