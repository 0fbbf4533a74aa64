"""Extractors built from other extractors: test-time augmentation, concatenation and projection."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial, reduce

import numpy as np

from helpers import paths
from helpers.features.extractor import FeatureExtractor
from helpers.features.projection import Projection
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImageWarning
from helpers.vectors import l2_normalize


class Wrapper(FeatureExtractor):
    """Base class of an extractor around another one, ``of``, with the same input.

    The dimension is the same, too, except for `Projected`.
    """

    def __init__(self, of: FeatureExtractor):
        self.of = of

    # Properties, because the wrapped extractor may change, or its model may be trained further.
    dim = property(lambda self: self.of.dim)
    size = property(lambda self: self.of.size)
    resize_rule = property(lambda self: self.of.resize_rule)
    batch_size = property(lambda self: self.of.batch_size)
    normalize = property(lambda self: self.of.normalize)
    weights = property(lambda self: self.of.weights)
    # The name of a wrapper begins with that of the wrapped extractor.
    short_name = property(lambda self: self.of.short_name + self.name.removeprefix(self.of.name))

    def prepare(self) -> None:
        self.of.prepare()

    def expect_single_images(self) -> None:
        self.of.expect_single_images()

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        return self.of.preprocess(image)


# ---- several views of each image ------------------------------------------------------------------------


class _View(Wrapper):
    """A transformed view of each image, with its own vectors in the store."""

    def __init__(self, of: FeatureExtractor, text: str, transform: Callable[[np.ndarray], np.ndarray]):
        super().__init__(of)
        self.name, self.transform = f"{of.name}~{text}", transform

    settings = property(lambda self: {"of": self.of.fingerprint, "effect": self._effect})

    @cached_property
    def _effect(self) -> str:
        """Hash of the transformed noise image; it covers the recipe, the seed and the version of Keras."""
        noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
        return hashlib.sha256(np.ascontiguousarray(self.transform(noise)).data).hexdigest()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → floating (b, dim)."""
        return self.of.compute(np.ascontiguousarray(self.transform(pixels)))


class TestTimeAugmentation(Wrapper):
    """The mean of an extractor's vectors over several views of each image: itself, its mirror image, augmented copies.

    Krizhevsky, Sutskever & Hinton 2012 averaged class scores, Parkhi, Vedaldi & Zisserman 2015 vectors of faces.
    Extraction takes one pass per view; a search costs the same as before. Measure whether it helps. The views are made
    after resizing. Each has its own vectors in the store; the wrapped extractor shares those of the image itself.

    >>> both = TestTimeAugmentation(open_extractor("resnet50"))                 # "resnet50+mirror"
    >>> more = TestTimeAugmentation(open_extractor("resnet50"), recipe="classic", copies=3)

    mirror : whether the mirror image is a view.
    recipe, copies : number of copies by a recipe of `helpers.images.augmentation`. The random transformation of copy
        *i* is the same for all images, so a vector does not depend on the other images of the batch.
    seed : of these transformations.
    """

    # pytest would collect the class because of its name.
    __test__ = False

    def __init__(
        self, extractor: FeatureExtractor, mirror: bool = True, recipe: str | None = None, copies: int = 0,
        seed: int = 0,
    ):  # fmt: skip
        if copies < 0 or (recipe is None) != (copies == 0):
            raise ValueError(f"give recipe and copies (1 or more) together, got recipe={recipe!r}, copies={copies}")
        if not mirror and recipe is None:
            raise ValueError("only one view: give mirror=True, or a recipe and copies")
        super().__init__(extractor)
        self.views: list[FeatureExtractor] = [extractor]
        self.name = extractor.name
        if mirror:
            self.name += "+mirror"
            self.views.append(_View(extractor, "mirror", partial(np.flip, axis=2)))
        if recipe is not None:
            self.name += f"+{copies}-{recipe}"
            self.views += [_View(extractor, f"{recipe}-{i}", _augment(recipe, seed, i)) for i in range(copies)]

    settings = property(lambda self: {"mean of": [view.fingerprint for view in self.views]})

    @property
    def origin(self) -> dict:
        """The wrapped extractor's origin, if any, and the number of views."""
        return {**getattr(self.of, "origin", {}), "views": len(self.views)}

    images_per_second = property(lambda self: _combined_rate(self.views))

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim): the mean of the vectors of all views."""
        return reduce(np.add, (view.embed(pixels) for view in self.views)) / len(self.views)

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `FeatureExtractor.extract`; only the wrapped extractor warns about unreadable images."""
        mean = reduce(np.add, _extract_by_each(self.views, images, cache, strict, progress)) / len(self.views)
        return l2_normalize(mean) if self.normalize else mean


def _combined_rate(parts: Sequence[FeatureExtractor]) -> float | None:
    """Images per second of several extractors one after the other; None until each rate is known."""
    seconds = [1 / part.images_per_second for part in parts if part.images_per_second]
    return 1 / sum(seconds) if len(seconds) == len(parts) else None


def _extract_by_each(
    parts: Sequence[FeatureExtractor], images: ImageSet, cache: bool, strict: bool, progress: bool
) -> Iterator[np.ndarray]:
    """Extract by one extractor after the other; only the first one warns about unreadable images."""
    for number, part in enumerate(parts):
        with warnings.catch_warnings():
            if number:
                warnings.simplefilter("ignore", UnreadableImageWarning)
            vectors = part.extract(images, cache=cache, strict=strict, progress=progress)
        yield vectors


def _augment(recipe: str, seed: int, number: int) -> Callable[[np.ndarray], np.ndarray]:
    """Transformation of uint8 (b, h, w, 3): copy ``number`` by a recipe, the same for every image."""
    # Imports Keras.
    from helpers.images.augmentation import Augmentation, copies

    layer = Augmentation(recipe, seed)
    if layer.recipe.mixes:
        raise ValueError(f"{recipe} mixes two images; use another recipe")

    def transform(pixels: np.ndarray) -> np.ndarray:
        augmented = np.empty_like(pixels)
        for row, image in enumerate(pixels):
            layer.start_epoch(number)
            augmented[row] = copies(image[None], layer, 1)[0, 0]
        return augmented

    return transform


# ---- several extractors --------------------------------------------------------------------------------


class Concatenated(FeatureExtractor):
    """The concatenated vectors of several extractors (early fusion), e.g. ``open_extractor("hog+hsv-histogram")``.

    Each part is normalized first, so the cosine of two concatenated vectors is the weighted mean of the cosines of the
    parts. In `extract` and `extract_arrays` each part resizes the images by itself; in `embed` it resizes the output
    of `preprocess`.

    weights : positive weight of each part; by default all are equal.
    """

    def __init__(self, parts: Sequence[FeatureExtractor], weights: Sequence[float] | None = None):
        weights = [1.0] * len(parts) if weights is None else [float(weight) for weight in weights]
        if len(parts) < 2 or len(weights) != len(parts) or not all(weight > 0 for weight in weights):
            raise ValueError(
                f"give two or more extractors and one positive weight each, got {len(parts)} and {weights}"
            )
        self.parts = list(parts)
        self.name = "+".join(part.name for part in parts)
        # The cosine multiplies two vectors, so each gets the square root of the weight.
        self.shares = np.sqrt(np.array(weights) / sum(weights))
        self.dim = sum(part.dim for part in parts)
        learned = dict.fromkeys(part.weights for part in parts if part.weights != "none")
        self.weights = "+".join(learned) or "none"
        self.size, self.resize_rule = max(part.size for part in parts), "squash"

    settings = property(
        lambda self: {"parts": [part.fingerprint for part in self.parts], "shares": self.shares.round(6).tolist()}
    )

    short_name = property(lambda self: "+".join(part.short_name for part in self.parts))
    images_per_second = property(lambda self: _combined_rate(self.parts))

    def expect_single_images(self) -> None:
        for part in self.parts:
            part.expect_single_images()

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, height, width, 3) of any size → float32 (b, dim)."""
        return self.extract_arrays(list(pixels))

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """See `FeatureExtractor.extract`; each part has its own cache, and only the first warns about bad files."""
        return self._concatenated(list(_extract_by_each(self.parts, images, cache, strict, progress)))

    def extract_arrays(self, images: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        return self._concatenated([part.extract_arrays(images, cache=cache) for part in self.parts])

    def _concatenated(self, vectors: list[np.ndarray]) -> np.ndarray:
        shares = [share * l2_normalize(part) for share, part in zip(self.shares, vectors, strict=True)]
        return l2_normalize(np.concatenate(shares, axis=1)).astype(np.float32)


# ---- projected vectors ---------------------------------------------------------------------------------


class Projected(Wrapper):
    """An extractor followed by a projection onto principal axes, with or without whitening.

    ``open_extractor("resnet50-gem-pcaw256")`` opens one with a shipped projection. The store keeps the vectors before
    the projection, so several projections share them. The name gets "-pcaw" ("-pca" without whitening) and the
    dimension.
    """

    normalize = True

    def __init__(self, of: FeatureExtractor, projection: Projection):
        if of.dim != len(projection.mean):
            raise ValueError(f"{of.name} has dimension {of.dim}, the projection expects {len(projection.mean)}")
        super().__init__(of)
        self.projection = projection
        self.name = f"{of.name}-{'pcaw' if projection.whitening else 'pca'}{projection.dim}"

    dim = property(lambda self: self.projection.dim)

    settings = property(lambda self: {"of": self.of.fingerprint, "projection": self.projection.digest})
    images_per_second = property(lambda self: self.of.images_per_second)

    @property
    def origin(self) -> dict:
        """The wrapped extractor's origin, if any, and the training images of the projection."""
        return {**getattr(self.of, "origin", {}), "projection learned from": self.projection.learned_from}

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim)."""
        return self.projection(self.of.embed(pixels))

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        return self.projection(self.of.extract(images, cache=cache, strict=strict, progress=progress))

    def extract_arrays(self, images: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        return self.projection(self.of.extract_arrays(images, cache=cache))


def with_shipped_projection(of: FeatureExtractor, dim: int, whitening: float | None = None) -> Projected:
    """An extractor with its shipped projection (a KeyError if there is none), see `Projection.head`."""
    folder = paths.data_dir() / "projections"
    path = folder / f"{of.name}.npz"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.npz"))
        raise KeyError(f"there is no projection for {of.name!r}, only for: {', '.join(known)}")
    return Projected(of, Projection.load(path).head(dim, whitening))
