"""A describer whose vectors are projected: onto principal axes, whitened; and those that come with the project."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from helpers import paths
from helpers.features.describer import Describer, describer, register
from helpers.features.projection import Projection
from helpers.features.views import Wrapper
from helpers.pictures.imageset import ImageSet

#: Describers whose projections come with the project, learnt by data/make_projections.py.
SHIPPED = ("resnet50-gem",)

#: Numbers a vector of the describers that end in "-pcaw" and a number has.
DIMS = (16, 32, 64, 128, 256, 512)


class Projected(Wrapper):
    """Any describer, its vectors projected; opened by name where the projection comes with the project.

    >>> describer("resnet50-gem-pcaw256")          # doctest: +SKIP

    Vectors before the projection stay in the store, so another projection of them costs nothing.

    Parameters
    ----------
    of : describes. projection : of vectors of its length.
    name : by default that of ``of``, "-pcaw" (or "-pca" where nothing is whitened) and the dimension.

    Raises
    ------
    ValueError : the projection takes vectors of another length.
    """

    normalise = True

    def __init__(self, of: Describer, projection: Projection, name: str | None = None):
        if of.dim != len(projection.mean):
            raise ValueError(f"{of.name} gives {of.dim} numbers, the projection takes {len(projection.mean)}")
        super().__init__(of)
        self.projection = projection
        self.name = name or f"{of.name}-{'pcaw' if projection.whitening else 'pca'}{projection.dim}"

    dim = property(lambda self: self.projection.dim)

    @property
    def settings(self) -> dict:
        return {"of": self.of.fingerprint, "projection": self.projection.digest}

    @property
    def origin(self) -> dict:
        """Of the weights, as far as the describer inside tells it, and what the projection was learnt from."""
        return {**getattr(self.of, "origin", {}), "projection learnt from": self.projection.learnt_from}

    @property
    def pictures_per_second(self) -> float | None:
        return self.of.pictures_per_second

    def prepare(self) -> None:
        self.of.prepare()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        return self.projection(self.of._vectors(pixels))

    def describe(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `Describer.describe`."""
        return self.projection(self.of.describe(images, cache=cache, strict=strict, progress=progress))

    def describe_arrays(self, pictures: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        """See `Describer.describe_arrays`."""
        return self.projection(self.of.describe_arrays(pictures, cache=cache))


def shipped(name: str, dim: int, whitening: float | None = None) -> Projected:
    """A describer with a projection that comes with the project, such as ``shipped("resnet50-gem", 256)``.

    whitening : how far, 0 … 1; by default as data/make_projections.py chose it.

    Raises
    ------
    KeyError : none comes for that describer; the message lists those that do.
    ValueError : it has fewer axes.
    WeightsUnavailable : the network's trained weights can't be had.
    """
    if name not in SHIPPED:
        raise KeyError(f"no projection comes for {name!r}; there are: {', '.join(SHIPPED)}")
    learnt = Projection.load(paths.data_dir() / "projections" / f"{name}.npz")
    return Projected(describer(name), learnt.head(dim, whitening))


for _name in SHIPPED:
    for _dim in DIMS:
        register(f"{_name}-pcaw{_dim}", partial(shipped, _name, _dim))
