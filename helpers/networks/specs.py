"""The table of pretrained networks: names, layers and input sizes. `zoo` builds them with trained weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Network:
    """One row of the table.

    builder : its function in ``keras.applications``.
    module : the module of ``keras.applications`` with its ``preprocess_input``.
    variant : number of an EfficientNet-Lite network, which `helpers.networks.efficientnet_lite` builds; None for the
        networks of ``keras.applications``.
    size : side of the square input in pixels.
    embedding : the layer whose output is the embedding.
    stages : last layer and number of channels of the network's four stages, from fine to coarse feature maps.
    frozen_until : the last layer before the last block; fine-tuning freezes all layers up to this one.
    dim : length of the embedding.
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
    variant: int | None = None

    @property
    def features(self) -> str:
        """The last layer whose output is a feature map."""
        return self.stages[-1][0]

    @property
    def classifier_size(self) -> int:
        """The input size of the published classifier."""
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
        Network(
            "efficientnet-lite0", "EfficientNet-Lite0", "efficientnet_lite", 224, "avg_pool",
            (("block2b_add", 24), ("block3b_add", 40), ("block5c_add", 112), ("top_activation", 1280)), "block6d_add",
            1280, "Tan & Le 2019", 0,
        ),
        Network(
            "efficientnet-lite1", "EfficientNet-Lite1", "efficientnet_lite", 240, "avg_pool",
            (("block2c_add", 24), ("block3c_add", 40), ("block5d_add", 112), ("top_activation", 1280)), "block6e_add",
            1280, "Tan & Le 2019", 1,
        ),
        Network(
            "efficientnet-lite2", "EfficientNet-Lite2", "efficientnet_lite", 260, "avg_pool",
            (("block2c_add", 24), ("block3c_add", 48), ("block5d_add", 120), ("top_activation", 1280)), "block6e_add",
            1280, "Tan & Le 2019", 2,
        ),
    )
}  # fmt: skip


def network(name: str) -> Network:
    """One row of the table. Raises KeyError for an unknown name; the message lists the known ones."""
    try:
        return ZOO[name.lower()]
    except KeyError:
        raise KeyError(f"no network is called {name!r}; there are: {', '.join(ZOO)}") from None


def split_name(extractor: str) -> tuple[str, str]:
    """The network of an extractor's name, and the rest: "resnet50-gem-pcaw256" → ("resnet50", "gem-pcaw256").

    Raises KeyError if the name does not begin with a network's.
    """
    names = [name for name in ZOO if extractor == name or extractor.startswith(f"{name}-")]
    if not names:
        raise KeyError(f"{extractor!r} does not begin with the name of a network")
    return names[0], extractor.removeprefix(names[0]).removeprefix("-")


def embedding_size(name: str, size: int | None = None) -> int:
    """The side of the input for an embedding, by default the network's own.

    Raises ValueError if the embedding is a dense layer and the size is not the network's own.
    """
    row = network(name)
    side = size or row.size
    if row.embedding != "avg_pool" and side != row.classifier_size:
        raise ValueError(f"{name}'s layer {row.embedding} needs {row.classifier_size} × {row.classifier_size} input")
    return side


def embedding_architecture(name: str, size: int | None = None) -> "keras.Model":
    """The network up to its embedding layer, with RANDOM weights: float32 (b, s, s, 3), preprocessed → (b, dim).

    Raises ValueError for a size that `embedding_size` refuses.
    """
    import keras

    row, size = network(name), embedding_size(name, size)
    if row.embedding == "avg_pool":
        return architecture(name, size, classifier=False)
    model = architecture(name)
    return keras.Model(model.input, model.get_layer(row.embedding).output, name=f"{name}_{row.embedding}")


def architecture(name: str, size: int | None = None, classifier: bool = True) -> "keras.Model":
    """The network with RANDOM weights. Another size than the default needs ``classifier=False``."""
    import keras

    from helpers.networks.efficientnet_lite import efficientnet_lite

    row = network(name)
    side = size or (row.classifier_size if classifier else row.size)
    if row.variant is not None:
        return efficientnet_lite(row.variant, side, classifier)
    return getattr(keras.applications, row.builder)(
        weights=None, include_top=classifier, input_shape=(side, side, 3), **({} if classifier else {"pooling": "avg"})
    )
