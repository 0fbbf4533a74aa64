"""Schematic drawings show the values that they were given."""

import itertools
from io import BytesIO

import numpy as np
import pytest
from matplotlib.patches import FancyArrow
from scipy.signal import correlate2d
from sklearn.metrics import average_precision_score

from helpers.visualization import schematics


def texts(figure):
    """All texts of a figure that can be drawn."""
    figure.savefig(BytesIO(), format="png", dpi=30)
    return [text.get_text() for panel in figure.axes for text in panel.texts]


def test_a_pipeline_names_its_steps():
    assert texts(schematics.pipeline([("images", "files"), ("features", "vectors")])) == [
        "images\n", "files", "features\n", "vectors",
    ]  # fmt: skip


def test_a_convolution_shows_all_numbers_and_marks_the_window_of_one():
    image, kernel = np.arange(20).reshape(4, 5), np.array([[1, 0], [0, -1]])
    output = correlate2d(image, kernel, "valid")
    figure = schematics.convolution(image, kernel, output, 1, 2)
    numbers = [text for text in texts(figure) if text not in ("∗", "=")]
    assert numbers == [f"{value:g}" for array in (image, kernel, output) for value in array.ravel()]
    marked = [panel.patches[-1].get_bbox().bounds for panel in figure.axes]
    assert marked == [(1.5, 0.5, 2, 2), (-0.5, -0.5, 2, 2), (1.5, 0.5, 1, 1)]


def test_a_convolution_fills_its_figure():
    """Its margins are at most 3 % of the width and 8 % of the height."""
    image, kernel = np.zeros((6, 6)), np.ones((3, 3))
    figure = schematics.convolution(image, kernel, correlate2d(image, kernel, "valid"), 1, 1)
    figure.savefig(BytesIO())
    areas = [panel.get_position() for panel in figure.axes]
    assert areas[0].x0 < 0.03 and areas[-1].x1 > 0.97 and areas[0].y0 < 0.08
    assert all(area.x1 + 0.05 < after.x0 for area, after in itertools.pairwise(areas))


def test_a_residual_block_names_its_layers():
    assert texts(schematics.residual_block(["conv 1", "conv 2"]))[:3] == ["x", "conv 1", "conv 2"]


@pytest.mark.parametrize(("direction", "step"), [(0, (1, 0)), (2, (0, -1)), (4, (-1, 0)), (6, (0, 1))])
def test_an_arrow_points_along_the_gradient(direction, step):
    """OpenCV's direction 6 is a gradient downward: an image that gets brighter from top to bottom."""
    descriptor = np.zeros((4, 4, 8))
    descriptor[1, 3, direction] = 512
    figure = schematics.sift_descriptor(descriptor.ravel(), np.zeros((8, 8), np.uint8))
    (arrow,) = [patch for patch in figure.axes[1].patches if isinstance(patch, FancyArrow)]
    corners = arrow.get_xy() - (3.5, 1.5)
    assert corners[np.abs(corners).sum(axis=1).argmax()] == pytest.approx(0.46 * np.array(step), abs=1e-6)


def test_the_gallery_shows_what_is_relevant_and_ignored():
    found = texts(schematics.query_and_gallery(["b", "c", "d"], [True, False, None], "a"))
    assert found == ["a", "query", "gallery", "b", "relevant", "c", "not relevant", "d", "ignored"]


def test_average_precision_is_that_of_scikit_learn_if_all_are_found():
    hits = [True, False, True, True, False]
    figure = schematics.precision_and_recall(hits, 3)
    label = figure.axes[1].get_legend().texts[-1].get_text()
    assert label == f"AP = {average_precision_score(hits, -np.arange(5)):.3f}"


def test_relevant_images_that_were_not_found_lower_the_average_precision():
    figure = schematics.precision_and_recall([True, False], 4)
    assert figure.axes[1].get_legend().texts[-1].get_text() == "AP = 0.250"
    with pytest.raises(ValueError, match="must have 1 to 1 relevant results, got 2"):
        schematics.precision_and_recall([True, True], 1)
