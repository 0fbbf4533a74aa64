"""Networks for CIFAR-10: shapes, and parameters counted by hand."""

import keras
import numpy as np
import pytest

from helpers.networks import cifar_networks
from helpers.networks.cifar_networks import alexnet, embedder, fully_connected, inception_v1, small_cnn, vgg16

DENSE_10 = 512 * 10 + 10


def test_fully_connected():
    model = fully_connected()
    assert isinstance(model, keras.Model) and not model.compiled
    assert model.count_params() == (3072 * 512 + 512) + (512 * 512 + 512) + DENSE_10 == 1_841_162
    deeper = fully_connected(layers=3, units=64, dropout=0)
    assert deeper.count_params() == 3072 * 64 + 64 + 2 * (64 * 64 + 64) + 64 * 10 + 10
    assert embedder(deeper).output_shape == (None, 64)


def test_small_cnn():
    # Weights of 3 × 3 convolutions without bias, then four numbers a channel of batch normalization.
    expected = 9 * (3 * 32 + 32 * 64 + 64 * 128) + 4 * (32 + 64 + 128) + 128 * 10 + 10
    model = small_cnn()
    assert model.count_params() == expected == 95_210
    assert model.get_layer("embedding").input.shape == (None, 4, 4, 128)
    assert small_cnn(layers=5, units=4).get_layer("embedding").input.shape == (None, 1, 1, 64)
    with pytest.raises(ValueError, match="at most 5, got 6"):
        small_cnn(layers=6)


def test_alexnet():
    # 32 → 15 → 7 → 3 by three poolings of 3 with stride 2.
    convolutions = 25 * (3 * 96 + 96 * 256) + 9 * (256 * 384 + 384 * 384 + 384 * 256)
    dense = (9 * 256 * 100 + 100) + (100 * 100 + 100) + 100 * 10 + 10
    assert alexnet(units=100).count_params() == convolutions + 4 * (96 + 256 + 384 + 384 + 256) + dense


def test_vgg16():
    convolutions = 14_710_464  # Those of keras.applications.VGG16, 14,714,688, without their 4,224 biases.
    model = vgg16()
    assert embedder(model).output_shape == (None, 512)
    assert model.count_params() == convolutions + 4 * 4224 + 2 * (512 * 512 + 512) + DENSE_10 == 15_257_802


def test_inception_v1():
    model = inception_v1()
    kernels = [int(np.prod(layer.kernel.shape)) for layer in model.layers if hasattr(layer, "kernel")]
    stem, modules, last = kernels[0], kernels[1:-1], kernels[-1]
    assert stem == 9 * 3 * 192 and last == 1024 * 10 and len(modules) == 9 * 6
    counted = [sum(modules[first : first + 6]) for first in range(0, 54, 6)]
    # The publication's table 1 has 159K for the first module.
    first = 192 * 64 + (192 * 96 + 9 * 96 * 128) + (192 * 16 + 25 * 16 * 32) + 192 * 32
    assert first == 163_328 and counted == [
        163_328, 388_096, 375_552, 448_512, 509_440, 604_672, 867_328, 1_042_432, 1_442_816
    ]  # fmt: skip
    assert model.get_layer("embedding").input.shape == (None, 8, 8, 1024)


@pytest.mark.parametrize("name", ["fully-connected", "small-cnn"])
def test_outputs_are_probabilities(name):
    model = cifar_networks.NETWORKS[name](units=8, classes=4)
    outputs = model.predict(np.random.default_rng(0).random((2, 32, 32, 3), np.float32), verbose=0)
    assert outputs.shape == (2, 4) and outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (fully_connected, {"layers": 0}, "layers=0"),
        (small_cnn, {"units": 0}, "units=0"),
        (vgg16, {"dropout": 1.0}, "got 1.0"),
        (fully_connected, {"classes": 1}, "two classes, got 1"),
    ],
)
def test_hyper_parameters_are_checked(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
