"""Early fusion: the vectors of several describers, one after the other, as one."""

import warnings
from collections.abc import Sequence

import numpy as np

from helpers.features.describer import Describer, length_one
from helpers.pictures.imageset import ImageSet
from helpers.pictures.reading import UnreadablePictureWarning


class Fused(Describer):
    """Several describers as one; opened by name with plus signs, such as ``describer("hog+hsv-histogram")``.

    Each part is brought to length one, so that none rules by its length or its numbers; the cosine of two fused vectors
    is then the weighted mean of the parts' cosines.

    Parameters
    ----------
    parts : describers, two or more.
    weights : how much each counts, positive; by default all alike.

    Raises
    ------
    ValueError : fewer than two parts, or not one positive weight a part.
    """

    def __init__(self, parts: Sequence[Describer], weights: Sequence[float] | None = None):
        weights = [1.0] * len(parts) if weights is None else [float(weight) for weight in weights]
        if len(parts) < 2 or len(weights) != len(parts) or not all(weight > 0 for weight in weights):
            raise ValueError(
                f"give two describers or more and one positive weight each, got {len(parts)} and {weights}"
            )
        self.parts = list(parts)
        self.name = "+".join(part.name for part in parts)
        # What the cosines are weighted by goes into both vectors, each with its root.
        self.shares = np.sqrt(np.array(weights) / sum(weights))
        self.dim = sum(part.dim for part in parts)
        learnt = dict.fromkeys(part.weights for part in parts if part.weights != "none")
        self.weights = "+".join(learnt) or "none"
        # Each part reads and resizes by itself.
        self.size, self.resize_rule = max(part.size for part in parts), "squash"

    @property
    def settings(self) -> dict:
        return {"parts": [part.fingerprint for part in self.parts], "shares": self.shares.round(6).tolist()}

    @property
    def pictures_per_second(self) -> float | None:
        """From file to fused vector: every part takes its time; None before each part's rate is known."""
        rates = [part.pictures_per_second for part in self.parts]
        return None if None in rates else 1 / sum(1 / rate for rate in rates)

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, height, width, 3) of any size → float32 (b, dim)."""
        return self._fused([part.describe_arrays(pixels) for part in self.parts])

    def describe(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `Describer.describe`; each part keeps its own vectors, the first one warns of unreadable pictures."""
        how = {"cache": cache, "strict": strict, "progress": progress}
        vectors = [self.parts[0].describe(images, **how)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadablePictureWarning)
            vectors += [part.describe(images, **how) for part in self.parts[1:]]
        return self._fused(vectors)

    def describe_arrays(self, pictures: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        """See `Describer.describe_arrays`."""
        return self._fused([part.describe_arrays(pictures, cache=cache) for part in self.parts])

    def _fused(self, vectors: list[np.ndarray]) -> np.ndarray:
        shares = [share * length_one(part) for share, part in zip(self.shares, vectors, strict=True)]
        return length_one(np.concatenate(shares, axis=1)).astype(np.float32)
