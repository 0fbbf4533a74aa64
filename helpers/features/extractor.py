"""The interface of all feature extractors: images in, feature vectors out."""

import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm.auto import tqdm

from helpers.features import store
from helpers.features.file_hashes import content_hashes
from helpers.images import reading
from helpers.images.imageset import ImageSet
from helpers.vectors import l2_normalize


class FeatureExtractor(ABC):
    """Base class of everything that turns images into feature vectors, from color histograms to ResNet152.

    A subclass sets the attributes and implements `compute`. Wrappers use the public methods: `preprocess` for
    single images, `embed` for batches, `iter_batches` for files, and `extract` and `extract_arrays`, which use a cache.

    Attributes
    ----------
    name : shown in tables, e.g. ``"resnet50"``.
    dim : length of a vector.
    settings : everything that changes the vectors, as plain JSON; part of the fingerprint.
    weights : what the model was trained on, e.g. ``"imagenet"``, or ``"none"``.
    size, resize_rule : how images are resized, see `helpers.images.reading.resize`.
    batch_size : number of images that are read and computed at a time.
    normalize : whether vectors are divided by their Euclidean length.
    """

    name: str
    dim: int
    settings: dict
    weights: str = "none"
    size: int
    resize_rule: str = "squash"
    batch_size: int = 32
    normalize: bool = True

    #: For an extractor that returns zero vectors: the category of a warning that lists the images, and its beginning.
    zeros_warning: tuple[type[UserWarning], str] | None = None

    #: Seconds spent and images computed so far; vectors that were read from the store do not count.
    seconds: float = 0.0
    computed: int = 0

    @abstractmethod
    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → floating (b, dim), not yet normalized."""

    def prepare(self) -> None:  # noqa: B027 (most extractors have nothing to prepare)
        """Do what is needed once before the first image, such as building a network. The rate excludes this time."""

    def expect_single_images(self) -> None:  # noqa: B027 (most extractors compute each image alone)
        """Make `extract_arrays` and `embed` of a single image fast, for a program that extracts one at a time.

        A network then computes a single image on all cores instead of one, and occupies the memory of its weights
        twice. The vectors are the same up to rounding.
        """

    @property
    def fingerprint(self) -> str:
        """The short name and a hash of all settings. Vectors with equal fingerprints can be compared."""
        everything = {
            "settings": self.settings,
            "size": self.size,
            "resize": self.resize_rule,
            # British, as in existing files of vectors: another key would change every fingerprint.
            "normalise": self.normalize,
            "dim": self.dim,
        }
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
        return f"{self.short_name}-{digest[:12]}"

    @property
    def short_name(self) -> str:
        """The beginning of the fingerprint and of file names: the name, unless that contains a path."""
        return self.name

    @property
    def images_per_second(self) -> float | None:
        """Rate from file to vector, over all images computed so far; None until there are 100."""
        return self.computed / self.seconds if self.computed >= 100 else None

    # ---- without a cache ------------------------------------------------------------------------------

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) RGB → uint8 (size, size, 3), by the resize rule."""
        return reading.resize(image, self.size, self.resize_rule)

    def embed(self, batch: np.ndarray) -> np.ndarray:
        """Preprocessed uint8 (b, size, size, 3) → float32 (b, dim), normalized. Call `prepare` once before."""
        return self._checked(self.compute(batch), len(batch))

    def iter_batches(
        self, files: Sequence[Path], *, strict: bool = False, failures: list[reading.UnreadableImage] | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the vectors of files without the store: yields rows int64 (b,), vectors float32 (b, dim) by batch.

        Files that cannot be read are skipped; with ``strict``, the first one raises `UnreadableImage`.

        failures : collects the errors of these files. Without it, one warning lists them at the end.
        """
        self.prepare()
        start = perf_counter()
        # Without a transform, images are resized while they are read, which is faster.
        is_own = getattr(self.preprocess, "__func__", None) is not FeatureExtractor.preprocess
        batches = reading.batches(
            files, self.size, self.resize_rule, self.batch_size, strict, failures=failures,
            transform=self.preprocess if is_own else None,
        )  # fmt: skip
        for rows, vectors in self._embed_batches(batches):
            self._count(len(rows), perf_counter() - start)
            yield rows, vectors
            start = perf_counter()

    # ---- with a cache ---------------------------------------------------------------------------------

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """Extract the vectors of a set of images: float32 (n, dim), row *i* from image *i*.

        Each batch is stored on disk by the content of its images. A call after an interruption continues where it
        stopped, and a second call computes nothing and reads only files that have changed (see `content_hashes`). An
        image that cannot be read gets a row of NaN, which no index accepts; one `UnreadableImageWarning` lists these
        images. With ``strict``, the first one raises `UnreadableImage`.
        """
        failures: list[reading.UnreadableImage] = []
        compute = partial(self._with_progress, images, strict=strict, progress=progress, failures=failures)
        if cache:
            vectors = self._cached(images, compute, failures)
        else:
            vectors = np.full((len(images), self.dim), np.nan, np.float32)
            for rows, part in compute(range(len(images))):
                vectors[rows] = part
        reading.warn_unreadable(failures, len(images))
        self._warn_zeros(vectors, images.keys)
        return vectors

    def extract_arrays(self, images: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        """Extract the vectors of images given as uint8 (height, width, 3) RGB: float32 (m, dim).

        cache : store the vectors by the content of the resized images. Use it for images that are generated again
            identically, such as augmented copies with a fixed seed.
        """
        vectors = np.full((len(images), self.dim), np.nan, np.float32)
        if not cache:
            self.prepare()
        for start in range(0, len(images), self.batch_size):
            part = [self.preprocess(image) for image in images[start:][: self.batch_size]]
            vectors[start : start + len(part)] = self._cached_arrays(part) if cache else self.embed(np.stack(part))
        self._warn_zeros(vectors, [f"image {row}" for row in range(len(images))])
        return vectors

    # ---- for subclasses -------------------------------------------------------------------------------

    def _embed_batches(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, pixels) → (rows, vectors), in order. A subclass may compute several batches at a time."""
        for rows, pixels in batches:
            yield rows, self.embed(pixels)

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.shape != (count, self.dim):
            raise ValueError(f"{self.name} returned vectors of shape {vectors.shape}, expected {(count, self.dim)}")
        return l2_normalize(vectors) if self.normalize else vectors

    def _count(self, images: int, seconds: float) -> None:
        self.computed += images
        self.seconds += seconds

    def _warn_zeros(self, vectors: np.ndarray, names: Sequence[str]) -> None:
        """Issue the ``zeros_warning``, if any of the extracted vectors (n, dim) is zero. It names up to ten images."""
        if self.zeros_warning is None:
            return
        category, text = self.zeros_warning
        rows = np.flatnonzero(~vectors.any(axis=1))
        named = ", ".join(names[row] for row in rows[:10])
        more = f", … and {len(rows) - 10} more" if len(rows) > 10 else ""
        text += f" in {len(rows)} of {len(vectors)} images: {named}{more}; their vectors are zero"
        if len(rows):
            warnings.warn(text, category, stacklevel=3)

    # ---- details --------------------------------------------------------------------------------------

    def _with_progress(
        self, images: ImageSet, rows: Sequence[int], *, strict: bool, progress: bool,
        failures: list[reading.UnreadableImage],
    ) -> Iterator[tuple[list[int], np.ndarray]]:  # fmt: skip
        """Compute some rows of a set with a progress bar: (rows, vectors) of each batch."""
        if not len(rows):
            return
        files = [images.paths[row] for row in rows]
        title = f"{self.name} · {images.name}"
        with tqdm(total=len(files), desc=title, unit="image", disable=None if progress else True) as bar:
            for part, vectors in self.iter_batches(files, strict=strict, failures=failures):
                bar.update(len(part))
                yield [rows[row] for row in part], vectors

    def _cached(
        self, images: ImageSet, compute: Callable[[Sequence[int]], Iterator[tuple[list[int], np.ndarray]]],
        failures: list[reading.UnreadableImage],
    ) -> np.ndarray:  # fmt: skip
        """Read the vectors from the store, after ``compute(rows)`` returned the missing ones."""
        hashes = content_hashes(images.paths)
        with store.VectorStore(self.fingerprint, self.dim) as kept:
            vectors = kept.complete(hashes, compute)
        if failures:
            # Copies of an unreadable image were skipped; reading them lists them in the warning, too.
            unreadable = np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist()
            first = {hashes[row]: row for row in reversed(unreadable)}
            for rows, part in compute([row for row in unreadable if first[hashes[row]] != row]):
                vectors[rows] = part
        return vectors

    def _cached_arrays(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Read the vectors of preprocessed images from the store, after computing the missing ones."""

        def compute(rows: list[int]) -> Iterator[tuple[list[int], np.ndarray]]:
            if rows:
                self.prepare()
                yield rows, self.embed(np.stack([images[row] for row in rows]))

        with store.VectorStore(self.fingerprint, self.dim) as kept:
            return kept.complete([store.pixels_hash(image) for image in images], compute)


def check_rgb(image: np.ndarray) -> np.ndarray:
    """The image as a C-contiguous array, or a ValueError if it is not uint8 (height, width, 3)."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image must be uint8 (height, width, 3) RGB, got {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)
