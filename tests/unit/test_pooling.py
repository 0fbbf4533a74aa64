"""Pooling of feature maps: by hand, bounds, and invariance to the location."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.features import pooling

MAP = np.array([[[1.0, 0.0], [2.0, 0.0]], [[3.0, 4.0], [2.0, 0.0]]], np.float32)[None]  # (1, 2, 2, 2)
some_maps = arrays(np.float32, (2, 3, 4, 2), elements=st.floats(0, 1e4, width=32))


def test_by_hand():
    assert pooling.flatten(MAP).tolist() == [[1, 0, 2, 0, 3, 4, 2, 0]]
    assert pooling.average(MAP).tolist() == [[2, 1]]
    assert pooling.maximum(MAP).tolist() == [[3, 4]]
    # Third root of the mean of 1, 8, 27, 8, and of 0, 0, 64, 0.
    assert pooling.gem(MAP)[0] == pytest.approx([11 ** (1 / 3), 16 ** (1 / 3)])
    # One square of width 2 on the first level, four of width 1 on the second.
    level_1 = np.array([3, 4]) / 5
    level_2 = np.array([1.0, 0]) + [1, 0] + np.array([3, 4]) / 5 + [1, 0]
    assert pooling.rmac(MAP, levels=2)[0] == pytest.approx(level_1 + level_2)


@pytest.mark.parametrize("shape", [(7, 7), (6, 8), (14, 10), (1, 1), (2, 3), (1, 9)])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_squares_lie_inside_and_cover_the_map(shape, levels):
    squares = pooling.squares(*shape, levels)
    covered = np.zeros(shape, bool)
    for top, left, side in squares:
        assert side >= 1 and top >= 0 and left >= 0 and top + side <= shape[0] and left + side <= shape[1]
        covered[top : top + side, left : left + side] = True
    # At most eight squares along one side; they cannot cover a long strip.
    assert covered.all() or max(shape) > 8 * min(shape)


def test_squares_of_a_square_map_are_those_of_the_paper():
    """1, 4 and 9 squares of width 2 · 7 / (l + 1)."""
    sides = [side for _, _, side in pooling.squares(7, 7, 3)]
    assert sides == [7] * 1 + [4] * 4 + [3] * 9


@given(some_maps)
def test_the_generalized_mean_lies_between_average_and_maximum(maps):
    mean, top = pooling.average(maps), pooling.maximum(maps)
    found = pooling.gem(maps, 3)
    slack = 1e-4 * top + 1e-6
    assert (found >= mean - slack).all() and (found <= top + slack).all()
    assert np.allclose(pooling.gem(maps, 1), mean, rtol=1e-4, atol=1e-4)
    assert (pooling.gem(maps, 6) >= found - slack).all(), "increases with the exponent"


@pytest.mark.parametrize("name", ["average", "max", "gem"])
def test_the_location_does_not_matter(name):
    maps = np.random.default_rng(0).uniform(0, 5, (3, 4, 4, 8)).astype(np.float32)
    assert np.allclose(pooling.POOLINGS[name](maps), pooling.POOLINGS[name](maps[:, ::-1, ::-1]), rtol=1e-5)
    assert not np.allclose(pooling.flatten(maps), pooling.flatten(maps[:, ::-1, ::-1]))


@pytest.mark.parametrize("name", pooling.POOLINGS)
@pytest.mark.parametrize("scale", [0, 1e-30, 1, 60000])
def test_no_number_overflows_or_vanishes(name, scale):
    maps = (scale * np.random.default_rng(0).uniform(0.5, 1, (2, 7, 7, 4))).astype(np.float32)
    found = pooling.POOLINGS[name](maps)
    assert found.shape == (2, 4) and found.dtype == np.float32 and np.isfinite(found).all()
    assert (found > 0).all() == (scale > 0)


def test_maps_in_half_precision_are_pooled_in_single():
    maps = np.full((1, 14, 14, 1), 3000, np.float16)
    for name, each in pooling.POOLINGS.items():
        assert name == "rmac" or each(maps)[0, 0] == pytest.approx(3000), name


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        pooling.gem(MAP, 0)
    with pytest.raises(ValueError, match="at least 1"):
        pooling.rmac(MAP, 0)


# ---- boxes --------------------------------------------------------------------------------------------


@given(arrays(np.float32, (3, 4, 2), elements=st.floats(0, 100, width=32)), st.data())
@pytest.mark.parametrize("name", pooling.REGION_POOLINGS)
def test_pooling_in_boxes_agrees_with_pixels(name, one, data):
    """The slow reference divides each cell into 8 × 8 pixels and pools those inside of the box."""
    x, y = data.draw(st.integers(0, 31)), data.draw(st.integers(0, 23))
    w, h = data.draw(st.integers(1, 32 - x)), data.draw(st.integers(1, 24 - y))
    pixels = one.repeat(8, axis=0).repeat(8, axis=1)[y : y + h, x : x + w]
    expected = pooling.POOLINGS[name](pixels[None])[0]
    found = pooling.pool_boxes(one, np.array([[x, y, w, h]]) / 8, name)
    assert found.dtype == np.float32 and found[0] == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_the_shares_of_cells():
    found = pooling.cell_shares(np.array([[0.5, 0, 1, 1.25], [0, 0, 3, 2]]), 2, 3)
    assert found[0].tolist() == [[0.5, 0.5, 0], [0.125, 0.125, 0]] and (found[1] == 1).all()
    assert pooling.cell_shares(np.empty((0, 4)), 2, 3).shape == (0, 2, 3)


@pytest.mark.parametrize("name", pooling.REGION_POOLINGS)
def test_pooling_without_boxes(name):
    assert pooling.pool_boxes(MAP[0], np.empty((0, 4)), name).shape == (0, 2)


def test_the_maximum_of_a_tiny_box_is_that_of_its_cell():
    tiny = np.array([[1.2, 0.3, 1e-4, 1e-4]])
    assert pooling.pool_boxes(MAP[0], tiny, "max").tolist() == MAP[0, 0, 1:2].tolist()


def test_wrong_boxes_and_poolings():
    with pytest.raises(ValueError, match="no area inside the map of 2 × 2 cells"):
        pooling.pool_boxes(MAP[0], np.array([[0, 0, 1, 1], [2, 0, 1, 1]]), "average")
    with pytest.raises(ValueError, match="average, max, gem; got 'rmac'"):
        pooling.pool_boxes(MAP[0], np.array([[0, 0, 1, 1]]), "rmac")
