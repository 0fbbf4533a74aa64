"""The table of pretrained networks: what each is called, where it is cut, and how Keras builds it.

A row is a fact from the paper or from ``keras.applications``; trained weights come from `weights`, and `zoo` puts the
two together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Network:
    """One row of the table.

    Parameters
    ----------
    name : what the project calls it.
    builder : name of the class of networks in ``keras.applications``.
    module : the module of ``keras.applications`` whose ``preprocess_input`` this network was trained with.
    size : side of the square input in pixels.
    embedding : the layer whose output is the vector.
    stages : the last layers of the network's four parts, from fine maps (h, w, channels) to coarse ones, and their
        channels.
    frozen_until : where the last block begins: fine-tuning freezes all layers up to and with this one.
    dim : length of the vector.
    source : the paper.
    """

    name: str
    builder: str
    module: str
    size: int
    embedding: str
    stages: tuple[tuple[str, int], ...]
    frozen_until: str
    dim: int
    source: str

    @property
    def features(self) -> str:
        """The last layer whose output is a map."""
        return self.stages[-1][0]

    @property
    def classifier_size(self) -> int:
        """The input size that the published classifier was trained for."""
        return 299 if self.name == "inceptionresnetv2" else self.size


ZOO = {
    network.name: network
    for network in (
        Network(
            "resnet50", "ResNet50", "resnet", 224, "avg_pool",
            (
                ("conv2_block3_out", 256), ("conv3_block4_out", 512), ("conv4_block6_out", 1024),
                ("conv5_block3_out", 2048),
            ),
            "conv4_block6_out", 2048, "He et al. 2016",
        ),
        Network(
            "resnet152", "ResNet152", "resnet", 224, "avg_pool",
            (
                ("conv2_block3_out", 256), ("conv3_block8_out", 512), ("conv4_block36_out", 1024),
                ("conv5_block3_out", 2048),
            ),
            "conv4_block36_out", 2048, "He et al. 2016",
        ),
        Network(
            "vgg16", "VGG16", "vgg16", 224, "fc1",
            (("block2_pool", 128), ("block3_pool", 256), ("block4_pool", 512), ("block5_pool", 512)), "block4_pool",
            4096, "Simonyan & Zisserman 2015",
        ),
        Network(
            "inceptionresnetv2", "InceptionResNetV2", "inception_resnet_v2", 250, "avg_pool",
            (("mixed_5b", 320), ("block35_10_ac", 320), ("block17_20_ac", 1088), ("conv_7b_ac", 1536)), "block17_20_ac",
            1536, "Szegedy et al. 2017",
        ),
        Network(
            "efficientnetv2l", "EfficientNetV2L", "efficientnet_v2", 480, "avg_pool",
            (("block2g_add", 64), ("block3g_add", 96), ("block5s_add", 224), ("top_activation", 1280)), "block6y_add",
            1280, "Tan & Le 2021",
        ),
    )
}  # fmt: skip


def network(name: str) -> Network:
    """One row of the table.

    Raises
    ------
    KeyError : there is no such network; the message lists those that are.
    """
    try:
        return ZOO[name.lower()]
    except KeyError:
        raise KeyError(f"no network is called {name!r}; there are: {', '.join(ZOO)}") from None


def architecture(name: str, size: int | None = None, classifier: bool = True) -> "keras.Model":
    """The network as Keras builds it, with RANDOM weights, which `weights` replaces.

    size : side of the input; another one than the classifier's own needs ``classifier=False``.
    """
    import keras

    row = network(name)
    side = size or (row.classifier_size if classifier else row.size)
    return getattr(keras.applications, row.builder)(
        weights=None, include_top=classifier, input_shape=(side, side, 3), **({} if classifier else {"pooling": "avg"})
    )


def check_stages(row: Network, layers: Sequence[str]) -> None:
    """Raise ValueError if a layer is not the end of one of the network's stages."""
    known = [layer for layer, _ in row.stages]
    for layer in layers:
        if layer not in known:
            raise ValueError(f"{row.name} has no stage that ends with {layer!r}; there are: {', '.join(known)}")
