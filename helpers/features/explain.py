"""Explanations of the similarity of two images: a map over each of how much every location contributes.

There are two methods; the exact one is used where it is available:

- **shares**: if a network's vector is pooled from a feature map, the cosine is a sum over the locations of the map
  (Stylianou, Souvenir & Pless 2019, "Visualizing deep similarity networks", WACV; Zhou et al. 2016 for one class). This
  takes one pass per image. For the Euclidean distance of normalized vectors, the shares are those of the cosine.
- **occlusion**: a gray patch slides over the image, and the decrease of the similarity is measured (Zeiler & Fergus
  2014, "Visualizing and understanding convolutional networks", ECCV). This works with every extractor and takes one
  pass per cell. If the other image has gray parts, the patch may increase the similarity.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from helpers.features.deep import NetworkExtractor
from helpers.features.extractor import FeatureExtractor, check_rgb
from helpers.features.keypoints import shrink
from helpers.features.pooling import GEM_EXPONENT
from helpers.features.similarity_maps import similarity_maps
from helpers.images.reading import LONGEST, resize

#: Method → description of its maps, for display.
METHODS = {
    "shares": "each location's share of the similarity; the shares sum to the similarity",
    "cosine shares": "each location's share of the cosine, which orders the results as their distance does",
    "occlusion": "how much the similarity decreases when a gray patch covers the location",
}

#: Maximum number of cells of an image for occlusion; each takes a pass through the extractor.
MAX_CELLS = 49
#: A slow extractor gets fewer cells, so that both maps take about this many seconds; but not fewer than this number.
SECONDS, MIN_CELLS = 1.5, 9
#: Side of a patch in cells. Patches overlap, so that one of them covers an object on the border of two cells.
_PATCH = 2
_GRAY = 127
#: Longest side in pixels of occluded images, which are copied for each patch. Extractors use fewer pixels.
_SIDE = 640


@dataclass(frozen=True, eq=False)
class Explanation:
    """What makes two images similar.

    query_map, result_map : float32 (h, w): contribution of each of h × w equal parts of the upright image; negative
        where it reduces the similarity. The two may have different shapes. The shares of white borders, which some
        extractors add, are outside of the maps.
    similarity : score of the two images in an index of the metric.
    method : a name in `METHODS`.
    """

    query_map: np.ndarray
    result_map: np.ndarray
    similarity: float
    method: str


def explain(
    extractor: FeatureExtractor, query_pixels: np.ndarray, result_pixels: np.ndarray, metric: str = "cosine"
) -> Explanation:
    """Explain the similarity of a query and a result.

    The method is shares for a network's average, maximum or generalized mean, if the metric is the cosine or the
    vectors are normalized and the metric is the Euclidean distance; else occlusion.

    query_pixels, result_pixels : uint8 (height, width, 3) RGB, upright, of any size.
    metric : ``cosine``, ``euclidean`` or ``manhattan``.
    """
    if metric not in _SCORES:
        raise ValueError(f"there is no metric {metric!r}; known: {', '.join(_SCORES)}")
    images = [check_rgb(query_pixels), check_rgb(result_pixels)]
    if has_shares(extractor, metric):
        assert isinstance(extractor, NetworkExtractor)
        found = _by_shares(extractor, _SHARES[extractor.pools], images)
        if metric == "cosine":
            return found
        distance = max(0.0, 2 - 2 * found.similarity) ** 0.5
        return replace(found, similarity=-distance, method="cosine shares")
    return _by_occlusion(extractor, images, metric)


def has_shares(extractor: FeatureExtractor, metric: str) -> bool:
    """Whether `explain` uses shares, which need the extractor's feature map."""
    if not isinstance(extractor, NetworkExtractor) or extractor.pools not in _SHARES:
        return False
    return metric == "cosine" or (metric == "euclidean" and extractor.normalize)


# ---- shares -------------------------------------------------------------------------------------------


def _by_shares(
    extractor: NetworkExtractor, shares_of: Callable[[np.ndarray], np.ndarray], images: list[np.ndarray]
) -> Explanation:
    inputs = np.stack([resize(image, extractor.size, extractor.resize_rule) for image in images])
    query, result = (shares_of(fmap) for fmap in extractor.maps(inputs).astype(np.float64))
    # The means of these maps are the pooled vectors, whatever the pooling.
    found = similarity_maps(query * query[..., 0].size, result * result[..., 0].size)
    similarity = float(found[0].sum())
    query_map, result_map = (
        _over_image(one, image.shape[:2], extractor.size, extractor.resize_rule)
        for one, image in zip(found, images, strict=True)
    )
    return Explanation(query_map.astype(np.float32), result_map.astype(np.float32), similarity, "shares")


def _maximum_shares(fmap: np.ndarray) -> np.ndarray:
    """The location of a channel's maximum gets all of it; several such locations get equal shares."""
    strongest = fmap.max(axis=(0, 1), keepdims=True)
    is_maximum = fmap == strongest
    return is_maximum * strongest / is_maximum.sum(axis=(0, 1), keepdims=True)


def _gem_shares(fmap: np.ndarray) -> np.ndarray:
    """The generalized mean, shared in proportion to the powers."""
    activations = np.maximum(fmap, 0)
    strongest = activations.max(axis=(0, 1), keepdims=True)
    # As in `pooling.gem`, dividing by the maximum prevents overflow and underflow.
    powers = (activations / np.where(strongest > 0, strongest, 1)) ** GEM_EXPONENT
    pooled = powers.mean(axis=(0, 1), keepdims=True) ** (1 / GEM_EXPONENT) * strongest
    total = powers.sum(axis=(0, 1), keepdims=True)
    return powers * pooled / np.where(total > 0, total, 1)


#: Pooling → each location's share of the pooled vector: float64 (h, w, channels), which sum to that vector.
_SHARES: dict[str | None, Callable[[np.ndarray], np.ndarray]] = {
    "average": lambda fmap: fmap / fmap[..., 0].size,
    "max": _maximum_shares,
    "gem": _gem_shares,
}


def _over_image(shares: np.ndarray, shape: tuple[int, ...], size: int, rule: str) -> np.ndarray:
    """A map over an extractor's square input (h, w) → a map over the upright image of this (height, width).

    Shares are distributed by area, which preserves sums. Cropped parts get 0; shares of white borders are dropped.
    """
    rows, columns = (
        _overlaps(count, *span) for count, span in zip(shares.shape, _spans(shape, size, rule), strict=True)
    )
    return rows @ shares @ columns.T


def _spans(shape: tuple[int, ...], size: int, rule: str) -> list[tuple[float, float]]:
    """Start and end of an image's height and width in the square of `resize`, relative to its side.

    Values below 0 or above 1 are cropped.
    """
    if rule == "squash":
        return [(0.0, 1.0), (0.0, 1.0)]
    if rule == "pad":
        scale = min(size / side for side in shape)
        sides = [max(1, round(side * scale)) for side in shape]
        starts = [round((size - side) / 2) for side in sides]
        return [(start / size, (start + side) / size) for start, side in zip(starts, sides, strict=True)]
    # `resize` first cuts very long images to their middle.
    limit = LONGEST * min(shape) + 1
    kept = [min(side, limit) for side in shape]
    scale = max(size / side for side in kept) * 256 / 224
    spans = []
    for side, part in zip(shape, kept, strict=True):
        resized = max(size, round(part * scale))
        pixel = resized / part
        start = -((resized - size) // 2) - (side - part) // 2 * pixel
        spans.append((start / size, (start + side * pixel) / size))
    return spans


def _overlaps(count: int, start: float, end: float) -> np.ndarray:
    """float64 (m, count): the part of each of ``count`` cells along 0 … 1 in each of m cells along start … end.

    m makes both kinds of cells about equally long.
    """
    edges = np.linspace(start, end, max(1, round(count * (end - start))) + 1)
    own = np.linspace(0, 1, count + 1)
    from_, to = np.maximum(edges[:-1, None], own[None, :-1]), np.minimum(edges[1:, None], own[None, 1:])
    return np.maximum(to - from_, 0) * count


# ---- occlusion ----------------------------------------------------------------------------------------


def _by_occlusion(extractor: FeatureExtractor, images: list[np.ndarray], metric: str) -> Explanation:
    score = _SCORES[metric]
    vectors = _vectors(extractor, images)
    similarity = float(score(vectors[:1], vectors[1])[0])
    small = [shrink(image, _SIDE) for image in images]
    if any(one is not image for one, image in zip(small, images, strict=True)):
        # Occluded images are compared with the shrunk image.
        vectors = _vectors(extractor, small)
    before = score(vectors[:1], vectors[1])[0]
    cells, maps = _number_of_cells(extractor, small), []
    for image, other in zip(small, vectors[::-1], strict=True):
        rows, columns = _grid(image.shape, cells)
        corners = [(row, column) for row in range(rows) for column in range(columns)]
        after = np.empty(len(corners))
        # A patch may hide the only face or all keypoints, which needs no warning.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for start in range(0, len(corners), extractor.batch_size):
                part = corners[start : start + extractor.batch_size]
                covered = [_covered(image, row / rows, column / columns, 1 / rows, 1 / columns) for row, column in part]
                after[start : start + len(part)] = score(_vectors(extractor, covered), other)
        maps.append((before - after).reshape(rows, columns).astype(np.float32))
    return Explanation(maps[0], maps[1], similarity, "occlusion")


def _vectors(extractor: FeatureExtractor, images: list[np.ndarray]) -> np.ndarray:
    return extractor.extract_arrays(images).astype(np.float64)


def _number_of_cells(extractor: FeatureExtractor, images: list[np.ndarray]) -> int:
    """The number of cells of each image, by the time that the extractor takes; it must have extracted before."""
    cells = 0
    # Another program may have delayed the first measurement.
    for _ in range(2):
        start = time.perf_counter()
        _vectors(extractor, images)
        cells = max(cells, int(SECONDS / (time.perf_counter() - start)))
        if cells >= MAX_CELLS:
            break
    return min(max(cells, MIN_CELLS), MAX_CELLS)


def _grid(shape: tuple[int, ...], cells: int) -> tuple[int, int]:
    """Rows and columns of at most this number of approximately square cells."""
    height, width = shape[:2]
    rows = min(max(1, round((cells * height / width) ** 0.5)), cells, height)
    return rows, min(max(1, cells // rows), width)


def _covered(image: np.ndarray, top: float, left: float, height: float, width: float) -> np.ndarray:
    """A copy with a gray patch around a cell, which is given relative to the image's sides."""
    covered = image.copy()
    spans = []
    for start, side, pixels in ((top, height, image.shape[0]), (left, width, image.shape[1])):
        margin = side * (_PATCH - 1) / 2
        spans.append(slice(max(0, round((start - margin) * pixels)), round((start + side + margin) * pixels)))
    covered[tuple(spans)] = _GRAY
    return covered


def _cosine(vectors: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(other)
    return vectors @ other / np.where(lengths > 0, lengths, 1)


#: Metric → score of vectors (n, dim) and one (dim,), float64 (n,), as in an index.
_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": _cosine,
    "euclidean": lambda vectors, other: -np.linalg.norm(vectors - other, axis=1),
    "manhattan": lambda vectors, other: -np.abs(vectors - other).sum(axis=1),
}
