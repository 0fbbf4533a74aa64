"""Keypoints: detection and description, matching, and verification by geometry.

Float descriptors (SIFT: Lowe 2004; RootSIFT: Arandjelović & Zisserman 2012) are compared by Euclidean distance, binary
ones (ORB: Rublee et al. 2011; BRISK: Leutenegger et al. 2011; AKAZE: Alcantarilla et al. 2013) by Hamming distance.

SURF (Bay et al. 2008) is missing: its patent (US 8,165,401), unlike SIFT's, has not expired, so OpenCV's wheels omit
it. The one in mahotas is not rotation-invariant: after a turn by 90 degrees, fewer than half of the keypoints have
themselves as their nearest neighbor, against about nine of ten for the kinds here.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from helpers import paths
from helpers.features.file_hashes import content_hashes
from helpers.features.store import BlobStore, pixels_hash
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, read_image, resize, warn_unreadable

if TYPE_CHECKING:
    import cv2


class Kind(NamedTuple):
    """``create(cv2, limit)`` → detector; length and dtype of its descriptors: float32, or uint8 for packed bits."""

    create: Callable
    width: int
    dtype: type


#: Only ORB needs the limit: it distributes that many keypoints over its pyramid.
KINDS = {
    "sift": Kind(lambda cv2, limit: cv2.SIFT_create(), 128, np.float32),
    "rootsift": Kind(lambda cv2, limit: cv2.SIFT_create(), 128, np.float32),
    "orb": Kind(lambda cv2, limit: cv2.ORB_create(nfeatures=limit), 32, np.uint8),
    "akaze": Kind(lambda cv2, limit: cv2.xfeatures2d.AKAZE_create(), 61, np.uint8),
    "brisk": Kind(lambda cv2, limit: cv2.xfeatures2d.BRISK_create(), 64, np.uint8),
}


#: Any four pairs agree on some homography, so only inliers beyond these are evidence.
CHANCE_INLIERS = 4

#: In pixels. Smaller images have no room for any detector's patch, and some detectors crash.
MIN_SIDE = 16


class KeypointGeometry(NamedTuple):
    """Points float32 (n, 2), sizes and angles float32 (n,) of keypoints, as in `Keypoints`."""

    points: np.ndarray
    sizes: np.ndarray
    angles: np.ndarray

    def subset(self, rows: np.ndarray) -> "KeypointGeometry":
        return KeypointGeometry(*(column[rows] for column in self))

    @classmethod
    def concatenate(cls, parts: Sequence["KeypointGeometry"]) -> "KeypointGeometry":
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    @classmethod
    def empty(cls) -> "KeypointGeometry":
        return cls(np.empty((0, 2), np.float32), np.empty(0, np.float32), np.empty(0, np.float32))


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of one image, strongest first.

    Parameters
    ----------
    kind : see `KINDS`.
    points : float32 (n, 2), x and y in pixels from the upper left.
    sizes : float32 (n,), diameters of the described regions in pixels.
    angles : float32 (n,), degrees clockwise from the x axis.
    responses : float32 (n,), strengths; comparable within a kind.
    descriptors : (n, width), float32 or packed bits as uint8.
    shape : (height, width) of the image in pixels.
    """

    kind: str
    points: np.ndarray
    sizes: np.ndarray
    angles: np.ndarray
    responses: np.ndarray
    descriptors: np.ndarray
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.points)

    @property
    def geometry(self) -> KeypointGeometry:
        return KeypointGeometry(self.points, self.sizes, self.angles)

    def subset(self, rows: np.ndarray) -> "Keypoints":
        """Some of the keypoints, by a mask bool (n,) or by row numbers."""
        names = ("points", "sizes", "angles", "responses", "descriptors")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


class Matches(NamedTuple):
    """Pairs int64 (m, 2) of rows in the query and in the gallery image, and descriptor distances float32 (m,)."""

    pairs: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True, eq=False)
class Homography:
    """``matrix`` float64 (3, 3), query → gallery pixels, or None; ``inliers`` bool (m,), the matches that agree."""

    matrix: np.ndarray | None
    inliers: np.ndarray

    @property
    def count(self) -> int:
        return int(self.inliers.sum())


def extract(image: np.ndarray, kind: str = "sift", limit: int = 500) -> Keypoints:
    """Extract the strongest keypoints of an image; a flat or tiny image has none.

    image : uint8 (height, width, 3) RGB, or (height, width) gray.
    kind : see `KINDS`.
    limit : maximum number, by response. An image of leaves has 50,000, which do not improve the result.
    """
    import cv2

    create, width, dtype = kind_of(kind)
    if limit < 1:
        raise ValueError(f"the limit must be at least 1, got {limit}")
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        raise ValueError(
            f"an image must be uint8 (height, width, 3) RGB or (height, width), got {image.dtype} {image.shape}"
        )
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    points: list = []
    descriptors: np.ndarray = np.empty((0, width), dtype)
    if min(gray.shape) >= MIN_SIDE:
        detector = create(cv2, limit)
        # Description costs more than detection, so the limit is applied between them.
        strongest = sorted(detector.detect(gray, None), key=_strongest_first)[:limit]
        described, rows = detector.compute(gray, strongest) if strongest else ((), None)
        # ORB sorts them by size, and some detectors drop keypoints near the border.
        order = sorted(range(len(described)), key=lambda row: _strongest_first(described[row]))
        if rows is not None:
            points, descriptors = [described[row] for row in order], rows[order]
    if kind == "rootsift":
        descriptors = root(descriptors)
    return Keypoints(
        kind,
        np.array([point.pt for point in points], np.float32).reshape(-1, 2),
        np.array([point.size for point in points], np.float32),
        np.array([point.angle for point in points], np.float32),
        np.array([point.response for point in points], np.float32),
        descriptors,
        gray.shape,
    )


class KeypointStore(BlobStore):
    """Keypoints on disk by content, as a context manager; one SQLite file for each combination of settings.

    SIFT and RootSIFT share a file: RootSIFT is computed from SIFT (``extracted_kind``) when it is read.

    pixels : how images were prepared, as plain JSON, such as ``{"longest": 640}``.
    """

    _content = "keypoints"

    def __init__(self, kind: str, limit: int, pixels: dict):
        import cv2

        kind_of(kind)
        self.kind, self.extracted_kind = kind, "sift" if kind == "rootsift" else kind
        key = {
            "format": 1, "kind": self.extracted_kind, "limit": limit, "pixels": pixels, "opencv": cv2.__version__,
            "least side": MIN_SIDE,
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        super().__init__(paths.cache_dir() / "keypoints" / f"{self.extracted_kind}-{digest}.sqlite")

    def get(self, images: Iterable[bytes]) -> dict[bytes, Keypoints]:
        """Content hash → keypoints of the store's kind, for those that are stored."""
        return {image: self._converted(_unpacked(self.extracted_kind, blob)) for image, blob in self._get(images)}

    def put(self, found: dict[bytes, Keypoints]) -> dict[bytes, Keypoints]:
        """Store keypoints of kind ``extracted_kind``, all or none; returns them in the store's kind."""
        for one in found.values():
            if one.kind != self.extracted_kind:
                raise ValueError(f"the store holds {self.extracted_kind} keypoints, got {one.kind}")
        self._put((image, _packed(one)) for image, one in found.items())
        return {image: self._converted(one) for image, one in found.items()}

    def _converted(self, one: Keypoints) -> Keypoints:
        return one if one.kind == self.kind else replace(one, kind=self.kind, descriptors=root(one.descriptors))


#: Number of keypoints, height, width, and whether float descriptors are stored as bytes.
_HEADER = struct.Struct("<3I?")


def _packed(found: Keypoints) -> bytes:
    """Serialize keypoints. SIFT's descriptors are integers from 0 to 255, stored as uint8."""
    descriptors = found.descriptors
    small = descriptors.dtype == np.float32 and np.array_equal(descriptors.astype(np.uint8), descriptors)
    columns = [found.points, found.sizes, found.angles, found.responses]
    parts = [np.asarray(column, "<f4").tobytes() for column in columns]
    kept = descriptors.astype(np.uint8) if small else descriptors
    return b"".join([_HEADER.pack(len(found), *found.shape, small), *parts, np.ascontiguousarray(kept).tobytes()])


def _unpacked(kind: str, blob: bytes) -> Keypoints:
    count, height, width, small = _HEADER.unpack_from(blob)
    numbers = np.frombuffer(blob, "<f4", 5 * count, _HEADER.size).astype(np.float32)
    points, sizes, angles, responses = np.split(numbers, [2 * count, 3 * count, 4 * count])
    dtype = KINDS[kind].dtype
    kept: np.ndarray = np.frombuffer(blob, np.uint8 if small else dtype, offset=_HEADER.size + 20 * count)
    descriptors: np.ndarray = kept.astype(dtype).reshape(count, KINDS[kind].width)
    return Keypoints(kind, points.reshape(count, 2), sizes, angles, responses, descriptors, (height, width))


def extract_each(
    images: Iterable[np.ndarray], kind: str = "sift", limit: int = 500, cache: bool = False
) -> list[Keypoints]:
    """`extract` of several images, on all cores.

    cache : store the keypoints on disk by the pixels, and read those that are stored.
    """
    if not cache:
        with all_cores() as pool:
            return list(pool.map(lambda image: extract(image, kind, limit), images))
    of_hash = [(pixels_hash(np.asarray(image)), image) for image in images]
    with KeypointStore(kind, limit, {"source": "array"}) as store:
        found = store.get(image_hash for image_hash, _ in of_hash)
        missing = {image_hash: image for image_hash, image in of_hash if image_hash not in found}
        new = extract_each(missing.values(), store.extracted_kind, limit)
        found |= store.put(dict(zip(missing, new, strict=True)))
    return [found[image_hash] for image_hash, _ in of_hash]


def all_cores() -> ThreadPoolExecutor:
    """A pool with one thread for each core that this process may use."""
    from joblib import cpu_count

    return ThreadPoolExecutor(cpu_count())


#: Number of images whose keypoints are stored in one transaction.
_BATCH = 32


def extract_set(
    images: ImageSet, kind: str = "sift", limit: int = 500, longest: int | None = None, progress: bool = True
) -> list[Keypoints]:
    """`extract` of every image of a set, in order. An image that cannot be read has no keypoints, see `each_readable`.

    longest : in pixels; images with a longer side are shrunk.
    """
    _, width, dtype = kind_of(kind)
    descriptors: np.ndarray = np.empty((0, width), dtype)
    found = [Keypoints(kind, *KeypointGeometry.empty(), np.empty(0, np.float32), descriptors, (1, 1))] * len(images)
    for row, one in each_readable(images, partial(shrink, longest=longest), kind, limit, progress):
        found[row] = one
    return found


def each_readable(
    images: ImageSet, prepare: "partial[np.ndarray]", kind: str = "sift", limit: int = 500, progress: bool = True
) -> Iterator[tuple[int, Keypoints]]:
    """Yield (row, keypoints) of each image of a set, in order, and store them; see `extract_files`.

    Images that cannot be read are skipped; one `UnreadableImageWarning` lists them.
    """
    failures: list[UnreadableImage] = []
    title = f"{kind} · {images.name}"
    with tqdm(total=len(images), desc=title, unit="image", disable=None if progress else True) as bar:
        for rows, found, _ in extract_files(images.paths, prepare, kind, limit, failures, batch_size=_BATCH):
            yield from zip(rows, found, strict=True)
            bar.update(len(rows))
    warn_unreadable(failures, len(images))


def extract_files(
    files: Sequence[Path], prepare: "partial[np.ndarray]", kind: str, limit: int, failures: list[UnreadableImage], *,
    batch_size: int, strict: bool = False,
) -> Iterator[tuple[list[int], list[Keypoints], int]]:  # fmt: skip
    """Extract the keypoints of files in batches, on all cores, and store them by the files' content.

    Each batch is stored before it is returned, so a call after an interruption continues where it stopped. Yields rows
    of ``files``, their keypoints, and the number of images that were not in the store.

    prepare : function of the pixels before extraction. Its keywords are the settings of the `KeypointStore`.
    failures : collects the errors of files that cannot be read; with ``strict``, the first one is raised.
    """

    def extracted(row: int) -> Keypoints | UnreadableImage:
        try:
            return extract(prepare(read_image(files[row])), store.extracted_kind, limit)
        except UnreadableImage as error:
            return error

    hashes = content_hashes(files)
    with KeypointStore(kind, limit, prepare.keywords) as store, all_cores() as pool:
        for start in range(0, len(files), batch_size):
            rows = range(start, min(start + batch_size, len(files)))
            known = store.get(hashes[row] for row in rows)
            missing = [row for row in rows if hashes[row] not in known]
            new: dict[bytes, Keypoints] = {}
            for row, one in zip(missing, pool.map(extracted, missing), strict=True):
                if isinstance(one, UnreadableImage):
                    if strict:
                        raise one
                    failures.append(one)
                else:
                    new[hashes[row]] = one
            known |= store.put(new)
            readable = [row for row in rows if hashes[row] in known]
            if readable:
                yield readable, [known[hashes[row]] for row in readable], sum(hashes[row] in new for row in missing)


def shrink(image: np.ndarray, longest: int | None) -> np.ndarray:
    """Resize an image (height, width, …) so that its longer side has at most ``longest`` pixels, if it is given."""
    side = max(image.shape[:2])
    if not longest or side <= longest:
        return image
    height, width = (max(1, round(length * longest / side)) for length in image.shape[:2])
    return resize(image, (height, width))


def root(descriptors: np.ndarray) -> np.ndarray:
    """SIFT → RootSIFT, float (n, 128) → float32: divide by the sum, then take the square root.

    The Euclidean distance of the results is the Hellinger distance, which large bins do not dominate.
    """
    descriptors = np.asarray(descriptors, np.float32)
    total = descriptors.sum(axis=1, keepdims=True)
    return np.sqrt(descriptors / np.where(total > 0, total, 1))


def match(query: Keypoints, gallery: Keypoints, ratio: float | None = 0.8, mutual: bool = True) -> Matches:
    """Match query keypoints to their nearest neighbors in the gallery image, sorted by distance.

    ratio : Lowe's ratio test: upper bound of the distance to the nearest over the second nearest neighbor. If the
        gallery image has one keypoint only, nothing passes. None omits the test.
    mutual : cross check: both must be each other's nearest neighbor.
    """
    import cv2

    if query.kind != gallery.kind:
        raise ValueError(f"{query.kind} and {gallery.kind} descriptors can't be compared")
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"the ratio must be above 0 and at most 1, got {ratio}")
    if not len(query) or not len(gallery):
        return Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING if query.descriptors.dtype == np.uint8 else cv2.NORM_L2)
    kept = []
    for nearest in matcher.knnMatch(query.descriptors, gallery.descriptors, k=1 if ratio is None else 2):
        if ratio is None or (len(nearest) == 2 and nearest[0].distance < ratio * nearest[1].distance):
            kept.append((nearest[0].queryIdx, nearest[0].trainIdx, nearest[0].distance))
    if mutual and kept:
        back = {one.queryIdx: one.trainIdx for one in matcher.match(gallery.descriptors, query.descriptors)}
        kept = [(q, g, distance) for q, g, distance in kept if back[g] == q]
    kept.sort(key=lambda pair: (pair[2], pair[0]))
    pairs = np.array([pair[:2] for pair in kept], np.int64).reshape(-1, 2)
    return Matches(pairs, np.array([pair[2] for pair in kept], np.float32))


def homography(query: Keypoints, gallery: Keypoints, matches: Matches, within: float = 5.0) -> Homography:
    """`fit_homography` to matched keypoints."""
    return fit_homography(query.points[matches.pairs[:, 0]], gallery.points[matches.pairs[:, 1]], query.shape, within)


def fit_homography(
    points: np.ndarray, others: np.ndarray, shape: tuple[int, int], within: float = 5.0, tries: int = 2000
) -> Homography:
    """Fit a plausible homography (see `is_plausible`) to points by RANSAC (Fischler & Bolles 1981), with a fixed seed.

    points, others : float (m, 2), corresponding points.
    shape : (height, width) of the first image.
    within : maximum error of an inlier, in pixels of the second image.
    tries : maximum number of samples. If half of the pairs are right, 300 fail once in 10⁸ times.
    """
    import cv2

    failed = Homography(None, np.zeros(len(points), bool))
    if len(points) < 4:
        return failed
    cv2.setRNGSeed(0)
    matrix, agree = cv2.findHomography(points, others, cv2.RANSAC, within, maxIters=tries, confidence=0.999)
    if matrix is None or not is_plausible(matrix, shape):
        return failed
    return Homography(matrix, agree.ravel().astype(bool))


def similarity_inliers(here: KeypointGeometry, there: KeypointGeometry) -> np.ndarray:
    """The largest set of pairs that agree on one rotation, scale and translation: bool (m,).

    Each pair proposes the similarity transformation given by the change of its angle and size (Philbin et al. 2007);
    there is no random sampling. The test is weaker than `fit_homography`. Because angles and sizes are inexact, the
    rotation may differ by 30 degrees, the scale by 0.75 octaves, and the position in the second image by 10 pixels plus
    a fifth of the distance from the proposing pair.

    here, there : geometry of m corresponding keypoints in the two images.
    """
    if not len(here.points):
        return np.zeros(0, bool)
    turn = (there.angles.astype(np.float64) - here.angles) % 360
    scale = np.log2(np.maximum(there.sizes, 1e-6) / np.maximum(here.sizes, 1e-6)).astype(np.float64)
    turned = np.abs(turn[None, :] - turn[:, None])
    agree = np.minimum(turned, 360 - turned) <= 30
    agree &= np.abs(scale[None, :] - scale[:, None]) <= 0.75
    # The slowest step only gets the pairs that are left. With complex numbers, rotation and scale are one product.
    proposer, other = np.nonzero(agree)
    p, q = (side.points.astype(np.float64) @ (1, 1j) for side in (here, there))
    moved = np.exp2(scale) * np.exp(1j * np.radians(turn))
    apart = q[other] - q[proposer]
    off = np.abs(moved[proposer] * (p[other] - p[proposer]) - apart)
    agree[proposer, other] = off <= 10 + 0.2 * np.abs(apart)
    return agree[agree.sum(axis=1).argmax()]


def is_plausible(matrix: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether a camera could transform an image of this (height, width) by the homography.

    The corners must stay a convex quadrilateral that is not mirrored, with 0.01 to 100 times the area.
    """
    height, width = shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    mapped = np.column_stack([corners, np.ones(4)]) @ matrix.T
    # Behind the camera, or a corner at infinity.
    if not np.isfinite(mapped).all() or (mapped[:, 2] * mapped[0, 2] <= 1e-12).any():
        return False
    mapped = mapped[:, :2] / mapped[:, 2:]
    sides = np.roll(mapped, -1, axis=0) - mapped
    turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
    area = 0.5 * abs((mapped[:, 0] * np.roll(mapped[:, 1], -1) - mapped[:, 1] * np.roll(mapped[:, 0], -1)).sum())
    return bool((turns > 0).all() and 1e-2 <= area / (height * width) <= 1e2)


def kind_of(name: str) -> Kind:
    """The kind of a name, or a ValueError that lists all names."""
    if name not in KINDS:
        raise ValueError(f"there are no {name!r} keypoints; known: {', '.join(KINDS)}")
    return KINDS[name]


def _strongest_first(point: "cv2.KeyPoint") -> tuple:
    # Ties in a fixed order, so that the selection does not depend on the detector's threads.
    return -point.response, point.pt, point.angle
