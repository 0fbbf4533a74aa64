"""Transfer learning: splits a trained network, freezes its first blocks, and trains its last block and a new head.

On a CPU the frozen part takes most of the time, and its output is the same in every epoch. It therefore runs once
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

    Attributes
    ----------
    name : of the network in `specs.ZOO`.
    size : side of its input in pixels.
    whole : preprocessed image (b, size, size, 3) → embedding (b, dim).
    trunk : preprocessed image → feature map (b, h, w, channels); frozen.
    tail : feature map → embedding; trainable except for its batch normalizations, which keep their statistics.
    places : feature map → the last map before pooling, (b, h, w, channels), see `specs.Network.features`.
    """

    name: str
    size: int
    whole: "keras.Model"
    trunk: "keras.Model"
    tail: "keras.Model"
    places: "keras.Model"


def split_network(name: str, size: int | None = None, network: "keras.Model | None" = None) -> SplitNetwork:
    """Split a pretrained network after its frozen blocks, and freeze those.

    size : side of the input in pixels; the network's own by default.
    network : a model as `zoo.embedder` builds it, for example one that was trained before; it is used instead.

    Raises
    ------
    WeightsUnavailable : no source gives its weights.
    ValueError : the model given as ``network`` is another one.
    """
    import keras

    row = specs.network(name)
    whole = network if network is not None else zoo.embedder(name, size)
    found = [tuple(output.shape) for output in whole.outputs]
    if found != [(None, row.dim)]:
        raise ValueError(f"{row.name} cut at {row.embedding} gives vectors (b, {row.dim}), {whole.name} gives {found}")
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
        keras.Model(middle, whole.get_layer(row.features).output, name=f"{row.name}_places"),
    )


def freeze(model: "keras.Model", until: str) -> tuple[list[str], list[str]]:
    """Freeze all layers up to ``until`` and every batch normalization; the names of (frozen, trained) layers.

    Only layers that have weights are named. A frozen batch normalization runs in inference mode (Keras ties the two):
    it keeps ImageNet's mean and variance instead of those of a few small batches.

    Raises
    ------
    ValueError : no layer has that name.
    """
    import keras

    names = [layer.name for layer in model.layers]
    if until not in names:
        raise ValueError(f"{model.name} has no layer {until!r}; the last ones are {', '.join(names[-5:])}")
    # All that the layer depends on: in a network with branches the order of the list says less.
    before = {layer.name for layer in keras.Model(model.inputs, model.get_layer(until).output).layers}
    frozen, trained = [], []
    for layer in model.layers:
        layer.trainable = layer.name not in before and not isinstance(layer, keras.layers.BatchNormalization)
        if layer.weights:
            (trained if layer.trainable else frozen).append(layer.name)
    return frozen, trained


def with_head(
    body: "keras.Model", n_classes: int, dropout: float = 0.2, seed: int = 0, cosine: bool = False
) -> "keras.Model":
    """A classifier on top of a network's vectors: dropout, then a softmax (or cosines, for a margin loss).

    cosine : end in a `CosineClassifier` instead; its loss is `MarginSoftmaxLoss`.
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
    """The same classifier alone, on vectors (b, dim) that are computed already."""
    import keras

    vectors = keras.Input((dim,), name="vectors")
    return with_head(keras.Model(vectors, vectors, name="vectors"), n_classes, dropout, seed, cosine)


def warmed_up(body: "keras.Model", warm: "keras.Model", dropout: float = 0.2, seed: int = 0) -> "keras.Model":
    """``body`` under a head that begins where the head ``warm`` (see `head`) ended: stage two of fine-tuning.

    Let ``warm`` learn from the very vectors that ``body`` gives (`helpers.features.feature_maps.vectors` with
    ``normalize=False``): a softmax that learned from vectors of length one would not know these. Cosines don't mind.
    """
    from helpers.networks.losses import CosineClassifier

    classifier = warm.get_layer("classifier")
    cosine = isinstance(classifier, CosineClassifier)
    model = with_head(body, warm.outputs[0].shape[-1], dropout, seed, cosine)
    model.get_layer("classifier").set_weights(classifier.get_weights())
    return model


def projection(dim: int, out: int = 256, dropout: float = 0.0, seed: int = 0) -> "keras.Model":
    """A linear map of vectors (b, dim) → (b, out): the projection head of metric learning."""
    import keras

    keras.utils.set_random_seed(seed)
    vectors = keras.Input((dim,), name="vectors")
    x = keras.layers.Dropout(dropout, seed=seed)(vectors) if dropout else vectors
    x = keras.layers.Dense(out, use_bias=False, kernel_initializer="orthogonal", name="embedding")(x)
    return keras.Model(vectors, x, name="projection")
