"""Several views of each picture, described one by one and averaged: augmentation at search time.

A describer should not care whether the bird looks to the left, but a trained one does, a little. The mean of the
vectors of a picture and of its mirror image cares exactly not at all: both have the same mean. It costs twice the
describing and nothing at search time, as the vectors are as long as before. Averaging over views is as old as AlexNet
(Krizhevsky, Sutskever & Hinton 2012 average the answers for five crops and their mirror images); Parkhi, Vedaldi &
Zisserman 2015 do so with the vectors of faces. Whether it helps has to be measured.
"""

import hashlib
import warnings
from collections.abc import Callable
from functools import cached_property

import numpy as np

from helpers.features.describer import Describer, length_one
from helpers.pictures.imageset import ImageSet
from helpers.pictures.reading import UnreadablePictureWarning


class Wrapper(Describer):
    """A describer around another: pictures are read as ``of`` reads them, vectors are as long as its own."""

    def __init__(self, of: Describer):
        self.of = of

    # Looked up each time: a describer may be changed, or its model trained further, after it was wrapped.
    dim = property(lambda self: self.of.dim)
    size = property(lambda self: self.of.size)
    resize_rule = property(lambda self: self.of.resize_rule)
    batch_size = property(lambda self: self.of.batch_size)
    normalise = property(lambda self: self.of.normalise)
    weights = property(lambda self: self.of.weights)


class _View(Wrapper):
    """One changed view of each picture; its vectors are kept apart from those of the picture itself."""

    def __init__(self, of: Describer, text: str, change: Callable[[np.ndarray], np.ndarray]):
        super().__init__(of)
        self.name, self.change = f"{of.name}~{text}", change

    @property
    def settings(self) -> dict:
        return {"of": self.of.fingerprint, "effect": self._effect}

    @cached_property
    def _effect(self) -> str:
        """A hash of what it does to a picture of noise: the recipe, the seed and the version of Keras all count."""
        noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
        return hashlib.sha256(np.ascontiguousarray(self.change(noise))).hexdigest()

    def prepare(self) -> None:
        self.of.prepare()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → floating (b, dim)."""
        return self.of.compute(np.ascontiguousarray(self.change(pixels)))


class Views(Wrapper):
    """Any describer, averaged over views of each picture: the picture itself and what is asked for here.

    The views are made after resizing. Each has vectors of its own in the store, so those of the picture itself are
    shared with the describer that is wrapped: what is there already is not computed again.

    >>> both = Views(describer("resnet50"))                 # "resnet50+mirror"
    >>> more = Views(describer("resnet50"), recipe="classic", copies=3)

    Parameters
    ----------
    describer : any describer, another `Views` included.
    mirror : whether the mirror image is a view.
    recipe, copies : so many copies by a recipe of `helpers.pictures.augmentation`. Copy *i* is drawn once, from
        ``seed``, and changes every picture alike: the vector of a picture depends on that picture alone, not on
        those described beside it.
    seed : of these draws; not negative.

    Attributes
    ----------
    views : the describers whose vectors are averaged, the one that was given first.

    Raises
    ------
    KeyError : there is no such recipe.
    ValueError : no view beside the picture itself; a recipe without copies or copies without a recipe; or a recipe
        that mixes pictures, whose copies show two.
    """

    def __init__(
        self, describer: Describer, mirror: bool = True, recipe: str | None = None, copies: int = 0, seed: int = 0
    ):
        if copies < 0 or (recipe is None) != (copies == 0):
            raise ValueError(f"recipe and copies (1 or more) belong together, got recipe={recipe!r}, copies={copies}")
        if not mirror and not copies:
            raise ValueError("no view beside the picture itself: give mirror=True, or a recipe and copies")
        super().__init__(describer)
        self.views: list[Describer] = [describer]
        self.name = describer.name
        if mirror:
            self.name += "+mirror"
            self.views.append(_View(describer, "mirror", _mirrored))
        if copies:
            self.name += f"+{copies}-{recipe}"
            self.views += [_View(describer, f"{recipe}-{i}", _copier(recipe, seed, i)) for i in range(copies)]

    @property
    def settings(self) -> dict:
        return {"mean of": [view.fingerprint for view in self.views]}

    @property
    def origin(self) -> dict:
        """Of the weights, as far as the describer inside tells it, and how many views there are."""
        return {**getattr(self.of, "origin", {}), "views": len(self.views)}

    @property
    def pictures_per_second(self) -> float | None:
        """From file to averaged vector: every view takes its time; None before each view's rate is known."""
        rates = [view.pictures_per_second for view in self.views]
        return None if None in rates else 1 / sum(1 / rate for rate in rates)

    def prepare(self) -> None:
        self.of.prepare()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim): the mean of the views' vectors."""
        return sum(view._vectors(pixels) for view in self.views) / len(self.views)

    def describe(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `Describer.describe`; the describer that is wrapped warns of unreadable pictures, once."""
        how = {"cache": cache, "strict": strict, "progress": progress}
        total = self.of.describe(images, **how)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadablePictureWarning)
            for view in self.views[1:]:
                total = total + view.describe(images, **how)
        mean = total / len(self.views)
        return length_one(mean) if self.normalise else mean


def _mirrored(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, ::-1]


def _copier(recipe: str, seed: int, number: int) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 (b, h, w, 3) → the same: copy ``number`` by a recipe, drawn anew, and so alike, for every picture."""
    # Here and not above: it imports Keras.
    from helpers.pictures.augmentation import Augmentation, copies

    layer = Augmentation(recipe, seed)
    if layer.recipe.mixes:
        raise ValueError(f"a copy made by {recipe} shows two pictures, no view of one; use another recipe")

    def change(pixels):
        made = np.empty_like(pixels)
        for row, picture in enumerate(pixels):
            layer.start_epoch(number)
            made[row] = copies(picture[None], layer, 1)[0, 0]
        return made

    return change
