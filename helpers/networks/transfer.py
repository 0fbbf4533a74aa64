"""Transfer learning: split a trained network, freeze its first blocks, and train its last block and a new head.

The output of the frozen part is the same in every epoch, but takes most of the time on a CPU. It therefore runs once
(`helpers.features.feature_maps`), and training reads its feature maps instead of images.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.networks import specs, zoo

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class SplitNetwork:
    """A network, split after its frozen blocks. All parts share their weights.

    name : of the network in `specs.ZOO`.
    size : side of its input in pixels.
    whole : preprocessed image (b, size, size, 3) → embedding (b, dim).
    trunk : preprocessed image → feature map (b, h, w, channels); frozen.
    tail : feature map → embedding; trainable except for its batch normalizations, whose statistics are frozen.
    last_maps : feature map → the last feature map before pooling, (b, h, w, channels), see `specs.Network.features`.
    """

    name: str
    size: int
    whole: "keras.Model"
    trunk: "keras.Model"
    tail: "keras.Model"
    last_maps: "keras.Model"


def split_network(name: str, size: int | None = None, network: "keras.Model | None" = None) -> SplitNetwork:
    """Split a pretrained network after its frozen blocks, and freeze these.

    size : side of the input in pixels; the network's default if None.
    network : a model built by `zoo.embedder`, such as one that was fine-tuned, to use instead.
    """
    import keras

    row = specs.network(name)
    whole = network if network is not None else zoo.embedder(name, size)
    found = [tuple(output.shape) for output in whole.outputs]
    if found != [(None, row.dim)]:
        raise ValueError(f"{row.name} up to {row.embedding} returns (b, {row.dim}), but {whole.name} returns {found}")
    if size not in (None, whole.inputs[0].shape[1]):
        raise ValueError(f"{whole.name} takes images of {whole.inputs[0].shape[1]} pixels, not of {size}")
    freeze(whole, row.frozen_until)
    middle = whole.get_layer(row.frozen_until).output
    return SplitNetwork(
        row.name,
        whole.inputs[0].shape[1],
        whole,
        keras.Model(whole.inputs[0], middle, name=f"{row.name}_trunk"),
        keras.Model(middle, whole.outputs[0], name=f"{row.name}_tail"),
        keras.Model(middle, whole.get_layer(row.features).output, name=f"{row.name}_last_maps"),
    )


def freeze(model: "keras.Model", until: str) -> tuple[list[str], list[str]]:
    """Freeze all layers up to ``until`` and every batch normalization; returns the names of (frozen, trainable) layers.

    Only layers with weights are listed. In Keras a frozen batch normalization runs in inference mode: it keeps the mean
    and variance of ImageNet.
    """
    import keras

    names = [layer.name for layer in model.layers]
    if until not in names:
        raise ValueError(f"{model.name} has no layer {until!r}; the last ones are {', '.join(names[-5:])}")
    # All layers that it depends on, because in a network with branches the order of layers is not sufficient.
    before = {layer.name for layer in keras.Model(model.inputs, model.get_layer(until).output).layers}
    for layer in model.layers:
        layer.trainable = layer.name not in before and not isinstance(layer, keras.layers.BatchNormalization)
    with_weights = [layer for layer in model.layers if layer.weights]
    frozen = [layer.name for layer in with_weights if not layer.trainable]
    return frozen, [layer.name for layer in with_weights if layer.trainable]


def with_head(
    body: "keras.Model", n_classes: int, dropout: float = 0.2, seed: int = 0, cosine: bool = False
) -> "keras.Model":
    """A network with a classifier on its embeddings: dropout, then a softmax.

    cosine : a `CosineClassifier` for `MarginSoftmaxLoss` instead of the softmax.
    """
    import keras

    from helpers.networks.losses import CosineClassifier

    keras.utils.set_random_seed(seed)
    x = keras.layers.Dropout(dropout, seed=seed)(body.outputs[0])
    if cosine:
        x = CosineClassifier(n_classes, name="classifier")(x)
    else:
        x = keras.layers.Dense(n_classes, activation="softmax", dtype="float32", name="classifier")(x)
    return keras.Model(body.inputs[0], x, name=f"{body.name}_classifier")


def head(dim: int, n_classes: int, dropout: float = 0.2, seed: int = 0, cosine: bool = False) -> "keras.Model":
    """The classifier of `with_head` alone, for extracted vectors (b, dim)."""
    import keras

    vectors = keras.Input((dim,), name="vectors")
    return with_head(keras.Model(vectors, vectors, name="vectors"), n_classes, dropout, seed, cosine)


def warmed_up(body: "keras.Model", warm: "keras.Model", dropout: float = 0.2, seed: int = 0) -> "keras.Model":
    """``body`` with the weights of a trained `head`, for the second stage of fine-tuning.

    Train ``warm`` on the output of ``body`` without normalization (`helpers.features.feature_maps.vectors` with
    ``normalize=False``), except for a cosine classifier.
    """
    from helpers.networks.losses import CosineClassifier

    classifier = warm.get_layer("classifier")
    cosine = isinstance(classifier, CosineClassifier)
    model = with_head(body, warm.outputs[0].shape[-1], dropout, seed, cosine)
    model.get_layer("classifier").set_weights(classifier.get_weights())
    return model
