"""ImageSet: stable order, valid labels, and subsets and splits that keep groups together."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.images.imageset import ImageSet, concatenate


def made(labels, groups=None, name="made"):
    paths = tuple(Path(f"/images/{i:04}.jpg") for i in range(len(labels)))
    classes = tuple(f"class {i}" for i in range(max([*labels, 0]) + 1))
    return ImageSet(name, paths, np.array(labels, np.int64), classes, groups, root=Path("/images"))


sets = st.integers(0, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-1, 3), min_size=n, max_size=n), st.lists(st.integers(-1, 5), min_size=n, max_size=n)
    )
)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -2], [0]])
def test_invalid_labels(labels):
    with pytest.raises(ValueError, match="labels"):
        ImageSet("x", (Path("a"), Path("b")), np.array(labels), ("one", "two"))


def test_labels_and_groups_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        made([0, 1]).labels[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        made([0, 1], [0, 0]).groups[0] = 1
    with pytest.raises(ValueError, match="groups must have shape"):
        made([0, 1], [0])


def test_a_set_copies_its_labels():
    labels = np.array([0, 1])
    images = made(labels)
    labels[0] = 1
    assert images.labels.tolist() == [0, 1]
    assert images.counts.tolist() == [1, 1]
    assert "2 images, 2 classes" in repr(images)


def test_subset_by_rows_and_by_mask():
    images = made([0, 1, 2], [5, -1, 5])
    assert images.subset([2, 0]).keys == ("0002.jpg", "0000.jpg")
    assert images.subset(np.array([True, False, True])).groups.tolist() == [5, 5]
    assert images.where(lambda key: key < "0001.jpg").labels.tolist() == [0]
    with pytest.raises(ValueError, match="mask"):
        images.subset(np.array([True]))


@given(sets, st.floats(0.05, 0.95), st.integers(0, 5))
def test_split_is_a_split(labels_and_groups, fraction, seed):
    labels, groups = labels_and_groups
    # Images of a group are copies of one original, so they have one class.
    groups = [g if g < 0 else 10 * g + label + 1 for g, label in zip(groups, labels, strict=True)]
    images = made(labels, groups)
    first, second = images.split(fraction, seed)
    assert sorted(first.keys + second.keys) == sorted(images.keys)
    assert not {g for g in first.groups if g >= 0} & {g for g in second.groups if g >= 0}
    again = images.split(fraction, seed)
    assert (again[0].keys, again[1].keys) == (first.keys, second.keys)
    for label in set(labels):
        units = {g if g >= 0 else f"alone {i}" for i, g in enumerate(groups) if labels[i] == label}
        if len(units) > 1:
            assert label in first.labels and label in second.labels


@given(sets, st.floats(0.05, 0.95), st.integers(0, 5))
def test_groups_across_classes_are_not_split_either(labels_and_groups, fraction, seed):
    images = made(*labels_and_groups)
    first, second = images.split(fraction, seed)
    assert sorted(first.keys + second.keys) == sorted(images.keys)
    assert not {g for g in first.groups if g >= 0} & {g for g in second.groups if g >= 0}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 50])
def test_two_classes_of_the_same_images_are_split_once(n, seed):
    """Every image of the first class has a copy in the second, as in Caltech-101's Faces and Faces_easy."""
    images = made([0] * n + [1] * n, [*range(n)] * 2)
    first, second = images.split(0.5, seed)
    assert first.counts.tolist() == second.counts.tolist() == [n // 2, n // 2]


def test_seeds_give_different_splits():
    images = made([0] * 40)
    assert images.split(0.5, 0)[0].keys != images.split(0.5, 1)[0].keys
    assert images.sample(5, 0).keys != images.sample(5, 1).keys


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2])
def test_a_split_with_an_empty_part_is_an_error(fraction):
    with pytest.raises(ValueError, match="fraction"):
        made([0, 0]).split(fraction)
    with pytest.raises(ValueError, match="per_class"):
        made([0, 0]).sample(0)


@given(sets, st.integers(1, 4))
def test_sample_takes_at_most_so_many_of_each(labels_and_groups, per_class):
    images = made(labels_and_groups[0])
    taken = images.sample(per_class)
    assert list(taken.keys) == sorted(taken.keys)
    for label in set(images.labels.tolist()):
        assert (taken.labels == label).sum() == min(per_class, (images.labels == label).sum())


def test_concatenate_merges_classes_by_name_but_not_groups():
    first = ImageSet("a", (Path("/x/1"), Path("/x/2")), [0, -1], ("cat",), [0, 0])
    second = ImageSet("b", (Path("/y/1"), Path("/y/2")), [1, 0], ("ant", "cat"), [0, -1])
    both = concatenate("both", [first, second])
    assert [both.class_name(row) for row in range(4)] == ["cat", "–", "cat", "ant"]
    assert both.groups.tolist() == [0, 0, 1, -1]


@given(st.lists(sets, min_size=1, max_size=4))
def test_concatenate_loses_nothing(parts):
    images = [made(labels, groups, f"part {i}") for i, (labels, groups) in enumerate(parts)]
    both = concatenate("all", images)
    assert both.paths == tuple(path for part in images for path in part.paths)
    names = [part.class_name(row) for part in images for row in range(len(part))]
    assert [both.class_name(row) for row in range(len(both))] == names
    # Groups of one part are not merged with those of others.
    own = [(i, group) if group >= 0 else None for i, (_, groups) in enumerate(parts) for group in groups]
    found = [group if group >= 0 else None for group in (both.groups if both.groups is not None else [-1] * len(both))]
    assert len(set(zip(own, found, strict=True))) == len(set(own)) == len(set(found))


def test_keys_of_sets_with_one_root_and_with_several():
    first, other = made([0]), ImageSet("o", (Path("/other/1.jpg"),), [0], ("class 0",), root=Path("/other"))
    assert concatenate("same", [first, first]).keys == ("0000.jpg", "0000.jpg")
    assert concatenate("several", [first, other]).keys == ("/images/0000.jpg", "/other/1.jpg")
