"""A network as a describer: one of the zoo, or any Keras model of one's own."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from helpers.features.describer import Describer, register
from helpers.networks import transfer, weights, zoo

if TYPE_CHECKING:
    import keras


class _KerasDescriber(Describer):
    """What both kinds share: preprocessing and network as one graph, traced once for every batch size."""

    _step = None

    @abstractmethod
    def _model(self) -> "tuple[keras.Model, Callable]":
        """The network and its preprocessing; called when the first picture has to be computed."""

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        self.prepare()
        return self._step(pixels).numpy()

    def prepare(self) -> None:
        """It waits for the first picture that has to be computed: when all vectors are in the store, none is built."""
        if self._step is None:
            self._step = stepper(*self._model(), self.size)


class NetworkDescriber(_KerasDescriber):
    """The embedding layer of a network of the zoo, trained on ImageNet.

    Parameters
    ----------
    network : a name in `helpers.networks.zoo.ZOO`.
    size : side of the input in pixels; the network's own by default.
    resize : see `helpers.pictures.reading.resize`.
    batch_size : pictures a step; changes speed and memory, not the vectors.

    Raises
    ------
    WeightsUnavailable : the trained weights can't be had.
    """

    weights = "imagenet"

    def __init__(self, network: str, size: int | None = None, resize: str = "squash", batch_size: int = 32):
        row = zoo.network(network)
        self.name = row.name
        self.size = size or row.size
        self.dim = row.dim
        self.resize_rule = resize
        self.batch_size = batch_size
        self.origin = weights.origin(row.name)
        self.settings = {"layer": row.embedding, "weights": self.origin["sha256"]}

    def _model(self):
        return zoo.embedder(self.name, self.size), zoo.preprocessing(self.name)


class ModelDescriber(_KerasDescriber):
    """A Keras model of one's own, such as one that was trained a moment ago.

    Parameters
    ----------
    name : what tables call it.
    model : (b, size, size, 3) → (b, dim), square input; `prepare` comes before it.
    weights : what its weights were learnt from, in a few words for the leaderboard.
    prepare : pixels 0 … 255 → the model's own input, e.g. ``zoo.preprocessing("resnet50")``; none where the model does
        that itself.
    resize, batch_size : as for `NetworkDescriber`.

    Vectors are kept by a hash of the model (`transfer.fingerprint`) as it is when they are asked for: after further
    training nothing old is served, even by a describer that was made before.

    Raises
    ------
    ValueError : the model's input or output has another shape, or none yet.
    """

    def __init__(
        self, name: str, model: "keras.Model", weights: str, prepare: Callable | None = None, resize: str = "squash",
        batch_size: int = 32,
    ):  # fmt: skip
        # A model that was never built has no such attributes.
        taken = [tuple(value.shape) for value in getattr(model, "inputs", None) or ()]
        given = [tuple(value.shape) for value in getattr(model, "outputs", None) or ()]
        if len(taken) != 1 or len(taken[0]) != 4 or None in taken[0][1:] or taken[0][1:] != (taken[0][1],) * 2 + (3,):
            raise ValueError(f"{name}: the model must take (b, size, size, 3) with one fixed size, it takes {taken}")
        if len(given) != 1 or len(given[0]) != 2 or given[0][1] is None:
            raise ValueError(f"{name}: the model must give vectors (b, dim), it gives {given}")
        self.name, self.weights = name, weights
        self.size, self.dim = taken[0][1], given[0][1]
        self.resize_rule, self.batch_size = resize, batch_size
        self._given = model, prepare or (lambda pixels: pixels)
        self._prepared = self._effect() if prepare else None

    @property
    def origin(self) -> dict[str, str]:
        """What the weights were learnt from, and a hash of the model as it is now."""
        return {"source": self.weights, "sha256": transfer.fingerprint(self._given[0])}

    @property
    def settings(self) -> dict:
        """Taken anew each time: the model may have been trained further."""
        return {"model": self.origin["sha256"], "prepare": self._prepared}

    def _model(self):
        return self._given

    def _effect(self) -> str:
        """What the preprocessing does to a picture of noise: its name would say less, and not each has one."""
        import tensorflow as tf

        noise = np.random.default_rng(0).integers(0, 256, (1, self.size, self.size, 3))
        prepared = self._given[1](tf.constant(noise, tf.float32))
        return hashlib.sha256(np.ascontiguousarray(prepared)).hexdigest()


def stepper(model: "keras.Model", prepare: Callable, size: int) -> Callable:
    """uint8 (b, size, size, 3) → the model's output, a tensor; one graph for every batch size."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8)])
    def step(pixels):
        return model(prepare(tf.cast(pixels, tf.float32)), training=False)

    return step.get_concrete_function()


for _name in zoo.ZOO:
    register(_name, partial(NetworkDescriber, _name))
