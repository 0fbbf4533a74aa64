"""Crops of one image: neighbors in an embedding that SIFT and RANSAC align so that their pixels correlate.

SIFT: Lowe 2004. RANSAC: Fischler & Bolles 1981.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helpers.images import reading
from helpers.images.components import Components, Link
from helpers.images.imageset import ImageSet
from helpers.images.perceptual_hashes import centered

#: Minimum correlation of an aligned crop.
MIN_CORRELATION = 0.9
#: Matches that must agree on one shift and scale before the pixels are compared.
MIN_INLIERS = 12
#: Neighbors on each side of a split to compare, and their minimum cosine. Caltech-101's duplicates have 0.86 to 0.91.
NEIGHBORS, MIN_COSINE = 3, 0.8

#: Long side of the images that are aligned.
_SIDE = 320
#: Nearest images per side from which neighbors of different groups are chosen.
_NEAREST = 16
#: Rows and columns of one block of cosines.
_BLOCK = (1024, 4096)
#: Images whose keypoints are kept, up to 70 KB each, and pairs that are compared at a time.
_KEPT, _PAIRS = 7500, 256


class _Keypoints(NamedTuple):
    """Positions float32 (k, 2) and SIFT descriptors uint8 (k, 128) of one image."""

    points: np.ndarray
    descriptors: np.ndarray


def link_crops(
    images: ImageSet, vectors: np.ndarray, found: Components, rows: np.ndarray, sides: np.ndarray, workers: int
) -> None:
    """Link images of which one is a crop of the other.

    Neighbors of an image's own group are not compared, and each side is searched for neighbors separately. So copies
    of an image cannot hide its crops. Images that were linked are searched again.

    Parameters
    ----------
    vectors : float (n, dim), of any length.
    rows : int64, ascending: the rows to compare.
    sides : int64 (n,): the side of each image.
    """
    compared: set[tuple[int, int]] = set()
    searched = rows
    while len(searched):
        candidates = neighbors(vectors, searched, rows, sides, found.labels) - compared
        compared |= candidates
        joined = [link for link in _crops(images, candidates, found.labels, workers) if found.join(link)]
        searched = np.unique([row for link in joined for row in (link.first, link.second)]).astype(np.int64)


def neighbors(
    vectors: np.ndarray, rows: np.ndarray, gallery: np.ndarray, sides: np.ndarray, groups: np.ndarray
) -> set[tuple[int, int]]:
    """Pairs (smaller row, larger row) of images and their nearest neighbors in other groups, on each side of a split.

    Parameters
    ----------
    vectors : float (n, dim), of any length.
    rows, gallery : int64: the images whose neighbors are searched, and those that are searched.
    sides, groups : int64 (n,).
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    rows, gallery = (each[norms[each] > 0] for each in (rows, gallery))
    columns = [gallery[sides[gallery] == side] for side in np.unique(sides[gallery])]
    pairs = set()
    for start in range(0, len(rows), _BLOCK[0]):
        block = rows[start : start + _BLOCK[0]]
        unit = vectors[block] / norms[block, None]
        for side in columns:
            for row, nearest in zip(block.tolist(), _nearest(unit, block, vectors, norms, side, groups), strict=True):
                chosen: dict[int, int] = {}
                for other in nearest[nearest >= 0].tolist():
                    chosen.setdefault(int(groups[other]), other)
                for other in list(chosen.values())[:NEIGHBORS]:
                    pairs.add((min(row, other), max(row, other)))
    return pairs


def _nearest(
    unit: np.ndarray, rows: np.ndarray, vectors: np.ndarray, norms: np.ndarray, columns: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """int64 (rows, k): images of other groups with a cosine of at least `MIN_COSINE`, the nearest first; -1 pads."""
    values = np.full((len(rows), _NEAREST), -1, vectors.dtype)
    ids = np.full((len(rows), _NEAREST), -1)
    for start in range(0, len(columns), _BLOCK[1]):
        part = columns[start : start + _BLOCK[1]]
        cosine = unit @ vectors[part].T
        cosine /= norms[part]
        cosine[groups[rows, None] == groups[part]] = -1
        # Most rows have no near image in most blocks.
        near = np.flatnonzero(cosine.max(axis=1) >= np.maximum(values[:, -1], MIN_COSINE))
        merged = np.hstack([values[near], cosine[near]])
        merged_ids = np.hstack([ids[near], np.broadcast_to(part, (len(near), len(part)))])
        top = np.argpartition(-merged, _NEAREST - 1, axis=1)[:, :_NEAREST]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(merged, top, 1), axis=1, kind="stable"), 1)
        values[near], ids[near] = np.take_along_axis(merged, top, 1), np.take_along_axis(merged_ids, top, 1)
    ids[values < MIN_COSINE] = -1
    return ids


def _crops(images: ImageSet, candidates: Iterable[tuple[int, int]], groups: np.ndarray, workers: int) -> Iterator[Link]:
    """The candidates that are crops; pairs that are in one group by then are not compared."""
    ordered = _by_locality(sorted(candidates))
    gray = lru_cache(maxsize=64)(lambda row: _gray(images.paths[row]))
    keypoints = lru_cache(maxsize=_KEPT)(lambda row: _keypoints(gray(row)))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(ordered), _PAIRS):
            pairs = ordered[start : start + _PAIRS]
            pairs = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]
            # Once for each image, before threads compare it with others.
            list(pool.map(keypoints, np.unique(pairs).tolist()))

            def compare(pair: list[int]) -> float:
                # Either image may be the crop.
                return max(_aligned_correlation(a, b, keypoints, gray) for a, b in (pair, pair[::-1]))

            for (first, second), value in zip(pairs.tolist(), pool.map(compare, pairs.tolist()), strict=True):
                if value >= MIN_CORRELATION:
                    yield Link(first, second, "crop", round(value, 3))


def _by_locality(pairs: list[tuple[int, int]]) -> np.ndarray:
    """int64 (n, 2): the pairs, ordered so that pairs of the same images are close to each other."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    if not pairs:
        return np.empty((0, 2), np.int64)
    found = np.array(pairs)
    rows, positions = np.unique(found, return_inverse=True)
    positions = positions.reshape(-1, 2)
    graph = coo_array((np.ones(len(found)), positions.T), shape=(len(rows), len(rows))).tocsr()
    order = np.empty(len(rows), np.int64)
    order[reverse_cuthill_mckee(graph + graph.T, symmetric_mode=True)] = np.arange(len(rows))
    places = np.sort(order[positions], axis=1)
    return found[np.lexsort((places[:, 0], places[:, 1]))]


def _gray(path: Path) -> np.ndarray:
    import cv2

    gray = cv2.cvtColor(reading.read_image(path), cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(gray.shape)
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else gray


def _keypoints(gray: np.ndarray) -> _Keypoints:
    import cv2

    # A new object for each image, because it is not thread-safe.
    sift = cv2.SIFT_create(nfeatures=500)  # type: ignore[attr-defined]  # missing in OpenCV's stubs
    points, descriptors = sift.detectAndCompute(gray, None)
    if descriptors is None:
        return _Keypoints(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    # SIFT's descriptors are whole numbers of 0 to 255 in float32.
    return _Keypoints(np.array([point.pt for point in points], np.float32), descriptors.astype(np.uint8))


def _aligned_correlation(
    part: int, whole: int, keypoints: Callable[[int], _Keypoints], gray: Callable[[int], np.ndarray]
) -> float:
    """Correlation of image ``part`` with the region of image ``whole`` that it matches; -1 if there is none."""
    import cv2

    transform = _transform(keypoints(part), keypoints(whole))
    if transform is None:
        return -1.0
    pixels, other = gray(part), gray(whole)
    shape = pixels.shape[::-1]
    aligned = cv2.warpAffine(other, transform, shape, flags=cv2.INTER_AREA)
    overlap = cv2.warpAffine(np.full_like(other, 255), transform, shape) == 255
    if overlap.mean() < 0.5:
        return -1.0
    first, second = centered(np.stack([pixels[overlap], aligned[overlap]]))
    return float(first @ second)


def _transform(part: _Keypoints, whole: _Keypoints) -> np.ndarray | None:
    """The shift, scale and rotation, float64 (2, 3), from ``whole`` to ``part`` on which enough matches agree."""
    import cv2

    if not len(part.points) or len(whole.points) < 2:
        return None
    descriptors = (part.descriptors.astype(np.float32), whole.descriptors.astype(np.float32))
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(*descriptors, k=2)
    good = [match for match, second in matches if match.distance < 0.75 * second.distance]
    if len(good) < MIN_INLIERS:
        return None
    source = part.points[[match.queryIdx for match in good]]
    target = whole.points[[match.trainIdx for match in good]]
    cv2.setRNGSeed(0)
    transform, inliers = cv2.estimateAffinePartial2D(target, source, method=cv2.RANSAC, ransacReprojThreshold=3)
    return transform if transform is not None and inliers.sum() >= MIN_INLIERS else None
