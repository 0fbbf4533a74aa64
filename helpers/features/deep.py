"""A trained network as a describer."""

from functools import partial

import numpy as np

from helpers.features.describer import Describer, register
from helpers.networks import weights, zoo


class NetworkDescriber(Describer):
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
        self._network = row
        self._step = None

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        self.prepare()
        return self._step(pixels).numpy()

    def prepare(self) -> None:
        """Preprocessing and network as one graph, traced once for every batch size.

        It waits for the first picture that has to be computed: when all vectors are in the store, none is built.
        """
        if self._step is not None:
            return
        import tensorflow as tf

        model = zoo.embedder(self._network.name, self.size)
        prepare = zoo.preprocessing(self._network.name)

        @tf.function(input_signature=[tf.TensorSpec((None, self.size, self.size, 3), tf.uint8)])
        def step(pixels):
            return model(prepare(tf.cast(pixels, tf.float32)), training=False)

        self._step = step.get_concrete_function()


for _name in zoo.ZOO:
    register(_name, partial(NetworkDescriber, _name))
