"""The networks of the table `specs` with their trained weights; `WeightsUnavailable` if no source has them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from helpers.networks import specs, weights

if TYPE_CHECKING:
    import keras


def classifier(name: str) -> "keras.Model":
    """The whole network: float32 (b, s, s, 3), preprocessed → (b, 1000) probabilities of ImageNet's classes."""
    # First, so that missing weights are reported before the network is built, which takes seconds.
    trained = weights.arrays(name)
    model = specs.architecture(name)
    model.set_weights(trained)
    return model


def embedder(name: str, size: int | None = None) -> "keras.Model":
    """The network up to its embedding layer: float32 (b, s, s, 3), preprocessed → (b, dim)."""
    side = specs.embedding_size(name, size)
    trained = weights.arrays(name)
    model = specs.embedding_architecture(name, side)
    # The weights of later layers, such as the classifier, come last.
    model.set_weights(trained[: len(model.weights)])
    return model


def mapper(name: str, layers: Sequence[str], size: int | None = None) -> "keras.Model":
    """The network with the ends of stages as outputs: float32 (b, s, s, 3), preprocessed → one feature map each."""
    import keras

    row = specs.network(name)
    stages = [layer for layer, _ in row.stages]
    if unknown := [layer for layer in layers if layer not in stages]:
        raise ValueError(f"{name} has no stage that ends with {unknown[0]!r}; there are: {', '.join(stages)}")
    if row.embedding == "avg_pool":
        model = embedder(name, size)
    else:
        # Without the dense layers, which would require the default size.
        model, whole = specs.architecture(name, size, classifier=False), classifier(name)
        for layer in model.layers:
            layer.set_weights(whole.get_layer(layer.name).get_weights() if layer.weights else [])
    return keras.Model(model.inputs[0], [model.get_layer(layer).output for layer in layers], name=f"{name}_maps")


def preprocessing(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The network's preprocessing: RGB (b, h, w, 3) in 0 … 255 → its input."""
    import keras

    from helpers.networks import efficientnet_lite

    row = specs.network(name)
    return (efficientnet_lite if row.variant is not None else getattr(keras.applications, row.module)).preprocess_input
