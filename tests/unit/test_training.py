"""Training: interruption and resuming, the cache, the best epoch, fingerprints, batches, and errors."""

import functools
import json
import os
import signal
import threading
from contextlib import contextmanager

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.images.augmentation import Augmentation
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage
from helpers.networks import callbacks, examples, fingerprints, states, training
from helpers.networks.losses import SupConLoss, TripletLoss
from helpers.networks.samplers import PKSampler

LABELS = np.repeat(np.arange(4), 8)
STEPS = 4


@pytest.fixture(autouse=True)
def cache(own_cache, monkeypatch):
    """A new cache, and a save after every epoch."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    return own_cache / "training"


def vectors(seed=0):
    """float32 (32, 6): four classes of eight, which overlap."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(4, 6))[LABELS] + rng.normal(size=(32, 6))).astype(np.float32)


def data(seed=0):
    return examples.arrays(vectors(seed), LABELS)


def network(optimizer=None, loss="sparse_categorical_crossentropy", dropout=0.3, seed=0):
    """6 numbers → 4 classes; the initial weights depend only on the seed."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dropout(dropout), layers.Dense(4, "softmax")]
    )
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, jit_compile=False)
    return model


@functools.cache
def _built(dropout, number):
    model = network(dropout=dropout)
    return model, model.get_weights()


def ready(dropout=0.3, number=0):
    """`network`, built and traced once for all tests; `fit` resets its optimizer."""
    model, first = _built(dropout, number)
    model.set_weights(first)
    return model


def scored(*curve, steps=STEPS):
    """A score with these values, one per epoch, whatever the model."""
    return lambda model: curve[int(model.optimizer.iterations) // steps]


def interrupted_at(score, epoch, steps=STEPS):
    """A score that interrupts the training at the end of an epoch."""

    def interrupted(model):
        if int(model.optimizer.iterations) == epoch * steps:
            raise KeyboardInterrupt
        return score(model)

    return interrupted


def fit(model, train=None, epochs=4, batch_size=8, **options):
    options = {"name": "t", "progress": False, **options}
    return training.fit(model, train or data(), epochs=epochs, batch_size=batch_size, **options)


def same(ours, theirs, tolerance=1e-6):
    return all(np.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(ours, theirs, strict=True))


def same_table(ours, theirs):
    a, b = (training.table.drop(columns="seconds") for training in (ours, theirs))
    return list(a) == list(b) and np.allclose(a, b, rtol=0, atol=1e-6, equal_nan=True)


def with_hook(train, batch):
    """The same examples, and a list; a function in the list is called when this batch is loaded after that.

    At most four batches are loaded ahead, also those of the next epoch.
    """
    todo, calls = [], []

    def load(rows):
        if todo:
            calls.append(rows)
            if len(calls) == batch:
                todo.pop()()
        return train.load(rows)

    return examples.Examples(load, train.labels, train.fingerprint), todo


# ---- interruption ------------------------------------------------------------------------------------

#: Scores of the untrained model and five epochs. The rate falls after epochs 2 and 4; the kill is between the two.
CURVE = (0.1, 0.05, 0.04, 0.03, 0.02, 0.5)


def train_on_images(kill: bool):
    """Augmentation, batch normalization, dropout, Adam and a plateau, optionally killed in the middle of epoch 4."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 12, 12, 3)).astype(np.uint8)
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)), Augmentation("classic"), layers.Rescaling(1 / 255), layers.Conv2D(4, 3),
            layers.BatchNormalization(), layers.Flatten(), layers.Dropout(0.4), layers.Dense(4, "softmax"),
        ]
    )  # fmt: skip
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
    train, todo = with_hook(examples.arrays(pixels, LABELS), batch=4)
    score = scored(*CURVE, steps=8)

    def score_then_kill(model):
        if kill and int(model.optimizer.iterations) == 24:
            todo.append(lambda: os.kill(os.getpid(), signal.SIGKILL))
        return score(model)

    plateau = training.Plateau(0.5, patience=2)
    ended = fit(
        model, train, 5, 4, score=score_then_kill, plateau=plateau, name="killed",
        validation=examples.arrays(pixels[::4], LABELS[::4]),
    )  # fmt: skip
    return ended, model


def mined(rate=0.01, steps=STEPS):
    """A schedule of the learning rate over 4 epochs, dropout, and random triplets."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, 4 * steps)
    return network(keras.optimizers.Adam(schedule), TripletLoss("distance", 0.5))


@pytest.mark.slow
def test_the_same_call_resumes_after_an_interruption(cache, monkeypatch, tmp_path):
    steps = 10  # so that the batches that are loaded ahead are of one epoch
    sampler = PKSampler(LABELS, p=4, k=2, seed=5, batches_per_epoch=steps)
    options = {"sampler": sampler, "score": scored(0.1, 0.5, 0.2, 0.3, 0.4, steps=steps)}
    train, todo = with_hook(data(), batch=4)

    def interrupt():
        raise KeyboardInterrupt

    model = mined(steps=steps)
    before = model.get_weights()

    def score(model):
        if int(model.optimizer.iterations) == 2 * steps and cache.exists() and not resumed:
            todo.append(interrupt)
        return options["score"](model)

    resumed = []
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        fit(model, train, **options | {"score": score})
    assert same(model.get_weights(), before, 0) and int(model.optimizer.iterations) == 0
    resumed.append(True)
    again = fit(model, train, **options)
    assert again.computed == 2
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "other"))
    other = mined(steps=steps)
    uninterrupted = fit(other, **options)
    assert uninterrupted.computed == 4 and uninterrupted.best_epoch == 1
    assert same_table(again, uninterrupted)
    assert same(model.get_weights(), other.get_weights())
    # The rate follows its cosine over 4 epochs of the same number of steps.
    expected = 0.005 * (1 + np.cos(np.pi * np.arange(4) / 4))
    assert np.allclose(uninterrupted.table["learning_rate"][1:], expected, atol=1e-7)


def test_patience_and_plateau_continue_after_an_interruption(cache, monkeypatch, tmp_path):
    # No epoch is better than epoch 1: the rate falls after epochs 3 and 5, and the training ends after epoch 6.
    curve = scored(0.1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.95)
    options = {"epochs": 8, "patience": 5, "plateau": training.Plateau(0.5, 2, 1e-5)}
    uninterrupted = fit(ready(), score=curve, **options)
    assert list(uninterrupted.table["epoch"]) == list(range(7)) and uninterrupted.best_epoch == 1
    assert np.allclose(uninterrupted.table["learning_rate"][1:], [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025])
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "other"))
    model = ready()
    for epoch in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            fit(model, score=interrupted_at(curve, epoch), **options)
    resumed = fit(model, score=curve, **options)
    assert resumed.computed == 2 and resumed.best_epoch == 1
    assert same_table(resumed, uninterrupted)
    once = ready(number=1)
    fit(once, epochs=1, name="once")
    assert same(model.get_weights(), once.get_weights())


def test_saves_have_a_minimum_interval(cache, monkeypatch):
    saved = []
    monkeypatch.setattr(callbacks.Backup, "_save", lambda backup: saved.append(backup.rows[-1]["epoch"]))
    monkeypatch.setattr(training, "SAVE_EVERY", 1e6)
    fit(ready())
    assert saved == [4]
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    fit(ready())
    assert saved == [4, 1, 2, 3, 4]


def test_two_simultaneous_calls_train_once():
    models = [ready(), ready(number=1)]
    ended = {}

    def run(number):
        ended[number] = fit(models[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.computed for one in ended.values()) == [0, 4]
    assert same(models[0].get_weights(), models[1].get_weights(), 0)


# ---- the cache ---------------------------------------------------------------------------------------


def test_a_finished_training_is_loaded():
    calls = []

    def score(model):
        calls.append(model)
        return scored(0.1, 0.2, 0.4, 0.3, 0.2)(model)

    first, second = ready(), ready(number=1)
    ended = fit(first, score=score)
    assert len(calls) == 5
    loaded = fit(second, score=score)
    # The untrained model is scored again, to check that the score is the same.
    assert len(calls) == 6
    assert (ended.computed, loaded.computed) == (4, 0)
    assert ended.best_epoch == loaded.best_epoch == 2
    assert ended.seconds == loaded.seconds > 0
    assert ended.table.equals(loaded.table)
    assert same(first.get_weights(), second.get_weights(), 0)
    assert not same(first.get_weights(), ready().get_weights())
    # Both optimizers are reset.
    assert same(*[[np.asarray(v) for v in model.optimizer.variables] for model in (first, second)], 0)
    assert int(first.optimizer.iterations) == 0


def test_another_score_gives_a_warning():
    fit(ready(), score=scored(0.1, 0.2, 0.3, 0.4, 0.5))
    with pytest.warns(UserWarning, match="another score.*0.1000.*now 0.2000"):
        again = fit(ready(), score=scored(0.2, 0.5, 0.4, 0.3, 0.2))
    assert again.computed == 4 and again.best_epoch == 1


def test_a_damaged_state_is_reported(cache):
    fit(ready(), epochs=1)
    (path,) = cache.glob("*.npz")
    content = path.read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    for damaged in (content[:middle], content[:-1], changed, b""):
        path.write_bytes(damaged)
        model = ready()
        before = model.get_weights()
        with pytest.raises(states.TrainingStateError, match=r"t-\w+\.npz is damaged.*Move it to another folder"):
            fit(model, epochs=1)
        assert same(model.get_weights(), before, 0)
    path.unlink()
    assert fit(ready(), epochs=1).computed == 1


def test_a_state_that_cannot_be_written_is_reported(cache, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(states.TrainingStateError, match="cannot be written.*LOOKALIKE_CACHE"):
        fit(ready(), epochs=1)


# ---- the fingerprint ---------------------------------------------------------------------------------


def connected(crossed: bool):
    """The same layers and initial weights, connected in two ways."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    one = keras.layers.Dense(6, "relu")(x)
    two = keras.layers.Dense(6, "tanh")(one)
    out = keras.layers.Subtract()([two, one] if crossed else [one, two])
    model = keras.Model(x, keras.layers.Dense(4, "softmax")(out))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def frozen():
    model = network()
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def with_metric():
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Scaled(keras.losses.Loss):
    """A loss without `get_config`."""

    def __init__(self, scale):
        super().__init__(name="scaled")
        self.scale = scale

    def call(self, y_true, y_pred):
        return self.scale * keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def adam(rate, **options):
    return network(keras.optimizers.Adam(rate, **options))


def cosine(steps):
    return adam(keras.optimizers.schedules.CosineDecay(0.01, steps))


MODELS = {
    "plain": network,
    "first weights": lambda: network(seed=1),
    "dropout": lambda: network(dropout=0.4),
    "rate": lambda: adam(0.02),
    "clipping": lambda: adam(0.01, clipnorm=1.0),
    "optimizer": lambda: network(keras.optimizers.SGD(0.01)),
    "schedule": lambda: cosine(10),
    "schedule, longer": lambda: cosine(20),
    "loss": lambda: network(loss=SupConLoss(0.1)),
    "loss setting": lambda: network(loss=SupConLoss(0.2)),
    "mining": lambda: network(loss=TripletLoss("hard")),
    "other mining": lambda: network(loss=TripletLoss("all")),
    "own loss": lambda: network(loss=Scaled(1.0)),
    "own loss setting": lambda: network(loss=Scaled(2.0)),
    "frozen": frozen,
    "metrics": with_metric,
    "connections": lambda: connected(False),
    "other connections": lambda: connected(True),
}


def fingerprint(model, train=None):
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return fingerprints.of_training(model, train or data(), {})


def test_models_have_different_and_repeatable_fingerprints():
    found = {name: fingerprint(make()) for name, make in MODELS.items()}
    assert len(set(found.values())) == len(MODELS), found
    # Keras has increased the numbers in names: dense_40, adam_12.
    for name in ("plain", "schedule", "mining", "own loss", "connections"):
        assert fingerprint(MODELS[name]()) == found[name], name


def test_a_rate_that_was_set_later_counts():
    model = adam(0.01)
    model.optimizer.learning_rate = 0.02
    assert fingerprint(model) == fingerprint(adam(0.02)) != fingerprint(adam(0.01))


def test_steps_of_the_optimizer_count():
    model = network()
    first = model.get_weights()
    model.train_on_batch(vectors(), LABELS)
    model.set_weights(first)
    assert fingerprint(model) != fingerprint(network())


def test_labels_and_content_count():
    others = LABELS.copy()
    others[0] = 3
    sets = [data(), data(1), examples.arrays(vectors(), others)]
    assert len({fingerprint(ready(), one) for one in sets}) == 3
    assert fingerprint(ready(), data()) == fingerprint(ready(), data())


@pytest.mark.slow
def test_arguments_of_fit_count(cache):
    model = network(keras.optimizers.SGD(0.0))

    def pk(**options):
        return {"sampler": PKSampler(LABELS, **{"p": 4, "k": 2, "batches_per_epoch": 1, **options})}

    once = {"epochs": 1, "batch_size": 32}
    variants = [
        once, {**once, "epochs": 2}, {**once, "seed": 1}, {**once, "batch_size": 16}, {**once, "patience": 1},
        {**once, "plateau": training.Plateau()}, {**once, "plateau": training.Plateau(patience=4)},
        {**once, "validation": data()}, {**once, "validation": data(1)},
        once | pk(), once | pk(seed=1), once | pk(p=2, k=4), once | pk(batches_per_epoch=2),
    ]  # fmt: skip
    files = []
    for options in variants:
        # A rate of 0 does not change the model.
        fit(model, **options)
        files.append(len(list(cache.glob("*.npz"))))
    assert files == list(range(1, 14))


def on_pixels(*first):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((4, 4, 3)), *first, layers.Flatten(), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.SGD(0.0), keras.losses.CategoricalCrossentropy(), jit_compile=False)
    return model


def test_layers_for_augmentation_count():
    layers = [Augmentation("classic"), Augmentation("classic", seed=1), Augmentation("color-jitter")]
    assert len({fingerprint(on_pixels(layer)) for layer in layers}) == 3
    assert fingerprint(on_pixels(Augmentation("classic"))) == fingerprint(on_pixels(layers[0]))


# ---- the best epoch, plateau and patience ------------------------------------------------------------


def test_the_score_decides_the_best_epoch():
    model, short = ready(0.0), ready(0.0, number=1)
    ended = fit(model, score=scored(0.1, 0.9, 0.8, 0.7, 0.6), validation=data())
    assert (ended.table["loss"].diff()[2:] < 0).all() and (ended.table["val_loss"].diff()[1:] < 0).all()
    assert (ended.monitor, ended.best_epoch, ended.table["score"][1]) == ("score", 1, 0.9)
    fit(short, epochs=1)
    assert same(model.get_weights(), short.get_weights(), 0)


def test_the_untrained_model_can_be_the_best():
    model = ready()
    before = model.get_weights()
    ended = fit(model, score=scored(0.5, 0.4, 0.3, 0.2, 0.5), validation=data())
    assert ended.best_epoch == 0 and same(model.get_weights(), before, 0)
    assert list(ended.table["epoch"]) == [0, 1, 2, 3, 4] and ended.computed == 4
    assert list(ended.table) == ["epoch", "loss", "val_loss", "score", "learning_rate", "seconds"]
    for column in ("loss", "seconds"):
        assert list(ended.table[column].isna()) == [True, False, False, False, False]
    # ln 4 is the chance level of four classes.
    assert ended.table["val_loss"][ended.best_epoch] == pytest.approx(np.log(4), rel=0.5)


@pytest.mark.parametrize("validation, monitor", [(None, "loss"), (data(1), "val_loss")])
def test_without_a_score_the_loss_decides(validation, monitor):
    ended = fit(ready(0.0), validation=validation, epochs=6)
    assert ended.monitor == monitor and list(ended.table["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert ended.best_epoch == ended.table["epoch"][ended.table[monitor].idxmin()]


def test_the_weights_of_the_best_validation_loss_are_restored():
    # Other labels than in training: the validation loss rises while the loss falls.
    validation = examples.arrays(vectors(), 3 - LABELS)
    model = network(keras.optimizers.Adam(0.05), dropout=0.0)
    ended = fit(model, validation=validation)
    assert ended.best_epoch == 1 and ended.table["loss"].idxmin() == 3
    value = model.evaluate(validation.batches(np.arange(32), 8), verbose=0)
    assert value == pytest.approx(ended.table["val_loss"][0], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "start, curve, plateau, rates",
    [
        # Two epochs without improvement: after 3, then after 5. 6 is better, so the next one is after 8.
        (0.08, (1, 2, 2, 2, 1, 2, 3, 3, 3, 3), (0.5, 2, 0.01), [0.08] * 3 + [0.04] * 2 + [0.02] * 3 + [0.01]),
        # Not below the lowest rate, and a lower rate is not raised.
        (0.08, (1, 0, 0, 0, 0), (0.5, 1, 0.03), [0.08, 0.04, 0.03, 0.03]),
        (0.01, (1, 0, 0, 0, 0), (0.5, 1, 0.03), [0.01] * 4),
    ],
)
def test_a_plateau_lowers_the_rate(start, curve, plateau, rates):
    model = adam(start)
    ended = fit(model, score=scored(*curve), epochs=len(curve) - 1, plateau=training.Plateau(*plateau))
    assert np.allclose(ended.table["learning_rate"][1:], rates)
    # The optimizer is reset.
    assert float(model.optimizer.learning_rate) == pytest.approx(start)


def test_a_schedule_and_a_plateau_exclude_each_other():
    with pytest.raises(ValueError, match="t: the learning rate follows a schedule"):
        fit(cosine(10), plateau=training.Plateau())


@pytest.mark.parametrize("arguments", [(0.0,), (1.0,), (0.5, 0), (0.5, 1, -1.0)])
def test_invalid_plateaus(arguments):
    with pytest.raises(ValueError, match="0 < factor < 1"):
        training.Plateau(*arguments)


def test_patience_ends_the_training():
    model = ready()
    ended = fit(model, score=scored(1, 2, 1, 3, 3, 2, 9), epochs=6, patience=2)
    assert list(ended.table["epoch"]) == [0, 1, 2, 3, 4, 5] and ended.best_epoch == 3 and ended.computed == 5
    loaded = fit(ready(), score=scored(1, 2, 1, 3, 3, 2, 9), epochs=6, patience=2)
    assert loaded.computed == 0 and loaded.table.equals(ended.table)


@pytest.mark.parametrize("batch_size, what", [(8, "loss is nan in epoch 3"), (32, "kernel is not finite in epoch 3")])
def test_a_diverged_training_keeps_the_state_before(cache, batch_size, what):
    # With one batch per epoch, the loss is finite when the weights are not.
    steps = 2 * 32 // batch_size
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([steps - 1], [1e-8, 3e38])
    model = network(keras.optimizers.SGD(schedule), dropout=0.0)
    train = examples.arrays(1000 * vectors(), LABELS)
    before = model.get_weights()
    for _ in range(2):
        with pytest.raises(callbacks.TrainingDiverged, match=f"{what}; use a lower learning rate"):
            fit(model, train, batch_size=batch_size)
        assert same(model.get_weights(), before, 0)
        (path,) = cache.glob("*.npz")
        with np.load(path) as kept:
            assert [row["epoch"] for row in json.loads(kept["state"].tobytes())["rows"]] == [1, 2]
            assert all(np.isfinite(kept[key]).all() for key in kept.files)


def test_a_score_of_nan():
    with pytest.raises(ValueError, match="t: the score .* finite number, got nan"):
        fit(ready(), score=lambda model: float("nan"))


# ---- batches -----------------------------------------------------------------------------------------


def recorded(train):
    """The same examples, and the list of row numbers that were loaded."""
    loaded = []

    def load(rows):
        loaded.append(rows.tolist())
        return train.load(rows)

    return examples.Examples(load, train.labels, train.fingerprint), loaded


def test_epochs_are_different_permutations():
    train, loaded = recorded(data())
    fit(ready(), train, epochs=2, batch_size=8)
    # The first row is loaded once for its shape.
    assert loaded[0] == [0] and {len(rows) for rows in loaded[1:]} == {8} and len(loaded) == 1 + 8
    # Two batches are loaded at the same time, also those of two epochs, so their order in the list may differ.
    assert sorted(sum(loaded[1:], [])) == sorted(2 * list(range(32)))
    first, second = (np.random.default_rng((0, epoch)).permutation(32).reshape(4, 8).tolist() for epoch in range(2))
    assert sorted(loaded[1:]) == sorted(first + second) and sorted(first) != sorted(second)
    # Classes are mixed.
    assert all(len(set(LABELS[rows])) > 1 for rows in first + second)


def test_a_sampler_draws_the_batches():
    train, loaded = recorded(data())
    sampler = PKSampler(LABELS, p=3, k=4, seed=2)
    fit(network(loss=SupConLoss()), train, epochs=2, sampler=sampler)
    # The order of two batches that are loaded at the same time may differ.
    assert sorted(loaded[1:]) == sorted(sampler.epoch(0).tolist() + sampler.epoch(1).tolist())


def test_results_depend_on_the_seed(monkeypatch, tmp_path):
    ended = []
    for number, seed in enumerate((0, 0, 1)):
        monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / str(number)))
        model = ready()
        assert fit(model, epochs=2, seed=seed).computed == 2
        ended.append(model.get_weights())
    assert same(ended[0], ended[1]) and not same(ended[0], ended[2], 1e-4)


def test_one_hot_labels_need_a_number_for_each_class():
    train = examples.arrays(np.zeros((32, 4, 4, 3), np.uint8), LABELS)
    with pytest.raises(ValueError, match="t: train has the label 3, but one_hot=3 has no such class"):
        fit(on_pixels(), train, one_hot=3)
    assert np.isfinite(fit(on_pixels(), train, epochs=1, one_hot=4).table["loss"]).all()


def test_an_unreadable_image_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    images = ImageSet("x", (path,) * 4, np.array([0, 1, 0, 1]), ("a", "b"))
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    with pytest.raises(UnreadableImage, match="broken.png"):
        fit(model, examples.images(images, 8))
    # Also in the middle of an epoch, when TensorFlow loads images.
    late, todo = with_hook(examples.arrays(np.zeros((32, 8, 8, 3), np.uint8), LABELS % 2), batch=3)

    def fail():
        raise UnreadableImage("late.png cannot be decoded")

    late.batches(np.arange(8), 8)
    todo.append(fail)
    with pytest.raises(UnreadableImage, match=r"^late.png cannot be decoded$"):
        fit(model, late)


# ---- invalid arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 0}, "epochs, batch_size and patience must be at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"patience": 0}, "patience"),
        ({"seed": -1}, "seed at least 0"),
        ({"name": "a/b"}, "file's name"),
        ({"name": ""}, "file's name"),
        ({"sampler": PKSampler(np.arange(40) // 10, 4, 2)}, r"the sampler draws row \d+, but there are 32 examples"),
        ({"sampler": PKSampler(LABELS[::-1].copy() // 2, 2, 8)}, "created for labels other than those"),
        ({"validation": examples.arrays(np.zeros((1, 6)), [4]), "one_hot": 4}, "validation has the label 4"),
    ],
)
def test_invalid_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        fit(ready(), **options)


def test_a_model_that_was_not_compiled():
    with pytest.raises(ValueError, match="t: compile the model first"):
        fit(keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)]))


# ---- progress ----------------------------------------------------------------------------------------


def test_progress_is_few_lines(capfd):
    curve = scored(*range(18), 5, 5, 5)
    fit(ready(), epochs=20, name="tiny", progress=True, score=curve)
    shown = capfd.readouterr()
    lines = shown.out.splitlines()
    assert "\r" not in shown.out + shown.err and shown.err == ""
    assert 10 <= len(lines) <= 12 and all(len(line) < 80 for line in lines)
    assert lines[0].startswith("tiny   0/20  score 0.000") and "nan" not in shown.out
    assert lines[1].startswith("tiny   1/20  loss ") and "score 1.000" in lines[1] and lines[1].endswith("s · best")
    assert lines[-1].startswith("tiny  20/20") and "best" not in lines[-1]
    fit(ready(), epochs=20, name="tiny", progress=True, score=curve)
    assert "tiny: trained before (20 epochs, " in capfd.readouterr().out
    fit(ready(), epochs=3, name="tiny", progress=True, score=scored(5, 1, 1, 1), patience=2)
    assert capfd.readouterr().out.splitlines()[-1].endswith("· stopped, best was 0")
    fit(ready(), epochs=2, progress=False)
    assert capfd.readouterr() == ("", "")


# ---- hardware ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "capabilities, expected",
    [
        ([], ("float32", "CPU, float32")),
        ([(8, 0)], ("mixed_float16", "1 GPU, mixed_float16")),
        ([(7, 0), (9, 0)], ("mixed_float16", "2 GPU, mixed_float16")),
        ([(6, 1)], ("float32", "1 GPU, float32")),
        ([(9, 0), (6, 1)], ("float32", "2 GPU, float32")),
        ([(0, 0)], ("float32", "1 GPU, float32")),
    ],
)
def test_mixed_precision_needs_tensor_cores(capabilities, expected):
    assert training._accelerator(capabilities) == expected


@contextmanager
def policy(name):
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def test_the_accelerator_of_this_machine():
    with policy("mixed_float16"):
        text = training.use_accelerator()
        assert text.endswith(keras.mixed_precision.global_policy().name)
        if not tf.config.list_physical_devices("GPU"):
            assert text == "CPU, float32"


def test_mixed_precision_trains_and_resumes(monkeypatch, tmp_path):
    dtypes = []

    class Recorded(keras.losses.Loss):
        def call(self, y_true, y_pred):
            dtypes.append(keras.backend.standardize_dtype(y_pred.dtype))
            return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    def fail():
        raise OSError("disk failure")

    with policy("mixed_float16"):
        uninterrupted, resumed = (network(loss=Recorded(name="recorded")) for _ in range(2))
        assert type(uninterrupted.optimizer).__name__ == "LossScaleOptimizer"
        ended = fit(uninterrupted, validation=data())
        monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "other"))
        # One row is loaded for its shape, then all batches up to the last one of the third epoch.
        train, todo = with_hook(data(), 1 + 3 * STEPS)
        todo.append(fail)
        with pytest.raises(OSError, match="disk failure"):
            fit(resumed, train, validation=data())
        assert fit(resumed, train, validation=data()).computed == 2
    assert set(dtypes) == {"float32"}
    assert uninterrupted.layers[0].compute_dtype == "float16"
    assert {str(value.dtype) for value in uninterrupted.get_weights()} == {"float32"}
    assert ended.table["val_loss"].iloc[-1] < ended.table["val_loss"].iloc[0]
    assert same(uninterrupted.get_weights(), resumed.get_weights(), 1e-6)


def test_feature_maps_on_disk_are_read_batch_by_batch(tmp_path):
    path = tmp_path / "maps.f16"
    maps = np.random.default_rng(0).normal(size=(32, 3, 3, 16)).astype(np.float16)
    maps.tofile(path)
    mapped = np.memmap(path, np.float16, mode="r", shape=maps.shape)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((3, 3, 16)), layers.GlobalAveragePooling2D(), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", jit_compile=False)
    ended = fit(model, examples.arrays(mapped, LABELS), epochs=8)
    assert ended.table["loss"].iloc[-1] < ended.table["loss"].iloc[0]
