"""Vocabularies of visual words: typical descriptors, learned once by k-means from images that never ask.

The descriptors are first turned and cut by principal components (Jégou & Chum 2012), then told apart by mini-batch
k-means (Sculley 2010). What is learned from is a sample of fixed size, drawn while the images stream by, so memory
does not grow with their number.
"""

import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from helpers import paths
from helpers.features import results
from helpers.features.file_hashes import content_hashes
from helpers.features.keypoints import Keypoints, KeypointStore, extract_each, kind_of
from helpers.files import write_atomically
from helpers.images import reading
from helpers.images.imageset import ImageSet

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA
    from threadpoolctl import ThreadpoolController

FORMAT = 2

#: Times that the clustering sees the sample at most; after that the words hardly move.
EPOCHS = 20

#: What a vocabulary's file holds, beside how it was learned.
ARRAYS = ("mean", "axes", "words", "idf", "shares", "variances")

#: A word of a few equal descriptors has no scatter; a Gaussian must have some.
LEAST_VARIANCE = 1e-4


_ALONE = RLock()


class VocabularyUnavailable(FileNotFoundError):
    """No vocabulary lies where one is needed; the message says how to learn one."""


class VocabularyFileError(ValueError):
    """A file that should hold a vocabulary and does not; the message names it."""


@dataclass(frozen=True)
class KeypointConfig:
    """How the keypoints of an image are found before they become visual words.

    Parameters
    ----------
    kind : of the keypoints, see `helpers.features.keypoints.KINDS`; with descriptors of real numbers.
    limit : at most so many keypoints an image, the strongest.
    size : side in pixels to which images are brought. A small one is enlarged, bilinearly: SIFT needs some pixels
        around a keypoint, and finds nearly nothing at 32 × 32.
    rule : how, see `helpers.images.reading.resize`.

    Raises
    ------
    ValueError : keypoints whose descriptors are bits: they have no mean, and so no words.
    """

    kind: str = "rootsift"
    limit: int = 500
    size: int = 256
    rule: str = "squash"

    def __post_init__(self):
        if kind_of(self.kind).dtype is not np.float32:
            raise ValueError(f"{self.kind} descriptors are bits, which k-means can't average; take sift or rootsift")

    def keypoints(self, images: ImageSet, progress: bool = True) -> Iterator[Keypoints]:
        """Those of each image that can be read, in order; two batches of images are in memory at a time.

        They are kept on disk by the files' content, so a second pass over the images extracts nothing.
        """
        failures: list[reading.UnreadableImage] = []
        with tqdm(
            total=len(images), desc=f"{self.kind} · {images.name}", unit="image", disable=None if progress else True
        ) as bar:
            for rows, found, _ in self.in_batches(images.paths, failures):
                yield from found
                bar.update(len(rows))
        reading.warn_unreadable(failures, len(images))

    def in_batches(
        self,
        files: Sequence[Path],
        failures: list[reading.UnreadableImage],
        batch_size: int = 32,
        strict: bool = False,
    ) -> Iterator[tuple[list[int], list[Keypoints], int]]:
        """Keypoints of files in order, in batches: rows, keypoints, and how many of them were extracted now.

        Each batch is kept on disk before it is given, so a call that was killed continues.

        Parameters
        ----------
        failures : gets the errors of files that can't be read; those are left out.

        Raises
        ------
        UnreadableImage : a file can't be read, and ``strict`` is set.
        """
        hashes = content_hashes(files)
        with KeypointStore(self.kind, self.limit, {"size": self.size, "rule": self.rule}) as store:
            for start in range(0, len(files), batch_size):
                rows = range(start, min(start + batch_size, len(files)))
                kept = store.get([hashes[row] for row in rows])
                found = {row: kept[hashes[row]] for row in rows if hashes[row] in kept}
                missing = [row for row in rows if row not in found]
                pixels = reading.batches(
                    [files[row] for row in missing], self.size, self.rule, batch_size, strict, failures=failures
                )
                for places, part in pixels:
                    new = extract_each(part, store.extracted_kind, self.limit)
                    store.put([hashes[missing[place]] for place in places], new)
                    found |= {missing[place]: store.as_kind(one) for place, one in zip(places, new, strict=True)}
                if found:
                    there = sorted(found)
                    yield there, [found[row] for row in there], len(set(missing) & set(there))


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Visual words and what is needed to find a descriptor's.

    Parameters
    ----------
    config : how keypoints were found, and must be found again.
    mean, axes : float32 (width,) and (dim, width): a descriptor less the mean, on the axes, is what words are made of.
    words : float32 (k, dim).
    idf : float32 (k,): ln of the share of images that have the word, negated; 0 for a word that all have.
    shares, variances : float32 (k,) and (k, dim): each word as a Gaussian, for Fisher vectors: how many of the
        descriptors are its own, and how far they scatter along each axis.
    spread : the median squared distance of a descriptor from its word: what soft assignment takes for near.
    learned_from : the name of the set of images, for tables.
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

    def __post_init__(self):
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
        """A hash of all numbers: extractors with equal ones give vectors that can be compared."""
        numbers = (*(getattr(self, name) for name in ARRAYS), np.float64(self.spread))
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in numbers)).hexdigest()

    def project(self, descriptors: np.ndarray) -> np.ndarray:
        """float (n, width) → float32 (n, dim), in the space of the words."""
        return (np.asarray(descriptors, np.float32) - self.mean) @ self.axes.T

    def nearest(self, projected: np.ndarray, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The ``count`` nearest words of each: int64 (n, count), nearest first, and squared distances float32."""
        count = min(count, len(self))
        squared = (projected**2).sum(axis=1)[:, None] + (self.words**2).sum(axis=1) - 2 * projected @ self.words.T
        near = np.argpartition(squared, count - 1, axis=1)[:, :count]
        distances = np.take_along_axis(squared, near, axis=1)
        # Equal distances by the number of the word, so that the order is one.
        order = np.lexsort((near, distances), axis=1)
        return np.take_along_axis(near, order, axis=1), np.maximum(np.take_along_axis(distances, order, axis=1), 0)

    def save(self, path: str | Path) -> Path:
        """Write one npz file, without pickle; an interrupted save leaves what was there."""
        about = {
            "format": FORMAT,
            "config": asdict(self.config),
            "spread": self.spread,
            "learned_from": self.learned_from,
        }
        arrays = {name: getattr(self, name) for name in ARRAYS}
        return write_atomically(path, lambda file: np.savez_compressed(file, about=json.dumps(about), **arrays))

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read what `save` wrote.

        Raises
        ------
        VocabularyUnavailable : nothing is there.
        VocabularyFileError : it is damaged, or of another version.
        """
        path = Path(path)
        if not path.is_file():
            raise VocabularyUnavailable(
                f"no vocabulary is at {path}. Learn one from images that never ask, with "
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
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise VocabularyFileError(f"{path} is not a vocabulary ({error}). Learn and save it again.") from error


def shipped(words: int) -> Vocabulary:
    """A vocabulary that comes with the project, learned from Imagenette's train by data/make_vocabularies.py.

    Raises
    ------
    VocabularyUnavailable : there is none of so many words; the message names those that there are.
    """
    path = paths.data_dir() / "vocabularies" / f"rootsift-{words}.npz"
    if not path.is_file():
        there = sorted(int(file.stem.split("-")[1]) for file in path.parent.glob("rootsift-*.npz"))
        raise VocabularyUnavailable(
            f"no vocabulary of {words} words comes with the project, only of {', '.join(map(str, there)) or 'none'}. "
            "Learn one from images that never ask: helpers.features.vocabulary.learn(images, words=…)"
        )
    return Vocabulary.load(path)


def learn(
    images: ImageSet,
    words: int,
    config: KeypointConfig | None = None,
    dim: int = 64,
    sample: int = 100_000,
    seed: int = 0,
    progress: bool = True,
    drawn: np.ndarray | None = None,
) -> Vocabulary:
    """A vocabulary of some images; they must not be asked with later, or the score knows its answers.

    The images stream by twice: once to draw the descriptors that are clustered, once to count in how many images
    each word occurs. The vocabulary is kept on disk: a second call with the same descriptors, images and settings
    learns nothing.

    Parameters
    ----------
    words : how many. dim : numbers of a projected descriptor.
    sample : descriptors to learn from, each as likely as any other.
    drawn : what `draw` drew from these images in this way before, so that it is not drawn again for each size.

    Raises
    ------
    ValueError : fewer descriptors than words, or than axes.
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
    """float32 (at most ``count``, width): descriptors, each as likely as any other (a reservoir: Vitter 1985)."""
    config = config or KeypointConfig()
    rng = np.random.default_rng(seed)
    kept, seen = np.empty((count, kind_of(config.kind).width), np.float32), 0
    for found in config.keypoints(images, progress):
        new = found.descriptors
        # The i-th of all takes the place of a random one with probability count / i.
        first = max(0, min(len(new), count - seen))
        kept[seen : seen + first] = new[:first]
        places = rng.integers(0, np.arange(seen + first + 1, seen + len(new) + 1))
        for place, descriptor in zip(places, new[first:], strict=True):
            if place < count:
                kept[place] = descriptor
        seen += len(new)
    return kept[: min(seen, count)].copy()


def compare_sizes(
    descriptors: np.ndarray, sizes: Sequence[int], dim: int = 64, judged: int = 20_000, seed: int = 0
) -> "pd.DataFrame":
    """How well vocabularies of several sizes tell descriptors apart, by the index of Davies & Bouldin (1979).

    Parameters
    ----------
    descriptors : float32 (n, width), see `draw`; a fifth is held back from the clustering, and of it at most ``judged``
        are judged by: a cluster is good if new descriptors fall close to its middle and far from others'.

    Returns
    -------
    Columns ``words``, ``davies_bouldin`` (lower is better) and ``chosen``, true where it is lowest.

    Raises
    ------
    ValueError : fewer descriptors than words.
    """
    sizes = [int(size) for size in sizes]
    key = {
        "descriptors": results.fingerprint(descriptors), "sizes": sizes, "dim": dim, "judged": judged, "seed": seed,
        **_clustering(),
    }  # fmt: skip
    index = results.cached(
        "vocabulary-sizes", key, lambda: {"index": _davies_bouldin(descriptors, sizes, dim, judged, seed)}
    )["index"]
    import pandas as pd

    table = pd.DataFrame({"words": sizes, "davies_bouldin": index})
    return table.assign(chosen=np.arange(len(table)) == int(np.argmin(index)))


def _davies_bouldin(descriptors: np.ndarray, sizes: Sequence[int], dim: int, judged: int, seed: int) -> list[float]:
    """See `compare_sizes`: one index a size."""
    from sklearn.metrics import davies_bouldin_score

    rng = np.random.default_rng(seed)
    descriptors = descriptors[rng.permutation(len(descriptors))]
    held_back = min(judged, len(descriptors) // 5)
    project = _axes(descriptors[held_back:], dim, seed)
    learned, new = (project.transform(part) for part in (descriptors[held_back:], descriptors[:held_back]))
    index = []
    for size in sizes:
        assigned = _clustered(learned, size, seed).predict(new)
        index.append(davies_bouldin_score(new, assigned))
    return index


def _clustering() -> dict:
    """What `_clustered` depends on beside its arguments, for the keys of kept results."""
    return {"scikit-learn": version("scikit-learn"), "epochs": EPOCHS, "least variance": LEAST_VARIANCE}


def _learn(drawn, images, words, config, dim, seed, progress) -> Vocabulary:
    pca = _axes(drawn, dim, seed)
    projected = pca.transform(drawn).astype(np.float32)
    clusters = _clustered(projected, words, seed)
    mean, axes = pca.mean_.astype(np.float32), pca.components_.astype(np.float32)
    centers = clusters.cluster_centers_.astype(np.float32)
    own = clusters.predict(projected)
    squared = (projected - centers[own]) ** 2
    counts = np.bincount(own, minlength=words)
    variances = np.stack([np.bincount(own, column, words) for column in squared.T], axis=1)
    variances = np.maximum(variances / np.maximum(counts, 1)[:, None], LEAST_VARIANCE)
    vocabulary = Vocabulary(
        config, mean, axes, centers, np.zeros(words, np.float32),
        # A word that lost all its descriptors in the end counts as if it had one.
        (np.maximum(counts, 1) / np.maximum(counts, 1).sum()).astype(np.float32), variances.astype(np.float32),
        float(np.median(squared.sum(axis=1))), images.name,
    )  # fmt: skip
    occurs, images = np.zeros(words), 0
    for found in config.keypoints(images, progress):
        occurs[np.unique(vocabulary.nearest(vocabulary.project(found.descriptors))[0])] += 1
        images += 1
    # A word that no whole image has, as its descriptors moved over in the end, counts as if one had it.
    return replace(vocabulary, idf=np.log(images / np.maximum(occurs, 1)).astype(np.float32))


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, the libraries that multiply matrices and cluster use one thread each.

    Theirs wait for work by spinning, which takes the cores from those that look for keypoints and, on a machine that
    does something else as well, makes clustering many times slower; and the last bits depend on how many there are.
    """
    # The limit holds for the whole process, so only one at a time may set it and take it back.
    with _ALONE, _libraries(len(sys.modules)).limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _libraries(modules: int) -> "ThreadpoolController":
    """The libraries of this process. The search takes milliseconds and is repeated after an import: it may load one."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _axes(descriptors: np.ndarray, dim: int, seed: int) -> "PCA":
    from sklearn.decomposition import PCA

    if len(descriptors) < dim:
        raise ValueError(f"{len(descriptors)} descriptors are too few for {dim} axes: give more images, or a lower dim")
    return PCA(dim, svd_solver="full", random_state=seed).fit(descriptors)


def _clustered(projected: np.ndarray, words: int, seed: int) -> "MiniBatchKMeans":
    from sklearn.cluster import MiniBatchKMeans

    if len(projected) < words:
        raise ValueError(f"{len(projected)} descriptors can't make {words} words: give more images, or fewer words")
    with one_thread():
        return MiniBatchKMeans(words, batch_size=4096, n_init=3, max_iter=EPOCHS, random_state=seed).fit(projected)
