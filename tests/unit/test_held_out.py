"""Training images under a protocol: neither queries nor copies of queries."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.evaluation.builders import held_out, learnable, leave_one_out, unseen_classes
from helpers.images.imageset import ImageSet


def image_set(classes=6, each=4, distractors=3, groups=None) -> ImageSet:
    labels = np.append(np.repeat(np.arange(classes), each), np.full(distractors, -1))
    names = tuple(f"class {i}" for i in range(classes))
    return ImageSet("toy", tuple(Path(f"{i:03}.jpg") for i in range(len(labels))), labels, names, groups)


def test_held_out_images_are_queries_and_not_for_training():
    images = image_set()
    protocol = held_out(images, "toy-held-out")
    assert len(protocol.queries) == 12 and len(protocol.gallery) == 15 and protocol.n_distractors == 3
    assert not set(protocol.queries) & set(protocol.gallery)
    assert np.bincount(images.labels[protocol.queries]).tolist() == [2] * 6
    part = learnable(protocol, images)
    assert set(part.keys) == {images.keys[row] for row in protocol.gallery if images.labels[row] >= 0}
    assert part.class_names == images.class_names


def test_the_seed_selects_the_queries():
    images = image_set()
    assert np.array_equal(held_out(images, "a", seed=1).queries, held_out(images, "b", seed=1).queries)
    assert not np.array_equal(held_out(images, "a", seed=1).queries, held_out(images, "b", seed=2).queries)


def test_unseen_classes_share_no_class_with_the_training_images():
    images = image_set()
    protocol = unseen_classes(images, "toy-unseen", seed=3)
    kept = np.sort(np.random.default_rng(3).permutation(6)[3:])
    assert protocol.class_names == tuple(f"class {c}" for c in kept)
    assert len(protocol.queries) == 12 and len(protocol.gallery) == 15 and protocol.n_distractors == 3
    part = learnable(protocol, images)
    assert len(part) == 12 and not set(part.class_names) & set(protocol.class_names)
    assert part.counts.tolist() == [4, 4, 4] and not set(part.keys) & set(protocol.keys)
    for row, key in enumerate(part.keys):
        assert part.class_name(row) == images.class_name(images.keys.index(key))


def test_a_copy_of_a_query_is_not_for_training():
    images = image_set(classes=3, each=4, distractors=0)
    protocol = held_out(images, "toy-held-out")
    query, copy = protocol.queries[0], protocol.gallery[0]
    groups = np.full(len(images), -1)
    groups[[query, copy]] = 7
    twins = replace(images, groups=groups)
    assert images.keys[copy] in learnable(protocol, images).keys
    assert images.keys[copy] not in learnable(protocol, twins).keys
    # The frozen protocol may know of the copies where the loader's set does not.
    known = replace(leave_one_out(twins, "toy"), queries=[int(query)])
    assert images.keys[copy] not in learnable(known, images).keys


def test_groups_stay_on_one_side():
    groups = np.repeat(np.arange(12), 2)
    images = image_set(distractors=0, groups=groups)
    protocol = held_out(images, "toy-held-out")
    assert not set(groups[protocol.queries]) & set(groups[protocol.gallery])


def test_no_image_left_for_training_is_refused():
    images = image_set()
    with pytest.raises(ValueError, match="every image with a class is a query"):
        learnable(leave_one_out(images, "toy-leave-one-out"), images)
