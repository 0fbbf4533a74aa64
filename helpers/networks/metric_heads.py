"""Linear heads for metric learning: where they begin, how they learn, and how they go back onto their network.

With a few hundred images to learn from, a head that begins at random first has to find again what the network knew.
Both starts here are closed formulas: `principal_axes` keeps the cosines as they are, `within_class_whitening` is
already a learned metric, the best without gradient descent, so a referee as well as a start.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from helpers.networks import examples, training
from helpers.networks.samplers import PKSampler
from helpers.vectors import l2_normalize

if TYPE_CHECKING:
    import keras

#: Compiled models that `fit` may use again, the last used at the end. Keras traces the training step of each new model,
#: which takes longer than training a head; seeds and rates need no new one.
_compiled: "OrderedDict[tuple, tuple[keras.Model, keras.Model, tuple]]" = OrderedDict()
_MOST_COMPILED = 8


class LinearMap(NamedTuple):
    """x → (x − mean) · kernel: vectors (n, dim) → (n, out).

    Attributes
    ----------
    mean : float32 (dim,), of the images that it was computed from.
    kernel : float32 (dim, out); the starts have a mean squared column length of 1, so that one learning rate suits all.
    """

    mean: np.ndarray
    kernel: np.ndarray

    def centered(self, vectors: np.ndarray) -> np.ndarray:
        """float (n, dim) → float32 (n, dim): less the mean, what `head` takes.

        All vectors of a network lie in one narrow cone. Without its axis the gradients are about what differs; with
        it they are mostly about what all images share, and a collapse is near.
        """
        return np.asarray(vectors, np.float32) - self.mean

    def apply(self, vectors: np.ndarray, normalize: bool = True) -> np.ndarray:
        """float (n, dim) → float32 (n, out), of length one unless told otherwise; a zero stays zero."""
        mapped = self.centered(vectors) @ self.kernel
        return l2_normalize(mapped) if normalize else mapped

    def first(self, out: int) -> "LinearMap":
        """Its first ``out`` numbers; all of them where it gives fewer."""
        return LinearMap(self.mean, self.kernel[:, :out])

    def learned(self, head: "keras.Model") -> "LinearMap":
        """What a `head` that began here has become."""
        return LinearMap(self.mean, head.get_layer("embedding").get_weights()[0])


def principal_axes(vectors: np.ndarray, out: int) -> LinearMap:
    """The ``out`` directions in which the vectors differ most, turned and not stretched: distances nearly stay.

    vectors : float (n, dim).

    Raises
    ------
    ValueError : n vectors around their mean have no more than n − 1 directions (nor more than dim).
    """
    vectors = _vectors(vectors)
    most = min(len(vectors) - 1, vectors.shape[1])
    if not 1 <= out <= most:
        raise ValueError(f"{vectors.shape[0]} vectors of {vectors.shape[1]} numbers have {most} axes, not {out}")
    mean = vectors.mean(axis=0)
    axes = np.linalg.svd(vectors - mean, full_matrices=False)[2][:out].T
    return _scaled(axes, mean)


def within_class_whitening(vectors: np.ndarray, labels: np.ndarray, shrinkage: float = 1.0) -> LinearMap:
    """Shrinks the directions in which images of one class differ, until they differ equally in all.

    The symmetric root of the inverse within-class covariance (Hatch, Kajarekar & Stolcke 2006: within-class covariance
    normalization, WCCN), to which ``shrinkage`` times its mean variance was added along the diagonal: a few hundred
    vectors leave most directions of a 2048-dimensional space unseen, and those would be stretched without end.

    Parameters
    ----------
    vectors : float (n, dim). labels : int (n,), the class of each.
    shrinkage : above 0.

    Raises
    ------
    ValueError : no class has two different vectors, labels that don't fit, or no shrinkage.
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
    # The covariance is never made: its root follows from the singular values of what it is made of.
    _, values, axes = np.linalg.svd(within, full_matrices=False)
    variances = values**2 / len(vectors)
    floor = shrinkage * variances.sum() / vectors.shape[1]
    if floor < 1e-12:
        raise ValueError("within a class all vectors are equal: there is no spread to learn from")
    stretch = 1 / np.sqrt(variances + floor) - 1 / np.sqrt(floor)
    root = (axes.T * stretch) @ axes + np.eye(vectors.shape[1]) / np.sqrt(floor)
    return _scaled(root, vectors.mean(axis=0))


def head(start: LinearMap) -> "keras.Model":
    """A model of one trainable linear layer that begins as ``start``: **centered** vectors (b, dim) → (b, out)."""
    import keras

    vectors = keras.Input((start.kernel.shape[0],), name="centered_vectors")
    layer = keras.layers.Dense(start.kernel.shape[1], use_bias=False, name="embedding")
    model = keras.Model(vectors, layer(vectors), name="head")
    layer.set_weights([start.kernel])
    return model


def fit(
    start: LinearMap,
    vectors: np.ndarray,
    labels: np.ndarray,
    loss: "keras.losses.Loss",
    *,
    name: str,
    rate: float,
    epochs: int,
    identities: int = 16,
    images: int = 4,
    batches_per_epoch: int | None = None,
    seed: int = 0,
    score: Callable[[LinearMap], float] | None = None,
    metrics: Sequence["keras.metrics.Metric"] = (),
) -> tuple[LinearMap, training.Training]:
    """Train a head on vectors, by Adam, in batches of identities × images; returns what became of it.

    A margin softmax gets a classifier on top, whose directions begin as the mean of each class.

    Parameters
    ----------
    vectors : float (n, dim). labels : int (n,).
    identities, images : of a batch; all identities where there are fewer.
    batches_per_epoch : by default as many as the images fill.
    score : linear map → a number, higher is better; the best epoch is kept. Without it the last one is, as their
        number was decided before.
    metrics : watched in the history, e.g. `MeanDistance`.

    Otherwise as `helpers.networks.training.fit`, which does the work: a training that was finished is only loaded.
    """
    import keras

    from helpers.networks.losses import MarginSoftmaxLoss

    keras.utils.set_random_seed(seed)
    classes, numbers = np.unique(labels, return_inverse=True)
    on_classes = len(classes) if isinstance(loss, MarginSoftmaxLoss) else None
    key = _key(start, on_classes, loss, metrics)
    # Taken out while it is used, so that two threads never train the same model.
    model, learning, used = _compiled.pop(key, None) or _learner(start, on_classes, loss, metrics)
    try:
        model.get_layer("embedding").set_weights([start.kernel])
        if on_classes:
            mapped = start.apply(vectors)
            means = [mapped[numbers == number].mean(axis=0) for number in range(on_classes)]
            learning.layers[-1].set_weights([np.stack(means, axis=1)])
        learning.optimizer.learning_rate = rate
        how = training.fit(
            learning, examples.arrays(start.centered(vectors), numbers), name=name, epochs=epochs, seed=seed,
            sampler=PKSampler(numbers, min(identities, len(classes)), images, seed, batches_per_epoch),
            score=training.last_epoch if score is None else lambda _: score(start.learned(model)), progress=False,
        )  # fmt: skip
        return start.learned(model), how
    finally:
        _compiled[key] = model, learning, used
        while len(_compiled) > _MOST_COMPILED:
            _compiled.popitem(last=False)


def _key(start: LinearMap, on_classes: int | None, loss: "keras.losses.Loss", metrics: Sequence) -> tuple:
    """What a traced training step depends on. The loss counts by identity and by its settings: both may change."""
    import keras

    plain = tuple((key, value) for key, value in vars(loss).items() if isinstance(value, bool | int | float | str))
    policy = keras.mixed_precision.dtype_policy().name
    return start.kernel.shape, on_classes, id(loss), plain, tuple(map(id, metrics)), policy


def _learner(start: LinearMap, on_classes: int | None, loss: "keras.losses.Loss", metrics: Sequence) -> tuple:
    """(head, the model that learns, what its key names by identity and therefore has to live as long)."""
    import keras

    from helpers.networks.losses import CosineClassifier

    model = learning = head(start)
    if on_classes:
        learning = keras.Model(model.inputs, CosineClassifier(on_classes)(model.outputs[0]))
    learning.compile(keras.optimizers.Adam(), loss, metrics=list(metrics), jit_compile=False)
    return model, learning, (loss, *metrics)


def on_top(network: "keras.Model", last: LinearMap) -> "keras.Model":
    """A network that ends in a linear map: images → vectors (b, out). It shares its weights with ``network``.

    Between the two the vectors are brought to length one, as extractors hand them out.

    Raises
    ------
    ValueError : the map takes vectors of another length.
    """
    import keras

    given, (wanted, out) = network.outputs[0].shape[-1], last.kernel.shape
    if given != wanted:
        raise ValueError(f"{network.name} gives {given} numbers, the map takes {wanted}")
    unit = keras.layers.UnitNormalization(name="unit")(network.outputs[0])
    layer = keras.layers.Dense(out, name="embedding")
    model = keras.Model(network.inputs, layer(unit), name=f"{network.name}_with_head")
    layer.set_weights([last.kernel, -(last.mean @ last.kernel)])
    return model


def _scaled(kernel: np.ndarray, mean: np.ndarray) -> LinearMap:
    kernel = kernel / np.sqrt((kernel**2).sum() / kernel.shape[1])
    return LinearMap(mean.astype(np.float32), kernel.astype(np.float32))


def _vectors(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or len(vectors) < 2 or not np.isfinite(vectors).all():
        raise ValueError(f"at least two finite vectors (n, dim) are needed, got an array of shape {vectors.shape}")
    return vectors
