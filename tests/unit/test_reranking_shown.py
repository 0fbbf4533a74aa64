"""Figures of re-ranking: colors follow the intervals, and points have the positions of the numbers."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from helpers.images import samples
from helpers.lessons import reranking_figures
from helpers.visualization.grids import NEGATIVE, POSITIVE


@pytest.fixture
def table():
    lines = [
        ("photos", "up", 0.6, 0.1, 0.05, 0.15, 0.4),
        ("photos", "nothing", 0.6, -0.0001, -0.02, 0.03, 2.0),
        ("faces", "up", 0.9, -0.1, -0.2, -0.05, 0.5),
    ]
    return pd.DataFrame(lines, columns=["task", "method", "before", "gain", "low", "high", "ms"])


def test_gains_are_green_losses_red_and_undecided_gray(table):
    first, second = reranking_figures.gain_intervals(table).axes
    words = {text.get_text(): to_hex(text.get_color()) for panel in (first, second) for text in panel.texts}
    assert words == {
        "+0.100 · 0.4 ms": POSITIVE,
        "+0.000 · 2.0 ms": reranking_figures.UNDECIDED,
        "-0.100 · 0.5 ms": NEGATIVE,
    }
    assert first.get_title() == "photos: 0.600 before" and second.get_title() == "faces: 0.900 before"
    assert [label.get_text() for label in first.get_yticklabels()] == ["up", "nothing"]


def test_texts_are_next_to_the_intervals_and_inside_the_panel(table):
    figure = reranking_figures.gain_intervals(table)
    figure.draw_without_rendering()
    for panel in figure.axes:
        frame = panel.get_window_extent()
        for text in panel.texts:
            box = text.get_window_extent()
            assert frame.x0 < box.x0 and box.x1 < frame.x1
            assert panel.transData.inverted().transform((box.x0, box.y0))[0] > table["high"].max()


def test_a_method_without_a_row_leaves_its_line_empty(table):
    swapped = table.assign(method=["up", "nothing", "nothing"])
    panel = reranking_figures.gain_intervals(swapped).axes[1]
    assert [text.get_position()[1] for text in panel.texts] == [1]


def test_the_query_always_has_a_black_frame():
    images = samples.photos()
    same, other = (
        np.flatnonzero(images.labels == images.labels[0])[1],
        np.flatnonzero(images.labels != images.labels[0])[0],
    )
    figure = reranking_figures.neighbor_rows(images, 0, [(0, [same, other], ["⇄", "→"]), (same, [0], ["the query"])])
    framed = [(cell.get_title(), to_hex(cell.spines["left"].get_edgecolor())) for cell in figure.axes if cell.axison]
    assert framed == [
        ("query", "#000000"), ("⇄", POSITIVE), ("→", NEGATIVE), ("its nearest →", POSITIVE), ("the query", "#000000"),
    ]  # fmt: skip


def test_strips_split_the_queries_by_their_first_result():
    values, relevant = np.array([0.1, 0.3, -0.2]), np.array([True, True, False])
    (panel,) = reranking_figures.gain_strips({"photos": (values, relevant)}).axes
    assert [label.get_text() for label in panel.get_xticklabels()] == [
        "first result relevant\n2 queries", "first result not relevant\n1 queries",
    ]  # fmt: skip
    points = [sorted(line.get_ydata()) for line in panel.lines if line.get_marker() == "o"]
    assert points == [[0.1, 0.3], [-0.2]]
    means = [line.get_ydata()[0] for line in panel.lines if line.get_markersize() == 22]
    assert means == pytest.approx([0.2, -0.2])


def test_strips_of_a_task_with_relevant_first_results_only():
    (panel,) = reranking_figures.gain_strips({"photos": (np.ones(2), np.ones(2, bool))}).axes
    assert "0 queries" in panel.get_xticklabels()[1].get_text()


def test_a_sweep_is_sorted_by_value():
    columns = ["method", "parameter", "value", "task", "gain", "low", "high"]
    lines = [("m", "k", 10, "photos", 0.2, 0.1, 0.3), ("m", "k", 2, "photos", 0.1, 0.0, 0.2)]
    (panel,) = reranking_figures.gain_sweep(pd.DataFrame(lines, columns=columns)).axes
    assert panel.lines[0].get_xydata().tolist() == [[2, 0.1], [10, 0.2]]
    assert (panel.get_title(), panel.get_xlabel()) == ("m", "k")
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["2", "10"]
