"""The P x K sampler: the content of batches, frequencies, and reproducibility by seed and epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.networks.samplers import PKSampler


def labels_of(sizes) -> np.ndarray:
    """Identity i with ``sizes[i]`` images, shuffled."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=2, max_size=12).filter(lambda sizes: sum(n >= 2 for n in sizes) >= 2),
    p=st.integers(2, 6),
    k=st.integers(2, 6),
    seed=st.integers(0, 99),
    batches=st.none() | st.integers(1, 9),
)
def test_every_count(sizes, p, k, seed, batches):
    labels, eligible = labels_of(sizes), [i for i, n in enumerate(sizes) if n >= 2]
    p = min(p, len(eligible))
    sampler = PKSampler(labels, p, k, seed, batches)
    rows = sampler.epoch(3)
    assert rows.dtype == np.int64 and rows.shape == (len(sampler), p * k)
    if batches is None:
        n_images = sum(sizes[i] for i in eligible)
        assert len(rows) == max(np.ceil(n_images / (p * k)), np.ceil(len(eligible) / p))
    assert sampler.identities.tolist() == eligible
    assert sampler.left_out.tolist() == [i for i, n in enumerate(sizes) if n == 1]
    assert sampler.short.tolist() == [i for i in eligible if sizes[i] < k]
    for batch in rows:
        assert sorted(np.bincount(labels[batch])[np.unique(labels[batch])]) == [k] * p
        assert (labels[batch].reshape(p, k) == labels[batch].reshape(p, k)[:, :1]).all()
        for identity in np.unique(labels[batch]):
            counts = np.bincount(batch[labels[batch] == identity], minlength=len(labels))[labels == identity]
            assert counts.max() - counts.min() <= 1, "repeated as little as possible"
            assert counts.max() == -(-k // sizes[identity])
    identities = np.bincount(labels[rows].ravel(), minlength=len(sizes))[eligible] // k
    assert identities.max() - identities.min() <= 1
    for i in eligible:  # the images of one identity are drawn equally often across batches
        counts = np.bincount(rows.ravel(), minlength=len(labels))[labels == i]
        assert counts.max() - counts.min() <= 1


def test_batches_depend_only_on_seed_and_epoch():
    labels = labels_of([5] * 20)
    sampler = PKSampler(labels, 4, 3, seed=7)
    second = sampler.epoch(2)
    sampler.epoch(0)
    np.testing.assert_array_equal(sampler.epoch(2), second)  # independent of earlier calls
    np.testing.assert_array_equal(PKSampler(labels.tolist(), 4, 3, seed=7).epoch(2), second)  # a resumed training
    assert (sampler.epoch(1) != second).any()
    assert (PKSampler(labels, 4, 3, seed=8).epoch(2) != second).any()


def test_over_many_epochs_identities_and_images_are_drawn_equally_often():
    labels = labels_of([2, 3, 5, 8, 4, 6, 2])
    sampler = PKSampler(labels, 2, 2, batches_per_epoch=2)
    rows = np.concatenate([sampler.epoch(e).ravel() for e in range(600)])
    # 600 epochs x 2 batches x 2 identities over 7; five standard deviations of a binomial are 57.
    assert np.abs(np.bincount(labels[rows]) / 2 - 2400 / 7).max() < 57
    images = np.bincount(rows, minlength=len(labels))
    expected = (np.bincount(labels[rows]) / np.bincount(labels))[labels]
    assert (np.abs(images - expected) < 5 * np.sqrt(expected)).all()


def test_distractors_are_not_drawn_and_numbers_are_reported():
    labels = np.array([-1, 0, 0, 1, -1, 2, 2, 2, 9, 9])
    sampler = PKSampler(labels, 3, 3)
    assert (sampler.n_distractors, sampler.left_out.tolist(), sampler.short.tolist()) == (2, [1], [0, 9])
    drawn = set(np.concatenate([sampler.epoch(e).ravel() for e in range(20)]).tolist())
    assert drawn == {1, 2, 5, 6, 7, 8, 9}
    assert "2 repeat images, 1 with one image and 2 distractors are left out" in repr(sampler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 2, 2), "no labels"),
        (([-1, -1, -1], 2, 2), "only 0 have two images or more .0 have one, 3 images are distractors"),
        (([0, 0, 1, 1], 3, 2), "p = 3 .* only 2 have two images or more"),
        (([0, 0, 1, 1], 2, 1), "k must .* at least 2, got 1: .*no positive"),
        (([0, 0, 1, 1], 1, 2), "p must .* at least 2, got 1: .*no negatives"),
        (([0, 0, 1, 1], 2, 2.5), "k must be an integer"),
        (([0, 0, 1, 1], 2, 2, -1), "seed must"),
        (([0, 0, 1, 1], 2, 2, 0, 0), "batches_per_epoch must"),
        (([[0, 0], [1, 1]], 2, 2), r"labels must be integers of shape \(n,\), got int64 of shape \(2, 2\)"),
        (([0.0, 0.0, 1.0, 1.0], 2, 2), "labels must be integers .* got float64"),
    ],
)
def test_invalid_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        PKSampler(*arguments)


def test_an_invalid_epoch():
    with pytest.raises(ValueError, match="the number of an epoch"):
        PKSampler([0, 0, 1, 1], 2, 2).epoch(-1)
