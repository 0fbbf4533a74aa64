"""Figures of hand-crafted features show the right data."""

import numpy as np
import pandas as pd
import pytest

from helpers.features.color_shape import Hog
from helpers.features.vocabulary import KeypointConfig, learn
from helpers.images import samples
from helpers.lessons import word_figures

pytestmark = pytest.mark.usefixtures("fresh_cache")


def bars(vertical):
    """Black and white stripes, 128 × 128."""
    stripes = np.tile(np.repeat([0, 255], 8), 8).astype(np.uint8)
    gray = np.tile(stripes, (128, 1)) if vertical else np.tile(stripes[:, None], (1, 128))
    return np.repeat(gray[:, :, None], 3, axis=2)


@pytest.mark.parametrize("vertical", [True, False])
def test_lines_are_parallel_to_the_edges(vertical):
    figure = word_figures.hog_lines([bars(vertical)], Hog())
    drawn = figure.axes[1].collections[0]
    ends, strengths = np.array(drawn.get_segments()), drawn.get_alpha()
    strongest = ends[np.argsort(-strengths)[:64]]
    along = np.abs(strongest[:, 1] - strongest[:, 0])
    assert ((along[:, 1] > 2 * along[:, 0]) == vertical).all()


def test_a_cell_keeps_its_position():
    """An edge in one corner: only the cells of that corner are drawn."""
    image = np.zeros((128, 128, 3), np.uint8)
    image[100:116, 8:40] = 255
    hog = Hog()
    strength = word_figures.cell_histograms(hog.compute(image[None])[0], 8, hog.DIRECTIONS).sum(axis=2)
    rows, columns = np.nonzero(strength > 1e-6)
    assert rows.min() >= 5 and columns.max() <= 3 and len(rows)
    assert strength.shape == (8, 8)


def test_cell_histograms_are_means_over_blocks():
    cells, count = 4, 9
    vector = np.arange((cells - 1) ** 2 * 4 * count, dtype=float)
    found = word_figures.cell_histograms(vector, cells, count)
    blocks = vector.reshape(cells - 1, cells - 1, 2, 2, count)
    # The corner is in one block, its lower neighbor in two. Blocks and cells run column by column.
    assert np.array_equal(found[0, 0], blocks[0, 0, 0, 0])
    assert np.allclose(found[1, 0], (blocks[0, 0, 0, 1] + blocks[0, 1, 0, 0]) / 2)


def test_word_grid_has_one_line_per_word():
    every = samples.with_distractors()
    images = every.subset(range(0, 40, 4))
    learned = learn(images, 10, KeypointConfig(limit=60, size=128), dim=16, progress=False)
    figure = word_figures.word_grid(images, learned, [2, 7], count=5)
    assert len(figure.axes) == 10
    assert [figure.axes[i].get_ylabel() for i in (0, 5)] == ["word 2", "word 7"]
    assert figure.axes[0].images[0].get_array().shape == (48, 48)


def test_size_curves_circle_the_chosen():
    table = pd.DataFrame(
        {"words": [100, 300], "davies_bouldin": [3.0, 2.5], "chosen": [False, True], "mAP": [0.2, 0.3],
         "low": [0.1, 0.2], "high": [0.3, 0.4], "chance": [0.1, 0.1]}
    )  # fmt: skip
    left, right = word_figures.size_curves(table).axes
    assert left.lines[-1].get_xydata().tolist() == [[300, 2.5]]
    assert right.lines[-1].get_xydata().tolist() == [[300, 0.3]]
