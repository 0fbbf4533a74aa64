"""Compiled networks: the output of Keras, independent of other images; not trusted if it differs; cached on disk."""

import logging
import warnings

import keras
import numpy as np
import pytest

from helpers.features.registry import open_extractor
from helpers.images import reading, samples
from helpers.networks import compiled
from helpers.networks.compiled import CompiledNetwork, KerasNetwork, fastest

SIZE = 24


def small_model(seed=0, layers=()):
    keras.utils.set_random_seed(seed)
    first = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 3, activation="relu")]
    last = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *first, *layers, *last])


def reference(model=None):
    return KerasNetwork(model or small_model(), lambda pixels: pixels, SIZE)


def pixels(count, size=SIZE):
    images = samples.photos()
    chosen = images.subset(np.linspace(1, len(images) - 2, count).astype(int))
    return next(reading.batches(chosen, size, batch_size=count))[1]


@pytest.mark.slow
def test_resnet50_agrees_with_keras(resnet50):
    images = pixels(6, 224)
    found = {engine: open_extractor("resnet50", engine=engine) for engine in ("openvino", "keras")}
    for each in found.values():
        each.prepare()
    assert isinstance(found["openvino"].network, CompiledNetwork) and isinstance(found["keras"].network, KerasNetwork)
    assert compiled.difference(found["openvino"].network, found["keras"].network, images).max() < 1e-5
    assert found["openvino"].fingerprint == found["keras"].fingerprint


@pytest.fixture(scope="module")
def network():
    return fastest(reference, "small", engine="openvino")


def test_a_small_model_agrees_with_keras(network):
    images = pixels(20)
    found = network(images)
    assert found.dtype == np.float32 and found.shape == (20, 5)
    assert np.allclose(found, reference()(images), rtol=1e-4, atol=1e-6)


def test_a_single_image_is_computed_on_all_cores(network):
    images = pixels(5)
    both = fastest(reference, "small", engine="openvino", single=True)
    assert both._single.get_property("PERFORMANCE_HINT") == "LATENCY"
    expected = network(images)
    assert np.array_equal(both(images), expected)
    for row in range(5):
        alone = both(images[row : row + 1])
        assert alone.dtype == np.float32 and np.allclose(alone, expected[row : row + 1], rtol=1e-5, atol=1e-7)
    # The result does not change with the next call.
    first = both(images[:1])
    kept = first.copy()
    both(images[1:2])
    assert np.array_equal(first, kept)


def test_the_output_does_not_depend_on_other_images(network):
    images = pixels(9)
    alone = np.concatenate([network(images[row : row + 1]) for row in range(9)])
    assert np.array_equal(network(images), alone)
    assert np.array_equal(network(images[::-1]), alone[::-1])


def test_maps_keep_their_shape():
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 5)])
    network = fastest(lambda: reference(model), "maps", engine="openvino")
    assert network(pixels(3)).shape == (3, 20, 20, 4)
    assert np.allclose(network(pixels(3)), reference(model)(pixels(3)), rtol=1e-4, atol=1e-3)


def test_a_conversion_searches_each_variable_once(monkeypatch):
    """OpenVINO itself searches it about ten times, among all others, which is slow for a network with many."""
    compiled.openvino_package()
    from openvino.frontend.tensorflow.node_decoder import TFGraphNodeDecoder

    searched, original = [], TFGraphNodeDecoder.get_variable

    def search(operation):
        searched.append(operation.name)
        return original(operation)

    monkeypatch.setattr(TFGraphNodeDecoder, "get_variable", staticmethod(search))
    keras_network = reference()
    compiled.without_comparison(keras_network, "small")
    assert len(searched) == len(set(searched)) >= len(keras_network._model.weights)
    assert TFGraphNodeDecoder.get_variable is search
    with pytest.raises(compiled.NotTrusted, match="PyFunc"):
        compiled.without_comparison(reference(small_model(layers=[Python()])), "python")
    assert TFGraphNodeDecoder.get_variable is search, "also after an error"


@pytest.mark.parametrize("sizes", [[3], [1, 1, 1], [5, 1, 4], [2, 0, 3], [0], []])
def test_batches_are_returned_in_order(network, sizes):
    images = pixels(12)
    starts = np.cumsum([0, *sizes])
    batches = [(np.arange(a, b), images[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
    found = list(network.stream(iter(batches)))
    assert [rows.tolist() for rows, _ in found] == [rows.tolist() for rows, _ in batches]
    for rows, output in found:
        assert np.allclose(output, network(images)[rows], atol=1e-5)


def test_the_network_is_usable_after_an_error_or_an_early_end(network):
    def broken():
        yield np.arange(4), pixels(4)
        raise OSError("disk failure")

    with pytest.raises(OSError, match="disk failure"):
        list(network.stream(broken()))
    next(network.stream([(np.arange(4), pixels(4))] * 3))
    assert np.isfinite(network(pixels(2))).all()


def test_the_next_batch_is_read_before_the_current_one_is_returned(network):
    """This keeps the cores busy."""
    read = []

    def batches():
        for number in range(3):
            read.append(number)
            yield np.arange(8), pixels(8)

    stream = network.stream(batches())
    next(stream)
    assert read == [0, 1]


# ---- trust ----------------------------------------------------------------------------------------------


class Chaos(keras.layers.Layer):
    """Magnifies rounding errors, like a deep network with random weights."""

    def call(self, inputs):
        return keras.ops.sin(1e9 * inputs)


def test_if_the_outputs_differ_keras_computes_after_a_warning():
    model = small_model(layers=[Chaos()])
    with pytest.warns(compiled.NotTrustedWarning, match="output of chaos.* differs from Keras's.*Keras computes chaos"):
        network = fastest(lambda: reference(model), "chaos")
    assert isinstance(network, KerasNetwork)
    with pytest.raises(compiled.NotTrusted, match="0.0001 is allowed"):
        fastest(lambda: reference(model), "chaos", engine="openvino")


class Python(keras.layers.Layer):
    """An operation in Python, which OpenVINO does not support."""

    def call(self, inputs):
        import tensorflow as tf

        return tf.ensure_shape(tf.numpy_function(lambda x: x, [inputs], tf.float32), inputs.shape)


def test_keras_computes_operations_that_openvino_does_not_support():
    model = small_model(layers=[Python()])
    root = logging.getLogger()
    before = root.level, list(root.filters)
    with pytest.warns(compiled.NotTrustedWarning, match="cannot be compiled.*PyFunc"):
        network = fastest(lambda: reference(model), "python")
    assert network(pixels(2)).shape == (2, 5)
    assert (root.level, root.filters) == before, "warnings of other libraries would be hidden"


def test_an_unknown_engine_is_an_error():
    with pytest.raises(ValueError, match="auto, openvino or keras"):
        fastest(reference, "small", engine="tensorrt")


# ---- precision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_less_accurate(precision):
    try:
        network = fastest(reference, "small", precision=precision)
    except compiled.PrecisionUnavailable as error:
        assert "float32" in str(error)
        return
    off = compiled.difference(network, reference(), pixels(8))
    assert 1e-5 < off.max() < 0.05


def test_keras_only_computes_in_float32():
    with pytest.raises(ValueError, match="must be one of float32"):
        fastest(reference, "small", precision="float8")
    for precision in filter(supported, ("bfloat16", "float16")):
        with pytest.raises(ValueError, match="openvino, not by keras"):
            fastest(reference, "small", engine="keras", precision=precision)


def supported(precision):
    try:
        compiled.check_precision(precision)
    except compiled.PrecisionUnavailable:
        return False
    return True


def test_lower_precision_has_another_fingerprint(resnet50):
    if not supported("bfloat16"):
        pytest.skip("NOT TESTED: this processor has no bfloat16")
    assert open_extractor("resnet50", precision="bfloat16").fingerprint != resnet50.fingerprint


# ---- cached on disk -------------------------------------------------------------------------------------


def kept(key="1", make=reference):
    return fastest(make, "small", {"weights": key}, engine="openvino")


def fail():
    raise AssertionError("it is cached, so Keras is not needed")


def test_the_second_time_keras_is_not_used(own_cache):
    first = kept()
    assert np.array_equal(kept(make=fail)(pixels(3)), first(pixels(3)))
    with pytest.raises(AssertionError):
        kept("2", fail)


def test_a_map_network_is_a_part_of_a_cached_network(own_cache):
    model = small_model()
    pooled = keras.Model(model.inputs, model.layers[-2].output)
    images = pixels(4)
    embed = fastest(lambda: reference(pooled), "small", {"x": "pooled"}, "openvino")
    maps = fastest(fail, "small", {"x": "map"}, "openvino", unpooled={"x": "pooled"})(images)
    assert maps.shape == (4, 22, 22, 8)
    assert np.allclose(maps.mean(axis=(1, 2)), embed(images), rtol=1e-5, atol=1e-7)
    assert np.allclose(fastest(fail, "small", {"x": "map"}, "openvino")(images), maps)
    # A network that ends otherwise has no such part.
    fastest(reference, "small", {"x": "dense"}, "openvino")
    with pytest.raises(AssertionError, match="it is cached"):
        fastest(fail, "small", {"x": "other"}, "openvino", unpooled={"x": "dense"})


@pytest.mark.parametrize("file", ["network.bin", "network.xml", "network.json"])
def test_a_damaged_file_is_replaced_after_a_warning(own_cache, file):
    expected = kept()(pixels(3))
    damaged = next((own_cache / "compiled").glob(f"*/{file}"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="is damaged.*compiled again"):
        assert np.array_equal(kept()(pixels(3)), expected)
    kept(make=fail)


def test_a_network_of_an_earlier_version_is_compiled_again_without_a_warning(own_cache, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(compiled, "FORMAT", 1)
        earlier.setattr(compiled, "_FACTS", "facts.json")
        expected = kept()(pixels(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(kept()(pixels(3)), expected)
    assert len(list((own_cache / "compiled").glob("*/network.json"))) == 1


def test_a_folder_that_cannot_be_written_is_named(own_cache):
    own_cache.mkdir()
    (own_cache / "compiled").write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match="cannot be written.*not cached"):
        assert kept()(pixels(2)).shape == (2, 5)
