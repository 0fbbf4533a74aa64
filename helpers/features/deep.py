"""Neural networks as extractors: pretrained ones of the zoo, and any Keras model."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
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


class DeepExtractor(FeatureExtractor):
    """Base class: preprocessing and network as one graph, compiled for this computer."""

    #: The network, built by the first `prepare`; not needed while all vectors are in the store.
    network: KerasNetwork | CompiledNetwork | None = None
    #: Whether the network is compiled for single images, too; see `helpers.networks.compiled.CompiledNetwork`.
    single_images = False

    def prepare(self) -> None:
        """Build the network, unless it is built."""
        self._built()

    def expect_single_images(self) -> None:
        """See `FeatureExtractor.expect_single_images`. The next `prepare` builds the network again."""
        if not self.single_images:
            self.network, self.single_images = None, True

    def _built(self) -> KerasNetwork | CompiledNetwork:
        if self.network is None:
            self.network = self._compiled()
        return self.network

    @abstractmethod
    def _compiled(self) -> KerasNetwork | CompiledNetwork: ...

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        return self._pooled(np.asarray(self._built()(pixels)))

    def _pooled(self, output: np.ndarray) -> np.ndarray:
        """The network's output (b, …) → (b, dim)."""
        return output

    def _embed_batches(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, output in self._built().stream(batches):
            yield rows, self._checked(self._pooled(np.asarray(output)), len(rows))


class NetworkExtractor(DeepExtractor):
    """A network of the zoo, trained on ImageNet: its embedding layer, or the pooled feature map of a stage.

    Parameters
    ----------
    network : a name in `helpers.networks.specs.ZOO`.
    pooling : a name in `helpers.features.pooling.POOLINGS`; None for the embedding layer.
    stage : number of the feature map, see `specs.Network.stages`; needs a pooling. The last one by default.
    size : side of the input in pixels; the network's own by default.
    resize : see `helpers.images.reading.resize`.
    engine, precision : see `helpers.networks.compiled.fastest`.

    Raises `WeightsUnavailable` if no source has the trained weights, or `PrecisionUnavailable`.
    """

    weights = "imagenet"

    #: Network that computes the embedding layer's map, built by the first `maps`.
    _mapper: KerasNetwork | CompiledNetwork | None = None
    #: The extractor that `at_size` returned last.
    _other: "NetworkExtractor | None" = None

    def __init__(
        self, network: str, size: int | None = None, resize: str = "squash", batch_size: int = 32, engine: str = "auto",
        precision: str = "float32", pooling: str | None = None, stage: int | None = None,
    ):  # fmt: skip
        compiled.check_precision(precision)
        row = self._row = specs.network(network)
        if pooling not in (None, *POOLINGS):
            raise ValueError(f"no pooling is called {pooling!r}; known: {', '.join(POOLINGS)}")
        if stage is not None and (pooling is None or not 1 <= stage <= len(row.stages)):
            raise ValueError(f"stage must be 1 to {len(row.stages)} and needs a pooling; got {stage} and {pooling}")
        self.name, self.dim, layer = row.name, row.dim, row.embedding
        if pooling is not None:
            number = stage or len(row.stages)
            layer, self.dim = row.stages[number - 1]
            self.name += f"-{pooling}" if number == len(row.stages) else f"-stage{number}-{pooling}"
        self._layer, self._pooling, self._stage = layer, pooling, stage
        self.size = size or row.size
        self.resize_rule = resize
        self.batch_size = batch_size
        self.engine, self.precision = engine, precision
        self.origin = weights.origin(row.name)
        # Not the engine, because all give the same vectors.
        self.settings = {"layer": layer, "weights": self.origin["sha256"]}
        if precision != "float32":
            self.settings["precision"] = precision
        if pooling is not None:
            self.settings["pooling"] = pooling

    @property
    def network_name(self) -> str:
        """The network's name in `helpers.networks.specs.ZOO`."""
        return self._row.name

    def _compiled(self) -> KerasNetwork | CompiledNetwork:
        layers = [self._layer] if self._pooling else []
        return zoo_network(
            self._row.name, layers, self.size, self.engine, self.precision, single=self.single_images
        )  # fmt: skip

    def _pooled(self, output: np.ndarray) -> np.ndarray:
        return POOLINGS[self._pooling](output) if self._pooling else output

    @property
    def pools(self) -> str | None:
        """Name in `POOLINGS` of the pooling that gives the vector; None for an unpooled layer (VGG's fc1)."""
        return self._pooling or ("average" if self._layer == "avg_pool" else None)

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, h, w, channels): the feature map before the pooling ``pools``.

        For the embedding layer, the first call builds a second network. A layer without a map raises a ValueError.
        """
        if self.pools is None:
            raise ValueError(f"{self.name}: the layer {self._layer} is not pooled from a map; open it with a pooling")
        self.prepare_maps()
        network = self._built() if self._pooling else self._mapper
        assert network is not None
        return np.asarray(network(pixels))

    def prepare_maps(self) -> None:
        """Build the network of `maps` now."""
        if self._pooling:
            self._built()
        elif self.pools and self._mapper is None:
            # Its means are the embeddings, so a cached network for them contains it.
            self._mapper = zoo_network(
                self._row.name, [self._row.features], self.size, self.engine, self.precision, unpooled=True
            )

    def at_size(self, size: int) -> "NetworkExtractor":
        """The same extractor with another size of the input; the last one is kept with its networks."""
        if self._other is None or self._other.size != size:
            self._other = NetworkExtractor(
                self.network_name, size, self.resize_rule, self.batch_size, self.engine, self.precision, self._pooling,
                self._stage,
            )  # fmt: skip
        return self._other


class ClassScores(DeepExtractor):
    """The probabilities of ImageNet's 1000 classes, by the classifier of a network of the zoo: rows sum to 1.

    They are the input of `helpers.features.word_space.Conse` and of tags. Column *i* is class *i* of
    `helpers.images.imagenet.classes`. The input has the classifier's own size.

    network : a name in `helpers.networks.specs.ZOO`.
    resize : see `helpers.images.reading.resize`.

    Raises `WeightsUnavailable` if no source has the trained weights.
    """

    weights = "imagenet"
    dim = 1000
    normalize = False

    def __init__(self, network: str, resize: str = "squash"):
        self._row = specs.network(network)
        self.name = f"{self._row.name}-classes"
        self.size = self._row.classifier_size
        self.resize_rule = resize
        self.origin = weights.origin(self._row.name)
        self.settings = {"layer": "classes", "weights": self.origin["sha256"]}

    def _compiled(self) -> KerasNetwork | CompiledNetwork:
        name, size = self._row.name, self.size
        key = {"layers": ["classes"], "size": size, "weights": self.origin["sha256"], "keras": version("keras")}

        def reference() -> KerasNetwork:
            return KerasNetwork(zoo.classifier(name), zoo.preprocessing(name), size)

        return compiled.fastest(reference, self.name, key, single=self.single_images)


class ModelExtractor(DeepExtractor):
    """Any Keras model, such as one that you have just trained.

    Vectors are stored by a hash of the model (`fingerprints.of_model`) that is computed at each call, so further
    training never returns old vectors. The compiled network is not stored on disk.

    model : (b, size, size, 3) → (b, dim), square input.
    weights : what its weights were learned from, in a few words for the leaderboard.
    prepare : pixels 0 … 255 → the model's input, e.g. ``zoo.preprocessing("resnet50")``; None if the model does that
        itself.
    resize, engine : see `NetworkExtractor`.
    """

    #: Hash of the model that `network` computes.
    _built_from: str | None = None

    def __init__(
        self, name: str, model: "keras.Model", weights: str, prepare: Callable | None = None, resize: str = "squash",
        batch_size: int = 32, engine: str = "auto",
    ):  # fmt: skip
        # A model that is not built has no such attributes.
        inputs = [tuple(value.shape) for value in getattr(model, "inputs", None) or ()]
        outputs = [tuple(value.shape) for value in getattr(model, "outputs", None) or ()]
        size = inputs[0][1] if len(inputs) == 1 and len(inputs[0]) == 4 else None
        if size is None or inputs[0][1:] != (size, size, 3):
            raise ValueError(f"{name}: the model must take (b, size, size, 3) with one fixed size, it takes {inputs}")
        if len(outputs) != 1 or len(outputs[0]) != 2 or outputs[0][1] is None:
            raise ValueError(f"{name}: the model must give vectors (b, dim), it gives {outputs}")
        self.name, self.weights = name, weights
        self.size, self.dim = size, outputs[0][1]
        self.resize_rule, self.batch_size, self.engine = resize, batch_size, engine
        self._model, self._prepare = model, prepare or (lambda pixels: pixels)
        self._prepared = self._effect() if prepare else None

    @property
    def origin(self) -> dict[str, str]:
        """What the weights were learned from, and a hash of the model as it is now."""
        return {"source": self.weights, "sha256": fingerprints.of_model(self._model)}

    # A property, because the model may be trained further.
    settings = property(lambda self: {"model": self.origin["sha256"], "prepare": self._prepared})

    def prepare(self) -> None:
        """Build the network; build it again after further training."""
        now = self.origin["sha256"]
        if self._built_from != now:
            self.network, self._built_from = None, now
        super().prepare()

    def _compiled(self) -> KerasNetwork | CompiledNetwork:
        reference = partial(KerasNetwork, self._model, self._prepare, self.size)
        return compiled.fastest(reference, self.name, engine=self.engine, single=self.single_images)

    def _effect(self) -> str:
        """Hash of a preprocessed noise image, which identifies the preprocessing."""
        import tensorflow as tf

        noise = np.random.default_rng(0).integers(0, 256, (1, self.size, self.size, 3))
        prepared = self._prepare(tf.constant(noise, tf.float32))
        return hashlib.sha256(np.ascontiguousarray(prepared).data).hexdigest()


def zoo_network(
    name: str, layers: Sequence[str], size: int, engine: str = "auto", precision: str = "float32",
    unpooled: bool = False, single: bool = False,
) -> KerasNetwork | CompiledNetwork:  # fmt: skip
    """A network of the zoo with its preprocessing: pixels → maps of the given layers, or the embedding without any.

    unpooled : whether the embedding is the mean of the only given layer.

    For engine, precision, single and errors see `helpers.networks.compiled.fastest`.
    """
    row = specs.network(name)
    # The version of Keras covers its architecture and preprocessing.
    key = {
        "layers": list(layers) or [row.embedding], "size": size, "weights": weights.origin(name)["sha256"],
        "keras": version("keras"),
    }  # fmt: skip

    def reference() -> KerasNetwork:
        model = zoo.mapper(name, layers, size) if layers else zoo.embedder(name, size)
        return KerasNetwork(model, zoo.preprocessing(name), size)

    embedder = key | {"layers": [row.embedding]} if unpooled else None
    return compiled.fastest(reference, name, key, engine, precision, embedder, single)


def class_scores_of(extractor: FeatureExtractor, default: str = "efficientnet-lite0") -> ClassScores:
    """The class scores by an extractor's own network, or by ``default`` for extractors without a network of the zoo."""
    return ClassScores(extractor.network_name if isinstance(extractor, NetworkExtractor) else default)


#: Name → factory, for `helpers.features.registry`.
EXTRACTORS = {name: partial(NetworkExtractor, name) for name in specs.ZOO} | {
    f"{name}-{pooling}": partial(NetworkExtractor, name, pooling=pooling) for name in specs.ZOO for pooling in POOLINGS
}
