"""Known items: queries that are altered copies of gallery images, so that exactly one result is relevant.

They evaluate searches for copies, crops and rotated scans, which class labels cannot.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Change:
    """One kind of change, such as ``"rotation"``, of one strength, in the unit that `CHANGES` names."""

    kind: str
    strength: float

    def __call__(self, image: np.ndarray, rng: np.random.Generator, other: np.ndarray | None = None) -> np.ndarray:
        """uint8 (h, w, 3) → uint8 (h', w', 3). Raises ValueError for an unknown kind.

        rng : decides the position of a crop, and the noise.
        other : the image that a ``pasted`` crop is pasted into; required for that kind.
        """
        if self.kind not in CHANGES:
            raise ValueError(f"there is no change {self.kind!r}; known: {', '.join(CHANGES)}")
        if self.kind == "pasted" and other is None:
            raise ValueError("a crop is pasted into another image: give one")
        return CHANGES[self.kind].apply(image, self.strength, rng, other)

    def __str__(self) -> str:
        return f"{self.kind} {self.strength:g}"


class _Kind(NamedTuple):
    """Unit of the strength, the strengths of `all_changes` from easy to hard, and the function."""

    unit: str
    strengths: tuple[float, ...]
    apply: Callable[..., np.ndarray]


def queries(
    images: Sequence[np.ndarray], frames: Sequence[np.ndarray], changes: Sequence[Change] | None = None, seed: int = 0
) -> Iterator[tuple[int, Change, np.ndarray]]:
    """(row of the original, change, changed image), change by change. Each depends on its row and the seed only.

    images : uint8 (h, w, 3) each.
    frames : the images that crops are pasted into, in turn. They must **not** be in the gallery, because the search
        would correctly find them.
    changes : by default `all_changes`.
    """
    for change in all_changes() if changes is None else changes:
        name = zlib.crc32(str(change).encode())
        for row, image in enumerate(images):
            rng = np.random.default_rng((seed, name, row))
            yield row, change, change(image, rng, frames[row % len(frames)] if len(frames) else None)


def all_changes() -> list[Change]:
    """All kinds in all of their strengths."""
    return [Change(name, strength) for name, kind in CHANGES.items() for strength in kind.strengths]


def _rotation(image, degrees, rng, other):
    """About the center. The frame is enlarged to hold all corners; its background is gray."""
    import cv2

    height, width = image.shape[:2]
    middle = np.array([width - 1, height - 1]) / 2  # of pixel centers
    matrix = cv2.getRotationMatrix2D(middle.tolist(), degrees, 1)
    cos, sin = np.abs(matrix[0, :2])
    size = round(height * sin + width * cos), round(height * cos + width * sin)
    matrix[:, 2] += (np.array(size) - 1) / 2 - middle
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(127, 127, 127))


def _scale(image, factor, rng=None, other=None):
    import cv2

    size = tuple(max(1, round(side * factor)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _crop(image, part, rng, other=None):
    """``part`` of the width and of the height, at a random position."""
    height, width = (max(1, round(side * part)) for side in image.shape[:2])
    top, left = rng.integers(0, image.shape[0] - height + 1), rng.integers(0, image.shape[1] - width + 1)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _perspective(image, strength, rng, other):
    """Each corner moves inwards independently, by up to ``strength`` of the side."""
    import cv2

    height, width = image.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (width, height)
    moved = corners + inwards * rng.uniform(strength / 2, strength, (4, 2))
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return cv2.warpPerspective(image, matrix, (width, height), borderValue=(127, 127, 127))


def _blur(image, sigma, rng, other):
    import cv2

    return cv2.GaussianBlur(image, (0, 0), sigma)


def _noise(image, sigma, rng, other):
    return np.clip(np.rint(image + rng.normal(0, sigma, image.shape)), 0, 255).astype(np.uint8)


def _jpeg(image, quality, rng, other):
    import cv2

    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _brightness(image, factor, rng, other):
    return np.clip(np.rint(image * float(factor)), 0, 255).astype(np.uint8)


def _pasted(image, part, rng, other):
    """A crop of ``part`` of each side, at a random position in another image, which is enlarged if it is too small."""
    cut = _crop(image, part, rng)
    factor = max(cut.shape[0] / other.shape[0], cut.shape[1] / other.shape[1])
    frame = _scale(other, factor) if factor > 1 else other.copy()
    height, width = np.minimum(cut.shape[:2], frame.shape[:2])
    top, left = rng.integers(0, frame.shape[0] - height + 1), rng.integers(0, frame.shape[1] - width + 1)
    frame[top : top + height, left : left + width] = cut[:height, :width]
    return frame


#: Every kind by name.
CHANGES = {
    "rotation": _Kind("degrees", tuple(range(15, 360, 15)), _rotation),
    "scale": _Kind("times each side", (0.25, 0.35, 0.5, 0.71, 1.41, 2), _scale),
    "crop": _Kind("of each side", (0.9, 0.8, 0.7, 0.6, 0.5), _crop),
    "perspective": _Kind("of the side that corners move at most", (0.05, 0.1, 0.2, 0.3), _perspective),
    "blur": _Kind("pixels (standard deviation)", (1, 2, 4, 8), _blur),
    "noise": _Kind("gray values (standard deviation)", (5, 10, 20, 40), _noise),
    "jpeg": _Kind("quality of 100", (50, 25, 10, 5), _jpeg),
    "brightness": _Kind("times", (0.3, 0.5, 1.5, 2), _brightness),
    "pasted": _Kind("of each side", (0.8, 0.6, 0.5), _pasted),
}
