"""Probabilities of ImageNet's classes as an extractor."""

import keras  # noqa: F401 (its first import starts a process, which the tests do not)
import numpy as np
import pytest

from helpers.features.color_shape import ColorHistogram
from helpers.features.deep import ClassScores, NetworkExtractor, class_scores_of
from helpers.images import imagenet, samples
from helpers.images.reading import batches
from helpers.networks import weights, zoo

#: Photographs of the sample → their class.
NAMES = {
    "camel.jpg": "Arabian camel", "broccoli.jpg": "broccoli", "garbagetruck.jpg": "garbage truck", "hen.jpg": "hen",
    "squirrel.jpg": "fox squirrel",
}  # fmt: skip


@pytest.fixture(scope="module")
def scores():
    return ClassScores("efficientnet-lite0")


@pytest.fixture(scope="module")
def images():
    return samples.photos().where(lambda key: key.rpartition("/")[2] in NAMES)


def test_scores_are_those_of_the_classifier(scores, images):
    """The classifier of Keras on the preprocessed pixels, computed as a batch."""
    found = scores.extract(images, progress=False)
    assert found.shape == (len(images), 1000) and scores.dim == 1000
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    [(_, pixels)] = batches(images.paths, scores.size, scores.resize_rule, 64)
    inputs = zoo.preprocessing("efficientnet-lite0")(pixels.astype(np.float32))
    expected = np.asarray(zoo.classifier("efficientnet-lite0")(inputs, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_columns_are_the_classes_of_imagenet(scores, images):
    names = list(imagenet.classes().values())
    likeliest = scores.extract(images, progress=False).argmax(axis=1)
    assert {key.rpartition("/")[2]: names[row] for key, row in zip(images.keys, likeliest, strict=True)} == NAMES


def test_scores_follow_from_the_embedding(scores, images):
    """softmax(embedding · kernel + bias); the direction of the embedding is that of the extractor."""
    *_, kernel, bias = weights.arrays("efficientnet-lite0")
    logits = np.log(np.maximum(scores.extract(images, progress=False).astype(np.float64), 1e-30))
    embedding = NetworkExtractor("efficientnet-lite0").extract(images, progress=False)
    for vector, row in zip(embedding, logits, strict=True):
        likely = row > np.log(1e-6)
        design = np.stack([(vector @ kernel)[likely], np.ones(likely.sum())], axis=1)
        length, *_ = np.linalg.lstsq(design, (row - bias)[likely], rcond=None)
        np.testing.assert_allclose(design @ length, (row - bias)[likely], atol=0.02)
        assert length[0] > 0


def test_its_vectors_are_stored_apart(scores):
    assert scores.fingerprint.startswith("efficientnet-lite0-classes-")
    assert scores.fingerprint != ClassScores("efficientnet-lite0", resize="crop").fingerprint


def test_class_scores_by_the_network_of_an_extractor():
    lite = NetworkExtractor("efficientnet-lite0", pooling="gem")
    assert class_scores_of(lite, "resnet50").fingerprint == ClassScores("efficientnet-lite0").fingerprint
    assert class_scores_of(NetworkExtractor("resnet50")).name == "resnet50-classes"
    assert class_scores_of(ColorHistogram()).name == "efficientnet-lite0-classes"
