"""Networks to train from scratch: layers and parameters, embeddings, schedules and training."""

import keras
import numpy as np
import pytest

from helpers.features.deep import ModelExtractor
from helpers.networks import baselines, examples
from helpers.networks.baselines import Schedule
from helpers.networks.training import Plateau

SMALL = {
    "student_faces": lambda seed=0: baselines.student_faces(3, 30, seed=seed),
    "student_objects": lambda seed=0: baselines.student_objects(3, 30, seed=seed),
    "student_objects_moved": lambda seed=0: baselines.student_objects(3, 30, dropout_after_softmax=False, seed=seed),
    "corrected": lambda seed=0: baselines.corrected(3, 30, (8, 8), seed=seed),
}


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (4, 30, 30, 3)).astype(np.float32)


def first_weights(model):
    return np.concatenate([np.ravel(value) for value in model.get_weights()])


class TestParameters:
    def test_most_parameters_of_student_faces_are_in_its_classifier(self):
        model = baselines.student_faces(40)
        assert baselines.embedder(model).output_shape == (None, 107_648)
        assert model.get_layer("classifier").count_params() == 107_648 * 40 + 40
        assert model.count_params() == 93_248 + 107_648 * 40 + 40

    def test_student_objects(self):
        model = baselines.student_objects(10)
        convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert [layer.filters for layer in convolutions] == [8, 16, 16, 32, 32]
        assert [layer.strides[0] for layer in convolutions] == [3, 2, 1, 2, 1]
        assert convolutions[0].kernel_size == (7, 7)
        assert all(layer.kernel_regularizer is not None for layer in convolutions)
        # 224 → 75 → 38 → 38 → 19 → 19, pooled to 10.
        assert baselines.embedder(model).output_shape == (None, 10 * 10 * 32)

    def test_only_the_dropout_is_moved(self):
        published, moved = (baselines.student_objects(10, 64, after) for after in (True, False))
        assert [layer.name for layer in published.layers[-2:]] == ["classifier", published.layers[-1].name]
        assert isinstance(published.layers[-1], keras.layers.Dropout)
        assert isinstance(moved.layers[-2], keras.layers.Dropout) and moved.layers[-1].name == "classifier"
        np.testing.assert_array_equal(first_weights(published), first_weights(moved))

    def test_corrected_has_as_many_parameters_at_every_size(self):
        small, large = baselines.corrected(10, 32), baselines.corrected(10, 96)
        assert small.count_params() == large.count_params() < 300_000
        assert baselines.embedder(large).output_shape == (None, 128)


@pytest.mark.parametrize("name", SMALL)
class TestEveryNetwork:
    def test_the_output_are_probabilities(self, name, noise):
        output = SMALL[name]()(noise)
        assert output.shape == (4, 3)
        np.testing.assert_allclose(np.sum(output, axis=1), 1, rtol=1e-5)

    def test_the_seed_decides_the_initial_weights(self, name):
        np.testing.assert_array_equal(first_weights(SMALL[name](1)), first_weights(SMALL[name](1)))
        assert not np.array_equal(first_weights(SMALL[name](1)), first_weights(SMALL[name](2)))

    def test_the_embedder_is_the_model_without_its_classifier(self, name, noise):
        model = SMALL[name]()
        vectors = baselines.embedder(model)(noise)
        weights, bias = model.get_layer("classifier").get_weights()
        np.testing.assert_allclose(model(noise), keras.ops.softmax(vectors @ weights + bias), rtol=1e-4, atol=1e-6)

    def test_it_can_be_an_extractor(self, name, noise):
        embedder = baselines.embedder(SMALL[name]())
        extractor = ModelExtractor(name, embedder, "nothing yet")
        vectors = extractor.compute(noise.astype(np.uint8))
        assert vectors.shape == (4, extractor.dim)
        # Augmentation and dropout are inactive.
        np.testing.assert_array_equal(vectors, extractor.compute(noise.astype(np.uint8)))


def test_corrected_augments_only_in_training(noise):
    model = SMALL["corrected"]()
    first = model.layers[0]
    np.testing.assert_array_equal(first(noise), noise)
    assert not np.allclose(first(noise, training=True), noise)
    changed = keras.Model(model.inputs[0], model.layers[1].output)
    assert not np.allclose(changed(noise, training=True), changed(noise))


class TestDropoutAfterTheSoftmax:
    """The true class dropped, among ten equal ones, see the docstring and notebook 04."""

    @pytest.fixture
    def dropped(self):
        import tensorflow as tf

        def run(loss, label, keep):
            scores = tf.Variable(np.zeros((1, 10), np.float32))
            with tf.GradientTape() as tape:
                value = loss(label, tf.nn.softmax(scores) * keep / 0.8)
            return float(value), tape.gradient(value, scores).numpy()[0]

        return run

    def test_with_class_numbers_the_gradient_is_a_ninth(self, dropped):
        keep = np.ones((1, 10), np.float32)
        loss = keras.losses.SparseCategoricalCrossentropy()
        kept, gradient = dropped(loss, np.array([3]), keep)
        assert kept == pytest.approx(np.log(10), abs=1e-4)
        assert gradient[3] == pytest.approx(-0.9, abs=1e-4)
        keep[0, 3] = 0
        lost, gradient = dropped(loss, np.array([3]), keep)
        assert lost == pytest.approx(-np.log(1e-7), abs=0.2)
        assert gradient[3] == pytest.approx(-0.1, abs=1e-4)

    def test_with_one_hot_labels_the_gradient_is_zero(self, dropped):
        keep = np.ones((1, 10), np.float32)
        keep[0, 3] = 0
        lost, gradient = dropped(keras.losses.CategoricalCrossentropy(), np.eye(10)[[3]], keep)
        assert lost == pytest.approx(-np.log(1e-7), abs=0.01)
        assert np.abs(gradient).max() == 0


class TestSchedule:
    def rates(self, schedule, steps_per_epoch):
        model = baselines.compiled(SMALL["corrected"](), schedule, steps_per_epoch)
        rate = model.optimizer._learning_rate
        return [float(rate(step)) for step in range(schedule.epochs * steps_per_epoch + 1)]

    def test_the_cosine_warms_up_and_ends_at_zero(self):
        rates = self.rates(Schedule(10, 8, rate=1e-2, cosine=True), 10)
        assert rates[0] == pytest.approx(1e-3)
        assert np.argmax(rates) == 10 and max(rates) == pytest.approx(1e-2)
        assert rates[55] == pytest.approx(5e-3, rel=0.01)
        assert rates[-1] == pytest.approx(0, abs=1e-6)
        assert (np.diff(rates[10:]) < 0).all()

    def test_a_cosine_of_one_step(self):
        assert np.isfinite(self.rates(Schedule(1, 8, cosine=True), 1)).all()

    def test_cosine_or_plateau(self):
        with pytest.raises(ValueError, match="not both"):
            Schedule(10, 8, cosine=True, plateau=Plateau())

    def test_smoothing_requires_one_hot_labels(self):
        with pytest.raises(ValueError, match="one_hot=True"):
            Schedule(10, 8, smoothing=0.1)


class TestTrain:
    """Three classes: bright at the top, in the middle and at the bottom."""

    @pytest.fixture
    def stripes(self):
        rng = np.random.default_rng(0)
        labels = np.arange(48) % 3
        pixels = rng.integers(0, 100, (48, 30, 30, 3))
        for image, label in zip(pixels, labels, strict=True):
            image[label * 10 : label * 10 + 10] += 100
        pixels = pixels.astype(np.uint8)
        return examples.arrays(pixels[:36], labels[:36]), examples.arrays(pixels[36:], labels[36:])

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "schedule"),
        [
            ("student_faces", Schedule(6, 6)),
            ("corrected", Schedule(10, 6, rate=1e-2, cosine=True, one_hot=True, smoothing=0.1)),
        ],
    )
    def test_accuracy_and_cache(self, own_cache, stripes, name, schedule):
        model = SMALL[name]()
        trained = baselines.train(model, schedule, *stripes, name=name, progress=False)
        assert trained.monitor == "val_loss"
        best = trained.table.set_index("epoch").loc[trained.best_epoch]
        assert best["val_accuracy"] >= 0.9
        # The model has the weights of that epoch.
        validation = stripes[1]
        found = model.predict(validation.load(np.arange(12)), verbose=0).argmax(axis=1)
        assert (found == validation.labels).mean() == pytest.approx(best["val_accuracy"])
        again = baselines.train(SMALL[name](), schedule, *stripes, name=name, progress=False)
        assert again.computed == 0 and again.best_epoch == trained.best_epoch

    @pytest.mark.parametrize(
        ("name", "schedule"),
        [
            ("student_objects_moved", Schedule(2, 12, one_hot=True, plateau=Plateau(0.5, 1), patience=2)),
            ("corrected", Schedule(2, 12, cosine=True, one_hot=True)),
        ],
    )
    def test_seeds_share_a_model_and_give_the_same_weights_as_alone(
        self, own_cache, stripes, name, schedule, monkeypatch
    ):
        traced, step = [], keras.Model.train_step
        monkeypatch.setattr(
            keras.Model, "train_step", lambda self, data: [traced.append(self.name), step(self, data)][1]
        )
        together = {seed: SMALL[name](seed) for seed in (3, 4)}
        found = baselines.train_seeds(together, schedule, *stripes, name=name, progress=False)
        assert len(traced) == 1
        for seed, network in together.items():
            alone = SMALL[name](seed)
            expected = baselines.train(alone, schedule, *stripes, name="alone", seed=seed, progress=False)
            for value, other in zip(network.get_weights(), alone.get_weights(), strict=True):
                np.testing.assert_array_equal(value, other)
            tables = [each.table.drop(columns="seconds") for each in (found[seed], expected)]
            assert tables[0].equals(tables[1]) and found[seed].best_epoch == expected.best_epoch
        first = [network.get_layer("classifier").get_weights()[0] for network in together.values()]
        assert (first[0] != first[1]).any()

    def test_plateau_and_patience_are_used(self, own_cache, stripes):
        schedule = Schedule(8, 36, rate=1e-12, plateau=Plateau(0.5, 1, 0.0), patience=2)
        trained = baselines.train(SMALL["student_faces"](), schedule, *stripes, name="still", progress=False)
        assert len(trained.table) == 3, "at this rate nothing improves, so patience ends the training after two more"
        assert trained.table["learning_rate"].to_numpy() == pytest.approx([1e-12, 1e-12, 5e-13], abs=1e-15)


def test_the_table_of_networks():
    built = {name: make(2, 40, seed=1).name for name, (make, _) in baselines.NETWORKS.items()}
    assert built == {name: name.replace("-", "_") for name in built}
    assert [schedule.epochs for _, schedule in baselines.NETWORKS.values()] == [10, 60, 60, 40]


def test_invalid_input():
    with pytest.raises(ValueError, match="at least 22 pixels, got 20"):
        baselines.student_faces(3, 20)
    with pytest.raises(ValueError, match="two classes, got 1"):
        baselines.corrected(1)
