"""Keypoints: places that are found again when the image is turned, scaled or cropped; described, matched, verified.

Floating descriptors (SIFT: Lowe 2004; RootSIFT: Arandjelović & Zisserman 2012) are compared by Euclidean distance,
binary ones (ORB: Rublee et al. 2011; BRISK: Leutenegger et al. 2011; AKAZE: Alcantarilla et al. 2013) by the number of
differing bits.

SURF (Bay et al. 2008) is not here. Unlike SIFT's, its patent (US 8,165,401) has not run out, so OpenCV's wheels leave
it out; and the one in mahotas does not survive a turn: in an image turned by 90 degrees, fewer than half of its
keypoints have themselves as their nearest, against about nine of ten of the kinds here.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from helpers import paths
from helpers.features.file_hashes import content_hashes
from helpers.features.store import BlobStore, pixels_hash
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, read_image, resize, warn_unreadable


class Kind(NamedTuple):
    """A detector with its descriptor.

    Attributes
    ----------
    make : (OpenCV, limit) → its detector.
    width : numbers of a descriptor. dtype : float32, or uint8 for packed bits.
    """

    make: Callable
    width: int
    dtype: type

    @property
    def norm(self) -> int:
        """OpenCV's name for the distance."""
        import cv2

        return cv2.NORM_HAMMING if self.dtype is np.uint8 else cv2.NORM_L2


#: Before the cap each finds what it finds; only ORB spreads a number over its pyramid, so it is told.
KINDS = {
    "sift": Kind(lambda cv2, limit: cv2.SIFT_create(), 128, np.float32),
    "rootsift": Kind(lambda cv2, limit: cv2.SIFT_create(), 128, np.float32),
    "orb": Kind(lambda cv2, limit: cv2.ORB_create(nfeatures=limit), 32, np.uint8),
    "akaze": Kind(lambda cv2, limit: cv2.xfeatures2d.AKAZE_create(), 61, np.uint8),
    "brisk": Kind(lambda cv2, limit: cv2.xfeatures2d.BRISK_create(), 64, np.uint8),
}


#: So many pairs agree on some homography by accident: four always do. Whoever counts, counts from five.
ACCIDENT = 4

#: In pixels: no detector's patch fits into less, and some crash over it.
LEAST_SIDE = 16


class Placed(NamedTuple):
    """Where keypoints lie: points float32 (n, 2), sizes and angles float32 (n,), as in `Keypoints`."""

    points: np.ndarray
    sizes: np.ndarray
    angles: np.ndarray

    def at(self, rows: np.ndarray) -> "Placed":
        """Those of some rows."""
        return Placed(*(column[rows] for column in self))

    @classmethod
    def joined(cls, parts: Sequence["Placed"]) -> "Placed":
        """One after the other."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    @classmethod
    def none(cls) -> "Placed":
        """Of no keypoints."""
        return cls(np.empty((0, 2), np.float32), np.empty(0, np.float32), np.empty(0, np.float32))


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of one image, strongest first.

    Parameters
    ----------
    kind : see `KINDS`.
    points : float32 (n, 2), x and y in pixels from the upper left.
    sizes : float32 (n,), the diameter of what was looked at, in pixels.
    angles : float32 (n,), degrees clockwise from the x axis.
    responses : float32 (n,), how strong; comparable within a kind.
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
    def placed(self) -> Placed:
        """Without the descriptors."""
        return Placed(self.points, self.sizes, self.angles)

    def kept(self, rows: np.ndarray) -> "Keypoints":
        """Some of them: bool (n,), or their numbers."""
        columns = (self.points, self.sizes, self.angles, self.responses, self.descriptors)
        return Keypoints(self.kind, *(column[rows] for column in columns), self.shape)


class Matches(NamedTuple):
    """Pairs of keypoints: pairs int64 (m, 2), of the query and of the gallery image; distances float32 (m,)."""

    pairs: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)


class Homography(NamedTuple):
    """How one image lies in another.

    Attributes
    ----------
    matrix : float64 (3, 3), query → gallery pixels; None where there is no believable one.
    inliers : bool (m,), which matches agree with it.
    """

    matrix: np.ndarray | None
    inliers: np.ndarray

    @property
    def count(self) -> int:
        """Matches that agree."""
        return int(self.inliers.sum())


def extract(image: np.ndarray, kind: str = "sift", limit: int = 500) -> Keypoints:
    """The ``limit`` strongest keypoints of an image; a flat or tiny one has none, and that is no error.

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB, or (height, width) gray.
    kind : see `KINDS`.
    limit : at most so many, by response. An image of leaves has 50,000, which say no more.

    Raises
    ------
    ValueError : no such kind, no such image, or a limit below 1.
    """
    import cv2

    kind_of(kind)
    if limit < 1:
        raise ValueError(f"the limit must be at least 1, got {limit}")
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        raise ValueError(
            f"an image must be uint8 (height, width, 3) RGB or (height, width), got {image.dtype} {image.shape}"
        )
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found, descriptors = [], np.empty((0, KINDS[kind].width), KINDS[kind].dtype)
    if min(gray.shape) >= LEAST_SIDE:
        detector = KINDS[kind].make(cv2, limit)
        # Describing costs more than finding, so the cap comes between.
        strongest = sorted(detector.detect(gray, None), key=_strongest_first)[:limit]
        extracted, numbers = detector.compute(gray, strongest) if strongest else ((), None)
        # ORB hands them back by size, and some detectors leave out what is too near to the border.
        order = sorted(range(len(extracted)), key=lambda place: _strongest_first(extracted[place]))
        if order:
            found, descriptors = [extracted[place] for place in order], numbers[order]
    if kind == "rootsift":
        descriptors = root(descriptors)
    return Keypoints(
        kind,
        np.array([point.pt for point in found], np.float32).reshape(-1, 2),
        np.array([point.size for point in found], np.float32),
        np.array([point.angle for point in found], np.float32),
        np.array([point.response for point in found], np.float32),
        descriptors,
        gray.shape,
    )


class KeypointStore(BlobStore):
    """Keypoints on disk by content, one SQLite file for each way of finding them; use it as a context manager.

    SIFT and RootSIFT share a file: RootSIFT is computed from what SIFT gives when it is read.

    Parameters
    ----------
    kind, limit : see `extract`.
    pixels : how images were prepared, as plain JSON, such as ``{"longest": 640}``. Part of the file's name, so
        keypoints of other settings are never returned.
    folder : where the file lives; the cache's ``keypoints`` by default.

    Raises
    ------
    VectorStoreError : the file is damaged, or the disk is full.
    """

    _content = "keypoints"

    def __init__(self, kind: str, limit: int, pixels: dict, folder: Path | None = None):
        kind_of(kind)
        self.kind = kind
        import cv2

        self._base = "sift" if kind == "rootsift" else kind
        key = {
            "format": 1, "kind": self._base, "limit": limit, "pixels": pixels, "opencv": cv2.__version__,
            "least side": LEAST_SIDE,
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        super().__init__((folder or paths.cache_dir() / "keypoints") / f"{self._base}-{digest}.sqlite")

    @property
    def extracted_kind(self) -> str:
        """The kind to extract and `put`: SIFT for RootSIFT."""
        return self._base

    def get(self, images: Iterable[bytes]) -> dict[bytes, Keypoints]:
        """Content hash → keypoints of the store's kind, for those that are stored."""
        return {image: self.as_kind(_unpacked(self._base, blob)) for image, blob in self._get(images)}

    def put(self, images: Sequence[bytes], found: Sequence[Keypoints]) -> None:
        """Store keypoints of `extracted_kind`, all or none; those that are already stored stay.

        Raises
        ------
        ValueError : keypoints of another kind, or not as many as hashes.
        VectorStoreError : the disk is full, or the file can't be written any more.
        """
        for one in found:
            if one.kind != self._base:
                raise ValueError(f"the store holds {self._base} keypoints, got {one.kind}")
        self._put([(image, _packed(one)) for image, one in zip(images, found, strict=True)])

    def as_kind(self, found: Keypoints) -> Keypoints:
        """Keypoints of `extracted_kind` as the store's kind."""
        if found.kind == self.kind:
            return found
        return replace(found, kind=self.kind, descriptors=root(found.descriptors))


#: Number of keypoints, height, width, and whether real descriptors are stored as bytes.
_HEADER = struct.Struct("<3I?")


def _packed(found: Keypoints) -> bytes:
    """`Keypoints` as bytes. SIFT's descriptors are whole numbers from 0 to 255, which take a quarter as uint8."""
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
    kept = np.frombuffer(blob, np.uint8 if small else dtype, offset=_HEADER.size + 20 * count)
    descriptors = kept.astype(dtype).reshape(count, KINDS[kind].width)
    return Keypoints(kind, points.reshape(count, 2), sizes, angles, responses, descriptors, (height, width))


def extract_each(
    images: Iterable[np.ndarray],
    kind: str = "sift",
    limit: int = 500,
    workers: int | None = None,
    then: Callable[[Keypoints], Any] | None = None,
    cache: bool = False,
) -> list:
    """`extract` of several images, on all cores; the result does not depend on their number.

    Parameters
    ----------
    workers : threads; by default one a core. OpenCV does not hold Python's lock while it works.
    then : what is made of the keypoints of each, in the same thread; without it, they themselves.
    cache : keep the keypoints on disk by the pixels, and read those that are there.
    """
    if cache:
        found = _extract_kept(list(images), kind, limit, workers)
        return found if then is None else [then(one) for one in found]

    from joblib import cpu_count

    def one(image):
        found = extract(image, kind, limit)
        return found if then is None else then(found)

    with ThreadPoolExecutor(workers or cpu_count()) as pool:
        return list(pool.map(one, images))


def _extract_kept(images: Sequence[np.ndarray], kind: str, limit: int, workers: int | None) -> list[Keypoints]:
    hashes = [pixels_hash(np.asarray(image)) for image in images]
    with KeypointStore(kind, limit, {"source": "array"}) as store:
        found = store.get(hashes)
        missing = {h: image for h, image in zip(hashes, images, strict=True) if h not in found}
        if missing:
            new = extract_each(missing.values(), store.extracted_kind, limit, workers)
            store.put(list(missing), new)
            found |= {h: store.as_kind(one) for h, one in zip(missing, new, strict=True)}
    return [found[h] for h in hashes]


def extract_set(
    images: ImageSet,
    kind: str = "sift",
    limit: int = 500,
    longest: int | None = None,
    progress: bool = True,
    cache: bool = True,
) -> list[Keypoints]:
    """`extract` of every image of a set, in its order, on all cores.

    Keypoints are kept on disk by the files' content, batch by batch: a second call extracts nothing, and a call that
    was killed continues. An image that can't be read has no keypoints, after one `UnreadableImageWarning` that
    counts and names them all.

    Parameters
    ----------
    longest : in pixels: images with a longer side are made smaller.
    cache : False reads and writes no file of keypoints.
    """
    from joblib import cpu_count

    failures: list[UnreadableImage] = []
    with ExitStack() as stack:
        store = stack.enter_context(KeypointStore(kind, limit, {"longest": longest})) if cache else None
        hashes = content_hashes(images.paths) if cache else []
        kept = store.get(hashes) if cache else {}
        found = [kept.get(h) for h in hashes] if cache else [None] * len(images)
        missing = [row for row, one in enumerate(found) if one is None]
        extracted_kind = store.extracted_kind if cache else kind

        def find(row: int) -> Keypoints | None:
            image = _image(images.paths[row], longest, failures)
            return None if image is None else extract(image, extracted_kind, limit)

        pool = stack.enter_context(ThreadPoolExecutor(cpu_count()))
        bar = stack.enter_context(
            tqdm(
                total=len(missing), desc=f"{kind} · {images.name}", unit="image",
                disable=None if progress and missing else True,
            )
        )  # fmt: skip
        # A batch at a time, so that a call that is killed loses one batch only.
        for start in range(0, len(missing), _KEPT_TOGETHER):
            rows = missing[start : start + _KEPT_TOGETHER]
            new = {row: one for row, one in zip(rows, pool.map(find, rows), strict=True) if one is not None}
            if cache:
                store.put([hashes[row] for row in new], list(new.values()))
                new = {row: store.as_kind(one) for row, one in new.items()}
            for row in rows:
                found[row] = new[row] if row in new else extract(np.zeros((1, 1), np.uint8), kind, limit)
            bar.update(len(rows))
    warn_unreadable(sorted(failures, key=str), len(images))
    return found


#: Images whose keypoints are stored in one transaction.
_KEPT_TOGETHER = 32


def _image(path: Path, longest: int | None, failures: list[UnreadableImage]) -> np.ndarray | None:
    """The pixels of a file, made smaller where they must be; None, and the error in ``failures``, if unreadable."""
    try:
        image = read_image(path)
    except UnreadableImage as error:
        failures.append(error)
        return None
    return shrink(image, longest) if longest else image


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """An image (height, width, …) whose longer side has at most ``longest`` pixels; a smaller one stays as it is."""
    side = max(image.shape[:2])
    if side <= longest:
        return image
    height, width = (max(1, round(length * longest / side)) for length in image.shape[:2])
    return resize(image, (height, width))


def root(descriptors: np.ndarray) -> np.ndarray:
    """SIFT → RootSIFT, float (n, 128) → float32: sums brought to one, then the square root.

    Euclidean distance then compares histograms as Hellinger's distance does, which large bins do not rule.
    """
    descriptors = np.asarray(descriptors, np.float32)
    total = descriptors.sum(axis=1, keepdims=True)
    return np.sqrt(descriptors / np.where(total > 0, total, 1))


def match(query: Keypoints, gallery: Keypoints, ratio: float | None = 0.8, mutual: bool = True) -> Matches:
    """Each query keypoint with its nearest one in the gallery image, where that is no accident; nearest first.

    Parameters
    ----------
    ratio : Lowe's test: the nearest must be nearer than so much of the second nearest. Needs two keypoints in the
        gallery image: a single one passes nothing. None leaves it out.
    mutual : the cross check: each must be the other's nearest.

    Raises
    ------
    ValueError : keypoints of two kinds, or a ratio outside (0, 1].
    """
    import cv2

    if query.kind != gallery.kind:
        raise ValueError(f"{query.kind} and {gallery.kind} descriptors can't be compared")
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(f"the ratio must lie in (0, 1], got {ratio}")
    if not len(query) or not len(gallery):
        return Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    matcher = cv2.BFMatcher(KINDS[query.kind].norm)
    kept = []
    for nearest in matcher.knnMatch(query.descriptors, gallery.descriptors, k=1 if ratio is None else 2):
        if ratio is None or (len(nearest) == 2 and nearest[0].distance < ratio * nearest[1].distance):
            kept.append((nearest[0].queryIdx, nearest[0].trainIdx, nearest[0].distance))
    if mutual and kept:
        back = {one.queryIdx: one.trainIdx for one in matcher.match(gallery.descriptors, query.descriptors)}
        kept = [(q, g, distance) for q, g, distance in kept if back[g] == q]
    kept.sort(key=lambda pair: (pair[2], pair[0]))
    return Matches(
        np.array([pair[:2] for pair in kept], np.int64).reshape(-1, 2),
        np.array([pair[2] for pair in kept], np.float32),
    )


def homography(query: Keypoints, gallery: Keypoints, matches: Matches, within: float = 5.0) -> Homography:
    """`fit_homography` to matched keypoints."""
    return fit_homography(query.points[matches.pairs[:, 0]], gallery.points[matches.pairs[:, 1]], query.shape, within)


def fit_homography(
    points: np.ndarray, others: np.ndarray, shape: tuple[int, int], within: float = 5.0, tries: int = 2000
) -> Homography:
    """The plane-to-plane map on which most pairs agree (RANSAC: Fischler & Bolles 1981), the same at every call.

    `ACCIDENT` pairs always agree. Believed is only what a camera could do, see `believable`.

    Parameters
    ----------
    points, others : float (m, 2), pair by pair. shape : (height, width) of the first image.
    within : pixels in the other image up to which a pair agrees.
    tries : draws of four pairs at most; where half of the pairs are right, 300 miss them once in 10⁸ times.
    """
    import cv2

    nobody = Homography(None, np.zeros(len(points), bool))
    if len(points) < 4:
        return nobody
    cv2.setRNGSeed(0)
    matrix, agree = cv2.findHomography(points, others, cv2.RANSAC, within, maxIters=tries, confidence=0.999)
    if matrix is None or not believable(matrix, shape):
        return nobody
    return Homography(matrix, agree.ravel().astype(bool))


def agreeing(
    here: Placed, there: Placed, pixels: float = 10.0, part: float = 0.2, degrees: float = 30.0, octaves: float = 0.75
) -> np.ndarray:
    """Which pairs agree on one turn, scale and shift, the most that do: bool (m,). A lower bar than `fit_homography`.

    Each pair proposes the similarity by which its own angle and size changed (Philbin et al. 2007); no chance is in it.

    Parameters
    ----------
    here, there : pair by pair (m each), as they lie in the two images.
    pixels, part : another pair agrees if it ends up no further off than so many pixels of the second image plus this
        part of its distance from the proposer, as angles and sizes are not exact,
    degrees, octaves : and if its own turn and scale differ by no more than this.
    """
    if not len(here.points):
        return np.zeros(0, bool)
    turn = (there.angles.astype(np.float64) - here.angles) % 360
    scale = np.log2(np.maximum(there.sizes, 1e-6) / np.maximum(here.sizes, 1e-6)).astype(np.float64)
    turned = np.abs(turn[None, :] - turn[:, None])
    agree = np.minimum(turned, 360 - turned) <= degrees
    agree &= np.abs(scale[None, :] - scale[:, None]) <= octaves
    # Few pairs are left for what takes longest. As complex numbers, a turn and a scale are one product.
    proposer, other = np.nonzero(agree)
    p, q = (placed.points.astype(np.float64) @ (1, 1j) for placed in (here, there))
    moved = np.exp2(scale) * np.exp(1j * np.radians(turn))
    apart = q[other] - q[proposer]
    off = np.abs(moved[proposer] * (p[other] - p[proposer]) - apart)
    agree[proposer, other] = off <= pixels + part * np.abs(apart)
    return agree[agree.sum(axis=1).argmax()]


def believable(matrix: np.ndarray, shape: tuple[int, int]) -> bool:
    """Whether a homography does to an image of this (height, width) what a camera could.

    Its corners stay a convex quadrilateral that is not mirrored and at most ten times larger or smaller a side.
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
    """The kind called so.

    Raises
    ------
    ValueError : there is none; the message names those that there are.
    """
    if name not in KINDS:
        raise ValueError(f"there are no {name!r} keypoints; known: {', '.join(KINDS)}")
    return KINDS[name]


def _strongest_first(point) -> tuple:
    # Equal responses in a fixed order: which ones the cap keeps must not depend on the detector's threads.
    return -point.response, point.pt, point.angle
