"""Compiled networks: Keras's output, whatever is computed beside it; not trusted where it is not; kept on disk."""

import logging

import keras
import numpy as np
import pytest

from helpers.features.registry import open_extractor
from helpers.images import reading, samples
from helpers.networks import compiled
from helpers.networks.compiled import CompiledNetwork, KerasNetwork, fastest

SIZE = 24


def a_model(seed=0, layers=()):
    keras.utils.set_random_seed(seed)
    first = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 3, activation="relu")]
    last = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *first, *layers, *last])


def reference(model=None):
    return KerasNetwork(model or a_model(), lambda pixels: pixels, SIZE)


def pixels(count, size=SIZE):
    images = samples.photos()
    chosen = images.subset(np.linspace(1, len(images) - 2, count).astype(int))
    return next(reading.batches(chosen, size, batch_size=count))[1]


@pytest.mark.slow
def test_resnet50_gives_the_vectors_of_keras(resnet50):
    asked = pixels(6, 224)
    found = {engine: open_extractor("resnet50", engine=engine) for engine in ("openvino", "keras")}
    for each in found.values():
        each.prepare()
    assert isinstance(found["openvino"].network, CompiledNetwork) and isinstance(found["keras"].network, KerasNetwork)
    assert compiled.difference(found["openvino"].network, found["keras"].network, asked).max() < 1e-5
    assert found["openvino"].fingerprint == found["keras"].fingerprint


@pytest.fixture(scope="module")
def network():
    return fastest(reference, "small", engine="openvino")


def test_a_small_model_gives_the_output_of_keras(network):
    asked = pixels(20)
    found = network(asked)
    assert found.dtype == np.float32 and found.shape == (20, 5)
    assert np.allclose(found, reference()(asked), rtol=1e-4, atol=1e-6)


def test_what_is_beside_an_image_changes_no_bit(network):
    asked = pixels(9)
    alone = np.concatenate([network(asked[row : row + 1]) for row in range(9)])
    assert np.array_equal(network(asked), alone)
    assert np.array_equal(network(asked[::-1]), alone[::-1])


def test_maps_keep_their_shape():
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 5)])
    network = fastest(lambda: reference(model), "maps", engine="openvino")
    assert network(pixels(3)).shape == (3, 20, 20, 4)
    assert np.allclose(network(pixels(3)), reference(model)(pixels(3)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sizes", [[3], [1, 1, 1], [5, 1, 4], [2, 0, 3], [0], []])
def test_batches_come_back_in_order(network, sizes):
    asked = pixels(12)
    starts = np.cumsum([0, *sizes])
    batches = [(np.arange(a, b), asked[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
    found = list(network.stream(iter(batches)))
    assert [rows.tolist() for rows, _ in found] == [rows.tolist() for rows, _ in batches]
    for rows, output in found:
        assert np.allclose(output, network(asked)[rows], atol=1e-5)


def test_an_error_or_an_early_end_leaves_the_network_usable(network):
    def broken():
        yield np.arange(4), pixels(4)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        list(network.stream(broken()))
    next(network.stream([(np.arange(4), pixels(4))] * 3))
    assert np.isfinite(network(pixels(2))).all()


def test_the_next_batch_is_read_before_this_one_is_given(network):
    """That is what keeps the cores busy."""
    read = []

    def batches():
        for number in range(3):
            read.append(number)
            yield np.arange(8), pixels(8)

    given = network.stream(batches())
    next(given)
    assert read == [0, 1]


# ---- trust ----------------------------------------------------------------------------------------------


class Chaos(keras.layers.Layer):
    """Blows rounding errors up to full size, as a deep network with random weights does."""

    def call(self, inputs):
        return keras.ops.sin(1e9 * inputs)


def test_where_the_two_disagree_keras_computes_and_says_so():
    model = a_model(layers=[Chaos()])
    with pytest.warns(compiled.NotTrustedWarning, match="chaos as compiled by OpenVINO gives other output.*Keras"):
        network = fastest(lambda: reference(model), "chaos")
    assert isinstance(network, KerasNetwork)
    with pytest.raises(compiled.NotTrusted, match="0.0001 is allowed"):
        fastest(lambda: reference(model), "chaos", engine="openvino")


class Python(keras.layers.Layer):
    """Something that only Python can compute."""

    def call(self, inputs):
        import tensorflow as tf

        return tf.ensure_shape(tf.numpy_function(lambda x: x, [inputs], tf.float32), inputs.shape)


def test_what_openvino_does_not_know_keras_computes():
    model = a_model(layers=[Python()])
    root = logging.getLogger()
    before = root.level, list(root.filters)
    with pytest.warns(compiled.NotTrustedWarning, match="can't be compiled.*PyFunc"):
        network = fastest(lambda: reference(model), "python")
    assert network(pixels(2)).shape == (2, 5)
    assert (root.level, root.filters) == before, "other libraries' warnings would be hidden"


def test_a_wrong_engine_is_refused():
    with pytest.raises(ValueError, match="auto, openvino or keras"):
        fastest(reference, "small", engine="tensorrt")


# ---- precision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_less_precision_only_where_it_is_asked_for_and_there(precision):
    try:
        network = fastest(reference, "small", precision=precision)
    except compiled.PrecisionUnavailable as error:
        assert "float32" in str(error)
        return
    off = compiled.difference(network, reference(), pixels(8))
    assert 1e-5 < off.max() < 0.05


def test_keras_computes_in_float32_alone():
    with pytest.raises(ValueError, match="must be one of float32"):
        fastest(reference, "small", precision="float8")
    available = [name for name in ("bfloat16", "float16") if can(name)]
    for precision in available:
        with pytest.raises(ValueError, match="openvino, not by keras"):
            fastest(reference, "small", engine="keras", precision=precision)


def can(precision):
    try:
        compiled.check_precision(precision)
    except compiled.PrecisionUnavailable:
        return False
    return True


def test_vectors_of_less_precision_are_kept_apart(resnet50):
    if not can("bfloat16"):
        pytest.skip("NOT TESTED: this processor has no bfloat16")
    assert open_extractor("resnet50", precision="bfloat16").fingerprint != resnet50.fingerprint


# ---- kept on disk ---------------------------------------------------------------------------------------


def kept(key="1", make=reference):
    return fastest(make, "small", {"weights": key}, engine="openvino")


def never():
    raise AssertionError("it is on disk, so Keras is not asked")


def test_the_second_time_keras_is_not_asked(own_cache):
    first = kept()
    assert np.array_equal(kept(make=never)(pixels(3)), first(pixels(3)))
    with pytest.raises(AssertionError):
        kept("2", never)


@pytest.mark.parametrize("file", ["network.bin", "network.xml", "card.json"])
def test_a_damaged_file_is_made_again_aloud(own_cache, file):
    expected = kept()(pixels(3))
    damaged = next((own_cache / "compiled").glob(f"*/{file}"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="is damaged.*compiled again"):
        assert np.array_equal(kept()(pixels(3)), expected)
    kept(make=never)


def test_a_place_that_can_not_be_written_is_named(own_cache):
    own_cache.mkdir()
    (own_cache / "compiled").write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match="can't be written.*not kept"):
        assert kept()(pixels(2)).shape == (2, 5)
