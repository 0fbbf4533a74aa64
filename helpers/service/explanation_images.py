"""Explanations as images: the maps of a query and a result, laid over them."""

import base64
from collections.abc import Sequence

import numpy as np

from helpers.features.explain import Explanation
from helpers.images import thumbnails
from helpers.visualization.heatmaps import overlay

#: Longest side in pixels.
_SIDE = 640


def explanation_jpegs(why: Explanation, images: Sequence[np.ndarray]) -> list[str]:
    """Data URLs of the query and the result with their maps, which have one scale, so that they can be compared.

    images : uint8 (height, width, 3), the query and the result.
    """
    highest = max(float(why.query_map.max()), float(why.result_map.max()))
    maps = (why.query_map, why.result_map)
    jpegs = (thumbnails.encode(overlay(image, each, highest), _SIDE) for image, each in zip(images, maps, strict=True))
    return [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}" for jpeg in jpegs]
