"""The zoo: trained networks up to their embedding layer, and their preprocessing.

test_transfer.py builds all networks and checks the layers in the table.
"""

import keras
import numpy as np
import pytest

from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.images.reading import batches
from helpers.networks import specs, zoo
from helpers.networks.compiled import KerasNetwork


def test_keras_has_all_networks_but_efficientnet_lite():
    others = [row.name for row in specs.ZOO.values() if not hasattr(keras.applications, row.builder)]
    assert others == ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet50", ("resnet50", "")),
        ("resnet50-gem-pcaw256", ("resnet50", "gem-pcaw256")),
        ("efficientnet-lite0", ("efficientnet-lite0", "")),
        ("efficientnet-lite1-stage2-max", ("efficientnet-lite1", "stage2-max")),
    ],
)
def test_the_name_of_an_extractor_begins_with_its_network(name, parts):
    assert specs.split_name(name) == parts


@pytest.mark.parametrize("name", ["hog", "resnet501", "efficientnet"])
def test_other_names_have_no_network(name):
    with pytest.raises(KeyError, match="does not begin"):
        specs.split_name(name)


def test_names_in_any_case():
    assert specs.network("ResNet50") is specs.network("resnet50")


#: The preprocessing of each network in Keras. A test below has that of EfficientNet-Lite.
PUBLISHED = {
    "resnet50": keras.applications.resnet.preprocess_input,
    "resnet152": keras.applications.resnet.preprocess_input,
    "vgg16": keras.applications.vgg16.preprocess_input,
    "inceptionresnetv2": keras.applications.inception_resnet_v2.preprocess_input,
    "efficientnetv2l": keras.applications.efficientnet_v2.preprocess_input,
}


#: EfficientNet-Lite's is tested below.


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_preprocessing_is_that_of_keras(name):
    """For arrays, and in the graph of extractors and feature maps."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    expected = PUBLISHED[name](pixels.astype(np.float32))
    assert np.array_equal(zoo.preprocessing(name)(pixels.astype(np.float32)), expected)
    inputs = keras.Input((8, 8, 3))
    identity = keras.Model(inputs, keras.layers.Identity()(inputs))
    assert np.allclose(KerasNetwork(identity, zoo.preprocessing(name), 8)(pixels), expected, atol=1e-4)


@pytest.mark.parametrize("layer", ["avg_pool", "conv9"])
def test_the_error_about_a_layer_lists_the_ends_of_stages(layer):
    with pytest.raises(ValueError, match=f"no stage that ends with '{layer}'; there are: conv2_block3_out, "):
        zoo.mapper("resnet50", [layer])


def test_input_of_resnet_is_bgr_without_the_mean():
    """ResNet and VGG were trained on Caffe's input: BGR minus ImageNet's mean color."""
    pixels = np.full((1, 2, 2, 3), (200.0, 100.0, 50.0), np.float32)
    for name in ("resnet50", "resnet152", "vgg16"):
        found = zoo.preprocessing(name)(pixels.copy())[0, 0, 0]
        assert found == pytest.approx([50 - 103.939, 100 - 116.779, 200 - 123.68], abs=1e-4)


def test_input_of_inception_is_minus_one_to_one():
    pixels = np.array([0, 127.5, 255], np.float32).reshape(1, 1, 1, 3)
    assert zoo.preprocessing("inceptionresnetv2")(pixels.copy()).ravel() == pytest.approx([-1, 0, 1])


def test_efficientnet_contains_its_preprocessing():
    pixels = np.array([0, 100, 255], np.float32).reshape(1, 1, 1, 3)
    assert zoo.preprocessing("efficientnetv2l")(pixels.copy()).ravel().tolist() == [0, 100, 255]


def test_input_of_efficientnet_lite_is_minus_one_to_one():
    pixels = np.array([0, 127, 255], np.float32).reshape(1, 1, 1, 3)
    assert zoo.preprocessing("efficientnet-lite0")(pixels).ravel().tolist() == [-127 / 128, 0, 1]


@pytest.fixture(scope="module", params=[("resnet50", 2048), ("efficientnet-lite0", 1280)], ids=lambda each: each[0])
def embedder(request):
    """Name and dimension of a network whose weights are in the cache before the test starts."""
    if request.param[0] == "resnet50":
        request.getfixturevalue("resnet50")
    return request.param


@pytest.mark.slow
def test_the_embedder_is_the_classifier_up_to_its_embedding(embedder):
    name, dim = embedder
    extractor = open_extractor(name, engine="openvino")
    _, pixels = next(batches(samples.photos().subset([0, 40, 80]), 224))
    inputs = zoo.preprocessing(name)(pixels.astype(np.float32))
    whole = zoo.classifier(name)
    # Without graphs, because tracing would take longer.
    pooled, scores = map(
        np.asarray, keras.Model(whole.input, [whole.get_layer("avg_pool").output, whole.output])(inputs)
    )
    vectors = np.asarray(zoo.embedder(name)(inputs))
    assert vectors.shape == (3, dim) and np.abs(vectors - pooled).max() < 1e-5
    # The extractor runs preprocessing and network in one graph.
    assert np.abs(extractor.compute(pixels) - vectors).max() < 1e-4 * vectors.max()
    assert scores.shape == (3, 1000) and scores.sum(axis=1) == pytest.approx([1] * 3, abs=1e-4)
    assert (scores.max(axis=1) > 0.1).all(), "random weights would give 0.001 for each class"


def test_a_dense_embedding_requires_the_default_size():
    """Checked before weights are loaded."""
    with pytest.raises(ValueError, match="fc1 needs 224 × 224"):
        zoo.embedder("vgg16", 160)
