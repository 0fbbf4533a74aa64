"""Extractors made of other extractors: averaged over views of an image, concatenated, or projected."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from helpers import paths
from helpers.features.extractor import FeatureExtractor
from helpers.features.projection import Projection
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImageWarning
from helpers.vectors import l2_normalize


class Wrapper(FeatureExtractor):
    """An extractor around another one: it reads images as ``of`` does, and its vectors have the same length."""

    def __init__(self, of: FeatureExtractor):
        self.of = of

    # Looked up each time: an extractor may be changed, or its model trained further, after it was wrapped.
    dim = property(lambda self: self.of.dim)
    size = property(lambda self: self.of.size)
    resize_rule = property(lambda self: self.of.resize_rule)
    batch_size = property(lambda self: self.of.batch_size)
    normalize = property(lambda self: self.of.normalize)
    weights = property(lambda self: self.of.weights)

    def prepare(self) -> None:
        self.of.prepare()


# ---- several views of each image ------------------------------------------------------------------------


class _View(Wrapper):
    """One changed view of each image; its vectors are stored apart from those of the image itself."""

    def __init__(self, of: FeatureExtractor, text: str, change: Callable[[np.ndarray], np.ndarray]):
        super().__init__(of)
        self.name, self.change = f"{of.name}~{text}", change

    @property
    def settings(self) -> dict:
        return {"of": self.of.fingerprint, "effect": self._effect}

    @cached_property
    def _effect(self) -> str:
        """A hash of the change to an image of noise: the recipe, the seed and the version of Keras all count."""
        noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
        return hashlib.sha256(np.ascontiguousarray(self.change(noise))).hexdigest()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → floating (b, dim)."""
        return self.of.compute(np.ascontiguousarray(self.change(pixels)))


class TestTimeAugmentation(Wrapper):
    """The mean of an extractor's vectors over several views of each image: the image itself, its mirror image, copies.

    A trained network gives an image and its mirror image slightly different vectors. The mean of both is the same for
    both. Extraction takes one pass a view; a search costs what it did, because vectors keep their length. Averaging
    over views goes back to Krizhevsky, Sutskever & Hinton 2012 (class scores of crops and mirror images); Parkhi,
    Vedaldi & Zisserman 2015 average the vectors of faces. Measure whether it helps.

    The views are made after resizing. Each has its own vectors in the store, so those of the image itself are shared
    with the wrapped extractor and are not computed again.

    >>> both = TestTimeAugmentation(open_extractor("resnet50"))                 # "resnet50+mirror"
    >>> more = TestTimeAugmentation(open_extractor("resnet50"), recipe="classic", copies=3)

    Parameters
    ----------
    extractor : any extractor, another `TestTimeAugmentation` included.
    mirror : whether the mirror image is a view.
    recipe, copies : this many copies by a recipe of `helpers.images.augmentation`. Copy *i* is drawn once, from
        ``seed``, and changes every image in the same way: the vector of an image depends on that image alone, not on
        the others in its batch.
    seed : of these draws; not negative.

    Attributes
    ----------
    views : the extractors whose vectors are averaged, the given one first.

    Raises
    ------
    KeyError : there is no such recipe.
    ValueError : there is no view beside the image itself; a recipe without copies or copies without a recipe; or a
        recipe that mixes images, whose copies show two.
    """

    # Not a test case, in spite of its name.
    __test__ = False

    def __init__(
        self,
        extractor: FeatureExtractor,
        mirror: bool = True,
        recipe: str | None = None,
        copies: int = 0,
        seed: int = 0,
    ):
        if copies < 0 or (recipe is None) != (copies == 0):
            raise ValueError(f"recipe and copies (1 or more) belong together, got recipe={recipe!r}, copies={copies}")
        if not mirror and not copies:
            raise ValueError("no view beside the image itself: give mirror=True, or a recipe and copies")
        super().__init__(extractor)
        self.views: list[FeatureExtractor] = [extractor]
        self.name = extractor.name
        if mirror:
            self.name += "+mirror"
            self.views.append(_View(extractor, "mirror", _mirrored))
        if copies:
            self.name += f"+{copies}-{recipe}"
            self.views += [_View(extractor, f"{recipe}-{i}", _copier(recipe, seed, i)) for i in range(copies)]

    @property
    def settings(self) -> dict:
        return {"mean of": [view.fingerprint for view in self.views]}

    @property
    def origin(self) -> dict:
        """The origin of the weights, where the wrapped extractor has one, and the number of views."""
        return {**getattr(self.of, "origin", {}), "views": len(self.views)}

    @property
    def images_per_second(self) -> float | None:
        """From file to averaged vector, over all views; None until the rate of each view is known."""
        rates = [view.images_per_second for view in self.views]
        return None if None in rates else 1 / sum(1 / rate for rate in rates)

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim): the mean of the vectors of all views."""
        return sum(view.embed(pixels) for view in self.views) / len(self.views)

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `FeatureExtractor.extract`; only the wrapped extractor warns of unreadable images."""
        how = {"cache": cache, "strict": strict, "progress": progress}
        total = self.of.extract(images, **how)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadableImageWarning)
            for view in self.views[1:]:
                total = total + view.extract(images, **how)
        mean = total / len(self.views)
        return l2_normalize(mean) if self.normalize else mean


def _mirrored(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, ::-1]


def _copier(recipe: str, seed: int, number: int) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 (b, h, w, 3) → the same: copy ``number`` by a recipe, drawn in the same way for every image."""
    # Imported here because it imports Keras.
    from helpers.images.augmentation import Augmentation, copies

    layer = Augmentation(recipe, seed)
    if layer.recipe.mixes:
        raise ValueError(f"a copy made by {recipe} shows two images and is no view of one; use another recipe")

    def change(pixels):
        made = np.empty_like(pixels)
        for row, image in enumerate(pixels):
            layer.start_epoch(number)
            made[row] = copies(image[None], layer, 1)[0, 0]
        return made

    return change


# ---- several extractors --------------------------------------------------------------------------------


class Concatenated(FeatureExtractor):
    """The vectors of several extractors, one after the other (early fusion).

    ``open_extractor("hog+hsv-histogram")`` opens one by name. The vector of each part is normalized first, so that
    neither its length nor its dimension decides how much it counts; the cosine of two concatenated vectors is the
    weighted mean of the cosines of the parts. In `extract` and `extract_arrays` each part resizes the images by
    itself; `embed` lets it resize what `preprocess` returned.

    Parameters
    ----------
    parts : extractors, two or more.
    weights : how much each counts, positive; by default all count the same.

    Raises
    ------
    ValueError : there are fewer than two parts, or not one positive weight for each.
    """

    def __init__(self, parts: Sequence[FeatureExtractor], weights: Sequence[float] | None = None):
        weights = [1.0] * len(parts) if weights is None else [float(weight) for weight in weights]
        if len(parts) < 2 or len(weights) != len(parts) or not all(weight > 0 for weight in weights):
            raise ValueError(
                f"give two extractors or more and one positive weight each, got {len(parts)} and {weights}"
            )
        self.parts = list(parts)
        self.name = "+".join(part.name for part in parts)
        # Both vectors are multiplied, so each gets the root of the weight of the cosine.
        self.shares = np.sqrt(np.array(weights) / sum(weights))
        self.dim = sum(part.dim for part in parts)
        learned = dict.fromkeys(part.weights for part in parts if part.weights != "none")
        self.weights = "+".join(learned) or "none"
        # Each part reads and resizes by itself.
        self.size, self.resize_rule = max(part.size for part in parts), "squash"

    @property
    def settings(self) -> dict:
        return {"parts": [part.fingerprint for part in self.parts], "shares": self.shares.round(6).tolist()}

    @property
    def images_per_second(self) -> float | None:
        """From file to concatenated vector, over all parts; None until the rate of each part is known."""
        rates = [part.images_per_second for part in self.parts]
        return None if None in rates else 1 / sum(1 / rate for rate in rates)

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, height, width, 3) of any size → float32 (b, dim)."""
        return self._concatenated([part.extract_arrays(pixels) for part in self.parts])

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `FeatureExtractor.extract`; each part has its own cache, and only the first warns of bad files."""
        how = {"cache": cache, "strict": strict, "progress": progress}
        vectors = [self.parts[0].extract(images, **how)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadableImageWarning)
            vectors += [part.extract(images, **how) for part in self.parts[1:]]
        return self._concatenated(vectors)

    def extract_arrays(self, images: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        """See `FeatureExtractor.extract_arrays`."""
        return self._concatenated([part.extract_arrays(images, cache=cache) for part in self.parts])

    def _concatenated(self, vectors: list[np.ndarray]) -> np.ndarray:
        shares = [share * l2_normalize(part) for share, part in zip(self.shares, vectors, strict=True)]
        return l2_normalize(np.concatenate(shares, axis=1)).astype(np.float32)


# ---- projected vectors ---------------------------------------------------------------------------------


class Projected(Wrapper):
    """An extractor whose vectors are projected, onto principal axes or whitened.

    ``open_extractor("resnet50-gem-pcaw256")`` opens one whose projection comes with the project. The store keeps the
    vectors before the projection, so another projection of them costs nothing.

    Parameters
    ----------
    of : the extractor. projection : takes vectors of its length.
    name : by default that of ``of``, "-pcaw" ("-pca" without whitening) and the dimension.

    Raises
    ------
    ValueError : the projection takes vectors of another length.
    """

    normalize = True

    def __init__(self, of: FeatureExtractor, projection: Projection, name: str | None = None):
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
        """The origin of the weights, where the wrapped extractor has one, and what the projection was learned from."""
        return {**getattr(self.of, "origin", {}), "projection learned from": self.projection.learned_from}

    @property
    def images_per_second(self) -> float | None:
        return self.of.images_per_second

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        return self.projection(self.of.embed(pixels))

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `FeatureExtractor.extract`."""
        return self.projection(self.of.extract(images, cache=cache, strict=strict, progress=progress))

    def extract_arrays(self, images: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        """See `FeatureExtractor.extract_arrays`."""
        return self.projection(self.of.extract_arrays(images, cache=cache))


def with_shipped_projection(of: FeatureExtractor, dim: int, whitening: float | None = None) -> Projected:
    """An extractor with the projection that comes with the project for it.

    Parameters
    ----------
    dim : of the projected vectors.
    whitening : from 0 (none) to 1 (full); by default as data/make_projections.py chose it.

    Raises
    ------
    KeyError : no projection comes for this extractor; the message lists those that have one.
    ValueError : the projection has fewer axes.
    """
    folder = paths.data_dir() / "projections"
    path = folder / f"{of.name}.npz"
    if not path.is_file():
        there = sorted(file.stem for file in folder.glob("*.npz"))
        raise KeyError(f"no projection comes for {of.name!r}; there are: {', '.join(there)}")
    return Projected(of, Projection.load(path).head(dim, whitening))
