"""EfficientNet-Lite in Keras: EfficientNet without squeeze-and-excitation, with ReLU6 instead of Swish.

Tan & Le 2019, https://arxiv.org/abs/1905.11946, and the Lite variants of 2020:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Layers have the names of
``keras.applications.EfficientNetB0``.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras


class _Stage(NamedTuple):
    """Blocks of one resolution: their number, kernel size, stride of the first one, expansion, and channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


#: The stages of EfficientNet-B0.
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
#: Factors of the number of channels and of blocks, by variant.
_FACTORS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_EPSILON = 1e-3

#: Layer type → (our variable, PyTorch's name, its axes in our order).
_VARIABLES = {
    "Conv2D": (("kernel", "weight", (2, 3, 1, 0)),),
    "DepthwiseConv2D": (("kernel", "weight", (2, 3, 0, 1)),),
    "Dense": (("kernel", "weight", (1, 0)), ("bias", "bias", (0,))),
    "BatchNormalization": (
        ("gamma", "weight", (0,)), ("beta", "bias", (0,)), ("moving_mean", "running_mean", (0,)),
        ("moving_variance", "running_var", (0,)),
    ),
}  # fmt: skip
#: Our name of a part of a block → PyTorch's.
_PARTS = {
    "expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv": "_depthwise_conv", "bn": "_bn1",
    "project_conv": "_project_conv", "project_bn": "_bn2",
}  # fmt: skip
_OUTER = {
    "stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1", "predictions": "_fc",
}  # fmt: skip


def efficientnet_lite(variant: int, side: int, classifier: bool = True) -> "keras.Model":
    """EfficientNet-Lite with random weights: float32 (b, side, side, 3), preprocessed → probabilities or embedding.

    Parameters
    ----------
    variant : 0, 1 or 2.
    classifier : return probabilities of ImageNet's classes (b, 1000); otherwise the mean of the last map, (b, 1280).
    """
    from keras import Input, Model, layers

    pixels = Input((side, side, 3))
    x = _convolution(pixels, "stem", _STEM, 3, stride=2)
    for name, stage, stride in _blocks(variant):
        x = _block(x, name, stage, stride)
    x = _convolution(x, "top", _HEAD, 1)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if classifier:
        x = layers.Dense(_CLASSES, activation="softmax", name="predictions")(layers.Dropout(0.2, name="top_dropout")(x))
    return Model(pixels, x, name=f"efficientnet-lite{variant}")


def preprocess_input(pixels: "np.ndarray | keras.KerasTensor") -> "np.ndarray | keras.KerasTensor":
    """RGB in 0 … 255 → the input of the network, -0.99 … 1."""
    return (pixels - 127.0) / 128.0


def fill(model: "keras.Model", state: Mapping[str, np.ndarray], variant: int) -> None:
    """Assign the arrays of a PyTorch state dictionary to a model of `efficientnet_lite` with its classifier."""
    numbers = {name: number for number, (name, _, _) in enumerate(_blocks(variant))}
    for layer in model.layers:
        for variable, suffix, axes in _VARIABLES.get(type(layer).__name__, ()):
            values = state[f"{_torch_layer(layer.name, numbers)}.{suffix}"]
            getattr(layer, variable).assign(values.transpose(axes))


def _torch_layer(name: str, numbers: Mapping[str, int]) -> str:
    if name in _OUTER:
        return _OUTER[name]
    block, part = name.split("_", 1)
    return f"_blocks.{numbers[block]}.{_PARTS[part]}"


def _blocks(variant: int) -> Iterator[tuple[str, _Stage, int]]:
    """Name, stage and stride of each block. The first and the last stage keep their number of blocks."""
    width, depth = _FACTORS[variant]
    for number, stage in enumerate(_STAGES, start=1):
        scaled = number not in (1, len(_STAGES))
        repeats = math.ceil(stage.repeats * depth) if scaled else stage.repeats
        for repeat in range(repeats):
            name = f"block{number}{chr(ord('a') + repeat)}"
            yield name, stage._replace(channels=_rounded(stage.channels * width)), stage.stride if repeat == 0 else 1


def _rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor`` that is at least 90 % of the number."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def _block(x: "keras.KerasTensor", name: str, stage: _Stage, stride: int) -> "keras.KerasTensor":
    """An inverted residual block (Sandler et al. 2018)."""
    from keras import layers

    start, channels = x, x.shape[-1]
    if stage.expansion != 1:
        x = _convolution(x, f"{name}_expand", channels * stage.expansion, 1)
    x = layers.DepthwiseConv2D(stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_dwconv")(x)
    x = _normalization(x, f"{name}_bn")
    x = layers.ReLU(6.0, name=f"{name}_activation")(x)
    x = layers.Conv2D(stage.channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalization(x, f"{name}_project_bn")
    return layers.Add(name=f"{name}_add")([x, start]) if stride == 1 and channels == stage.channels else x


def _convolution(x: "keras.KerasTensor", name: str, filters: int, kernel: int, stride: int = 1) -> "keras.KerasTensor":
    """Convolution, batch normalization, ReLU6."""
    from keras import layers

    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(_normalization(x, f"{name}_bn"))


def _normalization(x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    from keras import layers

    return layers.BatchNormalization(epsilon=_EPSILON, name=name)(x)
