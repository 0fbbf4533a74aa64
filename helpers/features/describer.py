"""Describer: anything that turns pictures into vectors, and the registry that opens one by name."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm.auto import tqdm

from helpers.features import store
from helpers.pictures import reading
from helpers.pictures.imageset import ImageSet


class Describer(ABC):
    """Turns pictures into vectors. A colour histogram and ResNet152 are the same thing to the rest of the house.

    A subclass sets the attributes and writes `compute`.

    Attributes
    ----------
    name : what tables call it, e.g. ``"resnet50"``.
    dim : length of a vector.
    settings : everything that changes the vectors, as plain JSON; goes into the fingerprint.
    weights : what its numbers were learnt from, e.g. ``"imagenet"``, or ``"none"``.
    size, resize_rule : how pictures are brought to one shape, see `helpers.pictures.reading.resize`.
    normalise : whether vectors are brought to Euclidean length one.
    """

    name: str
    dim: int
    settings: dict
    weights: str = "none"
    size: int
    resize_rule: str = "squash"
    batch_size: int = 32
    normalise: bool = True

    #: Seconds and pictures of everything computed (not read from the store) so far.
    seconds: float = 0.0
    computed: int = 0

    @abstractmethod
    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → floating (b, dim), not yet normalised."""

    def prepare(self) -> None:  # noqa: B027 (most describers have nothing to prepare)
        """What has to be done once before the first picture, such as building a network; not part of the rate."""

    @property
    def fingerprint(self) -> str:
        """The name and a hash of all settings: vectors with equal fingerprints can be compared."""
        everything = {
            "settings": self.settings,
            "size": self.size,
            "resize": self.resize_rule,
            "normalise": self.normalise,
            "dim": self.dim,
        }
        digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    @property
    def pictures_per_second(self) -> float | None:
        """From file to vector, over everything computed so far; None before it is enough to say."""
        return self.computed / self.seconds if self.computed >= 100 else None

    def describe(
        self, images: ImageSet, *, cache: bool = True, strict: bool = False, progress: bool = True
    ) -> np.ndarray:
        """float32 (n, dim): row *i* describes picture *i*.

        Vectors are kept on disk by the pictures' content, batch by batch: a second call computes nothing, and a
        call that was killed goes on where it was. A picture that can't be read gets a row of NaN, which no index
        accepts, after one `UnreadablePictureWarning` that counts and names them all.

        Raises
        ------
        UnreadablePicture : a picture can't be read, and ``strict`` is set.
        """
        failures: list[reading.UnreadablePicture] = []

        def stream(rows):
            files = [images.paths[row] for row in rows]
            for part, vectors in self._stream(files, images, strict, progress, failures):
                yield [rows[row] for row in part], vectors

        vectors = self._kept(images, stream, failures) if cache else self._fresh(images, stream)
        reading.warn_unreadable(failures, len(images))
        self._tell(vectors, images.keys)
        return vectors

    def _fresh(self, images: ImageSet, stream: Callable) -> np.ndarray:
        vectors = np.full((len(images), self.dim), np.nan, np.float32)
        for rows, part in stream(range(len(images))):
            vectors[rows] = part
        return vectors

    def _kept(self, images: ImageSet, stream: Callable, failures: list) -> np.ndarray:
        """From the store, after what is missing there was computed."""
        hashes = [store.content_hash(path) for path in images.paths]
        with store.VectorStore(self.fingerprint, self.dim) as kept:
            known = kept.known(hashes)
            # One picture of each content: copies share a vector.
            first: dict[bytes, int] = {}
            copies = [row for row, h in enumerate(hashes) if h not in known and first.setdefault(h, row) != row]
            for rows, part in stream(sorted(first.values())):
                kept.put([hashes[row] for row in rows], part)
            if failures and copies:
                # Copies of what can't be read can't be read either; trying them counts and names them.
                known = kept.known(hashes)
                for rows, part in stream([row for row in copies if hashes[row] not in known]):
                    kept.put([hashes[row] for row in rows], part)
            return kept.get(hashes)

    def describe_arrays(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (m, dim) of pictures that are already uint8 (height, width, 3) RGB; nothing is cached."""
        vectors = np.empty((len(pictures), self.dim), np.float32)
        self.prepare()
        for start in range(0, len(pictures), self.batch_size):
            part = [
                reading.resize(picture, self.size, self.resize_rule) for picture in pictures[start:][: self.batch_size]
            ]
            vectors[start : start + len(part)] = self._vectors(np.stack(part))
        self._tell(vectors, [f"picture {row}" for row in range(len(pictures))])
        return vectors

    def describe_arrays_cached(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """`describe_arrays`, with vectors kept on disk by the pixels, batch by batch.

        For pictures that have no file but come back at every run, such as changed copies.
        """
        hashes = [store.array_hash(picture) for picture in pictures]
        with store.VectorStore(self.fingerprint, self.dim) as kept:
            known = kept.known(hashes)
            missing = {h: picture for h, picture in zip(hashes, pictures, strict=True) if h not in known}
            contents = list(missing)
            for start in range(0, len(contents), self.batch_size):
                part = contents[start : start + self.batch_size]
                kept.put(part, self.describe_arrays([missing[h] for h in part]))
            return kept.get(hashes)

    def _tell(self, vectors: np.ndarray, names: Sequence[str]) -> None:  # noqa: B027
        """What has to be said of finished vectors, computed or kept, such as that some are zero and why."""

    def _stream(self, files: Sequence[Path], images: ImageSet, strict: bool, progress: bool, failures: list):
        """Batches of (rows, vectors) of some files of a set, computed; the time from file to vector is taken."""
        if not files:
            return
        self.prepare()
        with tqdm(
            total=len(files), desc=f"{self.name} · {images.name}", unit="picture", disable=None if progress else True
        ) as bar:
            start = perf_counter()
            stream = reading.batches(files, self.size, self.resize_rule, self.batch_size, strict, failures=failures)
            for rows, part in self._computed(stream):
                self.seconds += perf_counter() - start
                self.computed += len(rows)
                bar.update(len(rows))
                yield rows, part
                start = perf_counter()

    def _computed(self, batches: Iterable) -> Iterator:
        """(rows, pixels) → (rows, vectors) in order; a describer may work ahead here."""
        for rows, pixels in batches:
            yield rows, self._vectors(pixels)

    def _vectors(self, pixels: np.ndarray) -> np.ndarray:
        return self._finished(self.compute(pixels), len(pixels))

    def _finished(self, vectors: np.ndarray, count: int) -> np.ndarray:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.shape != (count, self.dim):
            raise ValueError(f"{self.name} gave vectors of shape {vectors.shape}, expected {(count, self.dim)}")
        return length_one(vectors) if self.normalise else vectors


def length_one(vectors: np.ndarray) -> np.ndarray:
    """(n, d), each brought to Euclidean length one; the zero vector has no direction and stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def count_without(vectors: np.ndarray, names: Sequence[str], what: str) -> str:
    """In words, of how many pictures the vectors (n, d) are all zeros, and of which; empty where none is.

    what : such as "no face was found".
    """
    rows = np.flatnonzero(~np.asarray(vectors).any(axis=1))
    if not len(rows):
        return ""
    more = f", … and {len(rows) - 10} more" if len(rows) > 10 else ""
    named = ", ".join(names[row] for row in rows[:10])
    return f"{what} in {len(rows)} of {len(vectors)} pictures: {named}{more}"


_REGISTRY: dict[str, Callable[..., Describer]] = {}


def register(name: str, make: Callable[..., Describer]) -> None:
    """Make ``describer(name, **settings)`` call ``make(**settings)``."""
    _REGISTRY[name] = make


def names() -> list[str]:
    """All names that `describer` opens."""
    _load_all()
    return sorted(_REGISTRY)


def describer(name: str, **settings) -> Describer:
    """Open a describer by name, e.g. ``describer("resnet50", size=256)``; "hog+hsv-histogram" is both as one.

    Raises
    ------
    KeyError : no describer is called that; the message lists those that are.
    WeightsUnavailable : it is a network whose trained weights can't be had.
    """
    _load_all()
    if "+" in name:
        from helpers.features.fusion import Fused

        return Fused([describer(part) for part in name.split("+")], **settings)
    try:
        make = _REGISTRY[name.lower()]
    except KeyError:
        raise KeyError(f"no describer is called {name!r}; there are: {', '.join(sorted(_REGISTRY))}") from None
    return make(**settings)


def _load_all() -> None:
    """The modules register their describers when they are imported."""
    from helpers.features import colour_shape, deep, faces, projected, visual_words  # noqa: F401
