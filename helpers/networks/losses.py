"""Losses that shape the space itself: images of one identity near each other, all others further away.

All work on a batch from `helpers.networks.samplers.PKSampler` inside ``model.compile`` and ``fit``. They take class
numbers, (b,) or (b, 1), and raw embeddings (b, dim), which they bring to length one themselves, in float32; so every
distance lies in 0 … 2. A zero vector has no direction and stays zero. A label below 0 is a distractor: nobody's
positive, everybody's negative. Labels pass through float32, so they must stay below 2²⁴.

Collapse: a network that gives every image the same vector has made all distances 0. It is a resting point: a
distance has no slope there (its gradient is set to 0), and each loss stands at a value that tells so:

=======================================  ===================================================
loss                                     of a collapsed batch of b images
=======================================  ===================================================
`ContrastiveLoss`                        share of pairs that are negative × margin² / 2
`TripletLoss`, every mining              the margin itself; ln 2 = 0.693 with the soft margin
`SupConLoss`                             ln(b − 1)
=======================================  ===================================================

A loss alone can't tell a collapse from hard work, so `MeanDistance` and `ActiveTriplets` are watched beside it: a
mean distance that falls towards 0 is a collapse, a share of active triplets that falls towards 0 is success. Batch
hard is the most prone: at the start, bringing everything together is the quickest way to nearer positives. A smaller
learning rate, the soft margin, or batch all for the first epochs help.
"""

import math
from numbers import Real

import keras
from keras import ops

MININGS = ("all", "hard", "weighted", "distance")
#: Squares below this count as zero: the slope of the root, infinite there, is set to 0.
TINY = 1e-12
#: Further than any distance, and as a logit less likely than any: takes pairs out of a minimum or a softmax.
FAR = 1e9
#: Wu et al. 2017: negatives nearer than this are drawn as if they were there, those beyond the other not at all.
NEAREST, FURTHEST = 0.5, 1.4


class _PairLoss(keras.losses.Loss):
    """A loss of the batch as a whole: `call` returns its scalar."""

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float32")

    def __call__(self, y_true, y_pred, sample_weight=None):
        _no_weights(sample_weight, self.name)
        return super().__call__(y_true, y_pred)

    def get_config(self) -> dict:
        return {"name": self.name}


@keras.saving.register_keras_serializable(package="lookalike")
class ContrastiveLoss(_PairLoss):
    """Positive pairs are pulled together, negative pairs pushed apart until they are ``margin`` apart.

    Half of d² for a positive pair, half of max(0, margin − d)² for a negative one (Hadsell, Chopra & LeCun 2006,
    equation 4); the mean over all pairs of the batch. Without a positive pair only the push is left; a batch of one
    image gives 0.

    Raises
    ------
    ValueError : the margin is not a number above 0.
    """

    def __init__(self, margin: float = 1.0, name: str = "contrastive"):
        super().__init__(name)
        self.margin = _number("margin", margin, above=0)

    def call(self, y_true, y_pred):
        """Labels (b,) or (b, 1), embeddings (b, dim) → float32 scalar."""
        positives, negatives = _pairs(y_true, y_pred)
        squares = _distances(y_pred, squared=True)
        push = ops.square(ops.relu(self.margin - _safe_sqrt(squares)))
        # Every pair stands twice in the matrix, which leaves its mean as it is.
        return _mean(0.5 * ops.where(positives, squares, push), ops.logical_or(positives, negatives))

    def get_config(self) -> dict:
        return super().get_config() | {"margin": self.margin}


@keras.saving.register_keras_serializable(package="lookalike")
class TripletLoss(_PairLoss):
    """An image is nearer to those of its own identity than to all others, by a margin.

    Of a triplet of anchor, positive and negative: max(0, margin + d(a, p) − d(a, n)), or ln(1 + exp(d(a, p) −
    d(a, n))) with ``margin="soft"``. The mining says which triplets count, and what the mean is over:

    - ``"all"``: every triplet of the batch; over the active ones, whose loss is above 0 (batch all, L_BA≠0 of
      Hermans, Beyer & Leibe 2017). Memory grows with b³ (128 images: 8 MB an array).
    - ``"hard"``: the furthest positive and the nearest negative of each anchor; over anchors (batch hard, the same).
    - ``"weighted"``: means of the anchor's positives, weighted by softmax(d), and of its negatives, weighted by
      softmax(−d); over anchors (Ristani & Tomasi 2018). Gradients pass through the weights too.
    - ``"distance"``: each positive pair with one negative, drawn so that all distances are about equally frequent
      (Wu et al. 2017, see `negative_logits`); over positive pairs. Memory grows with b³. The draws are seeded, though
      XLA draws others than plain TensorFlow does; the state of the generator is not saved with a model.

    Anchors without a positive or without a negative don't count; a batch that has no triplet gives exactly 0, and so
    do all its gradients. ``squared`` takes d² in place of d (Schroff et al. 2015).

    Raises
    ------
    ValueError : no such mining, or the margin is neither "soft" nor a number of at least 0.
    """

    def __init__(
        self,
        mining: str = "hard",
        margin: float | str = 0.2,
        squared: bool = False,
        seed: int = 0,
        name: str = "triplet",
    ):
        super().__init__(name)
        if mining not in MININGS:
            raise ValueError(f"no mining is called {mining!r}; there are: {', '.join(MININGS)}")
        self.mining = mining
        self.margin = margin if margin == "soft" else _number('margin, where it is not "soft",', margin)
        self.squared = bool(squared)
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed) if mining == "distance" else None

    def call(self, y_true, y_pred):
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

    def _losses(self, positive, negative):
        if self.margin == "soft":
            return ops.softplus(positive - negative)
        return ops.relu(positive - negative + self.margin)

    def get_config(self) -> dict:
        own = {"mining": self.mining, "margin": self.margin, "squared": self.squared, "seed": self.seed}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="lookalike")
class SupConLoss(_PairLoss):
    """Each positive is picked out of the whole batch by a softmax over cosines.

    −ln of the positive's share in Σ exp(cos / temperature) over all others, the mean over an anchor's positives, then
    over the anchors that have one (Khosla et al. 2020, L_out, equation 2; there a sum over anchors). No positive pair:
    exactly 0.

    Raises
    ------
    ValueError : the temperature is not a number above 0.
    """

    def __init__(self, temperature: float = 0.1, name: str = "supcon"):
        super().__init__(name)
        self.temperature = _number("temperature", temperature, above=0)

    def call(self, y_true, y_pred):
        """Labels (b,) or (b, 1), embeddings (b, dim) → float32 scalar."""
        positives, negatives = _pairs(y_true, y_pred)
        vectors = _unit(y_pred)
        logits = ops.matmul(vectors, ops.transpose(vectors)) / self.temperature
        others = ops.where(ops.logical_or(positives, negatives), logits, -FAR)
        surprises = ops.logsumexp(others, axis=1, keepdims=True) - logits
        counts = ops.sum(ops.cast(positives, "float32"), axis=1)
        means = ops.sum(ops.where(positives, surprises, 0.0), axis=1) / ops.maximum(counts, 1.0)
        return _mean(means, counts > 0)

    def get_config(self) -> dict:
        return super().get_config() | {"temperature": self.temperature}


@keras.saving.register_keras_serializable(package="lookalike")
class CosineClassifier(keras.layers.Layer):
    """Cosines between an embedding and one learned direction a class: (b, dim) → float32 (b, n_classes).

    The last layer for `MarginSoftmaxLoss`. It needs no labels; the trained embedder is the model cut before it. It
    computes in float32 under mixed precision too, because a scale of 64 magnifies what float16 rounds away.

    Raises
    ------
    ValueError : fewer than two classes.
    """

    def __init__(self, n_classes: int, dtype="float32", **options):
        super().__init__(dtype=dtype, **options)
        if n_classes != int(n_classes) or n_classes < 2:
            raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
        self.n_classes = int(n_classes)

    def build(self, input_shape):
        self.directions = self.add_weight(
            shape=(input_shape[-1], self.n_classes), initializer="glorot_normal", name="directions"
        )

    def call(self, embeddings):
        return ops.matmul(_unit(embeddings), _unit(self.directions, axis=0))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.n_classes)

    def get_config(self) -> dict:
        return super().get_config() | {"n_classes": self.n_classes}


@keras.saving.register_keras_serializable(package="lookalike")
class MarginSoftmaxLoss(keras.losses.Loss):
    """Cross entropy of scaled cosines, made harder for the true class: (labels, cosines (b, classes)) → (b,).

    The cosine of the true class becomes cos(θ + margin) (``"arcface"``, Deng et al. 2019; margin 0.5) or
    cos θ − margin (``"cosface"``, Wang et al. 2018; margin 0.35). Where θ + margin > π the cosine would rise again;
    there ArcFace takes cos θ − margin · sin margin, which goes on falling (its authors' code). The margin exists in
    the loss alone: at test time nobody knows the true class. A label outside 0 … classes − 1 gives NaN: there is no
    class to be right about, and a graph can't raise.

    Parameters
    ----------
    margin : None takes the paper's; radians for ArcFace, below π/2.
    scale : what the cosines are multiplied with before the softmax.

    Raises
    ------
    ValueError : no such kind, a margin or a scale out of range, or cosines that are not (b, classes).
    """

    def __init__(
        self,
        kind: str = "arcface",
        margin: float | None = None,
        scale: float = 64.0,
        reduction: str = "sum_over_batch_size",
        name: str = "margin_softmax",
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        margins = {"arcface": 0.5, "cosface": 0.35}
        if kind not in margins:
            raise ValueError(f"no margin softmax is called {kind!r}; there are: {', '.join(margins)}")
        self.kind = kind
        self.margin = _number("margin", margins[kind] if margin is None else margin)
        if kind == "arcface" and self.margin >= math.pi / 2:
            raise ValueError(f"the margin of ArcFace is an angle in radians below π/2, got {margin}")
        self.scale = _number("scale", scale, above=0)

    def call(self, y_true, y_pred):
        """Labels (b,) or (b, 1), cosines (b, classes) → float32 (b,)."""
        labels, cosines = _labels(y_true, y_pred), ops.cast(y_pred, "float32")
        truth = ops.equal(labels[:, None], ops.arange(cosines.shape[-1], dtype="float32"))
        logits = self.scale * ops.where(truth, self._harder(cosines), cosines)
        losses = ops.logsumexp(logits, axis=1) - ops.sum(ops.where(truth, logits, 0.0), axis=1)
        return ops.where(ops.any(truth, axis=1), losses, float("nan"))

    def _harder(self, cosines):
        if self.kind == "cosface":
            return cosines - self.margin
        # The sum formula in place of arccos, whose slope is infinite at ±1. (1 − c)(1 + c) rounds less than 1 − c².
        sines = _safe_sqrt((1.0 - cosines) * (1.0 + cosines))
        turned = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        beyond = cosines - self.margin * math.sin(self.margin)
        return ops.where(cosines > -math.cos(self.margin), turned, beyond)

    def get_config(self) -> dict:
        return super().get_config() | {"kind": self.kind, "margin": self.margin, "scale": self.scale}


# ---- watching for collapse ----------------------------------------------------------------------------


class _BatchMean(keras.metrics.Mean):
    """The mean over the batches that have such pairs; NaN while there was none."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Labels (b,) or (b, 1), embeddings (b, dim)."""
        _no_weights(sample_weight, self.name)
        value, exists = self.measure(y_true, y_pred)
        super().update_state(value, sample_weight=ops.cast(exists, "float32"))

    def result(self):
        return ops.where(self.count > 0, super().result(), float("nan"))

    def get_config(self) -> dict:
        return {"name": self.name}


@keras.saving.register_keras_serializable(package="lookalike")
class MeanDistance(_BatchMean):
    """The mean distance between two different images of a batch, 0 … 2; towards 0 the space collapses.

    pairs : ``"all"``, ``"positive"`` (one identity) or ``"negative"`` (two).

    Raises
    ------
    ValueError : there are no such pairs.
    """

    def __init__(self, pairs: str = "all", name: str | None = None):
        if pairs not in ("all", "positive", "negative"):
            raise ValueError(f"no pairs are called {pairs!r}; there are: all, positive, negative")
        super().__init__(name=name or ("mean_distance" if pairs == "all" else f"{pairs}_distance"), dtype="float32")
        self.pairs = pairs

    def measure(self, y_true, y_pred):
        """(mean, whether there are such pairs) of one batch."""
        positives, negatives = _pairs(y_true, y_pred)
        either = ops.logical_or(positives, negatives)
        chosen = {"all": either, "positive": positives, "negative": negatives}[self.pairs]
        return _mean(_distances(y_pred), chosen), ops.any(chosen)

    def get_config(self) -> dict:
        return super().get_config() | {"pairs": self.pairs}


@keras.saving.register_keras_serializable(package="lookalike")
class ActiveTriplets(_BatchMean):
    """The share of a batch's triplets that still have a loss: d(a, p) + margin > d(a, n). Memory grows with b³.

    Falls towards 0 as training succeeds, and is 1 for a collapsed batch. For the soft margin give 0: the share of
    triplets in the wrong order.

    Raises
    ------
    ValueError : the margin is not a number of at least 0.
    """

    def __init__(self, margin: float = 0.2, squared: bool = False, name: str = "active_triplets"):
        super().__init__(name=name, dtype="float32")
        self.margin, self.squared = _number("margin", margin), bool(squared)

    def measure(self, y_true, y_pred):
        """(share, whether there are triplets) of one batch."""
        distances = _distances(y_pred, self.squared)
        triplets = _triplets(*_pairs(y_true, y_pred))
        active = _above(distances[:, :, None] - distances[:, None, :] + self.margin, 0.0)
        return _mean(ops.cast(active, "float32"), triplets), ops.any(triplets)

    def get_config(self) -> dict:
        return super().get_config() | {"margin": self.margin, "squared": self.squared}


def batch_statistics(labels, embeddings, margin: float = 0.2, squared: bool = False) -> dict[str, float]:
    """What the metrics above say of one batch: name → value, NaN where it has no such pairs.

    Parameters
    ----------
    labels : integers (b,) or (b, 1). embeddings : floating (b, dim).
    margin, squared : of `ActiveTriplets`.

    Raises
    ------
    ValueError : shapes that don't fit, or a margin below 0.
    """
    labels, embeddings = ops.convert_to_tensor(labels), ops.convert_to_tensor(embeddings, dtype="float32")
    metrics = [*(MeanDistance(pairs) for pairs in ("all", "positive", "negative")), ActiveTriplets(margin, squared)]
    measured = {metric.name: metric.measure(labels, embeddings) for metric in metrics}
    return {name: float(value) if bool(exists) else math.nan for name, (value, exists) in measured.items()}


# ---- distance-weighted sampling -----------------------------------------------------------------------


def negative_logits(distances, negatives, dim: int):
    """How likely each negative of each anchor is to be drawn: log weights, float32 (b, b).

    The distance of random points of a sphere in n dimensions has the density q(d) ∝ d^(n−2) · (1 − d²/4)^((n−3)/2),
    which crowds around √2, so that negatives drawn evenly teach little; here the weight is 1 / q(d). It is
    held constant below 0.5, where it would pick noise alone, and is 0 from 1.4 on, where no loss is to be expected
    (Wu, Manmatha, Smola & Krähenbühl 2017, distance weighted sampling, and their code). Where all negatives of an
    anchor are that far, they are equally likely.

    Parameters
    ----------
    distances : float32 (b, b), not squared, of vectors of length one.
    negatives : bool (b, b); everything else gets −1e9.
    dim : n above.
    """
    near = ops.logical_and(negatives, distances < FURTHEST)
    held = ops.clip(distances, NEAREST, FURTHEST)
    weights = (2.0 - dim) * ops.log(held) - (dim - 3.0) / 2.0 * ops.log(1.0 - ops.square(held) / 4.0)
    fallback = ops.logical_and(negatives, ops.logical_not(ops.any(near, axis=1, keepdims=True)))
    return ops.where(near, weights, ops.where(fallback, 0.0, -FAR))


def draw(logits, seed):
    """b draws for each of b rows: logits (b, b) → int32 (b, b), entry (a, p) drawn from row a; the Gumbel-max trick.

    seed : an int, or a ``keras.random.SeedGenerator`` for other draws at every call.
    """
    b = ops.shape(logits)[0]
    chances = ops.maximum(keras.random.uniform((b, b, b), seed=seed), 1e-30)
    return ops.argmax(logits[:, None, :] - ops.log(-ops.log(chances)), axis=2)


# ---- shared by all ------------------------------------------------------------------------------------


def _labels(y_true, y_pred):
    """Labels as float32 (b,); shapes are checked as far as they are known."""
    if len(y_pred.shape) != 2:
        raise ValueError(f"y_pred must have shape (b, dim), got {tuple(y_pred.shape)}")
    if len(y_true.shape) > 2 or (len(y_true.shape) == 2 and y_true.shape[1] not in (1, None)):
        raise ValueError(
            f"labels must be class numbers of shape (b,) or (b, 1), got {tuple(y_true.shape)}; "
            "of one-hot rows take argmax"
        )
    if None not in (y_true.shape[0], y_pred.shape[0]) and y_true.shape[0] != y_pred.shape[0]:
        raise ValueError(f"there are {y_true.shape[0]} labels for {y_pred.shape[0]} rows of y_pred")
    return ops.cast(ops.reshape(y_true, (-1,)), "float32")


def _pairs(y_true, y_pred):
    """(positives, negatives), both bool (b, b): pairs of two different images, of one identity and of two."""
    labels = _labels(y_true, y_pred)
    rows = ops.cumsum(ops.ones_like(labels))
    other = ops.not_equal(rows[:, None], rows[None, :])
    same = ops.logical_and(ops.equal(labels[:, None], labels[None, :]), labels[:, None] >= 0)
    return ops.logical_and(other, same), ops.logical_and(other, ops.logical_not(same))


def _triplets(positives, negatives):
    """bool (b, b, b): anchor, positive, negative."""
    return ops.logical_and(positives[:, :, None], negatives[:, None, :])


def _unit(vectors, axis: int = -1):
    """float32 vectors of length one; a zero vector, and its gradient, is left as it is in place of divided by zero."""
    vectors = ops.cast(vectors, "float32")
    squares = ops.sum(ops.square(vectors), axis=axis, keepdims=True)
    return vectors * ops.rsqrt(ops.where(squares > TINY, squares, 1.0))


def _distances(embeddings, squared: bool = False):
    """Euclidean distances between the directions of all images, float32 (b, b), with finite gradients everywhere."""
    vectors = _unit(embeddings)
    # |a|² + |b|² − 2ab loses all digits of small distances; around their mean, a batch near collapse keeps them.
    vectors = vectors - ops.mean(vectors, axis=0, keepdims=True)
    squares = ops.sum(ops.square(vectors), axis=1)
    squares = squares[:, None] + squares[None, :] - 2.0 * ops.matmul(vectors, ops.transpose(vectors))
    return ops.relu(squares) if squared else _safe_sqrt(squares)


def _safe_sqrt(squares):
    """The root, but 0 with slope 0 where there is nothing to root; inside as well, or 0 · ∞ would make NaN."""
    something = _above(squares, TINY)
    return ops.where(something, ops.sqrt(ops.where(something, squares, 1.0)), 0.0)


def _softmax(logits):
    """Row by row; ``ops.softmax`` itself warns of a batch of one image."""
    return ops.exp(logits - ops.logsumexp(logits, axis=1, keepdims=True))


def _above(values, bound: float):
    """values > bound, and true for NaN: a network that has diverged must show, not pass for 0."""
    return ops.logical_not(values <= bound)


def _mean(values, counted):
    """The mean of the values that count; exactly 0, and so are its gradients, where none does."""
    number = ops.sum(ops.cast(counted, "float32"))
    return ops.sum(ops.where(counted, values, 0.0)) / ops.maximum(number, 1.0)


def _number(what: str, value, above: float | None = None) -> float:
    """A finite number of at least 0, or above ``above``."""
    good = isinstance(value, Real) and math.isfinite(value) and (value >= 0 if above is None else value > above)
    if not good:
        wanted = "of at least 0" if above is None else f"above {above}"
        raise ValueError(f"{what} must be a number {wanted}, got {value!r}")
    return float(value)


def _no_weights(sample_weight, name: str) -> None:
    if sample_weight is not None:
        raise ValueError(f"{name} counts pairs, not images: it takes no sample or class weights")
