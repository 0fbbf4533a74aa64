"""Projection onto principal axes (PCA) with whitening: shorter vectors whose components vary equally.

Jégou & Chum 2012, https://doi.org/10.1007/978-3-642-33709-3_55: subtract the mean, rotate to the principal axes, divide
by the standard deviation along each axis, and normalize. Correlated features then count once, and the part that
nearly all images share (the mean) does not count.
"""

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers.files import write_atomically
from helpers.vectors import l2_normalize

FORMAT = 2


class ProjectionFileError(ValueError):
    """The file is not a projection of this version; the message names it."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A learned projection; call it to project vectors.

    mean : float32 (d,).
    axes : float32 (d, dim), orthonormal columns by decreasing variance.
    deviations : float32 (dim,): standard deviation of the training vectors along each axis.
    whitening : from 0 (variances unchanged) to 1 (all variances equal).
    learned_from : the training images, in a few words.
    """

    mean: np.ndarray
    axes: np.ndarray
    deviations: np.ndarray
    whitening: float
    learned_from: str

    @property
    def dim(self) -> int:
        return self.axes.shape[1]

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Project float (n, d) to float32 (n, dim), normalized; rows of NaN stay NaN."""
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(f"the projection takes vectors (n, {len(self.mean)}), got {vectors.shape}")
        return l2_normalize((vectors - self.mean) @ (self.axes / self.deviations**self.whitening)).astype(np.float32)

    def head(self, dim: int, whitening: float | None = None) -> "Projection":
        """The same projection with the first ``dim`` axes only, optionally with another ``whitening``."""
        if not 1 <= dim <= self.dim:
            raise ValueError(f"dim must be between 1 and {self.dim}, got {dim}")
        whitening = _checked(self.whitening if whitening is None else whitening)
        return replace(self, axes=self.axes[:, :dim], deviations=self.deviations[:dim], whitening=whitening)

    @property
    def digest(self) -> str:
        """Hash of all values."""
        parts = (np.ascontiguousarray(part, "<f4").tobytes() for part in (self.mean, self.axes, self.deviations))
        return hashlib.sha256(b"".join([*parts, repr(float(self.whitening)).encode()])).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write an npz file. The axes are float16, which changes a projected vector by less than 1e-3 of its length."""
        about = {"format": FORMAT, "whitening": self.whitening, "learned_from": self.learned_from}
        arrays = {"mean": self.mean, "axes": self.axes.astype(np.float16), "deviations": self.deviations}
        arrays["about"] = np.array(json.dumps(about))
        return write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> "Projection":
        """Read a file that `save` wrote; a `ProjectionFileError` if it is another one."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                if about["format"] != FORMAT:
                    raise ValueError(f"it has format {about['format']!r}, this version reads {FORMAT}")
                arrays = {name: stored[name].astype(np.float32) for name in ("mean", "axes", "deviations")}
            return cls(**arrays, whitening=_checked(about["whitening"]), learned_from=about["learned_from"])
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ProjectionFileError(f"{path} is not a projection ({error}). Learn and save it again.") from error


def learn(vectors: np.ndarray, dim: int, learned_from: str, whitening: float = 1.0) -> Projection:
    """Learn the principal axes of vectors. Their images must not be queries later, or the scores are too high.

    vectors : float (n, d), without NaN.
    dim : number of axes, at most d and n - 1.
    """
    from sklearn.decomposition import PCA

    most = min(len(vectors) - 1, vectors.shape[1])
    if not 1 <= dim <= most:
        raise ValueError(f"dim must be between 1 and {most} for training vectors {vectors.shape}, got {dim}")
    if np.isnan(vectors).any():
        raise ValueError("a training vector contains NaN: remove it")
    found = PCA(dim, svd_solver="full").fit(vectors.astype(np.float64))
    # Dividing by a deviation near zero would amplify an axis without information.
    deviations = np.maximum(np.sqrt(found.explained_variance_), 1e-6)
    mean, axes = found.mean_.astype(np.float32), found.components_.T.astype(np.float32)
    return Projection(mean, axes, deviations.astype(np.float32), _checked(whitening), learned_from)


def _checked(whitening: float) -> float:
    if not 0 <= whitening <= 1:
        raise ValueError(f"whitening must be between 0 and 1, got {whitening}")
    return float(whitening)
