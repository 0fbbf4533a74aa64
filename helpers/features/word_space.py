"""Ways from images to word space, in which a text search ranks images by cosine.

- `Conse`: the word vectors of the likeliest ImageNet classes, weighted by their probabilities (Norouzi et al. 2014,
  Zero-shot learning by convex combination of semantic embeddings). Nothing is learned.
- `RidgeDevise` and `DeviseNetwork`: a map from feature vectors to word vectors, learned from images with class names
  (Frome et al. 2013, DeViSE), by ridge regression or by a network with a ranking loss.
- `Captions`: the words of each image's caption. It sees no image.

All have ``embed_images`` → float32 (n, dim) and ``embed_text`` → float32 (dim,), of length 1, for any index. Images
without a known word get zeros: their cosine to every text is 0. Images that could not be read have a row of NaN in the
input, and get one.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np

from helpers.features.text import WordVectors
from helpers.images import imagenet
from helpers.vectors import l2_normalize

#: float32 kernel and bias of each layer of a map.
Layers = list[tuple[np.ndarray, np.ndarray]]

#: Images computed at a time.
_ROWS = 4096


class WordSpace:
    """Base class: texts by their word vectors. A subclass has ``embed_images``."""

    #: Name in tables and options.
    name: str

    def __init__(self, words: WordVectors):
        self.words = words
        self.dim = words.dim

    def embed_text(self, text: str) -> np.ndarray:
        """float32 (dim,), of length 1. Raises `helpers.features.text.TextError`."""
        return self.words.embed_text(text)


class Conse(WordSpace):
    """Convex combination of the word vectors of the likeliest classes (Norouzi et al. 2014).

    Parameters
    ----------
    class_names : of the classifier's classes, in order; by default ImageNet's. A name without a known word is left
        out: its class counts as probability 0.
    top : the number of classes that are combined, the paper's T.
    """

    name = "conse"

    def __init__(self, words: WordVectors, class_names: Sequence[str] | None = None, top: int = 50):
        super().__init__(words)
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        self.class_names = tuple(imagenet.classes().values() if class_names is None else class_names)
        self.top = top
        self.class_vectors = words.embed_names(self.class_names)
        known = np.any(self.class_vectors, axis=1)
        if not known.any():
            raise ValueError(f"no class name has a word in {words.name}, e.g. {self.class_names[:3]}")
        #: Names without a known word.
        self.unknown = tuple(name for name, found in zip(self.class_names, known.tolist(), strict=True) if not found)

    def embed_likeliest(self, classes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Like `embed_images`, if only the likeliest classes are known: int (n, d) and floating (n, d), best first."""
        from scipy.sparse import csr_array

        classes, probabilities = classes[:, : self.top], probabilities[:, : self.top]
        rows, depth = classes.shape
        parts = probabilities.ravel(), classes.ravel(), np.arange(0, rows * depth + 1, max(depth, 1))[: rows + 1]
        kept = csr_array(parts, shape=(rows, len(self.class_names)))
        return l2_normalize(np.asarray(kept @ self.class_vectors, np.float32))

    def embed_images(self, probabilities: np.ndarray) -> np.ndarray:
        """Class probabilities (n, c), as `helpers.features.deep.ClassScores` extracts them → float32 (n, dim)."""
        probabilities = np.asarray(probabilities)
        if probabilities.ndim != 2 or probabilities.shape[1] != len(self.class_names):
            raise ValueError(
                f"ConSE needs the probabilities of {len(self.class_names)} classes, shape (n, {len(self.class_names)}),"
                f" got {probabilities.shape}. Extract them with `ClassScores`."
            )
        read = ~np.isnan(probabilities).any(axis=1)
        if not ((probabilities[read] >= 0) & np.isfinite(probabilities[read])).all():
            raise ValueError("probabilities must be finite and not negative")
        found = np.empty((len(probabilities), self.dim), np.float32)
        top = min(self.top, len(self.class_names))
        for start in range(0, len(probabilities), _ROWS):
            part = probabilities[start : start + _ROWS]
            # NaN counts as the largest number, and so makes the whole vector NaN.
            likeliest = np.argpartition(part, -top, axis=1)[:, -top:]
            kept = np.zeros(part.shape, np.float32)
            np.put_along_axis(kept, likeliest, np.take_along_axis(part, likeliest, axis=1), axis=1)
            # The sum of the probabilities does not matter, because vectors get length 1.
            found[start : start + _ROWS] = l2_normalize(kept @ self.class_vectors)
        return found


class _Learned(WordSpace, ABC):
    """A map from features that is learned from images with class names."""

    #: Learned by `fit`. ReLU is between them.
    _layers: Layers | None = None

    def fit(self, features: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Self:
        """Learn from float32 (n, m) feature vectors, int64 (n,) labels and the names of the classes.

        Images of a class whose name has no known word, and images without a class (label -1), are left out. Raises
        ValueError if no image is left.
        """
        features, labels = np.asarray(features, np.float32), np.asarray(labels)
        if features.ndim != 2 or labels.shape != (len(features),) or not np.isfinite(features).all():
            raise ValueError(f"expected finite features (n, m) and labels (n,), got {features.shape}, {labels.shape}")
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
            raise ValueError(f"labels must lie in -1 … {len(class_names) - 1}")
        targets = self.words.embed_names(class_names)
        known = (labels >= 0) & np.any(targets, axis=1)[labels]
        if not known.any():
            raise ValueError(f"no image has a class whose name has a word in {self.words.name}")
        used, rows = np.unique(labels[known], return_inverse=True)
        layers = self._learn(features[known], rows, targets[used])
        self._layers = [(kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in layers]
        return self

    def embed_images(self, features: np.ndarray) -> np.ndarray:
        """Feature vectors (n, m), as in `fit` → float32 (n, dim), of length 1."""
        if self._layers is None:
            raise ValueError(f"{self.name} must be fitted first")
        features, dim = np.asarray(features, np.float32), len(self._layers[0][0])
        if features.ndim != 2 or features.shape[1] != dim:
            raise ValueError(f"{self.name} was fitted on vectors of {dim} numbers, got {features.shape}")
        found = np.full((len(features), self.dim), np.nan, np.float32)
        read = np.isfinite(features).all(axis=1)
        *hidden, (last, bias) = self._layers
        output = features[read]
        # Without Keras, which takes seconds to import.
        for kernel, offset in hidden:
            output = np.maximum(output @ kernel + offset, 0)
        found[read] = l2_normalize(output @ last + bias)
        return found

    @abstractmethod
    def _learn(self, features: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> Layers:
        """Learn from float32 (n, m) features, and rows (n,) of targets (c, dim): kernel and bias of each layer."""


class RidgeDevise(_Learned):
    """Ridge regression from features to word vectors, in closed form."""

    name = "ridge"
    #: Regularization strengths; leave-one-out cross-validation chooses one (`sklearn.linear_model.RidgeCV`). With one
    #: image per class, it estimates the error for unseen classes.
    alphas: Sequence[float] = tuple(np.logspace(-2, 2, 13))

    def _learn(self, features: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> Layers:
        from sklearn.linear_model import RidgeCV

        # In float64, because float32 squares lose the small singular values.
        model = RidgeCV(list(self.alphas)).fit(features.astype(np.float64), targets[labels].astype(np.float64))
        #: The strength that was chosen.
        self.alpha = float(model.alpha_)
        return [(model.coef_.T, model.intercept_)]


class DeviseNetwork(_Learned):
    """A Keras network from features to word vectors, trained with a ranking loss (Frome et al. 2013).

    Features are divided by their root mean square, because unit vectors of 1280 numbers are tiny.

    hidden, dropout (of features and hidden layer), seed : see `helpers.networks.word_maps.word_map`.
    loss, margin, epochs, learning_rate : see `helpers.networks.word_maps.train_word_map`. E. Ameisen's semantic search
        (2018, https://github.com/hundredblocks/semantic-search) uses the loss ``cosine``. The paper's margin is 0.1; a
        larger one is better if each class has few images.
    """

    name = "devise"

    def __init__(
        self, words: WordVectors, hidden: int = 300, dropout: float = 0.5, loss: str = "hinge",
        margin: float = 0.3, epochs: int = 60, learning_rate: float = 1e-3, seed: int = 0,
    ):  # fmt: skip
        super().__init__(words)
        self.hidden, self.dropout, self.seed = hidden, dropout, seed
        self.loss, self.margin = loss, margin
        self.epochs, self.learning_rate = epochs, learning_rate

    def _learn(self, features: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> Layers:
        from helpers.networks import word_maps

        scale = float(np.sqrt(np.mean(np.square(features)))) or 1.0
        model = word_maps.word_map(features.shape[1], self.dim, self.hidden, self.dropout, self.seed)
        #: The loss of each epoch.
        self.losses = word_maps.train_word_map(
            model, features / scale, labels, targets, loss=self.loss, margin=self.margin, epochs=self.epochs,
            learning_rate=self.learning_rate,
        )  # fmt: skip
        kernel, bias, *last = model.get_weights()
        return [(kernel / scale, bias), tuple(last)]


class Captions(WordSpace):
    """The word vectors of captions: text against text."""

    name = "captions"

    def embed_images(self, captions: Sequence[str]) -> np.ndarray:
        """One caption per image → float32 (n, dim); zeros for an empty caption and for one without a known word."""
        found = np.zeros((len(captions), self.dim), np.float32)
        filled = [row for row, caption in enumerate(captions) if caption.strip()]
        found[filled] = self.words.embed_names([captions[row] for row in filled])
        return found
