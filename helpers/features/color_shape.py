"""Hand-crafted features: raw pixels, color histograms and histograms of oriented gradients."""

from functools import partial
from typing import NamedTuple

import numpy as np

from helpers.features.extractor import FeatureExtractor


class _ByOpenCV(FeatureExtractor):
    def prepare(self) -> None:
        """Import OpenCV, so that the rate excludes the import."""
        import cv2  # noqa: F401


class Pixels(_ByOpenCV):
    """A tiny gray image as a vector, the simplest baseline ("tiny images": Torralba, Fergus & Freeman 2008).

    Subtracting the mean and normalizing the length removes brightness and contrast.
    """

    def __init__(self, size: int = 16):
        self.name = "pixels"
        self.size = size
        self.dim = size * size
        # British, as in existing files of vectors: another spelling would change the fingerprint.
        self.settings = {"colour": "grey"}

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, size²)."""
        flat = _gray(pixels).astype(np.float32).reshape(len(pixels), -1)
        return flat - flat.mean(axis=1, keepdims=True)


class ColorSpace(NamedTuple):
    """OpenCV's name of the conversion from RGB (None for RGB), upper ends of the channels, default bins."""

    conversion: str | None
    ends: tuple[int, ...]
    bins: tuple[int, ...]


#: OpenCV's 8-bit hue has steps of two degrees and ends at 180; Lab is scaled to 0 … 255.
COLOR_SPACES = {
    "gray": ColorSpace("COLOR_RGB2GRAY", (256,), (64,)),
    "rgb": ColorSpace(None, (256, 256, 256), (5, 5, 5)),
    "hsv": ColorSpace("COLOR_RGB2HSV", (180, 256, 256), (8, 4, 4)),
    "lab": ColorSpace("COLOR_RGB2LAB", (256, 256, 256), (4, 6, 6)),
}


class ColorHistogram(_ByOpenCV):
    """Square root of a joint histogram of the color channels (Swain & Ballard 1991).

    With the root, the cosine of two histograms is their Bhattacharyya coefficient.

    bins : number of bins of each channel, by default those of `COLOR_SPACES`.
    """

    def __init__(self, bins: tuple[int, ...] | None = None, size: int = 128, space: str = "hsv"):
        if space not in COLOR_SPACES:
            raise ValueError(f"space must be one of {', '.join(COLOR_SPACES)}; got {space!r}")
        self.name = f"{space}-histogram"
        self.size = size
        self.space = COLOR_SPACES[space]
        self.bins = self.space.bins if bins is None else tuple(bins)
        if len(self.bins) != len(self.space.ends):
            raise ValueError(f"{space} has {len(self.space.ends)} channels, got {len(self.bins)} numbers of bins")
        self.dim = int(np.prod(self.bins))
        # The name contains the space.
        self.settings = {"bins": list(self.bins), "root": True}

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        import cv2

        conversion, ends, _ = self.space
        ranges = [limit for end in ends for limit in (0, end)]
        histograms = [
            cv2.calcHist(
                [image if conversion is None else cv2.cvtColor(image, getattr(cv2, conversion))],
                list(range(len(ends))),
                None,
                list(self.bins),
                ranges,
            )
            for image in pixels
        ]
        return np.sqrt(np.stack(histograms).reshape(len(pixels), self.dim))


class Hog(_ByOpenCV):
    """Histograms of oriented gradients (Dalal & Triggs 2005): positions and directions of edges.

    Each cell has a histogram of 9 unsigned directions. Blocks of 2 × 2 cells are normalized, clipped at 0.2 and
    normalized again, which reduces the effect of brightness and contrast.

    cell : side of a cell in pixels; must divide ``size``.
    """

    DIRECTIONS = 9

    def __init__(self, size: int = 128, cell: int = 16):
        import cv2

        if cell < 1 or size % cell or size < 2 * cell:
            raise ValueError(
                f"size must be a multiple of cell, and at least twice as large; got cell={cell} and size={size}"
            )
        self.name = "hog"
        self.size = size
        side = (size, size)
        self._hog = cv2.HOGDescriptor(side, (2 * cell, 2 * cell), (cell, cell), (cell, cell), self.DIRECTIONS)
        self.dim = self._hog.getDescriptorSize()
        self.settings = {"cell": cell, "directions": self.DIRECTIONS}

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        return np.stack([np.ravel(self._hog.compute(image)) for image in _gray(pixels)])


def _gray(pixels: np.ndarray) -> np.ndarray:
    """uint8 (b, h, w, 3) → uint8 (b, h, w)."""
    import cv2

    return np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pixels])


#: Name → factory, for `helpers.features.registry`.
EXTRACTORS = {
    "pixels": Pixels,
    "hog": Hog,
    **{f"{space}-histogram": partial(ColorHistogram, space=space) for space in COLOR_SPACES},
}
