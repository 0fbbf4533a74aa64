"""Training examples: rows in the right order, decoding, fingerprints, and invalid labels."""

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers.images import att_faces, reading, samples
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage
from helpers.networks import examples

SIDE = 24
MIXED = np.array([5, 0, 3, 3, 7, 1, 6])


@pytest.fixture(scope="module")
def images():
    """Eight images: color, gray, of several shapes."""
    kinds = samples.photos().subset([0, 40, 80, 120]), att_faces.load().subset([0, 100, 200, 300])
    return ImageSet("eight", sum((kind.paths for kind in kinds), ()), np.arange(8), tuple("abcdefgh"))


@pytest.fixture
def own(tmp_path):
    """Four small files that a test may change."""
    rng = np.random.default_rng(0)
    files = tuple(tmp_path / f"{number}.png" for number in range(4))
    for path in files:
        Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)).save(path)
    return ImageSet("own", files, np.array([0, 1, 0, 1]), ("a", "b"))


def gathered(batches):
    return [(inputs.numpy(), labels.numpy()) for inputs, labels in batches]


@pytest.mark.parametrize("rule", reading.RESIZE_RULES)
def test_images_are_read_and_resized(images, rule):
    expected = np.stack([reading.resize(reading.read_image(path), SIDE, rule) for path in images.paths])
    found = examples.images(images, SIDE, rule).load(MIXED)
    assert found.dtype == np.uint8 and (found == expected[MIXED]).all()


def test_batches_have_the_same_order_in_each_pass(images):
    train = examples.images(images, SIDE)
    batches = train.batches(MIXED, 3)
    assert len(batches) == 3
    first, again = gathered(batches), gathered(batches)
    assert [len(inputs) for inputs, _ in first] == [3, 3, 1]
    for kind in (first, again, gathered(train.batches(MIXED, 3))):
        assert (np.concatenate([inputs for inputs, _ in kind]) == train.load(MIXED)).all()
        assert (np.concatenate([labels for _, labels in kind]) == MIXED).all()
    assert first[0][0].dtype == np.uint8 and first[0][1].dtype == np.int64


def test_epochs_follow_each_other(images):
    train = examples.images(images, SIDE)
    drawn = {epoch: np.roll(MIXED, epoch) for epoch in range(9)}
    found = gathered(train.epochs(drawn.__getitem__, range(2, 5), 3, one_hot=8))
    # No batch has rows of two epochs.
    assert [len(inputs) for inputs, _ in found] == 3 * [3, 3, 1]
    for number, epoch in enumerate((2, 3, 4)):
        batches = found[3 * number : 3 * number + 3]
        labels = np.concatenate([labels for _, labels in batches]).argmax(axis=1)
        assert np.array_equal(labels, drawn[epoch])
        assert np.array_equal(np.concatenate([inputs for inputs, _ in batches]), train.load(drawn[epoch]))


def test_one_hot_labels(images):
    train = examples.images(images, SIDE)
    labels = np.concatenate([labels for _, labels in gathered(train.batches(MIXED, 3, one_hot=9))])
    assert labels.dtype == np.float32 and (labels == np.eye(9)[MIXED]).all()
    # Other numbers of classes have readers of their own.
    assert gathered(train.batches(MIXED, 3, one_hot=8))[0][1].shape == (3, 8)
    assert gathered(train.batches(MIXED, 3))[0][1].shape == (3,)


def test_shapes_are_known_before_anything_is_loaded(images):
    inputs, labels = examples.images(images, SIDE).batches(MIXED, 3).element_spec
    assert inputs == tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8) and labels == tf.TensorSpec((None,), tf.int64)


def test_kept_images_equal_fresh_ones(own, monkeypatch):
    rows = np.array([1, 2, 1])
    kept = examples.images(own, 9)
    first = kept.load(rows)
    monkeypatch.setattr(examples, "KEEP_BYTES", 0)
    fresh = examples.images(own, 9)
    assert (fresh.load(rows) == first).all() and kept.fingerprint == fresh.fingerprint
    for path in own.paths:
        path.unlink()
    # Only decoded images of small sets are in memory.
    assert (kept.load(np.array([2, 1])) == first[[1, 0]]).all()
    for train, row in ((kept, 0), (fresh, 1)):
        with pytest.raises(UnreadableImage, match=f"{row}.png does not exist"):
            train.load(np.array([row]))


def test_an_unreadable_image_is_named_through_tensorflow(own):
    own.paths[2].write_bytes(own.paths[2].read_bytes()[:40])
    train = examples.images(own, 9)
    with pytest.raises(UnreadableImage, match="2.png"), train.original_errors():
        gathered(train.batches(np.arange(4), 2))
    # Other errors are not changed.
    with pytest.raises(KeyError, match="other"), train.original_errors():
        raise KeyError("other")


def test_the_fingerprint_depends_on_content(own):
    first = examples.images(own, 9).fingerprint
    assert examples.images(own, 9).fingerprint == first
    others = [
        examples.images(own, 8),
        examples.images(own, 9, "pad"),
        examples.images(ImageSet("own", own.paths, np.array([0, 1, 1, 1]), ("a", "b")), 9),
        examples.images(ImageSet("own", own.paths[::-1], own.labels, ("a", "b")), 9),
    ]
    content = bytearray(own.paths[3].read_bytes())
    content[-20] ^= 1
    own.paths[3].write_bytes(content)
    others.append(examples.images(own, 9))
    assert len({first, *(train.fingerprint for train in others)}) == 6


def test_arrays_and_their_fingerprint():
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(600, 3)).astype(np.float32), np.arange(600) % 5
    train = examples.arrays(inputs, labels)
    assert (train.load(MIXED) == inputs[MIXED]).all() and train.load(MIXED).dtype == np.float32
    assert len(train) == 600
    assert examples.arrays(inputs.copy(), list(labels)).fingerprint == train.fingerprint
    changed = inputs.copy()
    changed[599, 2] += 1
    others = [(changed, labels), (inputs, labels[::-1]), (inputs.astype(np.float64), labels),
              (inputs.reshape(600, 3, 1), labels)]  # fmt: skip
    assert train.fingerprint not in {examples.arrays(*other).fingerprint for other in others}


def test_a_memory_mapped_file_is_read_row_by_row(tmp_path):
    maps = np.random.default_rng(0).normal(size=(512, 16, 16, 32)).astype(np.float16)
    maps.tofile(tmp_path / "maps.f16")
    mapped = np.memmap(tmp_path / "maps.f16", np.float16, mode="r", shape=maps.shape)
    tracemalloc.start()
    try:
        train = examples.arrays(mapped, np.arange(512))
        found = [
            (inputs[0, 0, 0].numpy(), labels.numpy()) for inputs, labels in train.batches(np.arange(512)[::-1], 16)
        ]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < maps.nbytes / 2
    assert all((inputs == maps[labels[0], 0, 0]).all() for inputs, labels in found) and len(found) == 32
    assert {inputs.dtype for inputs, _ in found} == {np.dtype(np.float32)}
    assert train.fingerprint == examples.arrays(maps, np.arange(512)).fingerprint


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: examples.arrays(np.zeros((3, 2)), [0, 1]), "there are 3 inputs for 2 labels"),
        (lambda: examples.arrays(np.zeros((0, 2)), []), r"at least one row, got shape \(0,\)"),
        (lambda: examples.arrays(np.zeros((2, 2)), [[0], [1]]), r"at least one row, got shape \(2, 1\)"),
        (lambda: examples.arrays(np.zeros((3, 2)), [0, -1, -1]), "2 examples have no class .* leave distractors out"),
        (lambda: examples.arrays(np.zeros((2, 2)), [0.5, 1.0]), "labels must be integers.*float64"),
        (lambda: examples.arrays(np.zeros((2, 2)), ["cat", "dog"]), "labels must be integers"),
    ],
)
def test_invalid_labels(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_distractors_are_an_error(images):
    mixed = ImageSet("mixed", images.paths, np.array([0, 1, -1, 2, 3, -1, 4, 5]), tuple("abcdef"))
    with pytest.raises(ValueError, match="2 examples have no class"):
        examples.images(mixed, SIDE)
