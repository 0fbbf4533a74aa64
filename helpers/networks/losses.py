"""Metric learning losses: images of one identity move together, all others move apart.

Use them in ``model.compile`` with batches of `helpers.networks.samplers.PKSampler`. Labels are class numbers (b,) or
(b, 1), below 2²⁴ because they are converted to float32. Embeddings (b, dim) are L2-normalized in float32, so distances
are in 0 … 2; a zero vector stays zero. A distractor (label below 0) is a negative of all images.

Collapse: a network that maps all images to the same vector makes all distances 0. Gradients are 0 there, and each loss
has a typical value:

=======================================  ===================================================
loss                                     for a collapsed batch of b images
=======================================  ===================================================
`ContrastiveLoss`                        proportion of negative pairs × margin² / 2
`TripletLoss`, any mining                the margin; ln 2 = 0.693 with the soft margin
`SupConLoss`                             ln(b − 1)
=======================================  ===================================================

The loss alone does not distinguish a collapse from hard triplets, so use `MeanDistance` and `ActiveTriplets` as
metrics: if the mean distance falls to 0, the network collapses; if the share of active triplets falls to 0, the
training succeeds. Batch hard mining collapses most easily, because at first the quickest way to near positives is to
move all images together. A smaller learning rate, the soft margin, or batch all mining for the first epochs help.
"""

import inspect
import math

import keras
import numpy as np
from keras import ops

MININGS = ("all", "hard", "weighted", "distance")
#: Smaller squares count as zero. The gradient of their root, which is infinite at 0, is set to 0.
TINY = 1e-12
#: More than any distance. It excludes pairs from a minimum, and its negative from a softmax.
FAR = 1e9
#: Wu et al. 2017: nearer negatives get the probability of this distance, and further ones are not drawn.
NEAREST, FURTHEST = 0.5, 1.4


class _WithSettings:
    """A loss or a metric whose arguments are also its attributes."""

    def get_config(self) -> dict:
        _, *names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names}


class _PairLoss(_WithSettings, keras.losses.Loss):
    """A loss of the whole batch: `call` returns a scalar."""

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float32")

    def __call__(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor, sample_weight: None = None
    ) -> keras.KerasTensor:
        _no_weights(sample_weight, self.name)
        return super().__call__(y_true, y_pred)


@keras.saving.register_keras_serializable(package="lookalike")
class ContrastiveLoss(_PairLoss):
    """Contrastive loss (Hadsell, Chopra & LeCun 2006, equation 4).

    d² / 2 for a positive pair, max(0, margin − d)² / 2 for a negative one; the mean over all pairs of the batch, and 0
    for a batch of one image.
    """

    def __init__(self, margin: float = 1.0, name: str = "contrastive"):
        super().__init__(name)
        self.margin = _number("margin", margin, above=0)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Labels (b,) or (b, 1), embeddings (b, dim) → float32 scalar."""
        positives, negatives = _pairs(y_true, y_pred)
        squares = _distances(y_pred, squared=True)
        push = ops.square(ops.relu(self.margin - _safe_sqrt(squares)))
        # Every pair is in the matrix twice, which does not change the mean.
        return _mean(0.5 * ops.where(positives, squares, push), ops.logical_or(positives, negatives))


@keras.saving.register_keras_serializable(package="lookalike")
class TripletLoss(_PairLoss):
    """Triplet loss: an image should be nearer to its own identity than to all others, by a margin.

    For an anchor, a positive and a negative: max(0, margin + d(a, p) − d(a, n)), or ln(1 + exp(d(a, p) − d(a, n)))
    with ``margin="soft"``. The mining selects the triplets, and what the loss is averaged over:

    - ``"all"``: all triplets, averaged over the active ones, whose loss is above 0 (batch all, L_BA≠0 of Hermans,
      Beyer & Leibe 2017). Memory grows with b³ (128 images: 8 MB per array).
    - ``"hard"``: the furthest positive and the nearest negative of each anchor (batch hard, same paper).
    - ``"weighted"``: for each anchor, mean distances of positives, weighted by softmax(d), and of negatives, weighted
      by softmax(−d) (Ristani & Tomasi 2018). Gradients include those of the weights.
    - ``"distance"``: each positive pair with one negative, drawn so that all distances are about equally frequent
      (Wu et al. 2017, see `negative_logits`). Memory grows with b³. The random numbers are seeded, but XLA's differ
      from TensorFlow's, and the state of the generator is not saved with a model.

    Anchors without a positive or a negative are ignored. Without triplets the loss and its gradients are exactly 0.
    ``squared`` uses d² instead of d (Schroff et al. 2015).
    """

    def __init__(
        self, mining: str = "hard", margin: float | str = 0.2, squared: bool = False, seed: int = 0,
        name: str = "triplet",
    ):  # fmt: skip
        super().__init__(name)
        if mining not in MININGS:
            raise ValueError(f"no mining is called {mining!r}; there are: {', '.join(MININGS)}")
        self.mining = mining
        self.margin = margin if margin == "soft" else _number('margin, where it is not "soft",', margin)
        self.squared = bool(squared)
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed) if mining == "distance" else None

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Labels (b,) or (b, 1), embeddings (b, dim) → float32 scalar."""
        positives, negatives = _pairs(y_true, y_pred)
        distances = _distances(y_pred, self.squared)
        if self.mining == "all":
            losses = self._losses(distances[:, :, None], distances[:, None, :])
            return _mean(losses, ops.logical_and(_triplets(positives, negatives), _above(losses, 0.0)))
        if self.mining == "distance":
            logits = negative_logits(_distances(y_pred), negatives, y_pred.shape[-1])
            drawn = ops.take_along_axis(distances, draw(logits, self._generator), axis=1)
            counted = ops.logical_and(positives, ops.any(negatives, axis=1, keepdims=True))
            return _mean(self._losses(distances, drawn), counted)
        if self.mining == "hard":
            positive = ops.max(ops.where(positives, distances, -FAR), axis=1)
            negative = ops.min(ops.where(negatives, distances, FAR), axis=1)
        else:
            positive = ops.sum(distances * _softmax(ops.where(positives, distances, -FAR)), axis=1)
            negative = ops.sum(distances * _softmax(ops.where(negatives, -distances, -FAR)), axis=1)
        anchors = ops.logical_and(ops.any(positives, axis=1), ops.any(negatives, axis=1))
        return _mean(self._losses(positive, negative), anchors)

    def _losses(self, positive: keras.KerasTensor, negative: keras.KerasTensor) -> keras.KerasTensor:
        if self.margin == "soft":
            return ops.softplus(positive - negative)
        return ops.relu(positive - negative + self.margin)


@keras.saving.register_keras_serializable(package="lookalike")
class SupConLoss(_PairLoss):
    """Supervised contrastive loss: a softmax over cosines of the whole batch should select each positive.

    −ln of the positive's share of Σ exp(cos / temperature), averaged over an anchor's positives, then over the anchors
    with positives (Khosla et al. 2020, L_out, equation 2, which sums over anchors). Without positive pairs it is
    exactly 0.
    """

    def __init__(self, temperature: float = 0.1, name: str = "supcon"):
        super().__init__(name)
        self.temperature = _number("temperature", temperature, above=0)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Labels (b,) or (b, 1), embeddings (b, dim) → float32 scalar."""
        positives, negatives = _pairs(y_true, y_pred)
        vectors = _unit(y_pred)
        logits = ops.matmul(vectors, ops.transpose(vectors)) / self.temperature
        others = ops.where(ops.logical_or(positives, negatives), logits, -FAR)
        losses = ops.logsumexp(others, axis=1, keepdims=True) - logits
        counts = ops.sum(ops.cast(positives, "float32"), axis=1)
        means = ops.sum(ops.where(positives, losses, 0.0), axis=1) / ops.maximum(counts, 1.0)
        return _mean(means, counts > 0)


@keras.saving.register_keras_serializable(package="lookalike")
class CosineClassifier(keras.layers.Layer):
    """Cosines between an embedding and one learned direction per class: (b, dim) → float32 (b, n_classes).

    The last layer for `MarginSoftmaxLoss`. It always computes in float32, because a scale of 64 magnifies the rounding
    errors of float16.
    """

    def __init__(self, n_classes: int, dtype: str = "float32", **options: object):
        super().__init__(dtype=dtype, **options)
        if n_classes != int(n_classes) or n_classes < 2:
            raise ValueError(f"n_classes must be an integer of at least 2, got {n_classes!r}")
        self.n_classes = int(n_classes)

    def build(self, input_shape: tuple) -> None:
        self.directions = self.add_weight(
            shape=(input_shape[-1], self.n_classes), initializer="glorot_normal", name="directions"
        )

    def call(self, embeddings: keras.KerasTensor) -> keras.KerasTensor:
        return ops.matmul(_unit(embeddings), _unit(self.directions, axis=0))

    def get_config(self) -> dict:
        return super().get_config() | {"n_classes": self.n_classes}


@keras.saving.register_keras_serializable(package="lookalike")
class MarginSoftmaxLoss(_WithSettings, keras.losses.Loss):
    """Cross-entropy of scaled cosines with a margin for the true class: (labels, cosines (b, classes)) → (b,).

    The cosine of the true class becomes cos(θ + margin) (``"arcface"``, Deng et al. 2019; margin 0.5) or cos θ − margin
    (``"cosface"``, Wang et al. 2018; margin 0.35). For θ + margin > π, where the cosine would rise again, ArcFace uses
    cos θ − margin · sin margin, as in its authors' code. A label outside 0 … classes − 1 gives NaN, because a graph
    cannot raise an error.

    margin : by default the paper's; radians below π/2 for ArcFace.
    scale : factor of the cosines before the softmax.
    """

    def __init__(
        self, kind: str = "arcface", margin: float | None = None, scale: float = 64.0,
        reduction: str = "sum_over_batch_size", name: str = "margin_softmax",
    ):  # fmt: skip
        super().__init__(name=name, reduction=reduction, dtype="float32")
        margins = {"arcface": 0.5, "cosface": 0.35}
        if kind not in margins:
            raise ValueError(f"no margin softmax is called {kind!r}; there are: {', '.join(margins)}")
        self.kind = kind
        self.margin = _number("margin", margins[kind] if margin is None else margin)
        if kind == "arcface" and self.margin >= math.pi / 2:
            raise ValueError(f"the margin of ArcFace is an angle in radians below π/2, got {margin}")
        self.scale = _number("scale", scale, above=0)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Labels (b,) or (b, 1), cosines (b, classes) → float32 (b,)."""
        labels, cosines = _labels(y_true, y_pred), ops.cast(y_pred, "float32")
        truth = ops.equal(labels[:, None], ops.arange(cosines.shape[-1], dtype="float32"))
        logits = self.scale * ops.where(truth, self._with_margin(cosines), cosines)
        losses = ops.logsumexp(logits, axis=1) - ops.sum(ops.where(truth, logits, 0.0), axis=1)
        return ops.where(ops.any(truth, axis=1), losses, float("nan"))

    def _with_margin(self, cosines: keras.KerasTensor) -> keras.KerasTensor:
        if self.kind == "cosface":
            return cosines - self.margin
        # The addition formula, because arccos has infinite gradients at ±1. (1 − c)(1 + c) rounds less than 1 − c².
        sines = _safe_sqrt((1.0 - cosines) * (1.0 + cosines))
        rotated = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        beyond = cosines - self.margin * math.sin(self.margin)
        return ops.where(cosines > -math.cos(self.margin), rotated, beyond)


class _BatchMean(_WithSettings, keras.metrics.Mean):
    """The mean over the batches that have such pairs; NaN without any."""

    def update_state(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor, sample_weight: None = None) -> None:
        """Labels (b,) or (b, 1), embeddings (b, dim)."""
        _no_weights(sample_weight, self.name)
        value, exists = self.measure(y_true, y_pred)
        super().update_state(value, sample_weight=ops.cast(exists, "float32"))

    def result(self) -> keras.KerasTensor:
        return ops.where(self.count > 0, super().result(), float("nan"))


@keras.saving.register_keras_serializable(package="lookalike")
class MeanDistance(_BatchMean):
    """The mean distance between two images of a batch, 0 … 2; it falls to 0 in a collapse.

    pairs : ``"all"``, ``"positive"`` (one identity) or ``"negative"`` (two identities).
    """

    def __init__(self, pairs: str = "all", name: str | None = None):
        if pairs not in ("all", "positive", "negative"):
            raise ValueError(f"pairs must be all, positive or negative; got {pairs!r}")
        super().__init__(name=name or ("mean_distance" if pairs == "all" else f"{pairs}_distance"), dtype="float32")
        self.pairs = pairs

    def measure(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Mean of one batch, and whether there are such pairs."""
        positives, negatives = _pairs(y_true, y_pred)
        either = ops.logical_or(positives, negatives)
        chosen = {"all": either, "positive": positives, "negative": negatives}[self.pairs]
        return _mean(_distances(y_pred), chosen), ops.any(chosen)


@keras.saving.register_keras_serializable(package="lookalike")
class ActiveTriplets(_BatchMean):
    """The share of triplets with a loss: d(a, p) + margin > d(a, n). Memory grows with b³.

    It falls to 0 in a successful training, and is 1 after a collapse. For the soft margin use 0.
    """

    def __init__(self, margin: float = 0.2, squared: bool = False, name: str = "active_triplets"):
        super().__init__(name=name, dtype="float32")
        self.margin, self.squared = _number("margin", margin), bool(squared)

    def measure(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Share of one batch, and whether there are triplets."""
        distances = _distances(y_pred, self.squared)
        triplets = _triplets(*_pairs(y_true, y_pred))
        active = _above(distances[:, :, None] - distances[:, None, :] + self.margin, 0.0)
        return _mean(ops.cast(active, "float32"), triplets), ops.any(triplets)


def negative_logits(distances: keras.KerasTensor, negatives: keras.KerasTensor, dim: int) -> keras.KerasTensor:
    """Log weights to draw negatives by distance, float32 (b, b) (Wu, Manmatha, Smola & Krähenbühl 2017).

    Distances of random points on a sphere in n dimensions have the density q(d) ∝ d^(n−2) · (1 − d²/4)^((n−3)/2), and
    most are near √2. The weight is 1 / q(d), so that all distances are drawn. As in the authors' code it is constant
    below 0.5, to avoid noise, and 0 above 1.4, where the loss is 0. If all negatives of an anchor are further, they are
    equally likely.

    distances : float32 (b, b), not squared, of L2-normalized vectors.
    negatives : bool (b, b); all others get −1e9.
    dim : n above.
    """
    near = ops.logical_and(negatives, distances < FURTHEST)
    held = ops.clip(distances, NEAREST, FURTHEST)
    weights = (2.0 - dim) * ops.log(held) - (dim - 3.0) / 2.0 * ops.log(1.0 - ops.square(held) / 4.0)
    fallback = ops.logical_and(negatives, ops.logical_not(ops.any(near, axis=1, keepdims=True)))
    return ops.where(near, weights, ops.where(fallback, 0.0, -FAR))


def draw(logits: keras.KerasTensor, seed: int | keras.random.SeedGenerator) -> keras.KerasTensor:
    """Draw b times from each row: logits (b, b) → int32 (b, b), by the Gumbel-max trick.

    seed : an int, or a ``keras.random.SeedGenerator`` for different draws at every call.
    """
    b = ops.shape(logits)[0]
    chances = ops.maximum(keras.random.uniform((b, b, b), seed=seed), 1e-30)
    return ops.argmax(logits[:, None, :] - ops.log(-ops.log(chances)), axis=2)


def _labels(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """Labels as float32 (b,), after a check of the known shapes."""
    if len(y_pred.shape) != 2:
        raise ValueError(f"y_pred must have shape (b, dim), got {tuple(y_pred.shape)}")
    if len(y_true.shape) > 2 or (len(y_true.shape) == 2 and y_true.shape[1] not in (1, None)):
        raise ValueError(
            f"labels must be class numbers of shape (b,) or (b, 1), got {tuple(y_true.shape)}; "
            "use the argmax of one-hot labels"
        )
    if None not in (y_true.shape[0], y_pred.shape[0]) and y_true.shape[0] != y_pred.shape[0]:
        raise ValueError(f"there are {y_true.shape[0]} labels for {y_pred.shape[0]} rows of y_pred")
    return ops.cast(ops.reshape(y_true, (-1,)), "float32")


def _pairs(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """(positives, negatives), both bool (b, b): pairs of different images of one identity, and of two."""
    labels = _labels(y_true, y_pred)
    rows = ops.cumsum(ops.ones_like(labels))
    other = ops.not_equal(rows[:, None], rows[None, :])
    same = ops.logical_and(ops.equal(labels[:, None], labels[None, :]), labels[:, None] >= 0)
    return ops.logical_and(other, same), ops.logical_and(other, ops.logical_not(same))


def _triplets(positives: keras.KerasTensor, negatives: keras.KerasTensor) -> keras.KerasTensor:
    """bool (b, b, b): anchor, positive, negative."""
    return ops.logical_and(positives[:, :, None], negatives[:, None, :])


def _unit(vectors: keras.KerasTensor, axis: int = -1) -> keras.KerasTensor:
    """L2-normalized float32 vectors; a zero vector stays zero, with a finite gradient."""
    vectors = ops.cast(vectors, "float32")
    squares = ops.sum(ops.square(vectors), axis=axis, keepdims=True)
    return vectors * ops.rsqrt(ops.where(squares > TINY, squares, 1.0))


def _distances(embeddings: keras.KerasTensor, squared: bool = False) -> keras.KerasTensor:
    """Euclidean distances of the normalized embeddings, float32 (b, b), with finite gradients."""
    vectors = _unit(embeddings)
    # |a|² + |b|² − 2ab loses the digits of small distances. Centering keeps them in a batch near collapse.
    vectors = vectors - ops.mean(vectors, axis=0, keepdims=True)
    squares = ops.sum(ops.square(vectors), axis=1)
    squares = squares[:, None] + squares[None, :] - 2.0 * ops.matmul(vectors, ops.transpose(vectors))
    return ops.relu(squares) if squared else _safe_sqrt(squares)


def _safe_sqrt(squares: keras.KerasTensor) -> keras.KerasTensor:
    """The square root; 0 with gradient 0 for tiny squares. The inner `where` avoids 0 · ∞ in the gradient."""
    positive = _above(squares, TINY)
    return ops.where(positive, ops.sqrt(ops.where(positive, squares, 1.0)), 0.0)


def _softmax(logits: keras.KerasTensor) -> keras.KerasTensor:
    """Softmax of each row; ``ops.softmax`` warns about a batch of one image."""
    return ops.exp(logits - ops.logsumexp(logits, axis=1, keepdims=True))


def _above(values: keras.KerasTensor, bound: float) -> keras.KerasTensor:
    """values > bound, and true for NaN, so that a diverged network does not look like a loss of 0."""
    return ops.logical_not(values <= bound)


def _mean(values: keras.KerasTensor, counted: keras.KerasTensor) -> keras.KerasTensor:
    """The mean of the values that count; exactly 0, with gradient 0, if there are none."""
    number = ops.sum(ops.cast(counted, "float32"))
    return ops.sum(ops.where(counted, values, 0.0)) / ops.maximum(number, 1.0)


def _number(what: str, value: object, above: float | None = None) -> float:
    """A finite number of at least 0, or above ``above``."""
    number = float(value) if isinstance(value, int | float | np.integer | np.floating) else math.nan
    if not math.isfinite(number) or number < 0 or (above is not None and number <= above):
        bound = "of at least 0" if above is None else f"above {above}"
        raise ValueError(f"{what} must be a number {bound}, got {value!r}")
    return number


def _no_weights(sample_weight: object, name: str) -> None:
    if sample_weight is not None:
        raise ValueError(f"{name} counts pairs, not images: it does not support sample or class weights")
