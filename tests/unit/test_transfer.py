"""Transfer learning: split, freeze, train and save each network of the zoo, with random weights and small images."""

import json
from itertools import pairwise

import keras
import numpy as np
import pytest

from helpers.features.deep import NetworkExtractor
from helpers.features.feature_maps import vectors
from helpers.networks import fingerprints, specs, transfer, weights, zoo

#: VGG16's fc1 requires the default size; 75 is the minimum of InceptionResNetV2.
SIZES = {
    "resnet50": 64, "resnet152": 64, "vgg16": 224, "inceptionresnetv2": 75, "efficientnetv2l": 64,
    "efficientnet-lite0": 64, "efficientnet-lite2": 64,
}  # fmt: skip

#: Layers with weights: number of frozen and trainable ones, the first and the last trainable one.
FREEZING = {
    "resnet50": (96, 10, "conv5_block1_1_conv", "conv5_block3_3_conv"),  # 53 convolutions, 53 batch normalizations
    "resnet152": (300, 10, "conv5_block1_1_conv", "conv5_block3_3_conv"),  # 155 of each
    "vgg16": (10, 4, "block5_conv1", "fc1"),
    "inceptionresnetv2": (390, 58, "conv2d_160", "conv_7b"),  # 7 in mixed_7a, 10 blocks of 5, and conv_7b
    "efficientnetv2l": (520, 36, "block7a_expand_conv", "top_conv"),  # 7 blocks of 5, and top_conv
    "efficientnet-lite0": (94, 4, "block7a_expand_conv", "top_conv"),  # 3 of block7a, and top_conv
    "efficientnet-lite2": (124, 4, "block7a_expand_conv", "top_conv"),
}

#: Beginnings of the names of the last block's layers, for networks that name all layers.
LAST_BLOCK = {
    "resnet50": "conv5_",
    "resnet152": "conv5_",
    "vgg16": ("block5_", "fc1"),
    "efficientnetv2l": ("block7", "top_"),
    "efficientnet-lite0": ("block7", "top_"),
    "efficientnet-lite2": ("block7", "top_"),
}


#: These have more blocks of the kinds that ResNet50 and EfficientNet-Lite0 have.
LONGER = ("resnet152", "efficientnet-lite2")


def untrained(name):
    """A network up to its embedding, as built by the zoo, but with random weights."""
    keras.backend.clear_session()  # InceptionResNetV2's layers are numbered from the first one of the session
    keras.utils.set_random_seed(0)
    return specs.embedding_architecture(name, SIZES[name])


def networks(*measured):
    """All networks as parameters; those but ResNet50 are slow, because they take a minute and a half, or measured."""
    marks = {name: "slow" for name in SIZES if name != "resnet50"} | dict.fromkeys(measured, "measured")
    return [pytest.param(name, marks=getattr(pytest.mark, marks[name]) if name in marks else ()) for name in SIZES]


@pytest.fixture(scope="module", params=networks(*LONGER))
def cut(request):
    """Each network in turn, split; built once, because that takes seconds."""
    return transfer.split_network(request.param, network=untrained(request.param))


only_resnet50 = pytest.mark.parametrize("cut", ["resnet50"], indirect=True)


def noise(split, n=2):
    pixels = np.random.default_rng(0).uniform(0, 255, (n, split.size, split.size, 3)).astype(np.float32)
    return zoo.preprocessing(split.name)(pixels)


def noisy_maps(split, n=2):
    """Feature maps for a tail. Those of random weights would be huge or tiny."""
    return np.random.default_rng(1).uniform(0, 1, (n, *split.tail.inputs[0].shape[1:])).astype(np.float32)


def close(found, expected):
    return np.allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def train_step(model, inputs, labels):
    """One step of training, without a graph, because tracing would take longer."""
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
    assert np.isfinite(model.train_on_batch(inputs, np.asarray(labels)))


# ---- freezing -------------------------------------------------------------------------------------------


def test_the_first_blocks_are_frozen_and_the_last_one_is_trainable(cut):
    frozen, trained = transfer.freeze(cut.whole, specs.network(cut.name).frozen_until)
    assert (len(frozen), len(trained), trained[0], trained[-1]) == FREEZING[cut.name]
    if cut.name == "inceptionresnetv2":
        # Without a name: 156 before mixed_7a, 7 in it, 4 in each of ten blocks; named: the fifth of each block.
        last = {f"conv2d_{number}" for number in range(156, 156 + 7 + 40)}
        assert set(trained) == last | {f"block8_{number}_conv" for number in range(1, 11)} | {"conv_7b"}
    else:
        assert all(name.startswith(LAST_BLOCK[cut.name]) for name in trained)
    assert not cut.trunk.trainable_weights
    assert sorted(value.path for value in cut.tail.trainable_weights) == sorted(
        value.path for name in trained for value in cut.whole.get_layer(name).weights
    )


def statistics(model):
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert not any(layer.trainable for layer in layers)
    return [value.numpy() for layer in layers for value in layer.weights]


def test_batch_normalization_is_not_trained(cut):
    """Mean, variance and output stay the same with ``training=True``."""
    before = statistics(cut.whole)
    assert bool(before) == (cut.name != "vgg16")
    maps = noisy_maps(cut)
    output = np.asarray(cut.tail(maps, training=True))
    assert all(map(np.array_equal, before, statistics(cut.whole)))
    if cut.name != "efficientnetv2l":  # it drops whole blocks at random in training
        assert close(output, np.asarray(cut.tail(maps)))


@only_resnet50
def test_batch_normalization_of_frozen_blocks_is_not_trained(cut):
    before, inputs = statistics(cut.whole), noise(cut)
    assert close(np.asarray(cut.whole(inputs, training=True)), np.asarray(cut.whole(inputs)))
    assert len(before) == 4 * 53 and all(map(np.array_equal, before, statistics(cut.whole)))


def test_an_unknown_layer_is_an_error():
    model = transfer.head(8, 3)
    with pytest.raises(ValueError, match=r"has no layer 'conv6'; the last ones are vectors, dropout.*, classifier"):
        transfer.freeze(model, "conv6")
    assert all(layer.trainable for layer in model.layers)


def test_a_parallel_branch_is_not_frozen():
    """Only layers that the last frozen one depends on are frozen, whatever their order."""
    inputs = keras.Input((4,))
    left = keras.layers.Dense(3, name="left")(inputs)
    below = keras.layers.BatchNormalization(name="below")(keras.layers.Dense(3, name="cut")(left))
    right = inputs
    for name in ("right-1", "right-2", "right-3"):
        right = keras.layers.Dense(3, name=name)(right)
    model = keras.Model(inputs, keras.layers.Add(name="sum")([below, right]))
    names = [layer.name for layer in model.layers]
    assert names.index("right-1") < names.index("cut"), "otherwise this test cannot fail"
    frozen, trained = transfer.freeze(model, "cut")
    assert (set(frozen), trained) == ({"left", "cut", "below"}, ["right-1", "right-2", "right-3"])


# ---- splitting and training -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("cut", networks(*LONGER), indirect=True)
def test_training_the_tail_changes_the_whole_but_not_the_trunk(cut):
    inputs = noise(cut, 1)
    maps = np.asarray(cut.trunk(inputs))
    before = np.asarray(cut.tail(maps))
    assert maps.ndim == 4 and before.shape == (1, specs.network(cut.name).dim) and before.std() > 0

    held = {value.path: value.numpy() for value in cut.whole.weights}
    # Six, so that no block of EfficientNet is dropped for all of them.
    train_step(transfer.with_head(cut.tail, 3), noisy_maps(cut, 6), [0, 1, 2, 2, 1, 0])
    changed = {value.path for value in cut.whole.weights if not np.array_equal(held[value.path], value.numpy())}
    assert changed == {value.path for value in cut.tail.trainable_weights}

    after = np.asarray(cut.tail(maps))
    assert not np.allclose(after, before, rtol=1e-3, atol=0)
    assert close(np.asarray(cut.whole(inputs)), after), "trunk, then tail, is the whole"


def test_the_layers_of_the_table_follow_each_other(cut):
    """The last frozen layer, the last feature map and the embedding; no branch bypasses any of them."""
    row = specs.network(cut.name)
    order = [cut.whole.get_layer(row.frozen_until), cut.whole.get_layer(row.features), cut.whole.layers[-1]]
    # Without its classifier, InceptionResNetV2's pooling has another name.
    assert order[2].name == row.embedding or (cut.name, type(order[2]).__name__) == (
        "inceptionresnetv2",
        "GlobalAveragePooling2D",
    )
    assert [len(layer.output.shape) for layer in order] == [4, 4, 2] and order[2].output.shape[1] == row.dim
    for above, below in pairwise(order):
        between = keras.Model(above.output, below.output)
        assert above not in between.layers and below in between.layers
    assert order[1] is cut.last_maps.layers[-1]


def test_the_embedding_is_pooled_from_the_last_feature_map(cut):
    maps = noisy_maps(cut)
    last, vector = np.asarray(cut.last_maps(maps)), np.asarray(cut.tail(maps))
    assert last.ndim == 4
    if cut.name == "vgg16":
        kernel, bias = cut.whole.get_layer("fc1").get_weights()
        pooled = np.maximum(last.reshape(2, -1) @ kernel + bias, 0)
    else:
        pooled = last.mean(axis=(1, 2))
    assert np.allclose(pooled, vector, rtol=1e-4, atol=1e-4 * np.abs(vector).max())


@pytest.mark.slow
@pytest.mark.parametrize("cut", networks(*LONGER, "vgg16", "efficientnetv2l"), indirect=True)
def test_a_tail_can_be_saved(cut, tmp_path):
    """In Keras's format, with numbered layers and InceptionResNetV2's custom layers.

    The largest files, up to 420 MB, take seconds each.
    """
    cut.tail.save(tmp_path / "tuned.keras")
    loaded = keras.models.load_model(tmp_path / "tuned.keras")
    (tmp_path / "tuned.keras").unlink()
    maps = noisy_maps(cut)
    assert np.array_equal(loaded(maps), cut.tail(maps))
    assert fingerprints.of_model(loaded) == fingerprints.of_model(cut.tail)
    assert len(loaded.trainable_weights) == len(cut.tail.trainable_weights) < len(loaded.weights) or cut.name == "vgg16"


@only_resnet50
def test_a_saved_network_can_be_split_again(cut, tmp_path):
    cut.whole.save(tmp_path / "tuned.keras")
    loaded = transfer.split_network("resnet50", network=keras.models.load_model(tmp_path / "tuned.keras"))
    (tmp_path / "tuned.keras").unlink()
    assert loaded.whole is not cut.whole
    inputs = noise(cut)
    assert np.array_equal(loaded.tail(loaded.trunk(inputs)), cut.whole(inputs))
    for part in ("whole", "trunk", "tail"):
        assert fingerprints.of_model(getattr(loaded, part)) == fingerprints.of_model(getattr(cut, part))


@only_resnet50
def test_weights_can_be_saved(cut, tmp_path):
    maps = noisy_maps(cut)
    learned = np.asarray(cut.tail(maps))
    cut.tail.save_weights(tmp_path / "tuned.weights.h5")
    for value in cut.tail.trainable_weights:
        value.assign(value * 0.9)
    assert not np.allclose(cut.tail(maps), learned, rtol=1e-3)
    cut.tail.load_weights(tmp_path / "tuned.weights.h5")
    assert np.array_equal(cut.tail(maps), learned)


# ---- other networks -------------------------------------------------------------------------------------


@only_resnet50
def test_an_existing_network_is_split(cut):
    again = transfer.split_network("ResNet50", 64, network=cut.whole)
    assert again.whole is cut.whole and (again.name, again.size) == ("resnet50", 64)
    assert again.tail.weights[0] is cut.tail.weights[0]


@only_resnet50
def test_another_network_is_an_error(cut):
    with pytest.raises(ValueError, match=r"vgg16 up to fc1 returns \(b, 4096\), but resnet50.* returns .*2048"):
        transfer.split_network("vgg16", network=cut.whole)
    with pytest.raises(ValueError, match=r"returns \(b, 2048\), but .*classifier returns .*3\)"):
        transfer.split_network("resnet50", network=transfer.with_head(cut.whole, 3))
    with pytest.raises(ValueError, match="takes images of 64 pixels, not of 224"):
        transfer.split_network("resnet50", 224, network=cut.whole)
    with pytest.raises(ValueError, match="has no layer 'conv4_block36_out'"):
        transfer.split_network("resnet152", network=cut.whole)


@only_resnet50
def test_weights_copied_into_the_cache_are_used(cut, own_cache):
    """The remedy of the error about missing weights, which is the same for all networks: two files."""
    put = [array + np.float32(number / 1000) for number, array in enumerate(cut.whole.get_weights())]
    path = weights._file("resnet50")
    path.parent.mkdir(parents=True)
    classifier = [np.zeros((2048, 1000), np.float32), np.zeros(1000, np.float32)]
    np.savez(path, **{f"{number:04d}": array for number, array in enumerate(put + classifier)})
    path.with_suffix(".json").write_text(json.dumps({"source": "my own training", "sha256": "12ab"}))
    found = transfer.split_network("resnet50", 64)
    path.unlink()  # 103 MB
    assert all(map(np.array_equal, found.whole.get_weights(), put)) and found.size == 64
    assert len(found.trunk.get_weights()) + len(found.tail.get_weights()) == len(put) == 2 * 53 + 4 * 53


def test_an_extractor_names_the_origin_of_its_weights(own_cache):
    path = weights._file("resnet152")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"read with the first image")
    path.with_suffix(".json").write_text(json.dumps({"source": "my own training", "sha256": "12ab"}))
    assert NetworkExtractor("resnet152").origin == {"source": "my own training", "sha256": "12ab"}


# ---- heads ----------------------------------------------------------------------------------------------


@only_resnet50
@pytest.mark.parametrize("cosine", [False, True])
def test_the_second_stage_starts_with_the_head_of_the_first(cut, cosine):
    maps = noisy_maps(cut, 6)
    inputs = vectors(cut.tail, maps, normalize=False)
    warm = transfer.head(2048, 3, seed=5, cosine=cosine)
    if cosine:
        warm.get_layer("classifier").set_weights([np.random.default_rng(0).normal(size=(2048, 3))])
    else:
        train_step(warm, inputs, [0, 1, 2, 0, 1, 2])
    expected = np.asarray(warm(inputs))
    model = transfer.warmed_up(cut.tail, warm)
    assert model.outputs[0].shape == (None, 3) and np.ptp(expected) > 0.01
    assert np.allclose(model(maps), expected, atol=1e-5)
    assert not np.allclose(transfer.with_head(cut.tail, 3, cosine=cosine)(maps), expected, atol=1e-3)
    assert expected.sum(axis=1) == pytest.approx([1] * 6) or cosine
    # Normalization changes a softmax, but not cosines.
    assert np.allclose(warm(vectors(cut.tail, maps)), expected, atol=1e-5) == cosine


def test_a_head_on_vectors_is_that_on_a_network():
    inputs = keras.Input((8,))
    body = keras.Model(inputs, keras.layers.Dense(5)(inputs))
    alone, on_top = transfer.head(5, 4, seed=7), transfer.with_head(body, 4, seed=7)
    noise = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    assert np.array_equal(alone(body(noise)), on_top(noise)) and alone.outputs[0].shape == (None, 4)
    assert (np.asarray(transfer.head(5, 4, cosine=True)(body(noise))) < 0).any(), "cosines are not probabilities"


def test_dropout_is_only_active_in_training():
    ones = np.ones((1, 400), np.float32)
    head = transfer.head(400, 2, dropout=0.5)
    assert np.array_equal(head(ones), head(ones, training=False))
    assert not np.array_equal(head(ones, training=True), head(ones))


def test_the_seed_decides_the_initial_weights():
    def first(seed):
        return transfer.head(6, 3, seed=seed).get_weights()[0]

    assert np.array_equal(first(1), first(1)) and not np.array_equal(first(1), first(2))


# ---- the fingerprint ------------------------------------------------------------------------------------


def small_model(activation="relu", strides=1, skip=False):
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(3, 3, padding="same", strides=strides)(inputs)
    x = keras.layers.Conv2D(3, 3, padding="same")(keras.layers.Activation(activation)(first))
    x = keras.layers.Add()([x, first if skip else x])
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.set_weights([np.full(array.shape, 0.1, np.float32) for array in model.get_weights()])
    return model


def test_the_fingerprint_depends_on_what_changes_vectors():
    model = small_model()
    expected = fingerprints.of_model(model)
    assert fingerprints.of_model(small_model()) == expected, "Keras has increased the numbers in names"
    model.layers[1].trainable = False
    model.compile("sgd", "mse")
    assert fingerprints.of_model(model) == expected
    others = [small_model("tanh"), small_model(strides=2), small_model(skip=True)]
    assert len({expected, *map(fingerprints.of_model, others)}) == 4
    model.weights[0].assign_add(np.eye(3, dtype=np.float32)[:, :, None, None] * 1e-6)
    assert fingerprints.of_model(model) != expected
