"""Heads and fine-tuned blocks of a small network on real photographs, and tables of several seeds."""

import keras
import numpy as np
import pytest

from helpers.images import samples
from helpers.lessons import baseline_studies, transfer_studies
from helpers.lessons.transfer_studies import Settings, Variant
from helpers.networks import transfer

SETTINGS = Settings(head_rate=0.01, head_epochs=3, rate=0.01, epochs=2)


def small(size=16):
    """A network with ResNet's preprocessing: a frozen convolution, then a convolution and global average pooling."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((size, size, 3))
    middle = keras.layers.Conv2D(8, 4, strides=4, activation="relu", name="frozen")(pixels)
    places = keras.layers.Conv2D(6, 1, activation="relu", name="trained")(middle)
    vector = keras.layers.GlobalAveragePooling2D()(places)
    whole = keras.Model(pixels, vector)
    whole.get_layer("frozen").trainable = False
    trunk, tail = keras.Model(pixels, middle), keras.Model(middle, vector)
    return transfer.SplitNetwork("resnet50", size, whole, trunk, tail, keras.Model(middle, places))


@pytest.fixture(scope="module")
def task():
    return baseline_studies.divide("sample-held-out", samples.with_distractors(), max_classes=3)


@pytest.fixture
def prepared(task):
    return transfer_studies.prepare(small(), task, progress=False)


def test_rows_are_those_of_the_images(prepared, task):
    images = task.images
    assert [images.keys[row] for row in prepared.train_rows] == list(task.train.keys)
    assert [images.keys[row] for row in prepared.validation_rows] == list(task.validation.keys)
    assert prepared.maps.shape == (len(images), 4, 4, 8)


def test_embeddings_leave_the_tail_as_it_was(prepared):
    tail = prepared.split.tail
    other = [value + 1 for value in prepared.pretrained]
    before = prepared.embeddings()
    assert not np.allclose(before, prepared.embeddings(other))
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, rtol=1e-4)
    for value, expected in zip(tail.get_weights(), prepared.pretrained, strict=True):
        np.testing.assert_array_equal(value, expected)
    tail.set_weights(other)
    np.testing.assert_allclose(before, prepared.embeddings(), atol=1e-6)
    lengths = np.linalg.norm(prepared.inputs, axis=1, keepdims=True)
    np.testing.assert_allclose(prepared.inputs / lengths, before, atol=1e-5)
    np.testing.assert_array_equal(tail.get_weights()[0], other[0])


def test_fine_tuning_keeps_its_best_epoch(prepared):
    start = [value.copy() for value in prepared.pretrained]
    tuned = transfer_studies.fine_tune(prepared, "cosine", 0, SETTINGS)
    for value, expected in zip(prepared.split.tail.get_weights(), start, strict=True):
        np.testing.assert_array_equal(value, expected)
    table = tuned.training.table
    assert table["epoch"].tolist() == [0, 1, 2]
    assert tuned.training.best_epoch == table["score"].idxmax()
    prepared.split.tail.set_weights(tuned.weights)
    assert transfer_studies.validation_scores(prepared).mean("mAP") == pytest.approx(table["score"].max())


@pytest.fixture
def traced(own_cache, monkeypatch):
    """The names of the models whose training step TensorFlow traces."""
    names, step = [], keras.Model.train_step

    def recorded(self, data):
        names.append(self.name)
        return step(self, data)

    monkeypatch.setattr(keras.Model, "train_step", recorded)
    return names


def test_a_training_step_is_traced_once(prepared, traced):
    transfer_studies.train_head(prepared, "softmax", 7, SETTINGS)
    assert len(traced) == 1


def test_variants_of_a_network(prepared):
    variants, tuned = transfer_studies.compare_variants(prepared, ["softmax"], [0, 1], SETTINGS)
    assert [one.variant for one in variants] == ["off the shelf", "head only, softmax", "fine-tuned, softmax"]
    assert [len(one.scores) for one in variants] == [1, 2, 2]
    assert [one.dim for one in variants] == [6, 3, 6]
    assert sorted(tuned) == [("softmax", 0), ("softmax", 1)]
    for seed in (0, 1):
        assert variants[2].epochs[seed] == tuned["softmax", seed].training.best_epoch
        found = prepared.embeddings(tuned["softmax", seed].weights)
        score = transfer_studies.search(found, prepared.task.protocol)
        assert score.mean("mAP") == variants[2].scores[seed].mean("mAP")


def test_seeds_share_models_and_give_the_same_weights_as_alone(task, traced):
    """Each model is traced once for all seeds."""
    together = transfer_studies.prepare(small(), task, progress=False)
    _, tuned = transfer_studies.compare_variants(together, ["cosine"], (3, 4), SETTINGS)
    assert len(traced) == len(set(traced)) == 2
    for seed in (3, 4):
        shared = tuned["cosine", seed]
        alone = transfer_studies.fine_tune(
            transfer_studies.prepare(small(), task, progress=False), "cosine", seed, SETTINGS
        )
        for one, other in (alone.weights, shared.weights), (alone.head.get_weights(), shared.head.get_weights()):
            for value, expected in zip(one, other, strict=True):
                np.testing.assert_array_equal(value, expected)
        tables = [each.training.table.drop(columns="seconds") for each in (alone, shared)]
        assert tables[0].equals(tables[1])


def test_extractors_give_the_vectors_of_the_maps(prepared, task):
    tuned = transfer_studies.fine_tune(prepared, "cosine", 0, SETTINGS)
    found = transfer_studies.extractors(prepared, tuned)
    assert [one.name for one in found.values()] == ["resnet50+head", "resnet50+tuned"]
    assert (found["head only"].dim, found["fine-tuned"].dim) == (3, 6)
    fine_tuned = found["fine-tuned"]
    some = task.images.subset(range(5))
    expected = prepared.embeddings(tuned.weights)[:5]
    np.testing.assert_allclose(fine_tuned.extract(some, cache=False, progress=False), expected, atol=1e-3)
    assert f"({len(task.train)} images)" in fine_tuned.weights


def test_an_unknown_loss():
    with pytest.raises(ValueError, match="no loss is called 'arc'; available: softmax, cosine"):
        transfer_studies.loss("arc")


def test_epoch_0_is_labeled():
    assert transfer_studies.kept([]) == "–"
    assert transfer_studies.kept([0, 3]) == "0 (off the shelf), 3"


def test_the_summary_shows_seeds(task):
    """The mean over the seeds, and the lowest and the highest one."""
    rng, protocol = np.random.default_rng(0), task.protocol
    matrices = [rng.standard_normal((len(task.images), 5)).astype(np.float32) for _ in range(3)]
    scores = [transfer_studies.search(matrix, protocol) for matrix in matrices]
    variants = [Variant("a", "off the shelf", 5, scores[:1]), Variant("a", "fine-tuned", 5, scores, [0, 2, 1])]
    table = transfer_studies.summary(variants)
    assert list(table.columns) == list(transfer_studies.COLUMNS)
    each = [score.mean("mAP") for score in scores]
    alone, tuned = table.to_dict("records")
    assert alone["lowest seed"] == alone["highest seed"] == alone["mAP"] == pytest.approx(each[0])
    assert tuned["mAP"] == pytest.approx(np.mean(each))
    assert (tuned["lowest seed"], tuned["highest seed"]) == (min(each), max(each))
    assert tuned["low"] < tuned["mAP"] < tuned["high"] and tuned["seeds"] == 3
    assert tuned["epoch kept"] == "0 (off the shelf), 2, 1"
