"""The contract of feature extractors: whatever turns images into vectors."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
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
    """Turns images into feature vectors: a color histogram and ResNet152 are used in the same way.

    A subclass sets the attributes and writes `compute`. Wrappers use the public methods: `preprocess` and `embed` for
    single images and batches, `iter_batches` for files, and `extract` and `extract_arrays`, which cache.

    Attributes
    ----------
    name : shown in tables, e.g. ``"resnet50"``.
    dim : length of a vector.
    settings : everything that changes the vectors, as plain JSON; goes into the fingerprint.
    weights : what the model was trained on, e.g. ``"imagenet"``, or ``"none"``.
    size, resize_rule : how images are brought to one shape, see `helpers.images.reading.resize`.
    batch_size : images that are read and computed at a time.
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

    #: Seconds and images of everything computed (not read from the store) so far.
    seconds: float = 0.0
    computed: int = 0

    @abstractmethod
    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → floating (b, dim), not yet normalized."""

    def prepare(self) -> None:  # noqa: B027 (most extractors have nothing to prepare)
        """Do what is needed once before the first image, such as building a network; not part of the rate."""

    @property
    def fingerprint(self) -> str:
        """The name and a hash of all settings: vectors with equal fingerprints can be compared."""
        everything = {
            "settings": self.settings,
            "size": self.size,
            "resize": self.resize_rule,
            # Spelled as in the files of vectors that exist: another key would change every fingerprint.
            "normalise": self.normalize,
            "dim": self.dim,
        }
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    @property
    def images_per_second(self) -> float | None:
        """From file to vector, over everything computed so far; None until 100 images were computed."""
        return self.computed / self.seconds if self.computed >= 100 else None

    # ---- without a cache ------------------------------------------------------------------------------

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """uint8 (height, width, 3) RGB → uint8 (size, size, 3), by the resize rule."""
        return reading.resize(image, self.size, self.resize_rule)

    def embed(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3), preprocessed → float32 (b, dim), normalized. Call `prepare` once before.

        Raises
        ------
        ValueError : `compute` returned another shape.
        """
        return self._checked(self.compute(batch), len(batch))

    def iter_batches(
        self, files: Sequence[Path], *, strict: bool = False, failures: list[reading.UnreadableImage] | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the vectors of files batch by batch; the time from file to vector is measured.

        Yields
        ------
        rows : int64 (b,), positions in ``files``; files that can't be read are left out.
        vectors : float32 (b, dim).

        Parameters
        ----------
        failures : collects the errors of files that can't be read; without it, one warning lists them at the end.

        Raises
        ------
        UnreadableImage : a file can't be read, and ``strict`` is set.
        """
        self.prepare()
        start = perf_counter()
        batches = reading.batches(files, self.size, self.resize_rule, self.batch_size, strict, failures=failures)
        for rows, vectors in self._embed_each(batches):
            self._count(len(rows), perf_counter() - start)
            yield rows, vectors
            start = perf_counter()

    # ---- with a cache ---------------------------------------------------------------------------------

    def extract(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """float32 (n, dim): row *i* is the vector of image *i*.

        Vectors are kept on disk by the content of the images, batch by batch. So a call that was killed continues where
        it stopped, and a second call computes nothing and reads only files that have changed (see `content_hashes`). An
        image that can't be read gets a row of NaN, which no index accepts; one `UnreadableImageWarning` counts and
        names them all.

        Raises
        ------
        UnreadableImage : an image can't be read, and ``strict`` is set.
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
        self._warn(vectors, images.keys)
        return vectors

    def extract_arrays(self, images: Sequence[np.ndarray], *, cache: bool = False) -> np.ndarray:
        """float32 (m, dim) of images that are already uint8 (height, width, 3) RGB.

        cache : keep the vectors by the content of the resized images, as `extract` keeps those of files. Use it for
            images that are made again in the same way, such as augmented copies with a fixed seed.
        """
        vectors = np.full((len(images), self.dim), np.nan, np.float32)
        if not cache:
            self.prepare()
        for start in range(0, len(images), self.batch_size):
            part = [self.preprocess(image) for image in images[start:][: self.batch_size]]
            vectors[start : start + len(part)] = self._cached_arrays(part) if cache else self.embed(np.stack(part))
        self._warn(vectors, [f"image {row}" for row in range(len(images))])
        return vectors

    # ---- for subclasses -------------------------------------------------------------------------------

    def _embed_each(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, pixels) → (rows, vectors), in order; a subclass may compute several batches at a time."""
        for rows, pixels in batches:
            yield rows, self.embed(pixels)

    def _warn(self, vectors: np.ndarray, names: Sequence[str]) -> None:  # noqa: B027
        """Report what the caller has to know about finished vectors, such as that some are zero and why."""

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.shape != (count, self.dim):
            raise ValueError(f"{self.name} gave vectors of shape {vectors.shape}, expected {(count, self.dim)}")
        return l2_normalize(vectors) if self.normalize else vectors

    def _count(self, images: int, seconds: float) -> None:
        self.computed += images
        self.seconds += seconds

    # ---- details --------------------------------------------------------------------------------------

    def _with_progress(self, images: ImageSet, rows: Sequence[int], *, strict: bool, progress: bool, failures: list):
        """(rows, vectors) of some rows of a set, computed, with a progress bar."""
        if not len(rows):
            return
        files = [images.paths[row] for row in rows]
        title = f"{self.name} · {images.name}"
        with tqdm(total=len(files), desc=title, unit="image", disable=None if progress else True) as bar:
            for part, vectors in self.iter_batches(files, strict=strict, failures=failures):
                bar.update(len(part))
                yield [rows[row] for row in part], vectors

    def _cached(self, images: ImageSet, compute, failures: list) -> np.ndarray:
        """From the store, after ``compute(rows)`` gave what is missing there."""
        hashes = content_hashes(images.paths)
        with store.VectorStore(self.fingerprint, self.dim) as kept:
            known = kept.known(hashes)
            # One image of each content: copies share a vector.
            first: dict[bytes, int] = {}
            copies = [row for row, h in enumerate(hashes) if h not in known and first.setdefault(h, row) != row]
            for rows, part in compute(sorted(first.values())):
                kept.put([hashes[row] for row in rows], part)
            if failures and copies:
                # Copies of an image that can't be read can't be read either; trying them counts and names them.
                known = kept.known(hashes)
                for rows, part in compute([row for row in copies if hashes[row] not in known]):
                    kept.put([hashes[row] for row in rows], part)
            return kept.get(hashes)

    def _cached_arrays(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """From the store, after the vectors of preprocessed images that are missing there were computed."""
        hashes = [store.pixels_hash(image) for image in images]
        with store.VectorStore(self.fingerprint, self.dim) as kept:
            known = kept.known(hashes)
            missing = {h: image for h, image in zip(hashes, images, strict=True) if h not in known}
            if missing:
                self.prepare()
                kept.put(list(missing), self.embed(np.stack(list(missing.values()))))
            return kept.get(hashes)


def count_without(vectors: np.ndarray, names: Sequence[str], what: str) -> str:
    """How many vectors (n, d) are all zeros, and of which images, in words; empty if there are none.

    what : such as "no face was found".
    """
    rows = np.flatnonzero(~np.asarray(vectors).any(axis=1))
    if not len(rows):
        return ""
    more = f", … and {len(rows) - 10} more" if len(rows) > 10 else ""
    named = ", ".join(names[row] for row in rows[:10])
    return f"{what} in {len(rows)} of {len(vectors)} images: {named}{more}"
