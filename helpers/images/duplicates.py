"""Duplicates in an image set: copies, crops and mirror images, which leak from one side of a split to the other.

`audit` runs three searches, and confirms the last two on the pixels:

1. **bytes**: files with equal content;
2. **hash**, **mirror**: similar perceptual hashes (`cv2.img_hash.PHash`: Zauner 2010), plain or mirrored, and
   correlated thumbnails. This finds re-encoded, resized and mirrored copies;
3. **crop**: neighbors in an embedding that SIFT and RANSAC (Lowe 2004, Fischler & Bolles 1981) align so that their
   pixels correlate.

They do not find copies in other colors, copies rotated by more than a few degrees, or drawings of a photograph.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from helpers.images import reading
from helpers.images.imageset import ImageSet

if TYPE_CHECKING:
    import pandas as pd

#: Thumbnails are compared if at most this many of the hashes' 64 bits differ.
HASH_BITS = 10
#: Minimum correlation of two 32 × 32 gray thumbnails of the same image.
MIN_THUMBNAIL_CORRELATION = 0.98
#: Minimum correlation of an aligned crop.
MIN_CROP_CORRELATION = 0.9
#: Matches that must agree on one shift and scale before the pixels are compared.
MIN_INLIERS = 12
#: Neighbors in an embedding to compare, and their minimum cosine. Caltech-101's duplicates have 0.86 to 0.91.
NEIGHBORS, MIN_COSINE = 3, 0.8

_THUMB = 32
_SIDE = 320


@dataclass(frozen=True)
class Pair:
    """Two images of the same original: rows ``first < second``, found by bytes, hash, mirror or crop."""

    first: int
    second: int
    how: str
    correlation: float


@dataclass(frozen=True, eq=False)
class Audit:
    """The duplicates of one set. Every pair is listed once, for the first search that found it."""

    images: ImageSet
    pairs: tuple[Pair, ...]
    searched: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def across(self, sides: ArrayLike) -> tuple[Pair, ...]:
        """Pairs with images on different sides of a split; ``sides`` (n,) has the side of each image."""
        of = np.asarray(sides)
        return tuple(pair for pair in self.pairs if of[pair.first] != of[pair.second])

    def groups(self) -> np.ndarray:
        """int64 (n,), for `ImageSet.groups`: one number for all copies of one original, -1 for images without copies.

        Existing groups of the set are merged with the new ones.
        """
        links = [(pair.first, pair.second) for pair in self.pairs]
        if self.images.groups is not None:
            for group in np.unique(self.images.groups[self.images.groups >= 0]):
                members = np.flatnonzero(self.images.groups == group)
                links += zip(members, members[1:], strict=False)
        return _components(len(self.images), links)

    def table(self) -> "pd.DataFrame":
        """One row per pair: both keys, the search, the correlation, and whether the classes are equal."""
        import pandas as pd

        keys, labels = self.images.keys, self.images.labels
        return pd.DataFrame(
            [
                (keys[p.first], keys[p.second], p.how, p.correlation, bool(labels[p.first] == labels[p.second]))
                for p in self.pairs
            ],
            columns=["first", "second", "how", "correlation", "same class"],
        )

    def __str__(self) -> str:
        count = ", ".join(f"{sum(p.how == how for p in self.pairs)} by {how}" for how in self.searched)
        return f"{self.images.name}: {len(self)} pairs of the same image among {len(self.images)} ({count})"


def audit(images: ImageSet, vectors: np.ndarray | None = None, workers: int = 2) -> Audit:
    """Search a set for duplicates. Images that cannot be read are skipped, and one warning lists them.

    Parameters
    ----------
    images : all sides of a split in one set.
    vectors : float32 (n, dim), L2-normalized embeddings. Without them crops are not searched.
    """
    if vectors is not None and len(vectors) != len(images):
        raise ValueError(f"expected one vector for each of {len(images)} images, got {len(vectors)}")
    hashes, thumbs, ok = _hashes(images, workers)
    found = [*_same_bytes(images), *_same_hash(hashes, thumbs, ok)]
    if vectors is not None:
        found += _crops(images, vectors, ok, workers)
    pairs: dict[tuple[int, int], Pair] = {}
    for pair in found:
        pairs.setdefault((pair.first, pair.second), pair)
    searched = ("bytes", "hash", "mirror") + (() if vectors is None else ("crop",))
    return Audit(images, tuple(pairs[key] for key in sorted(pairs)), searched)


def split_siblings(images: ImageSet, sides: ArrayLike) -> np.ndarray:
    """int64: the groups (copies of one original, augmented siblings) with images on several sides of a split."""
    if images.groups is None:
        return np.array([], dtype=np.int64)
    # Each group once for each of its sides.
    found = np.unique(np.stack([images.groups, np.unique(sides, return_inverse=True)[1]]), axis=1)[0]
    groups, counts = np.unique(found[found >= 0], return_counts=True)
    return groups[counts > 1]


def _same_bytes(images: ImageSet) -> Iterable[Pair]:
    by_size: dict[int, list[int]] = {}
    for row, path in enumerate(images.paths):
        if path.is_file():
            by_size.setdefault(path.stat().st_size, []).append(row)
    for rows in by_size.values():
        by_content: dict[bytes, list[int]] = {}
        for row in rows if len(rows) > 1 else ():
            copies = by_content.setdefault(images.paths[row].read_bytes(), [])
            for first in copies:
                yield Pair(first, row, "bytes", 1.0)
            copies.append(row)


def _hashes(images: ImageSet, workers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes uint8 (n, 2, 8), plain and mirrored; thumbnails float32 (n, 1024), see `_centered`; readable bool (n,)."""
    import cv2

    hashes = np.zeros((len(images), 2, 8), np.uint8)
    thumbs = np.zeros((len(images), _THUMB * _THUMB), np.float32)
    failures: list[reading.UnreadableImage] = []

    def load(row: int) -> bool:
        try:
            gray = cv2.cvtColor(reading.read_image(images.paths[row]), cv2.COLOR_RGB2GRAY)
        except reading.UnreadableImage as error:
            failures.append(error)
            return False
        hashes[row] = [cv2.img_hash.pHash(np.ascontiguousarray(side))[0] for side in (gray, gray[:, ::-1])]
        thumbs[row] = _centered(cv2.resize(gray, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).ravel())
        return True

    with ThreadPoolExecutor(workers) as pool:
        ok = np.fromiter(pool.map(load, range(len(images))), bool, len(images))
    reading.warn_unreadable(failures, len(images))
    return hashes, thumbs, ok


def _same_hash(hashes: np.ndarray, thumbs: np.ndarray, ok: np.ndarray) -> Iterable[Pair]:
    packed = np.ascontiguousarray(hashes).view(np.uint64)[:, :, 0]
    mirrored = thumbs.reshape(-1, _THUMB, _THUMB)[:, :, ::-1].reshape(thumbs.shape)
    for first in np.flatnonzero(ok):
        later = np.arange(first + 1, len(ok))
        later = later[ok[later]]
        for side, (how, other) in enumerate((("hash", thumbs), ("mirror", mirrored))):
            near = later[np.bitwise_count(packed[first, side] ^ packed[later, 0]) <= HASH_BITS]
            correlation = thumbs[near] @ other[first]
            for row, value in zip(near, correlation, strict=True):
                if value >= MIN_THUMBNAIL_CORRELATION:
                    yield Pair(int(first), int(row), how, round(float(value), 3))


def _crops(images: ImageSet, vectors: np.ndarray, ok: np.ndarray, workers: int) -> Iterable[Pair]:
    import cv2

    candidates = sorted(_neighbors(vectors, ok))
    sift = cv2.SIFT_create(nfeatures=500)  # type: ignore[attr-defined]  # missing in OpenCV's stubs
    # SIFT objects are not thread-safe. Detection takes little time.
    rows = sorted({row for pair in candidates for row in pair})
    gray = {row: _gray(images.paths[row]) for row in rows}
    keypoints = {row: sift.detectAndCompute(gray[row], None) for row in rows}

    def compare(pair: tuple[int, int]) -> float:
        # Either image may be the crop.
        return max(_aligned_correlation(gray[a], keypoints[a], gray[b], keypoints[b]) for a, b in (pair, pair[::-1]))

    with ThreadPoolExecutor(workers) as pool:
        for (first, second), value in zip(candidates, pool.map(compare, candidates), strict=True):
            if value >= MIN_CROP_CORRELATION:
                yield Pair(first, second, "crop", round(float(value), 3))


def _neighbors(vectors: np.ndarray, ok: np.ndarray, chunk: int = 1024) -> set[tuple[int, int]]:
    pairs = set()
    for start in range(0, len(vectors), chunk):
        cosine = vectors[start : start + chunk] @ vectors.T
        rows = np.arange(start, start + len(cosine))
        cosine[np.arange(len(cosine)), rows] = -1
        count = min(NEIGHBORS, len(vectors) - 1)
        best = np.argpartition(-cosine, count - 1, axis=1)[:, :count] if count else np.empty((len(rows), 0), int)
        for row, others in zip(rows, best, strict=True):
            pairs |= {
                (int(min(row, other)), int(max(row, other)))
                for other in others
                if cosine[row - start, other] >= MIN_COSINE and ok[row] and ok[other]
            }
    return pairs


def _gray(path: Path) -> np.ndarray:
    import cv2

    gray = cv2.cvtColor(reading.read_image(path), cv2.COLOR_RGB2GRAY)
    scale = _SIDE / max(gray.shape)
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else gray


def _aligned_correlation(part: np.ndarray, part_points: tuple, whole: np.ndarray, whole_points: tuple) -> float:
    """Correlation of ``part`` with the region of ``whole`` that it matches; -1 if there is none."""
    import cv2

    (points_a, vectors_a), (points_b, vectors_b) = part_points, whole_points
    if vectors_a is None or vectors_b is None or len(vectors_b) < 2:
        return -1.0
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(vectors_a, vectors_b, k=2)
    good = [m for m, second in matches if m.distance < 0.75 * second.distance]
    if len(good) < MIN_INLIERS:
        return -1.0
    source = np.array([points_a[m.queryIdx].pt for m in good], np.float32)
    target = np.array([points_b[m.trainIdx].pt for m in good], np.float32)
    cv2.setRNGSeed(0)
    transform, inliers = cv2.estimateAffinePartial2D(target, source, method=cv2.RANSAC, ransacReprojThreshold=3)
    if transform is None or inliers.sum() < MIN_INLIERS:
        return -1.0
    shape = part.shape[::-1]
    aligned = cv2.warpAffine(whole, transform, shape, flags=cv2.INTER_AREA)
    overlap = cv2.warpAffine(np.full_like(whole, 255), transform, shape) == 255
    if overlap.mean() < 0.5:
        return -1.0
    return float(_centered(part[overlap]) @ _centered(aligned[overlap]))


def _centered(values: np.ndarray) -> np.ndarray:
    """Subtract the mean and scale to length one, so that a product is a correlation; a flat image becomes zero."""
    values = values.astype(np.float32)
    values -= values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 0 else values


def _components(n: int, links: Iterable[tuple[int, int]]) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.array(list(links), dtype=np.int64).reshape(-1, 2).T
    _, component = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(n, n)), directed=False)
    members = np.bincount(component)[component]
    groups = np.full(n, -1, dtype=np.int64)
    linked = members > 1
    groups[linked] = np.unique(component[linked], return_inverse=True)[1]
    return groups
