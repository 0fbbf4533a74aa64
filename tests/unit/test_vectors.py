"""Normalization: an example by hand, properties, and scikit-learn as the reference implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.preprocessing import normalize

from helpers.vectors import l2_normalize, unit_query

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
MATRICES = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: arrays.arrays(dtype, SHAPES, elements=st.floats(-1e6, 1e6, width=32))
)


def test_by_hand():
    unit = l2_normalize(np.array([[3, 4], [0, 0], [0, -2]]))
    assert unit.tolist() == [[0.6, 0.8], [0, 0], [0, -1]] and unit.dtype == np.float64


@given(MATRICES)
def test_lengths_are_one_or_zero_and_directions_stay(vectors):
    before = vectors.copy()
    for compute_dtype in (None, np.float64):
        unit = l2_normalize(vectors, compute_dtype)
        assert unit.dtype == vectors.dtype and unit.shape == vectors.shape and np.array_equal(vectors, before)
        # Squares of float32 numbers below 1e-19 underflow, unless they are computed in float64.
        least = 1e-15 if compute_dtype is None else 0
        long = np.abs(vectors).max(axis=1) > least
        assert np.linalg.norm(unit[long].astype(float), axis=1) == pytest.approx(np.ones(long.sum()), abs=1e-6)
        scaled = vectors[long] / np.abs(vectors[long]).max(axis=1, keepdims=True).astype(float)
        assert np.allclose(unit[long], normalize(scaled) if len(scaled) else scaled, atol=1e-6)
        assert (unit[~vectors.any(axis=1)] == 0).all()


@given(MATRICES)
def test_normalization_is_idempotent(vectors):
    once = l2_normalize(vectors, np.float64)
    assert np.allclose(l2_normalize(once, np.float64), once, atol=1e-6)


@given(MATRICES)
def test_one_vector_is_normalized_as_among_others(vectors):
    """A single query takes a path of its own; only the last bit may differ."""
    together = l2_normalize(np.repeat(vectors, 2, axis=0), np.float64)[::2]
    alone = np.concatenate([l2_normalize(row[None], np.float64) for row in vectors])
    assert alone.dtype == together.dtype
    assert np.allclose(alone, together, rtol=2 * np.finfo(vectors.dtype).eps, atol=0)


@given(MATRICES)
def test_a_query_is_normalized_as_a_vector(vectors):
    for row in vectors.astype(np.float32):
        alone = unit_query(row[None])
        assert alone.dtype == np.float32 and alone.shape == (1, len(row))
        assert np.allclose(alone, l2_normalize(row[None], np.float64), rtol=4 * np.finfo(np.float32).eps, atol=0)
        assert np.allclose(unit_query(alone), alone, rtol=4 * np.finfo(np.float32).eps, atol=0)


def test_a_query_of_length_one_is_not_copied():
    unit = l2_normalize(np.random.default_rng(0).normal(size=(100, 1280)).astype(np.float32))
    assert all(unit_query(row[None]).base is not None for row in unit)
    extreme = np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0]], np.float32)
    assert np.allclose([unit_query(row[None])[0] for row in extreme], [[0.6, 0.8], [0.6, 0.8], [0, 0]])


def test_extreme_numbers_need_float64():
    extreme = np.array([[3e30, 4e30], [3e-30, 4e-30]], np.float32)
    with np.errstate(over="ignore"):
        assert not np.allclose(l2_normalize(extreme), [[0.6, 0.8]] * 2)
    wide = l2_normalize(extreme, np.float64)
    assert wide.dtype == np.float32 and np.allclose(wide, [[0.6, 0.8]] * 2)
    assert np.allclose(l2_normalize(extreme[:1], np.float64), [[0.6, 0.8]])


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_do_not_depend_on_other_rows(order):
    """Also if rows are normalized in several chunks."""
    vectors = np.random.default_rng(0).normal(size=(9000, 33)).astype(np.float32)
    whole = l2_normalize(np.asarray(vectors, order=order))
    assert np.allclose(whole, vectors / np.sqrt((vectors.astype(float) ** 2).sum(axis=1))[:, None], atol=1e-7)
    some = [0, 4095, 4096, 8999]
    assert np.allclose(whole[some], l2_normalize(vectors[some]), atol=1e-7)


def test_nan_stays_in_its_row():
    unit = l2_normalize(np.array([[np.nan, 1], [0, 5]], np.float32))
    assert np.isnan(unit[0, 0]) and unit[1].tolist() == [0, 1]
    assert np.isnan(l2_normalize(np.array([[np.nan, 1]], np.float32), np.float64)).all()
    assert l2_normalize(np.empty((0, 3), np.float32)).shape == (0, 3)
