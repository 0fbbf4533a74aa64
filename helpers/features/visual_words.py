"""Visual words: encodings of an image's descriptors by a vocabulary of typical descriptors.

Bag of words with tf-idf: Sivic & Zisserman 2003. Soft assignment: Philbin et al. 2008. VLAD: Jégou et al. 2010, with
the signed root of Jégou & Chum 2012 and the normalization word by word of Arandjelović & Zisserman 2013. Fisher vector:
Perronnin, Sánchez & Mensink 2010.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from helpers.features.extractor import FeatureExtractor
from helpers.features.file_hashes import content_hashes
from helpers.features.keypoints import all_cores, extract, extract_files
from helpers.features.vocabulary import Vocabulary, one_thread, shipped
from helpers.images import reading
from helpers.vectors import l2_normalize

#: Number of words for soft assignment; Philbin et al. 2008 found 3 to be best.
SOFT_WORDS = 3


class NoKeypointsWarning(UserWarning):
    """Some images have no keypoints; the message lists them."""


def word_counts(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The number of descriptors that are nearest to each word: float32 (k,).

    descriptors : float (n, width), as `helpers.features.keypoints.extract` gives them.
    """
    words = vocabulary.nearest(vocabulary.project(descriptors))[0][:, 0]
    return np.bincount(words, minlength=len(vocabulary)).astype(np.float32)


def bag_of_words(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """tf-idf, float32 (k,): the share of each word among the descriptors, times its idf; zeros without descriptors."""
    return word_counts(descriptors, vocabulary) / max(1, len(descriptors)) * vocabulary.idf


def soft_words(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """`bag_of_words` with soft assignment to the `SOFT_WORDS` nearest words, weighted by exp(-d² / 2σ²)."""
    if not len(descriptors):
        return np.zeros(len(vocabulary), np.float32)
    words, squared = vocabulary.nearest(vocabulary.project(descriptors), SOFT_WORDS)
    # Subtracting the smallest distance leaves the shares unchanged and prevents underflow.
    weights = np.exp((squared[:, :1] - squared) / (2 * vocabulary.spread))
    weights /= weights.sum(axis=1, keepdims=True)
    share = np.bincount(words.ravel(), weights.ravel(), minlength=len(vocabulary)) / len(words)
    return (share * vocabulary.idf).astype(np.float32)


def vlad(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """float32 (k · dim,): for each word, the sum of its descriptors' differences from it; zeros without descriptors.

    The signed square root is taken of each value, and the part of each word is normalized, so that repeated structures
    do not dominate.
    """
    projected = vocabulary.project(descriptors)
    sums = np.zeros_like(vocabulary.words)
    if len(projected):
        words = vocabulary.nearest(projected)[0][:, 0]
        np.add.at(sums, words, projected - vocabulary.words[words])
    return l2_normalize(_signed_root(sums)).ravel()


def fisher(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Fisher vector, float32 (2 · k · dim,); zeros without descriptors.

    The signed square root of the gradient of the descriptors' mean log-likelihood with respect to the mean, then the
    standard deviation of each word's Gaussian, scaled by the diagonal of the Fisher information.
    """
    from scipy.special import softmax

    projected = vocabulary.project(descriptors)
    if not len(projected):
        return np.zeros(2 * vocabulary.words.size, np.float32)
    means, variances, shares = vocabulary.words, vocabulary.variances, vocabulary.shares[:, None]
    # Expanded squares avoid an array of n × k × dim.
    distances = (
        projected**2 @ (1 / variances).T - 2 * projected @ (means / variances).T + (means**2 / variances).sum(axis=1)
    )
    belongs = softmax(np.log(shares.T) - (distances + np.log(variances).sum(axis=1)) / 2, axis=1)
    count, first, second = belongs.sum(axis=0)[:, None], belongs.T @ projected, belongs.T @ projected**2
    by_mean = (first - count * means) / np.sqrt(variances)
    by_deviation = (second - 2 * means * first + count * (means**2 - variances)) / (variances * np.sqrt(2))
    gradient = np.concatenate([by_mean, by_deviation]) / np.sqrt(np.concatenate([shares, shares])) / len(projected)
    return _signed_root(gradient).ravel().astype(np.float32)


def _signed_root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


class Encoding(NamedTuple):
    """An encoding of descriptors, ``encode(descriptors, vocabulary)`` → float32 (dim,), and its default vocabulary."""

    encode: Callable[[np.ndarray, Vocabulary], np.ndarray]
    words: int


ENCODINGS = {
    "bow": Encoding(bag_of_words, 1000),
    "soft": Encoding(soft_words, 1000),
    "vlad": Encoding(vlad, 64),
    "fisher": Encoding(fisher, 64),
}


class VisualWords(FeatureExtractor):
    """The encoded visual words of an image.

    An image without keypoints gets a zero vector, whose cosine with every vector is 0. One `NoKeypointsWarning` per
    call of ``extract`` lists these images.

    encoding : a name in `ENCODINGS`.
    vocabulary : a vocabulary or its file, see `Vocabulary.load`; by default a shipped one. Its training images must
        not be queries.
    """

    zeros_warning = NoKeypointsWarning, "no keypoints were found"

    def __init__(self, encoding: str = "vlad", vocabulary: Vocabulary | str | Path | None = None, batch_size: int = 32):
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}; got {encoding!r}")
        if vocabulary is None:
            vocabulary = shipped(ENCODINGS[encoding].words)
        elif not isinstance(vocabulary, Vocabulary):
            vocabulary = Vocabulary.load(vocabulary)
        config = vocabulary.config
        self.vocabulary = vocabulary
        self.encoding = encoding
        self.name = f"sift-{encoding}"
        self.weights = vocabulary.learned_from
        self.dim = len(ENCODINGS[encoding].encode(np.empty((0, len(vocabulary.mean)), np.float32), vocabulary))
        self.size, self.resize_rule = config.size, config.rule
        self.batch_size = batch_size
        self.settings = {"keypoints": config.kind, "limit": config.limit, "vocabulary": vocabulary.digest}
        if encoding == "soft":
            self.settings["words a descriptor"] = SOFT_WORDS

    def prepare(self) -> None:
        """Import the libraries, so that the rate excludes the imports."""
        import cv2  # noqa: F401
        import joblib  # noqa: F401
        import threadpoolctl  # noqa: F401

    def compute(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, size, size, 3) → float32 (b, dim); zeros where there are no keypoints. Uses all cores."""
        config, encode = self.vocabulary.config, ENCODINGS[self.encoding].encode

        def vector(image: np.ndarray) -> np.ndarray:
            return encode(extract(image, config.kind, config.limit).descriptors, self.vocabulary)

        with one_thread(), all_cores() as pool:
            return np.stack(list(pool.map(vector, pixels)))

    def iter_batches(
        self, files: Sequence[Path], *, strict: bool = False, failures: list[reading.UnreadableImage] | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `FeatureExtractor.iter_batches`. All encodings share the stored keypoints.

        Only batches without stored keypoints count for ``images_per_second``.
        """
        self.prepare()
        # The hashes are kept, so that the rate excludes them, too.
        content_hashes(files)
        encode, unread = ENCODINGS[self.encoding].encode, [] if failures is None else failures
        batches = extract_files(
            files, *self.vocabulary.config.arguments, unread, batch_size=self.batch_size, strict=strict
        )
        with all_cores() as pool:
            start = perf_counter()
            for rows, found, extracted in batches:
                with one_thread():
                    vectors = list(pool.map(lambda one: encode(one.descriptors, self.vocabulary), found))
                batch = self._checked(np.stack(vectors), len(rows))
                if extracted == len(rows):
                    self._count(len(rows), perf_counter() - start)
                yield np.array(rows), batch
                start = perf_counter()
        if failures is None:
            reading.warn_unreadable(unread, len(files))


#: Name → factory, for `helpers.features.registry`.
EXTRACTORS = {f"sift-{encoding}": partial(VisualWords, encoding) for encoding in ENCODINGS}
