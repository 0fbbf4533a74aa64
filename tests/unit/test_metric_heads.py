"""Linear heads: the two initializations, and training."""

import numpy as np
import pytest

from helpers.networks import metric_heads, training
from helpers.networks.losses import ContrastiveLoss, MarginSoftmaxLoss, MeanDistance, SupConLoss
from helpers.networks.metric_heads import principal_axes, within_class_whitening


@pytest.fixture
def clouds():
    """Six classes of 40 vectors in 5 dimensions, with the largest variance along the first axis: (vectors, labels)."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 40)
    spread = np.array([5.0, 1.0, 0.5, 0.2, 0.1])
    return rng.normal(size=(6, 5))[labels] + spread * rng.normal(size=(240, 5)) + 3, labels


def within(vectors, labels):
    """Covariance within classes, by its definition."""
    rest = np.concatenate([vectors[labels == c] - vectors[labels == c].mean(axis=0) for c in np.unique(labels)])
    return rest.T @ rest / len(rest)


def mapped(start, vectors):
    return (vectors - start.mean) @ start.kernel


def test_whitening_makes_the_variance_within_classes_equal_in_all_directions(clouds):
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


def test_whitening_does_not_depend_on_the_order_or_the_class_numbers(clouds):
    vectors, labels = clouds
    shuffled = np.random.default_rng(2).permutation(len(labels))
    a = within_class_whitening(vectors, labels)
    b = within_class_whitening(vectors[shuffled], 7 - labels[shuffled])
    assert np.allclose(a.kernel, b.kernel, atol=1e-5)


def test_principal_axes_preserve_distances_and_are_ordered_by_variance(clouds):
    vectors, _ = clouds
    all_axes = mapped(principal_axes(vectors, 5), vectors)
    assert np.allclose(
        np.linalg.norm(all_axes[0] - all_axes[1:], axis=1), np.linalg.norm(vectors[0] - vectors[1:], axis=1), atol=1e-4
    )
    spread = all_axes.std(axis=0)
    assert (np.diff(spread) < 0).all()
    assert np.allclose(mapped(principal_axes(vectors, 2), vectors), all_axes[:, :2], atol=1e-4)


@pytest.mark.parametrize("start", ["axes", "whitening"])
def test_both_initializations_center_and_have_columns_of_length_one(clouds, start):
    vectors, labels = clouds
    found = principal_axes(vectors, 3) if start == "axes" else within_class_whitening(vectors, labels)
    assert np.allclose(mapped(found, vectors).mean(axis=0), 0, atol=1e-4)
    assert (found.kernel**2).sum(axis=0).mean() == pytest.approx(1, rel=1e-5)
    assert found.kernel.dtype == found.mean.dtype == np.float32
    unit = found.apply(vectors)
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    expected = mapped(found, vectors)
    assert np.allclose(found.apply(vectors, normalize=False), expected, atol=1e-3)
    assert np.allclose(unit * np.linalg.norm(expected, axis=1, keepdims=True), expected, atol=1e-3)


def test_invalid_input(clouds):
    vectors, labels = clouds
    with pytest.raises(ValueError, match="have 5 axes, not 6"):
        principal_axes(vectors, 6)
    with pytest.raises(ValueError, match="have 3 axes, not 4"):
        principal_axes(vectors[:4], 4)
    with pytest.raises(ValueError, match="240 vectors, but the labels have shape"):
        within_class_whitening(vectors, labels[:-1])
    with pytest.raises(ValueError, match="above 0, got 0"):
        within_class_whitening(vectors, labels, shrinkage=0)
    with pytest.raises(ValueError, match="vectors of each class are equal"):
        within_class_whitening(vectors, np.arange(240))
    with pytest.raises(ValueError, match="finite"):
        within_class_whitening(np.full((4, 2), np.nan), np.zeros(4))


def test_a_head_is_initialized_and_trainable(clouds):
    vectors, _ = clouds
    start = principal_axes(vectors, 3)
    head = metric_heads.head(start)
    assert np.allclose(head.predict_on_batch(start.centered(vectors)), mapped(start, vectors), atol=1e-4)
    assert [weight.shape for weight in head.trainable_weights] == [(5, 3)]
    head.set_weights([2 * start.kernel])
    learned = start.learned(head)
    assert np.allclose(learned.apply(vectors, normalize=False), 2 * mapped(start, vectors), atol=1e-3)


def top1(vectors, labels):
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    return (labels[similarity.argmax(axis=1)] == labels).mean()


@pytest.mark.parametrize("loss", [SupConLoss(), MarginSoftmaxLoss("cosface", margin=0.2, scale=16)])
def test_a_trained_head_ignores_variance_within_classes(own_cache, clouds, loss):
    vectors, labels = clouds
    # Class numbers need not be consecutive.
    start = principal_axes(vectors, 5)
    after, history = metric_heads.fit(start, vectors, 7 * labels + 3, loss, name="head", rate=0.02, epochs=15)
    assert top1(after.apply(vectors), labels) > top1(start.apply(vectors), labels) + 0.05
    assert np.array_equal(after.mean, start.mean) and after.kernel.shape == (5, 5)
    assert history.best_epoch == 15 and history.table["loss"].iloc[-1] < history.table["loss"].iloc[1]


def test_a_score_decides_which_epoch_is_kept(own_cache, clouds):
    vectors, labels = clouds
    start, kernels = principal_axes(vectors, 3), []

    def best_untrained(learned):
        kernels.append(learned.kernel)
        return -float(np.abs(learned.kernel - start.kernel).sum())

    after, history = metric_heads.fit(
        start, vectors, labels, ContrastiveLoss(), name="scored", rate=0.01, epochs=3, score=best_untrained
    )
    assert history.best_epoch == 0 and np.allclose(after.kernel, start.kernel)
    assert len(kernels) == 4 and not np.allclose(kernels[-1], start.kernel), "of each epoch"


def test_results_depend_on_the_seed_and_metrics_are_in_the_history(own_cache, clouds):
    vectors, labels = clouds

    def kernel(name, seed):
        after, history = metric_heads.fit(
            principal_axes(vectors, 2), vectors, labels, SupConLoss(), name=name, rate=0.01, epochs=2, identities=3,
            batches_per_epoch=2, seed=seed, metrics=[MeanDistance()],
        )  # fmt: skip
        assert 0 < history.table["mean_distance"].iloc[-1] < 2
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
    """Counts the times that Keras traces it; ``weight`` is part of the traced step."""

    def __init__(self):
        super().__init__()
        self.traced, self.weight = [], 1.0

    def call(self, y_true, y_pred):
        self.traced.append(self.weight)
        return self.weight * super().call(y_true, y_pred)


def test_other_seeds_and_rates_reuse_the_traced_step(own_cache, clouds):
    vectors, labels = clouds
    start, loss = principal_axes(vectors, 3), Counted()

    def learned(rate=0.01, seed=0):
        return metric_heads.fit(
            start, vectors, labels, loss, name="head", rate=rate, epochs=2, batches_per_epoch=2, seed=seed
        )

    learned()
    once = len(loss.traced)
    reused, history = learned(rate=0.02, seed=1)
    assert len(loss.traced) == once, "not traced again"
    # A new model loads the same training from the cache; without the cache, training it gives the same.
    metric_heads._learner.cache_clear()
    assert (history.computed, learned(rate=0.02, seed=1)[1].computed) == (2, 0)
    for path in (own_cache / "training").glob("head-*.npz"):
        path.unlink()
    fresh, history = learned(rate=0.02, seed=1)
    assert history.computed == 2 and len(loss.traced) == 2 * once
    assert np.array_equal(fresh.kernel, reused.kernel)
    assert not np.allclose(fresh.kernel, learned()[0].kernel, atol=1e-4)


def test_a_changed_loss_or_a_failed_training_has_no_effect_on_later_ones(own_cache, clouds):
    vectors, labels = clouds
    start, loss = principal_axes(vectors, 3), Counted()

    def learned(name, **settings):
        return metric_heads.fit(
            start, vectors, labels, loss, name=name, rate=0.01, epochs=2, batches_per_epoch=2, **settings
        )

    expected = learned("before")[0].kernel
    scores = iter([0.1])
    with pytest.raises(StopIteration):
        learned("before-failed", score=lambda _: next(scores))
    assert np.array_equal(learned("after")[0].kernel, expected)
    traced = len(loss.traced)
    loss.weight = 3.0
    _, changed = learned("changed")
    assert loss.traced[traced:] and set(loss.traced[traced:]) == {3.0}
    loss.weight = 1.0
    _, plain = learned("unchanged")
    assert changed.table["loss"].iloc[1] > 2 * plain.table["loss"].iloc[1]
