"""Activations of a network as vectors: not negative, with many zeros, like those of a dense layer with ReLU in VGG16.

VGG16's weights come only from Keras's download server; ResNet50's last feature map follows a ReLU, too.
"""

import numpy as np

from helpers.images.imageset import ImageSet
from helpers.lessons.multi_stage import last_maps
from helpers.vectors import l2_normalize


def last_activations(images: ImageSet, dim: int, seed: int = 0, network: str = "resnet50") -> np.ndarray:
    """float32 (n, dim) of length one: ``dim`` of the numbers of each image's last feature map, always the same ones.

    Raises
    ------
    ValueError : the map has fewer numbers, or the set is empty.
    UnreadableImage : an image cannot be read.
    WeightsUnavailable : the network's trained weights are not available.
    """
    maps = last_maps(images, network, progress=False)
    flat = maps.reshape(len(maps), -1)
    if not 0 < dim <= flat.shape[1]:
        raise ValueError(f"dim must be from 1 to {flat.shape[1]}, the numbers of a map of {network}; got {dim}")
    chosen = np.random.default_rng(seed).choice(flat.shape[1], dim, replace=False)
    return l2_normalize(flat[:, np.sort(chosen)])
