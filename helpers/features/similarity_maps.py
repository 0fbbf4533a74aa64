"""Similarity maps: what each location of two images contributes to the cosine of their pooled vectors.

With global average pooling, a vector is the mean of the feature map over all locations. The dot product of two vectors
is therefore an exact sum over locations, without gradients: each location of one image against the whole other image
(Stylianou, Souvenir & Pless 2019, "Visualizing deep similarity networks", WACV; Zhou et al. 2016 for one class).
"""

import numpy as np


def similarity_maps(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decompose the cosine of two average-pooled images.

    first, second : float (h, w, channels), the input of global average pooling (`zoo`'s ``features`` layer).

    Returns two float64 (h, w). Each sums to the cosine of the two pooled vectors; negative values reduce it.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 3 or second.ndim != 3 or first.shape[2] != second.shape[2]:
        raise ValueError(f"expected two maps (h, w, channels) of one network, got {first.shape} and {second.shape}")
    pooled = [fmap.mean(axis=(0, 1)) for fmap in (first, second)]
    lengths = [np.linalg.norm(vector) for vector in pooled]
    if not all(lengths):
        raise ValueError("a feature map is zero everywhere, so its cosine is undefined")
    scale = lengths[0] * lengths[1]
    return first @ pooled[1] / (scale * first[..., 0].size), second @ pooled[0] / (scale * second[..., 0].size)
