"""Where two images look alike to a network: the cosine of two pooled vectors, taken apart place by place.

With global average pooling a vector is the mean of the feature map's columns, so the dot product of two vectors is a
sum over places, exactly, without gradients: what each place of one image adds when it meets the whole other image
(Stylianou, Souvenir & Pless 2019, "Visualizing deep similarity networks", WACV; Zhou et al. 2016 for one class).
"""

import numpy as np


def similarity_maps(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each place adds to the cosine of two average-pooled images.

    Parameters
    ----------
    first, second : float (h, w, channels), the maps that global average pooling gets (`zoo`'s ``features`` layer).

    Returns
    -------
    Two float64 (h, w): each sums to the cosine of the two pooled vectors. Places below zero speak against.

    Raises
    ------
    ValueError : the channels differ, or a map is zero everywhere, so that it has no direction.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 3 or second.ndim != 3 or first.shape[2] != second.shape[2]:
        raise ValueError(f"two maps (h, w, channels) of one network are needed, got {first.shape} and {second.shape}")
    pooled = [fmap.mean(axis=(0, 1)) for fmap in (first, second)]
    lengths = [np.linalg.norm(vector) for vector in pooled]
    if not all(lengths):
        raise ValueError("a feature map that is zero everywhere has no direction and is similar to nothing")
    scale = lengths[0] * lengths[1]
    return tuple(
        fmap @ other / (scale * fmap.shape[0] * fmap.shape[1])
        for fmap, other in zip((first, second), pooled[::-1], strict=True)
    )
