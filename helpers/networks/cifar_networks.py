"""Networks for images of 32 × 32 pixels, to be trained from scratch on CIFAR-10.

`fully_connected` and `small_cnn` have hyper-parameters. `alexnet`, `vgg16` and `inception_v1` are published networks
for ImageNet; their docstrings say what is changed for small images.

All functions return an uncompiled model. Its input is float (b, 32, 32, 3) in 0 … 1, its output class probabilities
(b, classes). The output of its layer ``embedding`` is the feature vector. The learning rate and the weight decay
belong to the optimizer, e.g. ``keras.optimizers.AdamW(1e-3, weight_decay=1e-4)``. The initial weights follow
``keras.utils.set_random_seed``. The module needs Keras only, with any backend.

Sources: A. Krizhevsky, I. Sutskever, G. Hinton, ImageNet classification with deep convolutional neural networks, 2012;
K. Simonyan, A. Zisserman, Very deep convolutional networks for large-scale image recognition, 2014; C. Szegedy et al.,
Going deeper with convolutions, 2014; S. Liu, W. Deng, Very deep convolutional neural network based image
classification using small training sample size, 2015 (VGG-16 for CIFAR-10).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

#: Height and width of the input.
SIZE = 32
CLASSES = 10
#: Name of the layer before the classifier.
EMBEDDING = "embedding"

#: Channels of the convolutions of VGG-16; each group ends with a max pooling.
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

#: Channels in the nine modules of Inception v1: 1 × 1; before 3 × 3, 3 × 3; before 5 × 5, 5 × 5; after pooling.
#: A max pooling separates the groups.
_INCEPTION = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)  # fmt: skip


def fully_connected(
    *, layers: int = 2, units: int = 512, dropout: float = 0.3, classes: int = CLASSES
) -> "keras.Model":
    """Dense layers of equal size with ReLU, each followed by dropout; softmax. The embedding is the last dense layer.

    layers : number of dense layers before the classifier, at least 1. units : of each.
    dropout : rate, at least 0 and less than 1.
    """
    import keras

    inputs = _input(layers, units, dropout)
    x = keras.layers.Flatten()(inputs)
    for number in range(1, layers + 1):
        name = EMBEDDING if number == layers else f"dense_{number}"
        x = keras.layers.Dense(units, activation="relu", name=name)(x)
        x = keras.layers.Dropout(dropout)(x)
    return _classifier(inputs, x, classes, "fully_connected")


def small_cnn(*, layers: int = 3, units: int = 32, dropout: float = 0.3, classes: int = CLASSES) -> "keras.Model":
    """Convolutions (3 × 3, batch normalization, ReLU), each followed by a max pooling; global average pooling, which
    is the embedding; dropout; softmax.

    layers : number of convolutions, 1 … 5. units : channels of the first; each other has twice those of the one before.
    dropout : rate, at least 0 and less than 1.
    """
    import keras

    x = inputs = _input(layers, units, dropout)
    if layers > 5:
        raise ValueError(f"each layer halves the image of {SIZE} pixels, so there can be at most 5, got {layers}")
    for number in range(layers):
        x = _convolution(x, units * 2**number, 3)
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    return _classifier(inputs, keras.layers.Dropout(dropout)(x), classes, "small_cnn")


def alexnet(*, units: int = 4096, dropout: float = 0.5, classes: int = CLASSES) -> "keras.Model":
    """AlexNet: convolutions of 96, 256, 384, 384 and 256 channels, and two dense layers; the second is the embedding.

    Changed for 32 × 32 pixels: the first convolution is 5 × 5 with stride 1, not 11 × 11 with stride 4. Batch
    normalization replaces the local response normalization, which Keras does not have. There are no groups.

    units : of each dense layer. dropout : rate after each dense layer, at least 0 and less than 1.
    """
    import keras

    x = inputs = _input(1, units, dropout)
    for channels, kernel, pooled in ((96, 5, True), (256, 5, True), (384, 3, False), (384, 3, False), (256, 3, True)):
        x = _convolution(x, channels, kernel)
        if pooled:
            x = keras.layers.MaxPooling2D(3, strides=2)(x)
    return _classifier(inputs, _two_dense(x, units, dropout), classes, "alexnet")


def vgg16(*, units: int = 512, dropout: float = 0.5, classes: int = CLASSES) -> "keras.Model":
    """VGG-16: thirteen 3 × 3 convolutions in five groups, and two dense layers; the second is the embedding.

    Changed for 32 × 32 pixels, after Liu & Deng: batch normalization after each convolution, because the network does
    not train from scratch without it; dense layers of 512 instead of 4,096 units.

    units : of each dense layer. dropout : rate after each dense layer, at least 0 and less than 1.
    """
    import keras

    x = inputs = _input(1, units, dropout)
    for group in _VGG16:
        for channels in group:
            x = _convolution(x, channels, 3)
        x = keras.layers.MaxPooling2D(2)(x)
    return _classifier(inputs, _two_dense(x, units, dropout), classes, "vgg16")


def inception_v1(*, dropout: float = 0.4, classes: int = CLASSES) -> "keras.Model":
    """Inception v1 (GoogLeNet): nine modules of parallel convolutions; global average pooling, which is the embedding.

    Changed for 32 × 32 pixels: one 3 × 3 convolution of 192 channels replaces the first three convolutions and two
    poolings, which divide an image's size by 8. Batch normalization follows each convolution. The two auxiliary
    classifiers are left out.

    dropout : rate before the classifier, at least 0 and less than 1.
    """
    import keras

    inputs = _input(1, 1, dropout)
    x = _convolution(inputs, 192, 3)
    for number, group in enumerate(_INCEPTION):
        if number:
            x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
        for channels in group:
            x = _inception_module(x, *channels)
    x = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    return _classifier(inputs, keras.layers.Dropout(dropout)(x), classes, "inception_v1")


#: Name → function that builds the network, with default hyper-parameters.
NETWORKS: dict[str, "Callable[..., keras.Model]"] = {
    "fully-connected": fully_connected,
    "small-cnn": small_cnn,
    "alexnet": alexnet,
    "vgg16": vgg16,
    "inception-v1": inception_v1,
}


def embedder(model: "keras.Model") -> "keras.Model":
    """The model without its classifier: images → output of its layer ``embedding``, (b, dim). It shares the weights."""
    import keras

    return keras.Model(model.inputs[0], model.get_layer(EMBEDDING).output, name=f"{model.name}_embedder")


def _input(layers: int, units: int, dropout: float) -> "keras.KerasTensor":
    """The input of a network, after a check of its hyper-parameters."""
    import keras

    if layers < 1 or units < 1:
        raise ValueError(f"a network needs at least 1 layer and 1 unit, got layers={layers} and units={units}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")
    return keras.Input((SIZE, SIZE, 3), name="image")


def _convolution(x: "keras.KerasTensor", channels: int, kernel: int) -> "keras.KerasTensor":
    """A convolution without bias, because the batch normalization has one; batch normalization; ReLU."""
    import keras

    x = keras.layers.Conv2D(channels, kernel, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.ReLU()(x)


def _inception_module(
    x: "keras.KerasTensor", one: int, before_three: int, three: int, before_five: int, five: int, pooled: int
) -> "keras.KerasTensor":
    import keras

    around = keras.layers.MaxPooling2D(3, strides=1, padding="same")(x)
    branches = [
        _convolution(x, one, 1),
        _convolution(_convolution(x, before_three, 1), three, 3),
        _convolution(_convolution(x, before_five, 1), five, 5),
        _convolution(around, pooled, 1),
    ]
    return keras.layers.Concatenate()(branches)


def _two_dense(x: "keras.KerasTensor", units: int, dropout: float) -> "keras.KerasTensor":
    import keras

    x = keras.layers.Flatten()(x)
    for name in ("dense", EMBEDDING):
        x = keras.layers.Dense(units, activation="relu", name=name)(x)
        x = keras.layers.Dropout(dropout)(x)
    return x


def _classifier(inputs: "keras.KerasTensor", x: "keras.KerasTensor", classes: int, name: str) -> "keras.Model":
    import keras

    if classes < 2:
        raise ValueError(f"a classifier needs at least two classes, got {classes}")
    # float32 also under mixed precision.
    outputs = keras.layers.Dense(classes, activation="softmax", name="classifier", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=name)
