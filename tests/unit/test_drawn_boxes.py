"""Boxes are drawn where they are, with readable labels."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from helpers.images import scenes
from helpers.networks.detectors import Detections
from helpers.search.ranking import Ranking
from helpers.search.region_search import RegionMatch, RegionRanking
from helpers.visualization import boxes
from helpers.visualization.boxes import BoxedImage
from helpers.visualization.curves import COLORS

GRAY = np.full((60, 80, 3), 128, np.uint8)


def drawn(item, line_width):
    """The pixels of an image with its boxes, uint8 (60, 80, 3), without a margin."""
    figure = Figure(figsize=(0.8, 0.6), dpi=100)
    panel = figure.add_axes((0, 0, 1, 1))
    panel.axis("off")
    boxes.draw_boxes(panel, item, line_width)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_the_lines_are_at_the_edges_of_the_box():
    # Two points are nearly three pixels at 100 dpi.
    pixels = drawn(BoxedImage(GRAY, np.array([[20, 10, 40, 30]]), colors=["#ff0000"]), 2.0)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 80)
    rows, columns = np.nonzero(red.any(axis=1))[0], np.nonzero(red.any(axis=0))[0]
    assert np.abs(np.array([columns[0], rows[0], columns[-1], rows[-1]]) - [19, 9, 60, 40]).max() <= 1
    assert not red[14:36, 24:56].any()


def texts(panel):
    return {each.get_text(): each for each in panel.texts}


def test_labels_have_the_color_of_their_box():
    figure = boxes.box_grid([BoxedImage(GRAY, np.array([[5, 30, 9, 9], [30, 0, 9, 9]]), ["Dog $1$", "Cat"])], 2)
    assert len(figure.axes) == 2
    found = texts(figure.axes[0])
    assert set(found) == {"Dog $1$", "Cat"}
    for name, color in zip(("Dog $1$", "Cat"), COLORS, strict=False):
        assert found[name].get_bbox_patch().get_facecolor()[:3] == pytest.approx(to_rgb(color))
        assert found[name].get_color() == "white"
    # At the upper border, the label is inside of the box.
    assert found["Dog $1$"].get_va() == "bottom" and found["Cat"].get_va() == "top"
    # In the right half, the label ends at the edge of the box.
    right = boxes.box_grid([BoxedImage(GRAY, np.array([[60, 30, 15, 9]]), ["Dog"])], 1)
    label = texts(right.axes[0])["Dog"]
    assert (label.get_ha(), label.xy) == ("right", (74.5, 29.5)) and found["Cat"].get_ha() == "left"
    # On a bright color, the text is black.
    bright = boxes.box_grid([BoxedImage(GRAY, np.array([[5, 30, 9, 9]]), ["Dog"], ["#E69F00"])], 1)
    assert texts(bright.axes[0])["Dog"].get_color() == "black"


def test_detections_have_classes_and_scores():
    found = Detections(np.array([[1, 2, 3, 4]]), np.array([1]), np.array([0.876]), ("Cat", "Dog"))
    item = boxes.detected(GRAY, found, "title")
    assert item.labels == ["Dog 0.88"] and item.boxes.tolist() == [[1, 2, 3, 4]] and item.title == "title"


@pytest.mark.parametrize("wrong", [{"labels": ["one", "two"]}, {"colors": ["red", "blue"]}])
def test_each_box_needs_a_label_and_a_color(wrong):
    with pytest.raises(ValueError, match=r"1 boxes need as many (labels|colors), got 2"):
        boxes.box_grid([BoxedImage(GRAY, np.zeros((1, 4)), **wrong)])


def test_results_show_the_matched_part():
    images = scenes.load().images
    part = RegionMatch(np.array([3, 4, 50, 60], np.float32), "Car", 0.75)
    found = RegionRanking(
        Ranking(np.array([[7, 2]]), np.array([[0.8, 0.6]])), ((RegionMatch(None, None, 0.8), None), (None, part))
    )
    figure = boxes.region_results(BoxedImage(GRAY, np.array([[0, 0, 9, 9], [9, 9, 9, 9]])), images, found, [2], 3)
    query, first, second = figure.axes
    assert len(query.patches) == 2 and not first.patches and not first.texts
    assert (first.get_title(), second.get_title()) == ("✗ 1 · 0.80", "○ 2 · 0.60")
    (rectangle,) = second.patches
    assert rectangle.get_bbox().bounds == (2.5, 3.5, 50, 60)
    # The second part of the query has the second color.
    assert rectangle.get_edgecolor()[:3] == pytest.approx(to_rgb(COLORS[1]))
    assert list(texts(second)) == ["Car 0.75"]
