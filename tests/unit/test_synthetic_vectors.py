"""Synthetic vectors: the recipe, that every block is reproducible, and that they resemble real ones."""

import numpy as np
import pytest

from helpers.lessons import synthetic_vectors
from helpers.lessons.synthetic_vectors import BLOCK, synthesize
from helpers.search.index import open_index


def clustered(n, dim=24, seed=0):
    """float32 (n, dim) of length one around 20 centers, in few directions each."""
    random = np.random.default_rng(seed)
    shape = np.random.default_rng(99)
    centers, axes = shape.standard_normal((20, dim)), shape.standard_normal((20, 6, dim))
    which = random.integers(0, 20, n)
    vectors = centers[which] + 0.4 * np.einsum("nk,nkd->nd", random.standard_normal((n, 6)), axes[which])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def everything(synthetic):
    return np.concatenate(list(synthetic))


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(synthetic_vectors, "BLOCK", 64)


def test_it_gives_count_float32_vectors_of_length_one():
    synthetic = synthesize(clustered(300), BLOCK + 5)
    vectors = everything(synthetic)
    assert (len(synthetic), synthetic.dim, synthetic.blocks) == (BLOCK + 5, 24, 2)
    assert [len(block) for block in synthetic] == [BLOCK, 5]
    assert vectors.shape == (BLOCK + 5, 24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_whole_blocks_have_no_short_one_behind_them():
    synthetic = synthesize(clustered(50), 2 * BLOCK)
    assert [len(block) for block in synthetic] == [BLOCK, BLOCK]


def test_fewer_are_the_beginning_of_more(short_blocks):
    vectors = clustered(100)
    more = everything(synthesize(vectors, 500))
    for count in (1, 63, 64, 65, 130):
        assert np.array_equal(everything(synthesize(vectors, count)), more[:count])


def test_another_seed_and_another_block_give_other_vectors(short_blocks):
    vectors = clustered(100)
    (first, second), (other, _) = (synthesize(vectors, 128, seed=seed) for seed in (0, 1))
    assert not np.isclose(first, other).all(axis=1).any()
    assert not np.isclose(first, second).all(axis=1).any()


def test_without_noise_each_lies_between_a_real_vector_and_one_of_its_neighbors(monkeypatch):
    monkeypatch.setattr(synthetic_vectors, "NEIGHBORS", 3)
    monkeypatch.setattr(synthetic_vectors, "NOISE", 0)
    real = clustered(200).astype(np.float64)
    neighbors = np.argsort(-(real @ real.T), axis=1)[:, 1:4]
    synthetic = everything(synthesize(real, 60)).astype(np.float64)
    assert ((synthetic @ real.T).max(axis=1) < 1 - 1e-6).mean() > 0.9, "between, and not where a real one is"
    for vector in synthetic:
        # The direction (1-u)·v + u·p for some pair: the least squares residual is zero and both weights are positive.
        fits = []
        for row, partners in enumerate(neighbors):
            for partner in partners:
                pair = np.stack([real[row], real[partner]], axis=1)
                weights, *_ = np.linalg.lstsq(pair, vector, rcond=None)
                fits.append(np.linalg.norm(pair @ weights - vector) < 1e-5 and (weights > -1e-5).all())
        assert any(fits)


def test_noise_lies_along_the_directions_of_the_neighbors(monkeypatch):
    monkeypatch.setattr(synthetic_vectors, "NOISE", 2.0)
    # Real vectors in the first three of six dimensions, so synthetic ones must be zero in the others.
    real = np.zeros((80, 6), np.float32)
    real[:, :3] = np.random.default_rng(0).standard_normal((80, 3))
    synthetic = everything(synthesize(real, 500))
    assert not synthetic[:, 3:].any()
    assert np.linalg.matrix_rank(synthetic) == 3


def test_more_noise_moves_them_further_from_the_real_ones(monkeypatch):
    real = clustered(400)
    index = open_index("exact:cosine").add(real)
    near = []
    for noise in (0, 0.7, 2):
        monkeypatch.setattr(synthetic_vectors, "NOISE", noise)
        near.append(np.median(index.search(everything(synthesize(real, 400)), 1).scores))
    assert near[0] > near[1] > near[2]


def test_they_are_as_far_from_kept_out_queries_as_real_ones_are():
    everyone = clustered(3300)
    queries, half, other = everyone[:300], everyone[300:1800], everyone[1800:]

    def distances(vectors):
        scores = open_index("exact:cosine").add(vectors).search(queries, 10).scores
        return np.median(np.sqrt(2 - 2 * scores[:, [0, 9]]), axis=0)

    real, synthetic = distances(np.concatenate([half, other])), distances(everything(synthesize(half, 3000)))
    random = np.random.default_rng(0).standard_normal((3000, 24)).astype(np.float32)
    np.testing.assert_allclose(synthetic, real, rtol=0.15)
    assert (distances(random / np.linalg.norm(random, axis=1, keepdims=True)) > 1.5 * real).all()


def test_lengths_of_the_real_vectors_make_no_difference():
    real = clustered(100)
    scaled = real * np.random.default_rng(0).uniform(1, 9, (100, 1)).astype(np.float32)
    np.testing.assert_allclose(everything(synthesize(scaled, 100)), everything(synthesize(real, 100)), atol=1e-5)


def test_equal_real_vectors_give_the_same_vector():
    real = np.tile(clustered(1), (20, 1))
    np.testing.assert_allclose(everything(synthesize(real, 50)), np.tile(real[:1], (50, 1)), atol=1e-6)


def test_the_text_says_that_they_are_synthetic():
    assert str(synthesize(clustered(100), 5000)) == "5,000 vectors of 24 numbers SYNTHETIC from 100 real ones"


def test_the_given_vectors_are_copied():
    real = clustered(100)
    before, synthetic = real.copy(), synthesize(real, 100)
    first = everything(synthetic)
    assert np.array_equal(real, before)
    real[:] = 0
    assert np.array_equal(everything(synthetic), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"vectors": clustered(10)}, "10 neighbors need more than 10 vectors, got 10"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthesize(**({"vectors": clustered(30), "count": 10} | arguments))


def test_a_vector_with_nan_is_refused():
    real = clustered(30)
    real[7, 2] = np.nan
    with pytest.raises(ValueError, match="row 7 holds NaN"):
        synthesize(real, 10)


def test_synthetic_activations_are_sparse_and_not_negative():
    """Rows of ReLU outputs with few and with many zeros; each synthetic row has as many as the real one it is near."""
    random = np.random.default_rng(0)
    real = np.concatenate([np.maximum(random.standard_normal((60, 40)) - shift, 0) for shift in (0.3, 1)])
    real[:, 0] += 0.1
    made = everything(synthesize(real, 500, activations=True))
    assert made.min() == 0 and np.isfinite(made).all()
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    zeros, expected = (made == 0).mean(), (real == 0).mean()
    assert abs(zeros - expected) < 0.03
    assert np.count_nonzero(made, axis=1).max() <= np.count_nonzero(real, axis=1).max()
    dense = everything(synthesize(real, 500))
    assert (dense < 0).any() and (dense == 0).mean() < expected / 2


@pytest.mark.parametrize("change", [-0.1, 0])
def test_vectors_that_are_no_activations_are_rejected(change):
    real = np.maximum(clustered(50), 0) + 0.01
    real[3] = change
    with pytest.raises(ValueError, match="must not be negative, and each row needs"):
        synthesize(real, 10, activations=True)


def test_parents_are_the_rows_that_the_vectors_lie_near(short_blocks):
    """Two groups of real vectors that point away from each other: no vector leaves the group of its parent."""
    real = clustered(80)
    real[:, 0] = np.where(np.arange(80) < 40, 9, -9)
    synthetic = synthesize(real, 150)
    parents = synthetic.parents()
    assert parents.shape == (150,) and set(parents) <= set(range(80)) and len(set(parents)) > 40
    assert np.array_equal(everything(synthetic)[:, 0] > 0, parents < 40)
