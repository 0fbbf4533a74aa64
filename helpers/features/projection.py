"""Principal axes and whitening: fewer numbers a vector, and none that counts for more because it varies more.

Jégou & Chum 2012, https://doi.org/10.1007/978-3-642-33709-3_55: subtract the mean, turn to the principal axes, divide
by the standard deviation along each, and bring to length one. What varies together is counted once then, and what
nearly all images share (the mean) not at all.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.files import write_atomically
from helpers.vectors import l2_normalize

FORMAT = 2


class ProjectionFileError(ValueError):
    """A file holds no projection, or one of another version; the message names it."""


@dataclass(frozen=True, eq=False)
class Projection:
    """What was learned from training vectors; calling it projects others.

    Attributes
    ----------
    mean : float32 (d,).
    axes : float32 (d, dim), orthonormal columns, the one with the largest variance first.
    deviations : float32 (dim,): standard deviation of the training vectors along each axis.
    whitening : 0 leaves the variances, 1 makes them all alike, 0.5 is half way.
    learned_from : what images, in a few words.
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
        """float (n, d) → float32 (n, dim) of length one; the row of an image without a vector (NaN) stays so.

        Raises
        ------
        ValueError : the vectors have another length than those it was learned from.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(
                f"the projection takes vectors (n, {len(self.mean)}), got {vectors.shape}: another extractor?"
            )
        return l2_normalize((vectors - self.mean) @ (self.axes / self.deviations**self.whitening)).astype(np.float32)

    def head(self, dim: int, whitening: float | None = None) -> "Projection":
        """The first ``dim`` axes, and another ``whitening`` where one is given: nothing has to be learned again.

        Raises
        ------
        ValueError : there are fewer axes, or ``whitening`` is not between 0 and 1.
        """
        if not 1 <= dim <= self.dim:
            raise ValueError(f"dim must be between 1 and {self.dim}, got {dim}")
        whitening = _checked(self.whitening if whitening is None else whitening)
        return Projection(self.mean, self.axes[:, :dim], self.deviations[:dim], whitening, self.learned_from)

    @property
    def digest(self) -> str:
        """Stands for all its numbers."""
        parts = (np.ascontiguousarray(part, "<f4").tobytes() for part in (self.mean, self.axes, self.deviations))
        return hashlib.sha256(b"".join([*parts, repr(float(self.whitening)).encode()])).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write it as npz; axes in float16, which moves a projected vector by less than 1e-3 of its length."""
        about = {"format": FORMAT, "whitening": self.whitening, "learned_from": self.learned_from}
        arrays = {"mean": self.mean, "axes": self.axes.astype(np.float16), "deviations": self.deviations}
        return write_atomically(path, lambda file: np.savez_compressed(file, about=json.dumps(about), **arrays))

    @classmethod
    def load(cls, path: str | Path) -> "Projection":
        """
        Raises
        ------
        FileNotFoundError : there is no such file.
        ProjectionFileError : it holds no projection, or one of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                if about["format"] != FORMAT:
                    raise ValueError(f"it has format {about['format']!r}, this version reads {FORMAT}")
                arrays = [stored[name].astype(np.float32) for name in ("mean", "axes", "deviations")]
            return cls(*arrays, _checked(about["whitening"]), about["learned_from"])
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ProjectionFileError(f"{path} is not a projection ({error}). Learn and save it again.") from error


def learn(vectors: np.ndarray, dim: int, learned_from: str, whitening: float = 1.0) -> Projection:
    """The principal axes of some vectors; their images must not be asked with later, or the score knows its answers.

    Parameters
    ----------
    vectors : float (n, d), no NaN. dim : axes to keep. learned_from : what images, in a few words.
    whitening : see `Projection`.

    Raises
    ------
    ValueError : ``dim`` is more than there are numbers a vector, or than vectors less one (their mean takes one);
        a number is NaN; ``whitening`` is not between 0 and 1.
    """
    from sklearn.decomposition import PCA

    most = min(len(vectors) - 1, vectors.shape[1])
    if not 1 <= dim <= most:
        raise ValueError(f"dim must be between 1 and {most} for {vectors.shape} vectors to learn from, got {dim}")
    if np.isnan(vectors).any():
        raise ValueError("an image to learn from has no vector (NaN): leave it out")
    found = PCA(dim, svd_solver="full").fit(vectors.astype(np.float64))
    # An axis along which nothing varies says nothing; dividing by next to nothing would make it the loudest.
    deviations = np.maximum(np.sqrt(found.explained_variance_), 1e-6)
    mean, axes = found.mean_.astype(np.float32), found.components_.T.astype(np.float32)
    return Projection(mean, axes, deviations.astype(np.float32), _checked(whitening), learned_from)


def _checked(whitening: float) -> float:
    if not 0 <= whitening <= 1:
        raise ValueError(f"whitening must be between 0 and 1, got {whitening}")
    return float(whitening)
