"""A network as an extractor: one of the zoo, or any Keras model of one's own."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from helpers.features.extractor import FeatureExtractor
from helpers.features.pooling import POOLINGS
from helpers.networks import compiled, fingerprints, specs, weights, zoo
from helpers.networks.compiled import CompiledNetwork, KerasNetwork

if TYPE_CHECKING:
    import keras


class _DeepExtractor(FeatureExtractor):
    """What both kinds share: preprocessing and network as one graph, compiled for this computer."""

    engine: str = "auto"
    precision: str = "float32"

    #: What computes, once `prepare` was called.
    network: KerasNetwork | CompiledNetwork | None = None

    def prepare(self) -> None:
        """It waits for the first image that has to be computed: when all vectors are in the store, none is built."""
        if self.network is None:
            self.network = self._compiled()

    @abstractmethod
    def _compiled(self) -> KerasNetwork | CompiledNetwork: ...

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        if self.network is None:
            self.prepare()
        return self._pooled(self.network(pixels))

    def _pooled(self, output: np.ndarray) -> np.ndarray:
        """What the network gives (b, …) → (b, dim)."""
        return output

    def _embed_each(self, batches):
        for rows, output in self.network.stream(batches):
            yield rows, self._checked(self._pooled(output), len(rows))

    @property
    def _arithmetic(self) -> dict:
        """Vectors of another precision are other vectors, to be kept apart; those of either engine are the same."""
        return {} if self.precision == "float32" else {"precision": self.precision}


class NetworkExtractor(_DeepExtractor):
    """The embedding layer of a network of the zoo, trained on ImageNet, or another layer's map, pooled.

    Parameters
    ----------
    network : a name in `helpers.networks.specs.ZOO`.
    pooling : how a map becomes a vector, a name in `helpers.features.pooling.POOLINGS`. None: the embedding layer.
    stage : which map, 1 to 4, see `specs.Network.stages`; with a pooling alone, the last.
    size : side of the input in pixels; the network's own by default.
    resize : see `helpers.images.reading.resize`.
    batch_size : images that are read ahead and stored at a time; changes speed and memory, not the vectors.
    engine, precision : see `helpers.networks.compiled.fastest`; by default what is fastest here, in float32.

    Raises
    ------
    WeightsUnavailable : the trained weights can't be had.
    ValueError, PrecisionUnavailable : there is no such pooling, a layer without one, or the engine can't compute so.
    """

    weights = "imagenet"

    #: What computes the embedding layer's map, once `maps` was called.
    _mapper: KerasNetwork | CompiledNetwork | None = None

    def __init__(
        self, network: str, size: int | None = None, resize: str = "squash", batch_size: int = 32, engine: str = "auto",
        precision: str = "float32", pooling: str | None = None, stage: int | None = None,
    ):  # fmt: skip
        compiled.check_precision(precision)
        row = self._row = specs.network(network)
        if pooling not in (None, *POOLINGS):
            raise ValueError(f"no pooling is called {pooling!r}; there are: {', '.join(POOLINGS)}")
        if stage is not None and (pooling is None or not 1 <= stage <= len(row.stages)):
            raise ValueError(f"a stage is 1 to {len(row.stages)} and wants a pooling; got {stage} and {pooling}")
        self.name, self.dim, layer = row.name, row.dim, row.embedding
        if pooling is not None:
            number = stage or len(row.stages)
            layer, self.dim = row.stages[number - 1]
            self.name += f"-{pooling}" if number == len(row.stages) else f"-stage{number}-{pooling}"
        self._layer, self._pooling = layer, pooling
        self.size = size or row.size
        self.resize_rule = resize
        self.batch_size = batch_size
        self.engine, self.precision = engine, precision
        self.origin = weights.origin(row.name)
        self.settings = {"layer": layer, "weights": self.origin["sha256"], **self._arithmetic}
        if pooling is not None:
            self.settings["pooling"] = pooling

    def _compiled(self):
        layers = [self._layer] if self._pooling else []
        return zoo_network(self._row.name, layers, self.size, self.engine, self.precision)

    def _pooled(self, output):
        return POOLINGS[self._pooling](output) if self._pooling else output

    @property
    def pools(self) -> str | None:
        """How places become the vector, a name in `POOLINGS`; None where a layer without any gives it (VGG's fc1)."""
        return self._pooling or ("average" if self._layer == "avg_pool" else None)

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, h, w, channels): what is pooled to the vector, see ``pools``.

        The embedding layer's own map takes a network of its own, which is built at the first call.

        Raises
        ------
        ValueError : the vector is not pooled from places.
        """
        if self.pools is None:
            raise ValueError(f"{self.name}: the layer {self._layer} is not pooled from a map; open it with a pooling")
        if self._pooling:
            self.prepare()
            return self.network(pixels)
        if self._mapper is None:
            self._mapper = zoo_network(self._row.name, [self._row.features], self.size, self.engine, self.precision)
        return self._mapper(pixels)


class ModelExtractor(_DeepExtractor):
    """A Keras model of one's own, such as one that was trained a moment ago.

    Parameters
    ----------
    name : what tables call it.
    model : (b, size, size, 3) → (b, dim), square input; `prepare` comes before it.
    weights : what its weights were learned from, in a few words for the leaderboard.
    prepare : pixels 0 … 255 → the model's own input, e.g. ``zoo.preprocessing("resnet50")``; none where the model does
        that itself.
    resize, batch_size, engine, precision : as for `NetworkExtractor`. The compiled form is not kept on disk, where that
        of every stage of a training would pile up.

    Vectors are kept by a hash of the model (`fingerprints.of_model`) as it is when they are asked for: after further
    training nothing old is served, even by an extractor that was made before.

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
        """What the weights were learned from, and a hash of the model as it is now."""
        return {"source": self.weights, "sha256": fingerprints.of_model(self._given[0])}

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
        """What the preprocessing does to an image of noise: its name would say less, and not each has one."""
        import tensorflow as tf

        noise = np.random.default_rng(0).integers(0, 256, (1, self.size, self.size, 3))
        prepared = self._given[1](tf.constant(noise, tf.float32))
        return hashlib.sha256(np.ascontiguousarray(prepared)).hexdigest()


def zoo_network(
    name: str, layers: Sequence[str], size: int, engine: str = "auto", precision: str = "float32"
) -> KerasNetwork | CompiledNetwork:
    """A network of the zoo, preprocessing included: pixels to the maps of some layers, or (none) to its embedding.

    engine, precision, and errors: see `helpers.networks.compiled.fastest`.
    """
    row = specs.network(name)
    # Keras's version stands for how it builds the network and prepares images for it.
    key = {
        "layers": list(layers) or [row.embedding], "size": size, "weights": weights.origin(name)["sha256"],
        "keras": version("keras"),
    }  # fmt: skip

    def reference() -> KerasNetwork:
        model = zoo.mapper(name, layers, size) if layers else zoo.embedder(name, size)
        return KerasNetwork(model, zoo.preprocessing(name), size)

    return compiled.fastest(reference, name, key, engine, precision)


#: Name → factory, for `helpers.features.registry`.
EXTRACTORS = {name: partial(NetworkExtractor, name) for name in specs.ZOO} | {
    f"{name}-{pooling}": partial(NetworkExtractor, name, pooling=pooling) for name in specs.ZOO for pooling in POOLINGS
}
