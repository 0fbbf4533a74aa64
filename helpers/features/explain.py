"""Why two images count as similar: a map over each that says how much every place of it adds.

Two ways, and whichever is exact is taken:

- **shares**: where a network's vector is pooled from a map, the cosine is a sum over places, and each place has its
  term (Stylianou, Souvenir & Pless 2019, "Visualizing deep similarity networks", WACV; Zhou et al. 2016 for one class).
  It takes one pass an image.
- **occlusion**: a gray patch is slid over the image, and the similarity is computed again; where it falls most, the
  place mattered most (Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", ECCV). It asks a
  extractor nothing but vectors, so it serves all of them, and takes a pass a place. Gray is a color, too: where the
  other image is gray, covering a place with it may bring the two nearer.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers.features.deep import NetworkExtractor
from helpers.features.extractor import FeatureExtractor
from helpers.features.pooling import GEM_EXPONENT
from helpers.features.similarity_maps import similarity_maps
from helpers.images.reading import LONGEST, resize

#: Method → what its maps show, for a person.
METHODS = {
    "shares": "each place's part of the similarity; all parts together are the similarity",
    "occlusion": "how far the similarity falls when a gray patch covers the place",
}

#: Places an image is cut into for occlusion, at most; each takes a pass through the extractor.
PLACES = 49
#: A patch's side in places: neighbors overlap, so that a thing on a border between two is covered once.
_PATCH = 2
_GRAY = 127
#: Longest side in pixels of what patches are put on: extractors look at less, and it is copied for each patch.
_SIDE = 640


@dataclass(frozen=True, eq=False)
class Why:
    """What makes two images similar.

    Attributes
    ----------
    query_map, answer_map : float32 (h, w): the upright image cut into h × w equal places, and what each adds to the
        similarity; below zero where it speaks against. The two may have different shapes.
    similarity : of the two images, as an index of that metric scores it: higher is better.
    method : a name in `METHODS`.
    borders : what the white borders around query and answer add, which lie in no place of the images. It is 0 but
        for shares of an extractor that pads images; map and border together make the similarity there.
    """

    query_map: np.ndarray
    result_map: np.ndarray
    similarity: float
    method: str
    borders: tuple[float, float] = (0.0, 0.0)


def why(
    extractor: FeatureExtractor,
    query_pixels: np.ndarray,
    result_pixels: np.ndarray,
    metric: str = "cosine",
    places: int = PLACES,
) -> Why:
    """What makes an answer similar to a query in the eyes of an extractor.

    Shares for the cosine of a network's average, maximum or generalized mean, occlusion for everything else.

    Parameters
    ----------
    query_pixels, answer_pixels : uint8 (height, width, 3) RGB, upright, of any size.
    metric : ``cosine``, ``euclidean`` or ``manhattan``.
    places : into which occlusion cuts an image, at most; it describes about 2 · places images.

    Raises
    ------
    ValueError : no such metric, no such image, ``places`` below 1, or a network answers nowhere in an image.
    """
    if metric not in _SCORES:
        raise ValueError(f"there is no metric {metric!r}; there are: {', '.join(_SCORES)}")
    if isinstance(places, bool) or not isinstance(places, int | np.integer) or places < 1:
        raise ValueError(f"places must be a whole number of at least 1, got {places!r}")
    images = [_checked(query_pixels), _checked(result_pixels)]
    if metric == "cosine" and isinstance(extractor, NetworkExtractor) and extractor.pools in _PARTS:
        return _by_shares(extractor, images)
    return _by_occlusion(extractor, images, metric, places)


# ---- shares -------------------------------------------------------------------------------------------


def _by_shares(extractor: NetworkExtractor, images: list[np.ndarray]) -> Why:
    inputs = np.stack([resize(image, extractor.size, extractor.resize_rule) for image in images])
    parts = [_PARTS[extractor.pools](fmap) for fmap in extractor.maps(inputs).astype(np.float64)]
    # Of maps whose mean is the pooled vector, whatever the pooling, that function gives each place its term.
    found = similarity_maps(*(part * (part.shape[0] * part.shape[1]) for part in parts))
    similarity = float(found[0].sum())
    laid = [
        _over_image(places, image.shape[:2], extractor.size, extractor.resize_rule)
        for places, image in zip(found, images, strict=True)
    ]
    # All of an image that is not padded lies in its places: what is left there is rounding.
    padded = extractor.resize_rule == "pad"
    borders = tuple(similarity - float(one.sum()) if padded else 0.0 for one in laid)
    return Why(*(one.astype(np.float32) for one in laid), similarity, "shares", borders)


def _average_parts(fmap: np.ndarray) -> np.ndarray:
    return fmap / (fmap.shape[0] * fmap.shape[1])


def _maximum_parts(fmap: np.ndarray) -> np.ndarray:
    """A channel's maximum is all of the place that has it; several places that have it share it."""
    strongest = fmap.max(axis=(0, 1), keepdims=True)
    there = fmap == strongest
    return there * strongest / there.sum(axis=(0, 1), keepdims=True)


def _gem_parts(fmap: np.ndarray) -> np.ndarray:
    """The generalized mean, shared out as the powers that it is the mean of."""
    results = np.maximum(fmap, 0)
    strongest = results.max(axis=(0, 1), keepdims=True)
    # As in `pooling.gem`: by the strongest answer, so that no power overflows or vanishes.
    powers = (results / np.where(strongest > 0, strongest, 1)) ** GEM_EXPONENT
    pooled = powers.mean(axis=(0, 1), keepdims=True) ** (1 / GEM_EXPONENT) * strongest
    total = powers.sum(axis=(0, 1), keepdims=True)
    return powers * pooled / np.where(total > 0, total, 1)


#: Pooling → what each place has in the pooled vector: float64 (h, w, channels), which sums over places to that vector.
_PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "average": _average_parts,
    "max": _maximum_parts,
    "gem": _gem_parts,
}


def _over_image(places: np.ndarray, shape: tuple[int, int], size: int, rule: str) -> np.ndarray:
    """A map over an extractor's square input (h, w) → a map over the upright image of this (height, width).

    Each place's amount goes to the places of the image that it covers, by area, so that sums stay what they were.
    What was cropped away has nothing; what lies on a white border is left out.
    """
    rows, columns = (
        _overlaps(count, *span) for count, span in zip(places.shape, _spans(shape, size, rule), strict=True)
    )
    return rows @ places @ columns.T


def _spans(shape: tuple[int, int], size: int, rule: str) -> list[tuple[float, float]]:
    """Where an image's height and width begin and end in the square that `resize` makes of it, as parts of its side.

    Below 0 or beyond 1 is what was cropped away.
    """
    if rule == "squash":
        return [(0.0, 1.0), (0.0, 1.0)]
    if rule == "pad":
        scale = min(size / side for side in shape)
        sides = [max(1, round(side * scale)) for side in shape]
        starts = [round((size - side) / 2) for side in sides]
        return [(start / size, (start + side) / size) for start, side in zip(starts, sides, strict=True)]
    # What is left of a ribbon that is cut to its middle, and where that begins.
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
    """float64 (m, count): how much of each of ``count`` places along 0 … 1 lies in each of m places along start … end.

    m is chosen so that both kinds of places are about equally long.
    """
    edges = np.linspace(start, end, max(1, round(count * (end - start))) + 1)
    own = np.linspace(0, 1, count + 1)
    from_, to = np.maximum(edges[:-1, None], own[None, :-1]), np.minimum(edges[1:, None], own[None, 1:])
    return np.maximum(to - from_, 0) * count


# ---- occlusion ----------------------------------------------------------------------------------------


def _by_occlusion(extractor: FeatureExtractor, images: list[np.ndarray], metric: str, places: int) -> Why:
    score = _SCORES[metric]
    vectors = _vectors(extractor, images)
    similarity = float(score(vectors[:1], vectors[1])[0])
    small = [_shrunk(image) for image in images]
    if any(one is not image for one, image in zip(small, images, strict=True)):
        # A patch is judged against the image that it was put on.
        vectors = _vectors(extractor, small)
    before = score(vectors[:1], vectors[1])[0]
    maps = []
    for image, other in zip(small, vectors[::-1], strict=True):
        rows, columns = _grid(image.shape[:2], places)
        corners = [(row, column) for row in range(rows) for column in range(columns)]
        after = np.empty(len(corners))
        # Some patches may hide the only face or all keypoints: that is an answer, not worth a warning.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for start in range(0, len(corners), extractor.batch_size):
                part = corners[start : start + extractor.batch_size]
                covered = [_covered(image, row / rows, column / columns, 1 / rows, 1 / columns) for row, column in part]
                after[start : start + len(part)] = score(_vectors(extractor, covered), other)
        maps.append((before - after).reshape(rows, columns).astype(np.float32))
    return Why(*maps, similarity, "occlusion")


def _vectors(extractor: FeatureExtractor, images: list[np.ndarray]) -> np.ndarray:
    return extractor.extract_arrays(images).astype(np.float64)


def _shrunk(image: np.ndarray) -> np.ndarray:
    longest = max(image.shape[:2])
    if longest <= _SIDE:
        return image
    return resize(image, tuple(max(1, round(side * _SIDE / longest)) for side in image.shape[:2]))


def _grid(shape: tuple[int, int], places: int) -> tuple[int, int]:
    """Rows and columns, together at most ``places``, that make places about square."""
    height, width = shape
    rows = min(max(1, round((places * height / width) ** 0.5)), places, height)
    return rows, min(max(1, places // rows), width)


def _covered(image: np.ndarray, top: float, left: float, height: float, width: float) -> np.ndarray:
    """A copy with a gray patch about the middle of a place; place and sides are parts of the image's."""
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


#: Metric → score of vectors (n, dim) and one (dim,), float64 (n,), as indexes score.
_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": _cosine,
    "euclidean": lambda vectors, other: -np.linalg.norm(vectors - other, axis=1),
    "manhattan": lambda vectors, other: -np.abs(vectors - other).sum(axis=1),
}


def _checked(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image must be uint8 (height, width, 3) RGB, got {image.dtype} {image.shape}")
    return image
