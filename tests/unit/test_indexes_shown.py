"""Figures of indexes: visited cells are colored and counted, and points have the positions of the numbers."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from helpers.lessons import index_figures
from helpers.visualization.curves import COLORS

POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
QUERY = np.array([0.4, 0.0])


def drawn(panel, color):
    """Points of the lines of a color, as tuples."""
    lines = [line for line in panel.lines if to_hex(line.get_color()) == to_hex(color)]
    return [tuple(map(float, point)) for line in lines for point in line.get_xydata()]


def test_visited_cells_are_colored_and_counted():
    parts = {"two": (np.array([5, 5, 7, 7]), [5]), "one each": (np.arange(4), [3, 1])}
    first, second = index_figures.cells(POINTS, QUERY, [0, 1], parts).axes
    assert first.get_title() == "two: 2 of 4 compared, 2 of 2 neighbors found"
    assert second.get_title() == "one each: 2 of 4 compared, 1 of 2 neighbors found"
    assert drawn(first, COLORS[0]) == [(0, 0), (1, 0)] and drawn(first, "0.8") == [(2, 0), (3, 0)]
    # Colors follow the order of the visits.
    assert drawn(second, COLORS[0]) == [(3, 0)] and drawn(second, COLORS[1]) == [(1, 0)]


def test_the_query_and_its_results_are_marked_in_every_panel():
    parts = {name: (np.zeros(4, int), [0]) for name in "ab"}
    for panel in index_figures.cells(POINTS, QUERY, [0, 1], parts).axes:
        circles = [line for line in panel.lines if line.get_markerfacecolor() == "none"]
        assert [line.get_xydata().tolist() for line in circles] == [[[0, 0], [1, 0]]]
        (star,) = [line for line in panel.lines if line.get_marker() == "*"]
        assert star.get_xydata().tolist() == [QUERY.tolist()]


def test_a_graph_search_is_drawn_in_its_order_and_each_link_once():
    links = [[1], [0, 2], [1], [2]]
    (panel,) = index_figures.graph_search(POINTS, links, [3, 1, 0], QUERY, [0]).axes
    assert drawn(panel, COLORS[1]) == [(3, 0), (1, 0), (0, 0)]
    assert [text.get_text() for text in panel.texts] == ["0", "1", "2"]
    gray = [line.get_xydata().tolist() for line in panel.lines if to_hex(line.get_color()) == to_hex("0.8")]
    # The link from 3 to 2 has no link back; it is drawn, too.
    assert sorted(sorted(link) for link in gray) == [[[0, 0], [1, 0]], [[1, 0], [2, 0]], [[2, 0], [3, 0]]]


@pytest.fixture
def table():
    lines = [
        ("1,000", "flat", 1.0, 0.5, 40_000, 1000), ("1,000", "codes", 0.6, 0.1, 10_000, 1000),
        ("1,000", "codes", 0.9, 0.2, 10_000, 1000), ("2,000", "flat", 1.0, 1.0, 80_000, 2000),
        ("2,000", "codes", 0.5, 0.1, 16_000, 2000),
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=["gallery", "index", "recall", "milliseconds", "bytes", "count"])


def test_trade_offs_have_one_panel_per_gallery_and_one_line_per_index(table):
    figure = index_figures.trade_offs(table)
    assert [panel.get_title() for panel in figure.axes] == ["1,000", "2,000"]
    flat, codes = figure.axes[0].lines
    assert [flat.get_ydata().tolist(), codes.get_ydata().tolist()] == [[0.5], [0.1, 0.2]]
    assert all(panel.get_yscale() == "log" for panel in figure.axes)
    # A tenth of the errors is one step to the right; a recall of 1 has a position, too.
    assert codes.get_xdata() == pytest.approx([-np.log10(0.4), 1])
    ticks = zip(figure.axes[0].get_xticklabels(), figure.axes[0].get_xticks(), strict=True)
    named = {text.get_text(): position for text, position in ticks}
    assert named["0.9"] == pytest.approx(1) and named["0.99"] == pytest.approx(2)
    assert named["1"] == flat.get_xdata()[0] and 2 < named["1"] < 3 and "0" not in named
    figure.draw_without_rendering()
    left, right = figure.axes[0].get_xlim()
    assert left < codes.get_xdata()[0] and flat.get_xdata()[0] < right


def test_heavy_vectors_in_a_small_gallery_do_not_shrink_other_markers(table):
    heavy = table.assign(bytes=table["bytes"].where(table.index > 0, 10**9))
    flat, codes = index_figures.trade_offs(heavy).axes[1].lines
    usual = index_figures.trade_offs(table).axes[1].lines
    assert [flat.get_markersize(), codes.get_markersize()] == [line.get_markersize() for line in usual]
    assert index_figures.trade_offs(heavy).axes[0].lines[0].get_markersize() == 12


def test_markers_grow_with_bytes_per_vector(table):
    figure = index_figures.trade_offs(table)
    flat, codes = figure.axes[0].lines
    areas = [(line.get_markersize() - 3) ** 2 for line in (flat, codes)]
    assert areas[0] == pytest.approx(4 * areas[1])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "flat: 40 bytes per vector", "codes: 8 bytes per vector",
    ]  # fmt: skip


def test_search_costs_have_a_color_per_algorithm_and_a_style_per_group():
    lines = [
        (group, algorithm, dim, dim * factor, 0.5)
        for group, factor in (("random", 1.0), ("photographs", 2.0))
        for algorithm in ("brute", "kd_tree")
        for dim in (2, 512)
    ]
    table = pd.DataFrame(lines, columns=["vectors", "algorithm", "dim", "milliseconds", "compared"])
    time, share = index_figures.search_costs(table, "dim", "vectors").axes
    assert drawn(time, COLORS[1]) == [(2, 2), (512, 512), (2, 4), (512, 1024)]
    assert drawn(share, COLORS[0]) == [(2, 0.5), (512, 0.5)] * 2
    assert [(line.get_label(), line.get_linestyle()) for line in time.lines] == [
        ("brute, random", "-"), ("kd_tree, random", "-"), ("brute, photographs", "--"), ("kd_tree, photographs", "--"),
    ]  # fmt: skip
    assert time.get_xlabel() == "dimensions" and [text.get_text() for text in time.get_xticklabels()] == ["2", "512"]


def test_a_plan_has_a_bar_per_index_and_dimension():
    plans = pd.DataFrame({256: [1.0, 0.5], 2048: [8.0, 4.0]}, index=["exact:cosine", "faiss:ivf"])
    (panel,) = index_figures.memory_plan(plans, (2, 16)).axes
    widths = [[bar.get_width() for bar in container] for container in panel.containers]
    assert widths == [[1.0, 0.5], [8.0, 4.0]]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["exact:cosine", "faiss:ivf"]
    assert [line.get_xdata()[0] for line in panel.lines] == [2, 16]
    # The first row is at the top, and bars start at zero.
    assert panel.get_ylim()[0] > panel.get_ylim()[1] and panel.get_xlim()[0] == 0
