"""Each loss, mining and metric compared with a slow loop from its paper, by hand, at edge cases, and in training."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.networks.losses import (
    ActiveTriplets,
    ContrastiveLoss,
    CosineClassifier,
    MarginSoftmaxLoss,
    MeanDistance,
    SupConLoss,
    TripletLoss,
    draw,
    negative_logits,
)
from helpers.networks.samplers import PKSampler

# ---- slow loops in float64, from the papers ----------------------------------------------------------


def unit(x):
    x = np.asarray(x, dtype=np.float64)
    return np.array([row / np.linalg.norm(row) if np.linalg.norm(row) > 1e-6 else row for row in x])


def distance(z, i, j, squared=False):
    d = np.sqrt(((z[i] - z[j]) ** 2).sum())
    return d * d if squared else d


def positives_of(labels, a):
    return [j for j in range(len(labels)) if j != a and labels[j] == labels[a] and labels[a] >= 0]


def negatives_of(labels, a):
    return [j for j in range(len(labels)) if j != a and not (labels[j] == labels[a] and labels[a] >= 0)]


def mean(values):
    return float(np.mean(values)) if len(values) else 0.0


def slow_contrastive(labels, x, margin):
    z, losses = unit(x), []
    for i in range(len(z)):
        for j in range(i):
            d = distance(z, i, j)
            losses.append(d**2 / 2 if i in positives_of(labels, j) else max(0, margin - d) ** 2 / 2)
    return mean(losses)


def hinge(difference, margin):
    return np.log1p(np.exp(difference)) if margin == "soft" else max(0, margin + difference)


def slow_differences(labels, x, squared=False):
    """d(a, p) − d(a, n) of every triplet."""
    z = unit(x)
    return [
        distance(z, a, p, squared) - distance(z, a, n, squared)
        for a in range(len(z))
        for p in positives_of(labels, a)
        for n in negatives_of(labels, a)
    ]


def slow_all(labels, x, margin, squared):
    losses = [hinge(difference, margin) for difference in slow_differences(labels, x, squared)]
    return mean([loss for loss in losses if loss > 0])


def slow_hard(labels, x, margin, squared):
    z, losses = unit(x), []
    for a in range(len(z)):
        furthest = [distance(z, a, p, squared) for p in positives_of(labels, a)]
        nearest = [distance(z, a, n, squared) for n in negatives_of(labels, a)]
        if furthest and nearest:
            losses.append(hinge(max(furthest) - min(nearest), margin))
    return mean(losses)


def slow_weighted(labels, x, margin, squared):
    z, losses = unit(x), []
    for a in range(len(z)):
        to_p = np.array([distance(z, a, p, squared) for p in positives_of(labels, a)])
        to_n = np.array([distance(z, a, n, squared) for n in negatives_of(labels, a)])
        if len(to_p) and len(to_n):
            positive = (np.exp(to_p) * to_p).sum() / np.exp(to_p).sum()
            negative = (np.exp(-to_n) * to_n).sum() / np.exp(-to_n).sum()
            losses.append(hinge(positive - negative, margin))
    return mean(losses)


def slow_weights(labels, x):
    """Wu et al. 2017: row a has the probabilities of its negatives."""
    z, (b, n) = unit(x), np.shape(x)
    chances = np.zeros((b, b))
    for a in range(b):
        for j in negatives_of(labels, a):
            d = max(distance(z, a, j), 0.5)
            if d < 1.4:
                chances[a, j] = 1 / (d ** (n - 2) * (1 - d * d / 4) ** ((n - 3) / 2))
        if not chances[a].any():
            chances[a, negatives_of(labels, a)] = 1
        chances[a] /= max(chances[a].sum(), 1e-300)
    return chances


def slow_drawn(labels, x, margin, squared, drawn):
    z, losses = unit(x), []
    for a in range(len(z)):
        for p in positives_of(labels, a):
            if negatives_of(labels, a):
                losses.append(hinge(distance(z, a, p, squared) - distance(z, a, drawn[a, p], squared), margin))
    return mean(losses)


def slow_supcon(labels, x, temperature):
    z, losses = unit(x), []
    for i in range(len(z)):
        total = sum(np.exp(z[i] @ z[a] / temperature) for a in range(len(z)) if a != i)
        terms = [-np.log(np.exp(z[i] @ z[p] / temperature) / total) for p in positives_of(labels, i)]
        if terms:
            losses.append(mean(terms))
    return mean(losses)


def slow_margin_softmax(labels, cosines, kind, margin, scale):
    losses = []
    for label, row in zip(labels, np.asarray(cosines, dtype=np.float64), strict=True):
        logits = scale * row
        theta = np.arccos(row[label])
        if kind == "cosface":
            logits[label] = scale * (row[label] - margin)
        elif theta + margin <= np.pi:
            logits[label] = scale * np.cos(theta + margin)
        else:
            logits[label] = scale * (row[label] - margin * np.sin(margin))
        losses.append(-np.log(np.exp(logits[label]) / np.exp(logits).sum()))
    return mean(losses)


SLOW_TRIPLETS = {"all": slow_all, "hard": slow_hard, "weighted": slow_weighted}
PAIR_LOSSES = [
    ContrastiveLoss(),
    *(TripletLoss(mining, margin) for mining in ("all", "hard", "weighted", "distance") for margin in (0.2, "soft")),
    SupConLoss(),
]
#: Tolerance to the float64 loops: the square root of the rounding error of 2 − 2 cos in float32.
CLOSE = {"abs": 2e-4, "rel": 2e-4}


def label_of(loss) -> str:
    return "-".join(str(part) for part in (loss.name, getattr(loss, "mining", ""), getattr(loss, "margin", "")))


def batch_statistics(labels, embeddings) -> dict[str, float]:
    """The metrics of one batch: name → value, NaN without such pairs."""
    metrics = [*map(MeanDistance, ("all", "positive", "negative")), ActiveTriplets()]
    tensors = tf.constant(labels), tf.constant(embeddings, tf.float32)
    measured = {metric.name: metric.measure(*tensors) for metric in metrics}
    return {name: float(value) if exists else math.nan for name, (value, exists) in measured.items()}


def value_and_gradient(loss, labels, x):
    x = tf.constant(np.asarray(x, dtype=np.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(np.asarray(labels), x)
    return float(value), tape.gradient(value, x).numpy()


@st.composite
def batches(draw_from):
    """Labels (some of them distractors) and vectors of various lengths."""
    labels = draw_from(st.lists(st.integers(-1, 3), min_size=1, max_size=9))
    rng = np.random.default_rng(draw_from(st.integers(0, 10_000)))
    vectors = rng.normal(size=(len(labels), draw_from(st.integers(2, 6)))) * rng.uniform(0.1, 30, (len(labels), 1))
    return np.array(labels), vectors.astype(np.float32)


MARGINS = st.sampled_from([0.0, 0.2, 1.0, "soft"])
FEW = settings(max_examples=15)


@FEW
@given(batches(), st.sampled_from([0.3, 1.0, 1.6]))
def test_contrastive(batch, margin):
    assert float(ContrastiveLoss(margin)(*batch)) == pytest.approx(slow_contrastive(*batch, margin), **CLOSE)


@pytest.mark.parametrize("mining", SLOW_TRIPLETS)
@FEW
@given(batch=batches(), margin=MARGINS, squared=st.booleans())
def test_triplets(mining, batch, margin, squared):
    if margin != "soft":  # rounding decides whether triplets with a loss near 0 are active
        assume(all(abs(difference + margin) > 1e-4 for difference in slow_differences(*batch, squared)))
    expected = SLOW_TRIPLETS[mining](*batch, margin, squared)
    assert float(TripletLoss(mining, margin, squared)(*batch)) == pytest.approx(expected, **CLOSE)


@FEW
@given(batches(), MARGINS, st.booleans(), st.integers(0, 99))
def test_triplets_with_random_negatives(batch, margin, squared, seed):
    labels, vectors = batch
    distances = np.array([[distance(unit(vectors), i, j) for j in range(len(labels))] for i in range(len(labels))])
    negatives = np.array([[j in negatives_of(labels, a) for j in range(len(labels))] for a in range(len(labels))])
    assume((np.abs(distances - 1.4) > 1e-4).all())
    logits = negative_logits(distances.astype(np.float32), negatives, vectors.shape[1])
    chances = np.exp(logits - np.max(logits, axis=1, keepdims=True)) * negatives
    some = negatives.any(axis=1)
    np.testing.assert_allclose(
        (chances / np.maximum(chances.sum(axis=1, keepdims=True), 1e-30))[some],
        slow_weights(labels, vectors)[some],
        atol=1e-5,
    )
    drawn = np.asarray(draw(logits, keras.random.SeedGenerator(seed)))
    assert all(negatives[a, n] for a in np.flatnonzero(some) for n in drawn[a])
    loss = TripletLoss("distance", margin, squared, seed=seed)
    assert float(loss(labels, vectors)) == pytest.approx(slow_drawn(labels, vectors, margin, squared, drawn), **CLOSE)


@pytest.mark.parametrize("squared", [False, True])
def test_negatives_are_drawn_by_distance(squared):
    """Also if the loss uses squared distances."""
    rng = np.random.default_rng(4)
    labels, vectors = np.repeat(np.arange(4), 4), rng.normal(size=(16, 5))
    distances = np.linalg.norm(unit(vectors)[:, None] - unit(vectors)[None], axis=2).astype(np.float32)
    logits = negative_logits(distances, labels[:, None] != labels, 5)
    drawn = np.asarray(draw(logits, keras.random.SeedGenerator(6)))
    expected = slow_drawn(labels, vectors, 0.2, squared, drawn)
    assert float(TripletLoss("distance", 0.2, squared, seed=6)(labels, vectors)) == pytest.approx(expected, **CLOSE)


@FEW
@given(batches(), st.sampled_from([0.1, 0.5, 2.0]))
def test_supervised_contrastive(batch, temperature):
    assert float(SupConLoss(temperature)(*batch)) == pytest.approx(slow_supcon(*batch, temperature), **CLOSE)


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
@FEW
@given(
    seed=st.integers(0, 10_000),
    margin=st.sampled_from([0.0, 0.1, 0.5, 1.2]),
    scale=st.sampled_from([1.0, 8.0, 64.0]),
)
def test_margin_softmax(kind, seed, margin, scale):
    rng = np.random.default_rng(seed)
    cosines, labels = rng.uniform(-1, 1, (6, 4)), rng.integers(0, 4, 6)
    loss = MarginSoftmaxLoss(kind, margin, scale)(labels, cosines)
    assert float(loss) == pytest.approx(slow_margin_softmax(labels, cosines, kind, margin, scale), rel=1e-4, abs=1e-4)


def test_gradients_agree_with_the_loops():
    """The tape compared with central differences of the float64 loops."""
    rng = np.random.default_rng(5)
    labels, x = np.array([0, 0, 0, 1, 1, 2, -1]), rng.normal(size=(7, 4))
    z = unit(x)
    distances = np.linalg.norm(z[:, None] - z[None], axis=2).astype(np.float32)
    negatives = np.array([[j in negatives_of(labels, a) for j in range(7)] for a in range(7)])
    drawn = np.asarray(draw(negative_logits(distances, negatives, 4), keras.random.SeedGenerator(0)))
    cases = [
        (ContrastiveLoss(1.2), lambda x: slow_contrastive(labels, x, 1.2)),
        (TripletLoss("all"), lambda x: slow_all(labels, x, 0.2, False)),
        (TripletLoss("hard", squared=True), lambda x: slow_hard(labels, x, 0.2, True)),
        (TripletLoss("weighted", "soft"), lambda x: slow_weighted(labels, x, "soft", False)),
        (TripletLoss("distance", 1.0), lambda x: slow_drawn(labels, x, 1.0, False, drawn)),
        (SupConLoss(0.5), lambda x: slow_supcon(labels, x, 0.5)),
    ]
    for loss, slow in cases:
        _, gradient = value_and_gradient(loss, labels, x)
        expected = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[index] = 1e-5
            expected[index] = (slow(x + step) - slow(x - step)) / 2e-5
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(gradient, expected, atol=2e-5, err_msg=label_of(loss))


# ---- by hand -----------------------------------------------------------------------------------------


def on_circle(*degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


# Distances 2 sin(angle / 2): 0–1: 1, 0–2: √2, 0–3: 2, 1–2: 0.517638, 1–3: √3, 2–3: √2.
FOUR, TWO_PAIRS = on_circle(0, 60, 90, 180), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Positives 1²/2 and √2²/2; 1–2 is the only negative pair nearer than 1: 0.482362²/2.
        (ContrastiveLoss(1.0), (0.5 + 1 + 0.116337) / 6),
        # Anchors: 0 and 3 have none; 1: 1 − 0.517638 + 0.2; 2: √2 − 0.517638 + 0.2.
        (TripletLoss("hard"), (0 + 0.682362 + 1.096576 + 0) / 4),
        (TripletLoss("hard", squared=True), (0 + (1 - 0.267949 + 0.2) + (2 - 0.267949 + 0.2) + 0) / 4),
        # Active: (1, 0, 2), (2, 3, 0), (2, 3, 1), of eight triplets.
        (TripletLoss("all"), (0.682362 + 0.2 + 1.096576) / 3),
        # Means of negatives: 0.795643 for anchor 1, 0.777427 for anchor 2; the other two have no loss.
        (TripletLoss("weighted"), (1 - 0.795643 + 0.2 + math.sqrt(2) - 0.777427 + 0.2) / 4),
        # ln of the sums over three others, such as e^0.5 + e^0 + e^−1, minus the exponent of the positive.
        (SupConLoss(1.0), (1.104130 - 0.5 + 1.533139 - 0.5 + 1.476465 - 0 + 0.680270 - 0) / 4),
    ],
    ids=lambda value: label_of(value) if isinstance(value, keras.losses.Loss) else "",
)
def test_four_points_on_a_circle(loss, expected):
    assert float(loss(TWO_PAIRS, FOUR)) == pytest.approx(expected, abs=2e-6)
    assert float(loss(TWO_PAIRS[:, None], 7 * FOUR)) == pytest.approx(expected, abs=2e-6)  # (b, 1); any length


def test_statistics_of_four_points_on_a_circle():
    found = batch_statistics(TWO_PAIRS, FOUR)
    assert found == pytest.approx(
        {
            "mean_distance": (1 + 2 * math.sqrt(2) + 2 + 0.517638 + math.sqrt(3)) / 6,
            "positive_distance": (1 + math.sqrt(2)) / 2,
            "negative_distance": (math.sqrt(2) + 2 + 0.517638 + math.sqrt(3)) / 4,
            "active_triplets": 3 / 8,
        },
        abs=2e-6,
    )


@settings(max_examples=10)
@given(batches())
def test_statistics(batch):
    labels, vectors = batch
    z, b = unit(vectors), range(len(labels))
    assume(all(abs(difference + 0.2) > 1e-4 for difference in slow_differences(labels, vectors)))
    pairs = {
        "mean_distance": [distance(z, i, j) for i in b for j in b if i != j],
        "positive_distance": [distance(z, i, j) for i in b for j in positives_of(labels, i)],
        "negative_distance": [distance(z, i, j) for i in b for j in negatives_of(labels, i)],
        "active_triplets": [difference + 0.2 > 0 for difference in slow_differences(labels, vectors)],
    }
    found = batch_statistics(labels, vectors)
    assert found == pytest.approx({k: np.mean(v) if v else math.nan for k, v in pairs.items()}, nan_ok=True, **CLOSE)


def test_arcface_and_cosface_by_hand():
    cosines, label = np.array([[0.8, 0.1]]), np.array([0])
    # cos(arccos 0.8 + 0.5) = 0.8 · 0.877583 − 0.6 · 0.479426 = 0.414411; times 2, against 0.2.
    assert float(MarginSoftmaxLoss(scale=2)(label, cosines)) == pytest.approx(math.log1p(math.exp(0.2 - 0.828822)))
    # 0.8 − 0.35 = 0.45
    assert float(MarginSoftmaxLoss("cosface", scale=2)(label, cosines)) == pytest.approx(
        math.log1p(math.exp(0.2 - 0.9))
    )
    # θ + 0.5 > π: −0.95 − 0.5 · 0.479426 = −1.189713
    beyond = float(MarginSoftmaxLoss(scale=2)(label, np.array([[-0.95, 0.1]])))
    assert beyond == pytest.approx(math.log1p(math.exp(0.2 + 2.379426)), rel=1e-5)


def test_the_loss_of_arcface_increases_with_the_angle():
    angles = np.linspace(0, np.pi, 400)
    cosines = np.stack([np.cos(angles), np.zeros(400)], axis=1)
    losses = MarginSoftmaxLoss(scale=4, reduction=None)(np.zeros(400, int), cosines)
    assert (np.diff(losses) > 0).all()


def test_the_classifier_returns_cosines_of_vectors_of_any_length():
    layer = CosineClassifier(3)
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    cosines = layer(vectors * np.array([[1e-3], [1], [7], [100], [1e4]], np.float32)).numpy()
    np.testing.assert_allclose(cosines, unit(vectors) @ unit(layer.directions.numpy().T).T, atol=1e-6)
    half = CosineClassifier(3)(vectors.astype(np.float16))
    assert half.dtype == "float32"


# ---- edge cases --------------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
EDGES = {
    "one identity": (np.zeros(6, int), RNG.normal(size=(6, 8))),
    "identical images": (np.repeat([0, 1, 2], 2), np.tile(RNG.normal(size=(1, 8)), (6, 1))),
    "identical images of one identity": (np.zeros(6, int), np.tile(RNG.normal(size=(1, 8)), (6, 1))),
    "two vectors": (np.repeat([0, 1, 2], 2), np.tile(RNG.normal(size=(2, 8)), (3, 1))),
    "zero vectors": (np.repeat([0, 1, 2], 2), np.zeros((6, 8))),
    "one zero vector": (np.repeat([0, 1, 2], 2), RNG.normal(size=(6, 8)) * (np.arange(6) != 2)[:, None]),
    "opposite": (np.repeat([0, 1], 2), np.outer([1, -1, 1, -1], RNG.normal(size=8))),
    "tiny and huge": (np.repeat([0, 1, 2], 2), RNG.normal(size=(6, 8)) * np.logspace(-15, 15, 6)[:, None]),
    "all different": (np.arange(6), RNG.normal(size=(6, 8))),
    "distractors alone": (np.full(6, -1), RNG.normal(size=(6, 8))),
    "one image": (np.zeros(1, int), RNG.normal(size=(1, 8))),
    "one dimension": (np.repeat([0, 1, 2], 2), RNG.normal(size=(6, 1))),
}


@pytest.mark.parametrize("edge", EDGES)
def test_values_and_gradients_stay_finite(edge):
    labels, x = EDGES[edge]
    for loss in PAIR_LOSSES:
        value, gradient = value_and_gradient(loss, labels, x)
        assert np.isfinite(value) and np.isfinite(gradient).all(), label_of(loss)
        # Normalization has large gradients only near the origin.
        assert np.abs(gradient[np.linalg.norm(x, axis=1) > 0.1]).max(initial=0) < 100, label_of(loss)


@pytest.mark.parametrize("edge", ["all different", "distractors alone", "one image"])
def test_without_positive_pairs_loss_and_gradients_are_exactly_0(edge):
    for loss in PAIR_LOSSES[1:]:
        value, gradient = value_and_gradient(loss, *EDGES[edge])
        assert value == 0 and not gradient.any(), label_of(loss)
    # The contrastive loss still separates negatives, if there are pairs.
    value, gradient = value_and_gradient(ContrastiveLoss(2.0), *EDGES[edge])
    assert (value > 0 and gradient.any()) == (edge != "one image")
    found = batch_statistics(*EDGES[edge])
    assert math.isnan(found["positive_distance"]) and math.isnan(found["active_triplets"])


def test_one_identity_has_no_triplets():
    for loss in PAIR_LOSSES[1:-1]:
        value, gradient = value_and_gradient(loss, *EDGES["one identity"])
        assert value == 0 and not gradient.any(), label_of(loss)
    assert math.isnan(batch_statistics(*EDGES["one identity"])["negative_distance"])


def test_a_collapsed_batch():
    """All vectors are equal: the losses are those of the module's table, and gradients are 0."""
    labels, x = EDGES["identical images"]
    for loss in PAIR_LOSSES:
        value, gradient = value_and_gradient(loss, labels, x)
        if isinstance(loss, ContrastiveLoss):
            expected = 12 / 15 * 0.5
        elif isinstance(loss, SupConLoss):
            expected = math.log(5)
        else:
            expected = math.log(2) if loss.margin == "soft" else loss.margin
        assert value == pytest.approx(expected, abs=1e-6), label_of(loss)
        assert np.abs(gradient).max() < 1e-6, label_of(loss)
    assert float(TripletLoss("hard", margin=0.25)(labels, x)) == 0.25
    found = batch_statistics(labels, x)
    assert (found["mean_distance"], found["active_triplets"]) == (0, 1)


def test_small_distances_near_a_collapse_are_accurate():
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(1, 64)) + 1e-4 * rng.normal(size=(8, 64))).astype(np.float32)
    z = unit(x)
    expected = np.mean([distance(z, i, j) for i in range(8) for j in range(i)])
    assert expected < 3e-4
    assert batch_statistics(np.repeat([0, 1], 4), x)["mean_distance"] == pytest.approx(expected, rel=1e-3)


def test_a_diverged_network_gives_nan():
    labels, x = np.repeat([0, 1, 2], 2), RNG.normal(size=(6, 8))
    x[4, 1] = np.nan
    for loss in PAIR_LOSSES:
        assert math.isnan(float(loss(labels, x))), label_of(loss)
    assert math.isnan(batch_statistics(labels, x)["mean_distance"])


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_margin_softmax_at_edge_cases(kind):
    cosines = np.array([[1, -1, 0], [-1, 1, 0], [-1, -1, -1], [1, 1, 1], [0, 0, 0]])
    value, gradient = value_and_gradient(MarginSoftmaxLoss(kind), np.zeros(5, int), cosines)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (gradient[:, 0] <= 0).all() and gradient[1, 0] < 0  # a larger cosine lowers the loss, also at −1
    for wrong in (-1, 3):
        losses = MarginSoftmaxLoss(kind, reduction=None)(np.array([wrong, 0]), cosines[:2])
        assert np.isnan(losses).tolist() == [True, False]


# ---- distance-weighted sampling ----------------------------------------------------------------------


def test_drawn_distances_are_about_equally_frequent():
    """For points that are uniform on a sphere in eight dimensions."""
    z = unit(np.random.default_rng(0).normal(size=(60_000, 8)))
    distances = np.linalg.norm(z[1:] - z[0], axis=1).astype(np.float32)[None]
    logits = np.asarray(negative_logits(distances, np.ones_like(distances, bool), 8))
    counted, _ = np.histogram(distances, bins=6, range=(0.5, 1.4))
    weighted, _ = np.histogram(distances, bins=6, range=(0.5, 1.4), weights=np.exp(logits - logits.max()))
    assert counted.max() > 20 * counted.min()
    assert weighted.max() < 1.25 * weighted.min()
    assert (logits[distances >= 1.4] == -1e9).all()
    near = logits[distances < 0.5]
    assert len(near) > 2 and np.ptp(near) < 1e-5


def test_draws_depend_on_the_logits_and_the_seed():
    expected = np.zeros(100)
    expected[[3, 50, 51, 99]] = [0.1, 0.2, 0.3, 0.4]
    logits = np.tile(np.where(expected > 0, np.log(np.maximum(expected, 1e-30)), -1e9), (100, 1)).astype(np.float32)
    drawn = np.asarray(draw(logits, 3))
    assert np.abs(np.bincount(drawn.ravel(), minlength=100) / 10_000 - expected).max() < 0.02  # four deviations
    assert (np.asarray(draw(logits, 3)) == drawn).all()
    assert (np.asarray(draw(logits, 4)) != drawn).any()
    generator = keras.random.SeedGenerator(3)
    assert (np.asarray(draw(logits, generator)) != np.asarray(draw(logits, generator))).any()


# ---- in Keras ----------------------------------------------------------------------------------------

#: No setting has its default, so a missing one is noticed.
UNUSUAL = [
    ContrastiveLoss(0.7, name="a"),
    TripletLoss("distance", "soft", squared=True, seed=5, name="b"),
    TripletLoss("all", 0.4, name="c"),
    SupConLoss(0.3, name="d"),
    MarginSoftmaxLoss("cosface", 0.2, 30.0, reduction="sum", name="e"),
    MeanDistance("positive", name="f"),
    ActiveTriplets(0.5, squared=True, name="g"),
    CosineClassifier(4, name="h"),
]


@pytest.mark.parametrize("original", UNUSUAL, ids=lambda original: type(original).__name__)
def test_settings_are_saved(original):
    def plain(instance):
        return {key: value for key, value in vars(instance).items() if isinstance(value, (bool, int, float, str))}

    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    assert type(copy) is type(original) and copy is not original
    assert copy.name == original.name and plain(copy) == plain(original)


def toy(n_identities=4, each=5, dim=6):
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(n_identities), each)
    return (rng.normal(size=(n_identities, dim))[labels] + rng.normal(size=(len(labels), dim))).astype(
        np.float32
    ), labels


def test_fit_under_mixed_precision_and_after_loading(tmp_path):
    """18 rows in batches of eight: the last batch is smaller, so shapes are not known in advance."""
    x, labels = (part[:18] for part in toy())
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, dtype="mixed_float16")])
    metrics = [MeanDistance(), MeanDistance("positive"), ActiveTriplets()]
    model.compile("sgd", TripletLoss("distance", "soft", seed=1), metrics=metrics, jit_compile=False)
    history = model.fit(x, labels, batch_size=8, shuffle=False, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == model.loss.get_config()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert model.predict(x, verbose=0).dtype == np.float16


def test_compiled_with_xla():
    """The default of ``fit``: the same value and gradient as without XLA, for a single possible draw."""
    x, labels = toy()[0][:6], np.array([0, 0, 0, 0, 0, 1])

    @tf.function(jit_compile=True)
    def compiled(loss, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    value, gradient = value_and_gradient(TripletLoss("distance"), labels, x)
    found = compiled(TripletLoss("distance"), tf.constant(x))
    assert float(found[0]) == pytest.approx(value, abs=1e-5)
    np.testing.assert_allclose(found[1], gradient, atol=1e-5)


def test_metrics_are_means_over_the_batches_that_have_such_pairs():
    x, labels = toy()
    chunks = [slice(0, 8), slice(8, 10), slice(10, 20)]
    labels = labels.copy()
    labels[8:10] = [0, 1]  # one batch without a positive pair
    for metric in (MeanDistance(), MeanDistance("positive"), MeanDistance("negative"), ActiveTriplets()):
        assert math.isnan(float(metric.result()))
        for chunk in chunks:
            metric.update_state(labels[chunk], x[chunk])
        each = [batch_statistics(labels[chunk], x[chunk])[metric.name] for chunk in chunks]
        assert float(metric.result()) == pytest.approx(np.nanmean(each), rel=1e-6)
        assert np.isnan(each).sum() == (metric.name in ("positive_distance", "active_triplets"))
        metric.reset_state()
        assert math.isnan(float(metric.result()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TripletLoss("semi-hard"), "no mining is called 'semi-hard'; there are: all, hard, weighted, distance"),
        (lambda: TripletLoss(margin="sof"), "not \"soft\", must be a number of at least 0, got 'sof'"),
        (lambda: TripletLoss(margin=-0.1), "at least 0, got -0.1"),
        (lambda: ContrastiveLoss(0), "margin must be a number above 0"),
        (lambda: SupConLoss(math.nan), "temperature must be a number above 0, got nan"),
        (lambda: MarginSoftmaxLoss("sphereface"), "there are: arcface, cosface"),
        (lambda: MarginSoftmaxLoss(margin=28.6), "radians"),
        (lambda: MarginSoftmaxLoss(scale=0), "scale must be"),
        (lambda: CosineClassifier(1), "n_classes must be"),
        (lambda: MeanDistance("positives"), "pairs must be all, positive or negative"),
        (lambda: SupConLoss()(np.eye(4), np.ones((4, 2))), r"\(b,\) or \(b, 1\), got \(4, 4\).* argmax"),
        (lambda: SupConLoss()(np.arange(3), np.ones((4, 2))), "3 labels for 4 rows"),
        (lambda: SupConLoss()(np.arange(4), np.ones(4)), r"y_pred must have shape \(b, dim\), got \(4,\)"),
        (lambda: TripletLoss()(TWO_PAIRS, FOUR, sample_weight=np.ones(4)), "triplet counts pairs, not images"),
        (lambda: MeanDistance().update_state(TWO_PAIRS, FOUR, np.ones(4)), "mean_distance counts pairs"),
    ],
)
def test_invalid_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- in training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces():
    """Pixels of 20 people for training, and the score of a projection for 20 other people."""
    from helpers.evaluation.builders import leave_one_out
    from helpers.evaluation.metrics import evaluate
    from helpers.evaluation.runner import run
    from helpers.features.registry import open_extractor
    from helpers.images import att_faces
    from helpers.search.index import open_index

    images = att_faces.load()
    vectors = open_extractor("pixels").extract(images, progress=False)
    train = images.labels < 20
    protocol = leave_one_out(images.subset(~train), "unseen")

    def score(project) -> float:
        projected = np.ascontiguousarray(project(vectors[~train]), dtype=np.float32)
        return evaluate(run(protocol, projected, open_index("exact:cosine")), protocol).mean("mAP")

    return vectors[train], images.labels[train], score


TRAINED = [
    ContrastiveLoss(),
    *(TripletLoss(mining) for mining in ("all", "hard", "weighted", "distance")),
    SupConLoss(),
    MarginSoftmaxLoss("arcface", scale=16),
    MarginSoftmaxLoss("cosface", scale=16),
]


@pytest.mark.slow
@pytest.mark.parametrize("loss", TRAINED, ids=lambda loss: getattr(loss, "mining", getattr(loss, "kind", loss.name)))
def test_training_on_faces_improves_the_score_for_other_people(loss, faces):
    x, labels, score = faces
    keras.utils.set_random_seed(0)
    embedder = keras.Sequential([keras.Input((x.shape[1],)), keras.layers.Dense(64, use_bias=False)])
    classes = [CosineClassifier(20)] if isinstance(loss, MarginSoftmaxLoss) else []
    model = keras.Sequential([embedder, *classes])
    rows = PKSampler(labels, p=8, k=4, batches_per_epoch=60).epoch(0)
    everything = np.arange(len(x))[::2]
    before, loss_before = score(embedder), float(loss(labels[everything], model(x[everything])))
    optimizer = keras.optimizers.Adam(3e-3)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(batch_x, batch_labels):
        with tf.GradientTape() as tape:
            value = loss(batch_labels, model(batch_x, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables))

    for batch in rows:
        step(x[batch], labels[batch])
    after, loss_after = score(embedder), float(loss(labels[everything], model(x[everything])))
    assert loss_after < 0.8 * loss_before
    assert after > before + 0.02
