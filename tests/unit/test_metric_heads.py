"""Linear heads: the two closed starts, and how a head goes back onto its network."""

import keras
import numpy as np
import pytest

from helpers.networks import metric_heads, training
from helpers.networks.losses import ContrastiveLoss, MarginSoftmaxLoss, MeanDistance, SupConLoss
from helpers.networks.metric_heads import principal_axes, within_class_whitening


@pytest.fixture
def clouds():
    """Six classes of 40 vectors in 5 dimensions, spread much further along the first axis: (vectors, labels)."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 40)
    spread = np.array([5.0, 1.0, 0.5, 0.2, 0.1])
    return rng.normal(size=(6, 5))[labels] + spread * rng.normal(size=(240, 5)) + 3, labels


def within(vectors, labels):
    """Covariance within classes, by the definition."""
    rest = np.concatenate([vectors[labels == c] - vectors[labels == c].mean(axis=0) for c in np.unique(labels)])
    return rest.T @ rest / len(rest)


def mapped(start, vectors):
    return (vectors - start.mean) @ start.kernel


def test_whitening_makes_the_spread_within_classes_equal_in_all_directions(clouds):
    vectors, labels = clouds
    after = within(mapped(within_class_whitening(vectors, labels, 1e-6), vectors), labels)
    assert np.allclose(after / after[0, 0], np.eye(5), atol=0.01)


def test_whitening_is_the_inverse_root_of_the_shrunk_covariance_with_more_dimensions_than_vectors():
    rng = np.random.default_rng(1)
    vectors, labels = rng.normal(size=(12, 30)), np.repeat(np.arange(4), 3)
    start = within_class_whitening(vectors, labels, shrinkage=0.5)
    covariance = within(vectors, labels)
    shrunk = covariance + 0.5 * np.trace(covariance) / 30 * np.eye(30)
    product = start.kernel @ shrunk @ start.kernel
    assert np.allclose(product / product[0, 0], np.eye(30), atol=1e-4)
    assert np.allclose(start.kernel, start.kernel.T, atol=1e-6)


def test_neither_the_order_of_the_vectors_nor_the_class_numbers_matter(clouds):
    vectors, labels = clouds
    shuffled = np.random.default_rng(2).permutation(len(labels))
    a = within_class_whitening(vectors, labels)
    b = within_class_whitening(vectors[shuffled], 7 - labels[shuffled])
    assert np.allclose(a.kernel, b.kernel, atol=1e-5)


def test_principal_axes_keep_the_distances_and_order_by_spread(clouds):
    vectors, _ = clouds
    all_axes = mapped(principal_axes(vectors, 5), vectors)
    assert np.allclose(
        np.linalg.norm(all_axes[0] - all_axes[1:], axis=1), np.linalg.norm(vectors[0] - vectors[1:], axis=1), atol=1e-4
    )
    spread = all_axes.std(axis=0)
    assert (np.diff(spread) < 0).all()
    assert np.allclose(mapped(principal_axes(vectors, 2), vectors), all_axes[:, :2], atol=1e-4)
    assert np.allclose(mapped(principal_axes(vectors, 5).first(2), vectors), all_axes[:, :2], atol=1e-4)


@pytest.mark.parametrize("start", ["axes", "whitening"])
def test_both_starts_center_and_have_columns_of_length_one(clouds, start):
    vectors, labels = clouds
    found = principal_axes(vectors, 3) if start == "axes" else within_class_whitening(vectors, labels)
    assert np.allclose(mapped(found, vectors).mean(axis=0), 0, atol=1e-4)
    assert (found.kernel**2).sum(axis=0).mean() == pytest.approx(1, rel=1e-5)
    assert found.kernel.dtype == found.mean.dtype == np.float32
    unit = found.apply(vectors)
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    wanted = mapped(found, vectors)
    assert np.allclose(found.apply(vectors, normalize=False), wanted, atol=1e-3)
    assert np.allclose(unit * np.linalg.norm(wanted, axis=1, keepdims=True), wanted, atol=1e-3)


def test_bad_input_is_named(clouds):
    vectors, labels = clouds
    with pytest.raises(ValueError, match="have 5 axes, not 6"):
        principal_axes(vectors, 6)
    with pytest.raises(ValueError, match="have 3 axes, not 4"):
        principal_axes(vectors[:4], 4)
    with pytest.raises(ValueError, match="240 vectors, but the labels have shape"):
        within_class_whitening(vectors, labels[:-1])
    with pytest.raises(ValueError, match="above 0, got 0"):
        within_class_whitening(vectors, labels, shrinkage=0)
    with pytest.raises(ValueError, match="all vectors are equal"):
        within_class_whitening(vectors, np.arange(240))
    with pytest.raises(ValueError, match="finite"):
        within_class_whitening(np.full((4, 2), np.nan), np.zeros(4))


def test_a_head_begins_as_its_start_and_can_learn(clouds):
    vectors, _ = clouds
    start = principal_axes(vectors, 3)
    head = metric_heads.head(start)
    assert np.allclose(head.predict_on_batch(start.centered(vectors)), mapped(start, vectors), atol=1e-4)
    assert [weight.shape for weight in head.trainable_weights] == [(5, 3)]
    head.set_weights([2 * start.kernel])
    learned = start.learned(head)
    assert np.allclose(learned.apply(vectors, normalize=False), 2 * mapped(start, vectors), atol=1e-3)


def test_on_top_of_a_network_it_sees_vectors_of_length_one(clouds):
    vectors, _ = clouds
    keras.utils.set_random_seed(0)
    images = keras.Input((4, 4, 3))
    network = keras.Model(images, keras.layers.Dense(5)(keras.layers.Flatten()(images)), name="tiny")
    start = principal_axes(vectors, 3)
    whole = metric_heads.on_top(network, start)
    pixels = np.random.default_rng(3).random((7, 4, 4, 3)).astype(np.float32)
    seen = network.predict_on_batch(pixels)
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    assert np.allclose(whole.predict_on_batch(pixels), mapped(start, unit), atol=1e-4)
    # One set of weights: what the network learns, the whole knows.
    network.set_weights([weight * 0 + 1 for weight in network.get_weights()])
    assert np.allclose(whole.predict_on_batch(pixels), mapped(start, np.full((7, 5), 5**-0.5)), atol=1e-4)
    with pytest.raises(ValueError, match="tiny gives 5 numbers, the map takes 3"):
        metric_heads.on_top(network, principal_axes(vectors[:, :3], 2))


def nearest_is_right(vectors, labels):
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -2)
    return (labels[alike.argmax(axis=1)] == labels).mean()


@pytest.mark.parametrize("loss", [SupConLoss(), MarginSoftmaxLoss("cosface", margin=0.2, scale=16)])
def test_a_trained_head_overlooks_what_varies_within_classes(own_cache, clouds, loss):
    vectors, labels = clouds
    # Class numbers need not begin at 0 nor follow each other.
    start = principal_axes(vectors, 5)
    after, how = metric_heads.fit(start, vectors, 7 * labels + 3, loss, name="head", rate=0.02, epochs=15)
    assert nearest_is_right(after.apply(vectors), labels) > nearest_is_right(start.apply(vectors), labels) + 0.05
    assert np.array_equal(after.mean, start.mean) and after.kernel.shape == (5, 5)
    assert how.best_epoch == 15 and how.table["loss"].iloc[-1] < how.table["loss"].iloc[1]


def test_a_score_decides_which_epoch_is_kept(own_cache, clouds):
    vectors, labels = clouds
    start, given = principal_axes(vectors, 3), []

    def best_untrained(learned):
        given.append(learned.kernel)
        return -float(np.abs(learned.kernel - start.kernel).sum())

    after, how = metric_heads.fit(
        start, vectors, labels, ContrastiveLoss(), name="scored", rate=0.01, epochs=3, score=best_untrained
    )
    assert how.best_epoch == 0 and np.allclose(after.kernel, start.kernel)
    assert len(given) == 4 and not np.allclose(given[-1], start.kernel), "of each epoch"


def test_the_seed_decides_and_metrics_are_watched(own_cache, clouds):
    vectors, labels = clouds

    def kernel(name, seed):
        after, how = metric_heads.fit(
            principal_axes(vectors, 2), vectors, labels, SupConLoss(), name=name, rate=0.01, epochs=2, identities=3,
            batches_per_epoch=2, seed=seed, metrics=[MeanDistance()],
        )  # fmt: skip
        assert 0 < how.table["mean_distance"].iloc[-1] < 2
        return after.kernel

    assert np.allclose(kernel("one", 0), kernel("two", 0), atol=1e-6)
    assert not np.allclose(kernel("one", 0), kernel("one", 1), atol=1e-4)


def test_a_score_that_keeps_the_last_epoch(clouds):
    vectors, labels = clouds
    head = metric_heads.head(principal_axes(vectors, 2))
    head.compile("adam", SupConLoss(), jit_compile=False)
    before = training.last_epoch(head)
    head.train_on_batch(vectors[:8].astype(np.float32), labels[:8])
    assert training.last_epoch(head) > before


class Counted(SupConLoss):
    """Counts how often Keras traces it; ``weight`` is part of the traced step."""

    def __init__(self):
        super().__init__()
        self.traced, self.weight = [], 1.0

    def call(self, y_true, y_pred):
        self.traced.append(self.weight)
        return self.weight * super().call(y_true, y_pred)


def test_other_seeds_and_rates_use_the_traced_step_again_and_learn_the_same(own_cache, clouds):
    vectors, labels = clouds
    start, loss = principal_axes(vectors, 3), Counted()

    def learned(rate=0.01, seed=0):
        return metric_heads.fit(
            start, vectors, labels, loss, name="head", rate=rate, epochs=2, batches_per_epoch=2, seed=seed
        )

    learned()
    once = len(loss.traced)
    reused, how = learned(rate=0.02, seed=1)
    assert len(loss.traced) == once, "not traced again"
    # A new model finds the same training in the cache; without the cache, it learns the same.
    metric_heads._compiled.clear()
    assert (how.computed, learned(rate=0.02, seed=1)[1].computed) == (2, 0)
    training.forget("head")
    fresh, how = learned(rate=0.02, seed=1)
    assert how.computed == 2 and len(loss.traced) == 2 * once
    assert np.array_equal(fresh.kernel, reused.kernel)
    assert not np.allclose(fresh.kernel, learned()[0].kernel, atol=1e-4)


def test_a_changed_loss_or_a_failed_training_leaves_nothing_behind(own_cache, clouds):
    vectors, labels = clouds
    start, loss = principal_axes(vectors, 3), Counted()

    def learned(name, **settings):
        return metric_heads.fit(
            start, vectors, labels, loss, name=name, rate=0.01, epochs=2, batches_per_epoch=2, **settings
        )

    wanted = learned("before")[0].kernel
    scores = iter([0.1])
    with pytest.raises(StopIteration):
        learned("before-failed", score=lambda _: next(scores))
    assert np.array_equal(learned("after")[0].kernel, wanted)
    traced = len(loss.traced)
    loss.weight = 3.0
    _, how = learned("changed")
    assert loss.traced[traced:] and set(loss.traced[traced:]) == {3.0}
    loss.weight = 1.0
    _, plain = learned("unchanged")
    assert how.table["loss"].iloc[1] > 2 * plain.table["loss"].iloc[1]
