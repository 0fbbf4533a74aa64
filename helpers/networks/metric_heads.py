"""Linear heads for metric learning: initialization and training.

With a few hundred images, a randomly initialized head would first have to relearn the network's features. The two
initializations here have closed forms: `principal_axes` nearly preserves distances, and `within_class_whitening` is a
learned metric already, and therefore also a baseline.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from helpers.networks import examples, training
from helpers.networks.samplers import PKSampler
from helpers.vectors import l2_normalize

if TYPE_CHECKING:
    import keras

#: Held by `fit`, because two threads cannot train the same model.
_TRAINING = RLock()


class LinearMap(NamedTuple):
    """x → (x − mean) · kernel: vectors (n, dim) → (n, out).

    mean : float32 (dim,), of the training vectors.
    kernel : float32 (dim, out). The initializations have a mean squared column length of 1, so that one learning rate
        suits all.
    """

    mean: np.ndarray
    kernel: np.ndarray

    def centered(self, vectors: np.ndarray) -> np.ndarray:
        """float (n, dim) → float32 (n, dim): vectors minus the mean, the input of `head`.

        The vectors of a network lie in a narrow cone. Without centering, gradients are dominated by what all images
        share, and training may collapse.
        """
        return np.asarray(vectors, np.float32) - self.mean

    def apply(self, vectors: np.ndarray, normalize: bool = True) -> np.ndarray:
        """float (n, dim) → float32 (n, out), L2-normalized by default."""
        mapped = self.centered(vectors) @ self.kernel
        return l2_normalize(mapped) if normalize else mapped

    def learned(self, head: "keras.Model") -> "LinearMap":
        """The map with the kernel of a trained `head`."""
        return LinearMap(self.mean, head.get_layer("embedding").get_weights()[0])


def principal_axes(vectors: np.ndarray, out: int) -> LinearMap:
    """The first ``out`` principal components of vectors (n, dim): a rotation that nearly preserves distances."""
    vectors = _vectors(vectors)
    most = min(len(vectors) - 1, vectors.shape[1])
    if not 1 <= out <= most:
        raise ValueError(f"{vectors.shape[0]} vectors of {vectors.shape[1]} numbers have {most} axes, not {out}")
    mean = vectors.mean(axis=0)
    axes = np.linalg.svd(vectors - mean, full_matrices=False)[2][:out].T
    return _scaled(axes, mean)


def within_class_whitening(vectors: np.ndarray, labels: np.ndarray, shrinkage: float = 1.0) -> LinearMap:
    """Whitens the within-class covariance: images of one class then vary equally in all directions.

    The kernel is the symmetric square root of the inverse covariance (Hatch, Kajarekar & Stolcke 2006: within-class
    covariance normalization, WCCN). ``shrinkage`` times the mean variance is added to its diagonal, because a few
    hundred vectors do not vary in most directions of a 2048-dimensional space.

    vectors : float (n, dim); at least one class has two different ones.
    labels : int (n,), the class of each.
    """
    vectors, labels = _vectors(vectors), np.asarray(labels)
    if labels.shape != (len(vectors),):
        raise ValueError(f"there are {len(vectors)} vectors, but the labels have shape {labels.shape}")
    if not shrinkage > 0:
        raise ValueError(f"the shrinkage must be above 0, got {shrinkage}")
    classes, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(classes), vectors.shape[1]))
    np.add.at(sums, numbers, vectors)
    within = vectors - (sums / counts[:, None])[numbers]
    # The root is computed from singular values, without the covariance matrix.
    _, values, axes = np.linalg.svd(within, full_matrices=False)
    variances = values**2 / len(vectors)
    floor = shrinkage * variances.sum() / vectors.shape[1]
    if floor < 1e-12:
        raise ValueError("the vectors of each class are equal: there is no variance to learn from")
    stretch = 1 / np.sqrt(variances + floor) - 1 / np.sqrt(floor)
    root = (axes.T * stretch) @ axes + np.eye(vectors.shape[1]) / np.sqrt(floor)
    return _scaled(root, vectors.mean(axis=0))


def head(start: LinearMap) -> "keras.Model":
    """A model with one linear layer, initialized by ``start``: **centered** vectors (b, dim) → (b, out)."""
    import keras

    vectors = keras.Input((start.kernel.shape[0],), name="centered_vectors")
    layer = keras.layers.Dense(start.kernel.shape[1], use_bias=False, name="embedding")
    model = keras.Model(vectors, layer(vectors), name="head")
    layer.set_weights([start.kernel])
    return model


def fit(
    start: LinearMap, vectors: np.ndarray, labels: np.ndarray, loss: "keras.losses.Loss", *, name: str, rate: float,
    epochs: int, identities: int = 16, images: int = 4, batches_per_epoch: int | None = None, seed: int = 0,
    score: Callable[[LinearMap], float] | None = None, metrics: Sequence["keras.metrics.Metric"] = (),
) -> tuple[LinearMap, training.Training]:  # fmt: skip
    """Train a head on vectors by Adam with a `PKSampler`; returns the trained map and its history.

    A margin softmax loss gets a classifier, whose directions are initialized by the mean of each class.

    vectors, labels : float (n, dim) and int (n,).
    identities, images : of a batch, see `PKSampler`.
    score : linear map → number, higher is better; the best epoch is kept. Without it the last epoch is kept.
    metrics : for the history, such as `MeanDistance`.

    Other parameters are those of `helpers.networks.training.fit`, which caches trainings.
    """
    import keras

    from helpers.networks.losses import MarginSoftmaxLoss

    keras.utils.set_random_seed(seed)
    classes, numbers = np.unique(labels, return_inverse=True)
    on_classes = len(classes) if isinstance(loss, MarginSoftmaxLoss) else None
    # The settings of a loss can be changed.
    settings = tuple((key, value) for key, value in vars(loss).items() if isinstance(value, bool | int | float | str))
    policy = keras.mixed_precision.dtype_policy().name
    with _TRAINING:
        model, learning = _learner(start.kernel.shape, on_classes, loss, tuple(metrics), settings, policy)
        model.get_layer("embedding").set_weights([start.kernel])
        if on_classes:
            mapped = start.apply(vectors)
            means = [mapped[numbers == number].mean(axis=0) for number in range(on_classes)]
            learning.layers[-1].set_weights([np.stack(means, axis=1)])
        learning.optimizer.learning_rate = rate
        history = training.fit(
            learning, examples.arrays(start.centered(vectors), numbers), name=name, epochs=epochs, seed=seed,
            sampler=PKSampler(numbers, min(identities, len(classes)), images, seed, batches_per_epoch),
            score=training.last_epoch if score is None else lambda _: score(start.learned(model)), progress=False,
        )  # fmt: skip
        return start.learned(model), history


@lru_cache(maxsize=8)
def _learner(
    shape: tuple[int, int], on_classes: int | None, loss: "keras.losses.Loss", metrics: tuple, *traced: object
) -> tuple["keras.Model", "keras.Model"]:
    """A head and the compiled model to train. It is cached, because tracing takes longer than training a head.

    traced : what else the traced step depends on. Seeds and learning rates need no new model.
    """
    import keras

    from helpers.networks.losses import CosineClassifier

    model = learning = head(LinearMap(np.zeros(shape[0], np.float32), np.zeros(shape, np.float32)))
    if on_classes:
        learning = keras.Model(model.inputs, CosineClassifier(on_classes)(model.outputs[0]))
    learning.compile(keras.optimizers.Adam(), loss, metrics=list(metrics), jit_compile=False)
    return model, learning


def _scaled(kernel: np.ndarray, mean: np.ndarray) -> LinearMap:
    kernel = kernel / np.sqrt((kernel**2).sum() / kernel.shape[1])
    return LinearMap(mean.astype(np.float32), kernel.astype(np.float32))


def _vectors(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or len(vectors) < 2 or not np.isfinite(vectors).all():
        raise ValueError(f"at least two finite vectors (n, dim) are needed, got an array of shape {vectors.shape}")
    return vectors
