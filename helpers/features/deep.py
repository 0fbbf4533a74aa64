"""A network as a describer: one of the zoo, or any Keras model of one's own."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from helpers.features.describer import Describer, register
from helpers.networks import compiled, transfer, weights, zoo
from helpers.networks.compiled import CompiledNetwork, KerasNetwork

if TYPE_CHECKING:
    import keras


class _DeepDescriber(Describer):
    """What both kinds share: preprocessing and network as one graph, compiled for this computer."""

    engine: str = "auto"
    precision: str = "float32"

    #: What computes, once `prepare` was called.
    network: KerasNetwork | CompiledNetwork | None = None

    def prepare(self) -> None:
        """It waits for the first picture that has to be computed: when all vectors are in the store, none is built."""
        if self.network is None:
            self.network = self._compiled()

    @abstractmethod
    def _compiled(self) -> KerasNetwork | CompiledNetwork: ...

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        if self.network is None:
            self.prepare()
        return self.network(pixels)

    def _computed(self, batches):
        for rows, output in self.network.stream(batches):
            yield rows, self._finished(output, len(rows))

    @property
    def _arithmetic(self) -> dict:
        """Vectors of another precision are other vectors, to be kept apart; those of either engine are the same."""
        return {} if self.precision == "float32" else {"precision": self.precision}


class NetworkDescriber(_DeepDescriber):
    """The embedding layer of a network of the zoo, trained on ImageNet.

    Parameters
    ----------
    network : a name in `helpers.networks.zoo.ZOO`.
    size : side of the input in pixels; the network's own by default.
    resize : see `helpers.pictures.reading.resize`.
    batch_size : pictures that are read ahead and stored at a time; changes speed and memory, not the vectors.
    engine, precision : see `helpers.networks.compiled.fastest`; by default what is fastest here, in float32.

    Raises
    ------
    WeightsUnavailable : the trained weights can't be had.
    ValueError, PrecisionUnavailable : the engine can't compute so.
    """

    weights = "imagenet"

    def __init__(
        self, network: str, size: int | None = None, resize: str = "squash", batch_size: int = 32, engine: str = "auto",
        precision: str = "float32",
    ):  # fmt: skip
        compiled.check_precision(precision)
        row = zoo.network(network)
        self.name = row.name
        self.size = size or row.size
        self.dim = row.dim
        self.resize_rule = resize
        self.batch_size = batch_size
        self.engine, self.precision = engine, precision
        self.origin = weights.origin(row.name)
        self.settings = {"layer": row.embedding, "weights": self.origin["sha256"], **self._arithmetic}

    def _compiled(self):
        # Keras's version stands for how it builds the network and prepares pictures for it.
        key = {**self.settings, "size": self.size, "keras": version("keras")}
        key.pop("precision", None)  # one compiled form computes in any
        return compiled.fastest(self._reference, self.name, key, self.engine, self.precision)

    def _reference(self) -> KerasNetwork:
        return KerasNetwork(zoo.embedder(self.name, self.size), zoo.preprocessing(self.name), self.size)


class ModelDescriber(_DeepDescriber):
    """A Keras model of one's own, such as one that was trained a moment ago.

    Parameters
    ----------
    name : what tables call it.
    model : (b, size, size, 3) → (b, dim), square input; `prepare` comes before it.
    weights : what its weights were learnt from, in a few words for the leaderboard.
    prepare : pixels 0 … 255 → the model's own input, e.g. ``zoo.preprocessing("resnet50")``; none where the model does
        that itself.
    resize, batch_size, engine, precision : as for `NetworkDescriber`. The compiled form is not kept on disk, where that
        of every stage of a training would pile up.

    Vectors are kept by a hash of the model (`transfer.fingerprint`) as it is when they are asked for: after further
    training nothing old is served, even by a describer that was made before.

    Raises
    ------
    ValueError : the model's input or output has another shape, or none yet.
    """

    #: Hash of the model that `network` computes.
    _of: str | None = None

    def __init__(
        self, name: str, model: "keras.Model", weights: str, prepare: Callable | None = None, resize: str = "squash",
        batch_size: int = 32, engine: str = "auto", precision: str = "float32",
    ):  # fmt: skip
        compiled.check_precision(precision)
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
        self.engine, self.precision = engine, precision
        self._given = model, prepare or (lambda pixels: pixels)
        self._prepared = self._effect() if prepare else None

    @property
    def origin(self) -> dict[str, str]:
        """What the weights were learnt from, and a hash of the model as it is now."""
        return {"source": self.weights, "sha256": transfer.fingerprint(self._given[0])}

    @property
    def settings(self) -> dict:
        """Taken anew each time: the model may have been trained further."""
        return {"model": self.origin["sha256"], "prepare": self._prepared, **self._arithmetic}

    def prepare(self) -> None:
        """As for every network, and again after further training."""
        now = self.origin["sha256"]
        if self._of != now:
            self.network, self._of = None, now
        super().prepare()

    def _compiled(self):
        reference = partial(KerasNetwork, *self._given, self.size)
        return compiled.fastest(reference, self.name, engine=self.engine, precision=self.precision)

    def _effect(self) -> str:
        """What the preprocessing does to a picture of noise: its name would say less, and not each has one."""
        import tensorflow as tf

        noise = np.random.default_rng(0).integers(0, 256, (1, self.size, self.size, 3))
        prepared = self._given[1](tf.constant(noise, tf.float32))
        return hashlib.sha256(np.ascontiguousarray(prepared)).hexdigest()


for _name in zoo.ZOO:
    register(_name, partial(NetworkDescriber, _name))
