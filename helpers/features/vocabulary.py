"""Vocabularies of visual words: typical descriptors, learned by k-means from images that are not queries.

Descriptors are projected onto their principal components (Jégou & Chum 2012) and clustered by mini-batch k-means
(Sculley 2010). A random sample of fixed size is drawn while the images stream, so memory does not grow with their
number.
"""

import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from helpers import paths
from helpers.features import results
from helpers.features.file_hashes import content_hashes
from helpers.features.keypoints import Keypoints, each_readable, kind_of
from helpers.files import write_atomically
from helpers.images import reading
from helpers.images.imageset import ImageSet

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA
    from threadpoolctl import ThreadpoolController

FORMAT = 2

#: Maximum number of passes of the clustering over the sample; after that the words hardly change.
EPOCHS = 20

#: Attributes that a vocabulary's file stores as arrays.
ARRAYS = ("mean", "axes", "words", "idf", "shares", "variances")

#: Lower bound of variances, for words of a few equal descriptors.
MIN_VARIANCE = 1e-4

_THREAD_LIMIT = RLock()


class VocabularyUnavailable(FileNotFoundError):
    """There is no such vocabulary; the message says how to learn one."""


class VocabularyFileError(ValueError):
    """The file is not a vocabulary of this version; the message names it."""


@dataclass(frozen=True)
class KeypointConfig:
    """How keypoints are extracted from an image for visual words.

    kind : a name in `helpers.features.keypoints.KINDS`, with float descriptors.
    limit : maximum number of keypoints per image, the strongest.
    size : side in pixels to which images are resized. SIFT finds almost nothing at 32 × 32, so small images are
        enlarged.
    rule : see `helpers.images.reading.resize`.
    """

    kind: str = "rootsift"
    limit: int = 500
    size: int = 256
    rule: str = "squash"

    def __post_init__(self) -> None:
        if kind_of(self.kind).dtype is not np.float32:
            raise ValueError(f"{self.kind} descriptors are bits, which k-means can't average; use sift or rootsift")

    def keypoints(self, images: ImageSet, progress: bool = True) -> Iterator[Keypoints]:
        """Yield the keypoints of each readable image, in order. A second pass reads them from disk."""
        for _, found in each_readable(images, *self.arguments, progress):
            yield found

    @property
    def arguments(self) -> tuple["partial[np.ndarray]", str, int]:
        """Prepare, kind and limit of `helpers.features.keypoints.extract_files`."""
        return partial(reading.resize, size=self.size, rule=self.rule), self.kind, self.limit


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Visual words, and the projection of descriptors to them.

    Parameters
    ----------
    config : how keypoints are extracted.
    mean, axes : float32 (width,) and (dim, width): words are centers of ``(descriptor - mean) @ axes.T``.
    words : float32 (k, dim).
    idf : float32 (k,): inverse document frequency, ln(images / images with the word).
    shares, variances : float32 (k,) and (k, dim): share of the descriptors and variance along each axis of each
        word, for Fisher vectors.
    spread : median squared distance of a descriptor from its word, for soft assignment.
    learned_from : name of the training images, for tables.
    """

    config: KeypointConfig
    mean: np.ndarray
    axes: np.ndarray
    words: np.ndarray
    idf: np.ndarray
    shares: np.ndarray
    variances: np.ndarray
    spread: float
    learned_from: str

    def __post_init__(self) -> None:
        width, (k, dim) = len(self.mean), self.words.shape
        fits = self.axes.shape == (dim, width) and width == kind_of(self.config.kind).width
        if not fits or not self.idf.shape == self.shares.shape == (k,) or self.variances.shape != (k, dim):
            raise ValueError(
                f"words of shape {self.words.shape} don't fit axes of shape {self.axes.shape}, "
                f"{self.idf.shape[0]} inverse frequencies, {self.shares.shape[0]} shares, variances of shape "
                f"{self.variances.shape} and {self.config.kind} descriptors"
            )

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words of {self.config.kind}, from {self.learned_from})"

    @property
    def digest(self) -> str:
        """Hash of all values."""
        numbers = (*(getattr(self, name) for name in ARRAYS), np.float64(self.spread))
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in numbers)).hexdigest()

    def project(self, descriptors: np.ndarray) -> np.ndarray:
        """float (n, width) → float32 (n, dim), the space of the words."""
        return (np.asarray(descriptors, np.float32) - self.mean) @ self.axes.T

    def nearest(self, projected: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The nearest words of each: int64 (n, count), and squared distances float32, ascending."""
        count = min(count, len(self))
        squared = (projected**2).sum(axis=1)[:, None] + (self.words**2).sum(axis=1) - 2 * projected @ self.words.T
        near = np.argpartition(squared, count - 1, axis=1)[:, :count]
        distances = np.take_along_axis(squared, near, axis=1)
        # Ties are broken by the number of the word.
        order = np.lexsort((near, distances), axis=1)
        return np.take_along_axis(near, order, axis=1), np.maximum(np.take_along_axis(distances, order, axis=1), 0)

    def save(self, path: str | Path) -> Path:
        """Write one npz file atomically."""
        about = {
            "format": FORMAT, "config": asdict(self.config), "spread": self.spread, "learned_from": self.learned_from,
        }  # fmt: skip
        arrays = {"about": np.array(json.dumps(about))} | {name: getattr(self, name) for name in ARRAYS}
        return write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a file that `save` wrote. Raises `VocabularyUnavailable` or `VocabularyFileError`."""
        path = Path(path)
        if not path.is_file():
            raise VocabularyUnavailable(
                f"there is no vocabulary at {path}. Learn one from images that are not queries: "
                f"helpers.features.vocabulary.learn(images, words=…).save({str(path)!r})"
            )
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
                if about["format"] != FORMAT:
                    raise ValueError(f"it has format {about['format']!r}, this version reads {FORMAT}")
                numbers = {name: stored[name] for name in ARRAYS}
            return cls(
                KeypointConfig(**about["config"]), **numbers, spread=about["spread"], learned_from=about["learned_from"]
            )
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise VocabularyFileError(f"{path} is not a vocabulary ({error}). Learn and save it again.") from error


def shipped(words: int) -> Vocabulary:
    """A shipped vocabulary, learned from Imagenette's training images by data/make_vocabularies.py."""
    path = paths.data_dir() / "vocabularies" / f"rootsift-{words}.npz"
    if not path.is_file():
        sizes = sorted(int(file.stem.split("-")[1]) for file in path.parent.glob("rootsift-*.npz"))
        raise VocabularyUnavailable(
            f"there is no vocabulary of {words} words, only of {', '.join(map(str, sizes)) or 'none'}. "
            "Learn one from images that are not queries: helpers.features.vocabulary.learn(images, words=…)"
        )
    return Vocabulary.load(path)


def learn(
    images: ImageSet, words: int, config: KeypointConfig | None = None, dim: int = 64, sample: int = 100_000,
    seed: int = 0, progress: bool = True, drawn: np.ndarray | None = None,
) -> Vocabulary:  # fmt: skip
    """Learn a vocabulary. The images must not be queries later, or the scores are too high.

    Two passes over the images draw the sample of descriptors and count the images with each word. The result is
    cached on disk by the descriptors, images and settings.

    words, dim : number of words, and dimension of a projected descriptor.
    sample : number of descriptors to cluster.
    drawn : the result of `draw` for these images and settings, to share it among several vocabularies.
    """
    config = config or KeypointConfig()
    if drawn is None:
        drawn = draw(images, config, sample, seed, progress)
    key = {
        "drawn": results.fingerprint(drawn), "images": [content.hex() for content in content_hashes(images.paths)],
        "words": words, "config": asdict(config), "dim": dim, "seed": seed, **_clustering(),
    }  # fmt: skip

    def compute() -> dict[str, np.ndarray]:
        learned = _learn(drawn, images, words, config, dim, seed, progress)
        return {name: getattr(learned, name) for name in (*ARRAYS, "spread")}

    found = results.cached("vocabulary", key, compute)
    numbers = {name: found[name] for name in ARRAYS}
    return Vocabulary(config, **numbers, spread=float(found["spread"]), learned_from=images.name)


def draw(
    images: ImageSet, config: KeypointConfig | None = None, count: int = 100_000, seed: int = 0, progress: bool = True
) -> np.ndarray:
    """Draw a uniform sample of descriptors: float32 (at most ``count``, width), by a reservoir (Vitter 1985)."""
    config = config or KeypointConfig()
    rng = np.random.default_rng(seed)
    kept, total = np.empty((count, kind_of(config.kind).width), np.float32), 0
    for found in config.keypoints(images, progress):
        new = found.descriptors
        # The i-th descriptor replaces a random one with probability count / i.
        first = max(0, min(len(new), count - total))
        kept[total : total + first] = new[:first]
        slots = rng.integers(0, np.arange(total + first + 1, total + len(new) + 1))
        kept[slots[slots < count]] = new[first:][slots < count]
        total += len(new)
    return kept[: min(total, count)].copy()


def compare_sizes(
    descriptors: np.ndarray, sizes: Sequence[int], dim: int = 64, held_out: int = 20_000, seed: int = 0
) -> "pd.DataFrame":
    """Compare vocabularies of several sizes by the index of Davies & Bouldin (1979).

    Returns the columns ``words``, ``davies_bouldin`` (lower is better) and ``chosen``, true where it is lowest.

    descriptors : float32 (n, width), see `draw`.
    held_out : number of descriptors, at most a fifth, that are held out from the clustering. The index is computed on
        them.
    """
    import pandas as pd

    sizes = [int(size) for size in sizes]
    key = {
        "descriptors": results.fingerprint(descriptors), "sizes": sizes, "dim": dim, "judged": held_out, "seed": seed,
        **_clustering(),
    }  # fmt: skip

    def compute() -> dict[str, np.ndarray]:
        from sklearn.metrics import davies_bouldin_score

        shuffled = descriptors[np.random.default_rng(seed).permutation(len(descriptors))]
        count = min(held_out, len(shuffled) // 5)
        pca = _axes(shuffled[count:], dim, seed)
        train, test = (pca.transform(part) for part in (shuffled[count:], shuffled[:count]))
        labels = [_clustered(train, size, seed).predict(test) for size in sizes]
        return {"index": np.array([davies_bouldin_score(test, each) for each in labels])}

    index = results.cached("vocabulary-sizes", key, compute)["index"]
    return pd.DataFrame({"words": sizes, "davies_bouldin": index, "chosen": np.arange(len(sizes)) == np.argmin(index)})


def _clustering() -> dict:
    """What `_clustered` depends on besides its arguments, for the keys of cached results."""
    return {"scikit-learn": version("scikit-learn"), "epochs": EPOCHS, "least variance": MIN_VARIANCE}


def _learn(
    drawn: np.ndarray, images: ImageSet, words: int, config: KeypointConfig, dim: int, seed: int, progress: bool
) -> Vocabulary:
    pca = _axes(drawn, dim, seed)
    projected = pca.transform(drawn).astype(np.float32)
    clusters = _clustered(projected, words, seed)
    mean, axes = pca.mean_.astype(np.float32), pca.components_.astype(np.float32)
    centers = clusters.cluster_centers_.astype(np.float32)
    own = clusters.predict(projected)
    squared = (projected - centers[own]) ** 2
    counts = np.bincount(own, minlength=words)
    variances = np.stack([np.bincount(own, column, words) for column in squared.T], axis=1)
    variances = np.maximum(variances / np.maximum(counts, 1)[:, None], MIN_VARIANCE)
    vocabulary = Vocabulary(
        config, mean, axes, centers, np.zeros(words, np.float32),
        # A word without descriptors counts as if it had one.
        (np.maximum(counts, 1) / np.maximum(counts, 1).sum()).astype(np.float32), variances.astype(np.float32),
        float(np.median(squared.sum(axis=1))), images.name,
    )  # fmt: skip
    occurs, count = np.zeros(words), 0
    for found in config.keypoints(images, progress):
        occurs[np.unique(vocabulary.nearest(vocabulary.project(found.descriptors))[0])] += 1
        count += 1
    # A word that occurs in no image counts as if it occurred in one.
    return replace(vocabulary, idf=np.log(count / np.maximum(occurs, 1)).astype(np.float32))


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread each.

    Their threads busy-wait, which takes cores from the detection of keypoints and makes clustering many times slower
    on a busy machine. Also, the last bits of results depend on the number of threads.
    """
    # The limit is global, so only one thread at a time may set and restore it.
    with _THREAD_LIMIT, _libraries(len(sys.modules)).limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _libraries(modules: int) -> "ThreadpoolController":
    """The libraries of this process; searched again (milliseconds) after an import, which may load another one."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _axes(descriptors: np.ndarray, dim: int, seed: int) -> "PCA":
    from sklearn.decomposition import PCA

    if len(descriptors) < dim:
        raise ValueError(f"{len(descriptors)} descriptors are too few for {dim} axes: give more images or a lower dim")
    return PCA(dim, svd_solver="full", random_state=seed).fit(descriptors)


def _clustered(projected: np.ndarray, words: int, seed: int) -> "MiniBatchKMeans":
    from sklearn.cluster import MiniBatchKMeans

    if len(projected) < words:
        raise ValueError(f"{len(projected)} descriptors are too few for {words} words: give more images or fewer words")
    with one_thread():
        return MiniBatchKMeans(words, batch_size=4096, n_init=3, max_iter=EPOCHS, random_state=seed).fit(projected)
