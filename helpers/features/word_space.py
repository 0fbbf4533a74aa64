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

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from helpers.features.text import WordVectors
from helpers.images import imagenet
from helpers.vectors import l2_normalize

#: Images computed at a time.
_ROWS = 4096


class WordSpace:
    """Base class: texts by their word vectors. A subclass has ``embed_images``."""

    #: Name in tables and options.
    name: str

    def __init__(self, words: WordVectors):
        self.words = words
        self.dim = words.dim

    @property
    def settings(self) -> dict:
        """Everything that changes the vectors, as plain JSON, except for what `fit` learned."""
        return {"way": self.name, **self.words.settings}

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

    @property
    def settings(self) -> dict:
        """See `WordSpace.settings`."""
        names = hashlib.sha256("\n".join(self.class_names).encode(errors="surrogateescape")).hexdigest()
        return super().settings | {"top": self.top, "class_names": names}

    def embed_images(self, probabilities: np.ndarray) -> np.ndarray:
        """Class probabilities (n, c), as `helpers.features.deep.ClassScores` extracts them → float32 (n, dim)."""
        probabilities = np.asarray(probabilities)
        if probabilities.ndim != 2 or probabilities.shape[1] != len(self.class_names):
            raise ValueError(
                f"ConSE needs the probabilities of {len(self.class_names)} classes, shape (n, {len(self.class_names)}),"
                f" got {probabilities.shape}. Extract them by ClassScores"
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

    _state: dict[str, np.ndarray] | None = None

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
        self._learn(features[known], rows, targets[used])
        return self

    def embed_images(self, features: np.ndarray) -> np.ndarray:
        """Feature vectors (n, m), as in `fit` → float32 (n, dim), of length 1."""
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != self.dim_in:
            raise ValueError(f"{self.name} was fitted on vectors of {self.dim_in} numbers, got {features.shape}")
        found = np.full((len(features), self.dim), np.nan, np.float32)
        read = np.isfinite(features).all(axis=1)
        if read.any():
            found[read] = l2_normalize(np.asarray(self._predict(features[read]), np.float32))
        return found

    @property
    def dim_in(self) -> int:
        """The number of features that `fit` saw. Raises ValueError before."""
        if self._state is None:
            raise ValueError(f"{self.name} must be fitted first")
        return len(self._state["kernel"])

    def state(self) -> dict[str, np.ndarray]:
        """What was learned, as float32 arrays for an npz file; `restore` reads it."""
        if self._state is None:
            raise ValueError(f"{self.name} must be fitted first")
        return dict(self._state)

    @abstractmethod
    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        """Use the `state` of another object with the same settings and word vectors, instead of `fit`."""

    @abstractmethod
    def _learn(self, features: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> None:
        """Learn from float32 (n, m) features, and rows (n,) of targets (c, dim)."""

    @abstractmethod
    def _predict(self, features: np.ndarray) -> np.ndarray:
        """Finite float32 (n, m) → (n, dim), not normalized."""


class RidgeDevise(_Learned):
    """Ridge regression from features to word vectors, in closed form.

    alphas : regularization strengths; leave-one-out cross-validation chooses one (`sklearn.linear_model.RidgeCV`).
        With one image per class, it estimates the error for unseen classes.
    """

    name = "ridge"

    def __init__(self, words: WordVectors, alphas: Sequence[float] = tuple(np.logspace(-2, 2, 13))):
        super().__init__(words)
        self.alphas = tuple(alphas)

    def _learn(self, features: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> None:
        from sklearn.linear_model import RidgeCV

        # In float64, because float32 squares lose the small singular values.
        model = RidgeCV(list(self.alphas)).fit(features.astype(np.float64), targets[labels].astype(np.float64))
        #: The strength that was chosen.
        self.alpha = float(model.alpha_)
        self.restore({"kernel": model.coef_.T, "bias": model.intercept_})

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        """See `_Learned.restore`."""
        self._state = _arrays(state, {"kernel": (None, self.dim), "bias": (self.dim,)})
        return self

    def _predict(self, features: np.ndarray) -> np.ndarray:
        assert self._state is not None
        return features @ self._state["kernel"] + self._state["bias"]


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

    def _learn(self, features: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> None:
        from helpers.networks import word_maps

        scale = float(np.sqrt(np.mean(np.square(features)))) or 1.0
        model = word_maps.word_map(features.shape[1], self.dim, self.hidden, self.dropout, self.seed)
        #: The loss of each epoch.
        self.losses = word_maps.train_word_map(
            model, features / scale, labels, targets, loss=self.loss, margin=self.margin, epochs=self.epochs,
            learning_rate=self.learning_rate,
        )  # fmt: skip
        kernel, *others = model.get_weights()
        self.restore({"kernel": kernel / scale} | dict(zip(("bias", "kernel2", "bias2"), others, strict=True)))

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        """See `_Learned.restore`."""
        shapes = {"kernel": (None, self.hidden), "bias": (self.hidden,)}
        self._state = _arrays(state, shapes | {"kernel2": (self.hidden, self.dim), "bias2": (self.dim,)})
        return self

    def _predict(self, features: np.ndarray) -> np.ndarray:
        assert self._state is not None
        # Two layers need no Keras, which takes seconds to import.
        hidden = np.maximum(features @ self._state["kernel"] + self._state["bias"], 0)
        return hidden @ self._state["kernel2"] + self._state["bias2"]


def _arrays(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
    """float32 copies of the arrays of a state, whose shapes are checked; None stands for any length."""
    found = {}
    for name, shape in shapes.items():
        if name not in state:
            raise ValueError(f"the state has no array {name!r}, only {', '.join(state)}")
        array = np.array(state[name], np.float32)
        if array.ndim != len(shape) or any(
            want not in (None, has) for want, has in zip(shape, array.shape, strict=True)
        ):
            raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
        found[name] = array
    return found


class Captions(WordSpace):
    """The word vectors of captions: text against text."""

    name = "captions"

    def embed_images(self, captions: Sequence[str]) -> np.ndarray:
        """One caption per image → float32 (n, dim); zeros for an empty caption and for one without a known word."""
        found = np.zeros((len(captions), self.dim), np.float32)
        filled = [row for row, caption in enumerate(captions) if caption.strip()]
        found[filled] = self.words.embed_names([captions[row] for row in filled])
        return found
