"""Hand-made features: raw pixels and colour histograms. They need no training, and are the bar to beat."""

import cv2
import numpy as np

from helpers.features.describer import Describer, register


class Pixels(Describer):
    """The picture itself, tiny and grey: what a describer must beat to have understood anything.

    The mean is taken away and the length brought to one, so that light does not count (the "tiny images"
    of Torralba, Fergus & Freeman 2008).
    """

    def __init__(self, size: int = 16):
        self.name = "pixels"
        self.size = size
        self.dim = size * size
        self.settings = {"colour": "grey"}

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, size²)."""
        grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pixels]).astype(np.float32)
        flat = grey.reshape(len(grey), -1)
        return flat - flat.mean(axis=1, keepdims=True)


class ColourHistogram(Describer):
    """A joint histogram of hue, saturation and value (Swain & Ballard 1991), square-rooted.

    With the root, the cosine of two histograms is their Bhattacharyya coefficient.
    """

    def __init__(self, bins: tuple[int, int, int] = (8, 4, 4), size: int = 128):
        self.name = "hsv-histogram"
        self.size = size
        self.bins = tuple(bins)
        self.dim = int(np.prod(self.bins))
        self.settings = {"bins": list(self.bins), "root": True}

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        histograms = [
            cv2.calcHist(
                [cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)], [0, 1, 2], None, list(self.bins), [0, 180, 0, 256, 0, 256]
            )
            for picture in pixels
        ]
        return np.sqrt(np.stack(histograms).reshape(len(pixels), self.dim))


register("pixels", Pixels)
register("hsv-histogram", ColourHistogram)
