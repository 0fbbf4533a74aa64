"""The zoo: trained networks up to their embedding layer, fed as they were trained.

That each row names real layers of its architecture is in test_transfer.py, where all of them are built.
"""

import keras
import numpy as np
import pytest

from helpers.images import samples
from helpers.images.reading import batches
from helpers.networks import specs, zoo
from helpers.networks.compiled import KerasNetwork


def test_every_row_is_one_of_keras():
    for row in specs.ZOO.values():
        assert callable(getattr(keras.applications, row.builder))
        assert callable(zoo.preprocessing(row.name))


def test_names_in_any_case():
    assert specs.network("ResNet50") is specs.network("resnet50")


#: How each network's training prepared images, as Keras publishes it.
PUBLISHED = {
    "resnet50": keras.applications.resnet.preprocess_input,
    "resnet152": keras.applications.resnet.preprocess_input,
    "vgg16": keras.applications.vgg16.preprocess_input,
    "inceptionresnetv2": keras.applications.inception_resnet_v2.preprocess_input,
    "efficientnetv2l": keras.applications.efficientnet_v2.preprocess_input,
}


@pytest.mark.parametrize("name", list(specs.ZOO))
def test_preprocessing_is_the_published_one(name):
    """On arrays, and inside the graph that extractors and feature maps run."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    wanted = PUBLISHED[name](pixels.astype(np.float32))
    assert np.array_equal(zoo.preprocessing(name)(pixels.astype(np.float32)), wanted)
    inputs = keras.Input((8, 8, 3))
    nothing = keras.Model(inputs, keras.layers.Identity()(inputs))
    assert np.allclose(KerasNetwork(nothing, zoo.preprocessing(name), 8)(pixels), wanted, atol=1e-4)


@pytest.mark.parametrize("layer", ["avg_pool", "conv9"])
def test_a_layer_that_ends_no_stage_is_answered_by_those_that_do(layer):
    with pytest.raises(ValueError, match=f"no stage that ends with '{layer}'; there are: conv2_block3_out, "):
        zoo.mapper("resnet50", [layer])


def test_resnet_wants_blue_first_and_no_mean():
    """ResNet and VGG were trained on Caffe's input: BGR, less ImageNet's mean color."""
    pixels = np.full((1, 2, 2, 3), (200.0, 100.0, 50.0), np.float32)
    for name in ("resnet50", "resnet152", "vgg16"):
        seen = zoo.preprocessing(name)(pixels.copy())[0, 0, 0]
        assert seen == pytest.approx([50 - 103.939, 100 - 116.779, 200 - 123.68], abs=1e-4)


def test_inception_wants_minus_one_to_one():
    pixels = np.array([0, 127.5, 255], np.float32).reshape(1, 1, 1, 3)
    assert zoo.preprocessing("inceptionresnetv2")(pixels.copy()).ravel() == pytest.approx([-1, 0, 1])


def test_efficientnet_does_it_inside():
    pixels = np.array([0, 100, 255], np.float32).reshape(1, 1, 1, 3)
    assert zoo.preprocessing("efficientnetv2l")(pixels.copy()).ravel().tolist() == [0, 100, 255]


@pytest.mark.slow
def test_the_embedder_is_the_classifier_up_to_its_embedding(resnet50):
    """Leaving the classifier's arrays away leaves every other array in its place."""
    rows, pixels = next(batches(samples.photos().subset([0, 40, 80]), 224))
    seen = zoo.preprocessing("resnet50")(pixels.astype(np.float32))
    whole = zoo.classifier("resnet50")
    layer = keras.Model(whole.input, whole.get_layer("avg_pool").output)
    vectors = zoo.embedder("resnet50").predict_on_batch(seen)
    assert vectors.shape == (3, 2048) and np.abs(vectors - layer.predict_on_batch(seen)).max() < 1e-5
    # The extractor does the same, with preprocessing and network in one graph.
    assert np.abs(resnet50.compute(pixels) - vectors).max() < 1e-4 * vectors.max()
    scores = whole.predict_on_batch(seen)
    assert scores.shape == (3, 1000) and scores.sum(axis=1) == pytest.approx([1] * 3, abs=1e-4)
    assert (scores.max(axis=1) > 0.1).all(), "untrained, every class would get a thousandth"


def test_a_dense_embedding_needs_its_own_size():
    """Before any weights are asked for."""
    with pytest.raises(ValueError, match="fc1 needs 224 × 224"):
        zoo.embedder("vgg16", 160)
