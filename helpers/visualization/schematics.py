"""Schematic drawings: pipeline, convolution, residual block, SIFT descriptor, query and gallery, precision and recall.

The drawings show values that the caller computed, so that they agree with the code around them.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from helpers.visualization.curves import COLORS, panel_row

BLUE, ORANGE, GREEN = COLORS[:3]
GRAY, PALE = "#555555", "#eef3f8"


def pipeline(stages: Sequence[tuple[str, str]], width: float = 12) -> Figure:
    """Draw steps in a row, with arrows between them.

    stages : title of each step, and one line below it.
    """
    figure, panel = _canvas(width, 1.5, len(stages), 0.9)
    for number, (title, text) in enumerate(stages):
        _box(panel, number + 0.08, 0.2, 0.74, 0.55, f"{title}\n", weight="bold")
        panel.text(number + 0.45, 0.36, text, ha="center", va="center", fontsize=8, color=GRAY)
        if number:
            _arrow(panel, (number - 0.17, 0.475), (number + 0.07, 0.475))
    return figure


def convolution(image: np.ndarray, kernel: np.ndarray, output: np.ndarray, row: int, column: int) -> Figure:
    """Draw an image, a kernel and their convolution as numbers, with one output value and its window marked.

    Parameters
    ----------
    image : (h, w). kernel : (k, k). output : (h - k + 1, w - k + 1), as `scipy.signal.correlate2d` with mode "valid".
    row, column : of the marked output value.
    """
    shapes = [array.shape for array in (image, kernel, output)]
    widths = [width for _, width in shapes]
    size = 1.1 + 0.52 * sum(widths), 0.4 + 0.52 * max(height for height, _ in shapes)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.12))
    panels = figure.subplots(1, 3, width_ratios=widths)
    for panel, array, title in zip(panels, (image, kernel, output), ("image", "kernel", "output"), strict=True):
        _numbers(panel, array, f"{title} {array.shape[0]} × {array.shape[1]}")
    side = kernel.shape[0]
    _mark(panels[0], column, row, side, ORANGE)
    _mark(panels[1], 0, 0, side, ORANGE)
    _mark(panels[2], column, row, 1, ORANGE)
    panels[0].text(1.03, 0.5, "∗", transform=panels[0].transAxes, fontsize=18, va="center")
    panels[1].text(1.06, 0.5, "=", transform=panels[1].transAxes, fontsize=18, va="center")
    return figure


def residual_block(layers: Sequence[str], width: float = 9) -> Figure:
    """Draw layers in a row, and the connection that adds the block's input to their output.

    layers : the names of the layers before the addition.
    """
    figure, panel = _canvas(width, 2.1, len(layers) + 2.4, 1.5)
    panel.text(0.12, 0.5, "x", fontsize=14, style="italic", va="center", ha="center")
    for number, name in enumerate(layers):
        _arrow(panel, (0.25 if number == 0 else number + 0.28, 0.5), (number + 0.44, 0.5))
        _box(panel, number + 0.45, 0.25, 0.82, 0.5, name)
    end = len(layers) + 0.7
    _arrow(panel, (len(layers) + 0.28, 0.5), (end - 0.13, 0.5))
    panel.add_patch(Circle((end, 0.5), 0.13, facecolor="white", edgecolor=ORANGE, linewidth=1.8))
    panel.text(end, 0.49, "+", fontsize=14, ha="center", va="center", color=ORANGE)
    panel.plot([0.3, 0.3, end], [0.56, 1.2, 1.2], color=ORANGE, linewidth=1.8)
    _arrow(panel, (end, 1.2), (end, 0.64), ORANGE)
    panel.text((0.3 + end) / 2, 1.31, "identity: the input is added unchanged", ha="center", color=ORANGE, fontsize=10)
    _arrow(panel, (end + 0.14, 0.5), (end + 0.5, 0.5))
    panel.text(end + 0.58, 0.5, "F(x) + x", fontsize=12, style="italic", va="center")
    return figure


def sift_descriptor(descriptor: np.ndarray, patch: np.ndarray, width: float = 8) -> Figure:
    """Draw a SIFT descriptor: 4 × 4 cells, each a histogram of 8 gradient directions, as arrows.

    Parameters
    ----------
    descriptor : (128,), in OpenCV's order: rows, columns, directions; not normalized or of any norm.
    patch : uint8 (h, w) or (h, w, 3), the upright patch that it describes; drawn on the left.
    """
    figure, panels = panel_row(2, width, width / 2)
    panels[0].imshow(patch, cmap="gray", extent=(0, 4, 4, 0))
    panels[0].set_title("patch around the keypoint", fontsize=10)
    histograms = np.asarray(descriptor, np.float64).reshape(4, 4, 8)
    histograms = histograms / max(histograms.max(), 1e-12)
    # OpenCV measures the angle of a gradient counterclockwise; the vertical axis of an image points down.
    angles = -2 * np.pi * np.arange(8) / 8
    for (row, column, direction), length in np.ndenumerate(histograms):
        start = column + 0.5, row + 0.5
        step = 0.46 * length * np.array([np.cos(angles[direction]), np.sin(angles[direction])])
        if length > 0.05:
            panels[-1].arrow(*start, *step, color=BLUE, width=0.012, head_width=0.07, length_includes_head=True)
    panels[-1].set_title("descriptor: 4 × 4 cells × 8 directions = 128 numbers", fontsize=10)
    for panel in panels:
        panel.set(xlim=(0, 4), ylim=(4, 0), aspect="equal", xticks=range(5), yticks=range(5))
        panel.tick_params(length=0, labelbottom=False, labelleft=False)
        panel.grid(color=ORANGE, linewidth=1)
    return figure


def query_and_gallery(names: Sequence[str], relevant: Sequence[bool | None], query: str, width: float = 9) -> Figure:
    """Draw a query and its gallery: relevant, other and ignored images.

    Parameters
    ----------
    names : a label for each image of the gallery.
    relevant : True, False, or None for an ignored image.
    """
    figure, panel = _canvas(width, 2.2, len(names) + 2.4, 1.75)
    _tile(panel, 0.1, 0.55, query, GRAY)
    panel.text(0.5, 1.55, "query", ha="center", weight="bold")
    panel.text(2.1 + len(names) / 2, 1.55, "gallery", ha="center", weight="bold")
    _arrow(panel, (1.05, 0.95), (1.95, 0.95))
    kinds = {True: (GREEN, "relevant"), False: (ORANGE, "not relevant"), None: ("#bbbbbb", "ignored")}
    for number, (name, kind) in enumerate(zip(names, relevant, strict=True)):
        color, text = kinds[kind]
        _tile(panel, 2.1 + number, 0.55, name, color)
        panel.text(2.5 + number, 0.3, text, ha="center", color=color if kind is not None else GRAY, fontsize=8)
    return figure


def precision_and_recall(hits: Sequence[bool], total: int, width: float = 9) -> Figure:
    """Draw one ranking, and precision and recall at each rank.

    The average precision is the sum of the large dots, divided by ``total``.

    Parameters
    ----------
    hits : whether the result at each rank is relevant.
    total : number of relevant images in the gallery.
    """
    relevant = np.asarray(hits, bool)
    if not total >= relevant.sum() > 0:
        raise ValueError(f"the ranking must have 1 to {total} relevant results, got {relevant.sum()}")
    ranks = np.arange(1, len(relevant) + 1)
    precision, recall = np.cumsum(relevant) / ranks, np.cumsum(relevant) / total
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 4), sharex=True)
    for rank, hit in zip(ranks, relevant, strict=True):
        color = GREEN if hit else ORANGE
        upper.add_patch(Rectangle((rank - 0.4, 0), 0.8, 1, facecolor=color, alpha=0.85))
        upper.text(rank, 0.5, "○" if hit else "✗", ha="center", va="center", color="white", fontsize=12)
    upper.set(ylim=(0, 1), yticks=[])
    upper.axis("off")
    lower.plot(ranks, precision, color=BLUE, marker=".", label="precision@k")
    lower.plot(ranks, recall, "--", color=GRAY, marker=".", label="recall@k")
    ap = float(precision[relevant].sum() / total)
    lower.plot(ranks[relevant], precision[relevant], "o", color=GREEN, markersize=9, label=f"AP = {ap:.3f}")
    lower.set(xlabel="rank k", xticks=ranks, ylim=(0, 1.05), xlim=(0.4, len(ranks) + 0.6))
    lower.grid(alpha=0.3)
    lower.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _canvas(width: float, height: float, columns: float, rows: float) -> tuple[Figure, Axes]:
    """A figure with one panel in units of cells, without axes."""
    figure, (panel,) = panel_row(1, width, height)
    panel.set(xlim=(0, columns), ylim=(0, rows))
    panel.axis("off")
    return figure, panel


def _box(panel: Axes, x: float, y: float, width: float, height: float, text: str, weight: str = "normal") -> None:
    style = "round,pad=0,rounding_size=0.06"
    panel.add_patch(FancyBboxPatch((x, y), width, height, style, facecolor=PALE, edgecolor=BLUE, linewidth=1.4))
    panel.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=10, weight=weight)


def _tile(panel: Axes, x: float, y: float, text: str, color: str) -> None:
    panel.add_patch(Rectangle((x, y), 0.8, 0.8, facecolor="white", edgecolor=color, linewidth=2.5))
    panel.text(x + 0.4, y + 0.4, text, ha="center", va="center", fontsize=9)


def _arrow(panel: Axes, start: tuple[float, float], end: tuple[float, float], color: str = GRAY) -> None:
    panel.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=13, color=color, linewidth=1.6, shrinkA=0, shrinkB=0
        )
    )


def _numbers(panel: Axes, array: np.ndarray, title: str) -> None:
    """Draw a matrix: its values on cells whose brightness shows them."""
    low, high = float(array.min()), float(array.max())
    panel.imshow(array, cmap="gray", vmin=low - 0.6 * (high - low or 1), vmax=high, alpha=0.75)
    for (row, column), value in np.ndenumerate(array):
        panel.text(column, row, f"{value:g}", ha="center", va="center", fontsize=11)
    panel.set_title(title, fontsize=10)
    panel.set(xticks=np.arange(array.shape[1] + 1) - 0.5, yticks=np.arange(array.shape[0] + 1) - 0.5)
    panel.grid(color="white")
    panel.tick_params(length=0, labelbottom=False, labelleft=False)


def _mark(panel: Axes, column: int, row: int, side: int, color: str) -> None:
    panel.add_patch(
        Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor=color, linewidth=3, zorder=3)
    )
