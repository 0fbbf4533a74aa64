"""Training on CIFAR-10: reading, augmentation, the measure, and a table that is completed by repeated calls."""

import csv

import keras
import numpy as np
import pytest
from PIL import Image

from helpers.evaluation import builders, metrics, runner
from helpers.images import download
from helpers.images.imageset import ImageSet
from helpers.lessons import cifar_training
from helpers.lessons.cifar_training import Pixels, Recipe
from helpers.networks import cifar_networks
from helpers.search.index import open_index

BRIGHT = {"dark": 40, "light": 200}


@pytest.fixture
def pixels():
    """Two classes, dark and light noise: 24 and 8 images of each."""
    rng = np.random.default_rng(0)
    parts = [
        np.concatenate([rng.integers(value - 40, value + 40, (count, 32, 32, 3)) for value in BRIGHT.values()])
        for count in (24, 8)
    ]
    train, test = (part.astype(np.uint8) for part in parts)
    return Pixels(train, np.repeat([0, 1], 24), test, np.repeat([0, 1], 8))


@pytest.fixture
def tiny(monkeypatch):
    """A network that trains in a moment, under the name of another."""
    monkeypatch.setitem(
        cifar_networks.NETWORKS, "small-cnn", lambda classes: cifar_networks.small_cnn(units=4, classes=classes)
    )


def test_reads_both_splits_and_resizes(tmp_path, monkeypatch):
    for split, count, size in (("train", 2, 32), ("test", 1, 64)):
        for name, value in BRIGHT.items():
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (size, size), (value, 0, 0)).save(tmp_path / split / name / f"{number}.png")
    monkeypatch.setattr(download, "fetch", lambda name: tmp_path)
    read = cifar_training.cifar10_pixels()
    assert read.train.shape == (4, 32, 32, 3) and read.test.shape == (2, 32, 32, 3) and read.classes == 2
    assert read.train[:, 5, 5, 0].tolist() == [40, 40, 200, 200] and read.train_labels.tolist() == [0, 0, 1, 1]
    assert read.test[:, 0, 0, 0].tolist() == [40, 200] and read.test_labels.tolist() == [0, 1]


def test_augmentation_shifts_and_flips_whole_images():
    images = np.zeros((200, 32, 32, 3), np.uint8)
    images[:, 16, 10] = 255
    changed = cifar_training.augment(images, np.random.default_rng(0))
    count, row, column, _ = np.nonzero(changed)
    assert np.array_equal(np.unique(count), np.arange(200)) and changed.dtype == np.uint8
    assert set(row - 16) == set(range(-4, 5))
    # Flipped, column 10 becomes 21.
    assert set(column) == set(range(6, 15)) | set(range(17, 26))


def test_every_epoch_has_all_images_in_another_order(pixels, monkeypatch):
    monkeypatch.setattr(cifar_training, "augment", lambda images, rng: images)
    batches = cifar_training.batches(pixels, Recipe(batch_size=20), seed=3)
    epochs = []
    for _ in range(2):
        parts = [batches[index] for index in range(len(batches))]
        images = np.concatenate([part[0] for part in parts])
        assert images.dtype == np.float32 and images.max() <= 1
        epochs.append(np.round(images * 255).astype(np.uint8))
        batches.on_epoch_end()
    assert not np.array_equal(*epochs)
    for images in epochs:
        assert sorted(map(bytes, images)) == sorted(map(bytes, pixels.train))


def test_the_measure_is_the_evaluation_of_the_course():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 60)
    squares = rng.integers(0, 256, (180, 32, 32, 3), dtype=np.uint8)
    squares[..., 0] //= (1 + labels[:, None, None]).astype(np.uint8)
    images = ImageSet("made", tuple(f"{i}.png" for i in range(180)), labels, ("a", "b", "c"))
    queries = np.arange(0, 180, 4)
    gallery = np.setdiff1d(np.arange(180), queries)
    protocol = builders.query_gallery(images, queries, gallery, "made")
    keras.utils.set_random_seed(0)
    model = cifar_networks.small_cnn(units=4, classes=3)
    vectors = cifar_networks.embedder(model).predict(squares / 255, verbose=0)
    expected = metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine"), 100), protocol, map_ks=(100,))
    found = cifar_training.measure(
        model, Pixels(squares[gallery], labels[gallery], squares[queries], labels[queries]), batch_size=50
    )
    assert found.ap == pytest.approx(expected.values["mAP@100"], abs=1e-3) and 0.3 < found.ap.mean() < 1
    assert found.first.mean() == expected.mean("top-1") and found.ceiling == expected.mean_ceiling("mAP@100")
    right = model.predict(squares[queries] / 255, verbose=0).argmax(axis=1) == labels[queries]
    assert np.array_equal(found.right, right)


def test_a_small_network_learns_and_the_table_is_completed(pixels, tiny, tmp_path, capsys):
    path, recipe = tmp_path / "figures" / "networks.csv", Recipe(epochs=6, batch_size=16, rate=3e-3)
    assert cifar_training.complete(path, ["small-cnn"], 1, recipe, pixels) == 1
    first = path.read_text()
    (row,) = csv.DictReader(first.splitlines())
    assert float(row["test accuracy"]) == 1 and float(row["ceiling"]) == 1 and row["dim"] == "16"
    assert row["backend"] == keras.backend.backend() and float(row["seconds"]) > 0
    assert cifar_training.complete(path, ["small-cnn"], 1, recipe, pixels) == 0
    assert path.read_text() == first
    assert "small-cnn, seed 0" in capsys.readouterr().out


def test_invalid_settings_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        Recipe(epochs=0)
