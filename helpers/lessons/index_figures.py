"""Figures of indexes: the parts of a gallery that a search visits, its costs, and recall against time and memory."""

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from helpers.visualization.curves import COLORS, panel_row

_MARKERS = "osD^vPX*<>"
_PALE = "0.8"


def cells(
    points: np.ndarray, query: np.ndarray, nearest: Sequence[int],
    parts: Mapping[str, tuple[np.ndarray, Collection[int]]], width: float = 12,
) -> Figure:  # fmt: skip
    """Show partitions of a gallery, one panel per index: visited cells in color, the others gray.

    Parameters
    ----------
    points : float (n, 2). query : float (2,), a star. nearest : rows of the true neighbors, circled.
    parts : index → (int (n,), the cell of each point; the cells that the search visits).
    """
    figure, panels = panel_row(len(parts), width, 0.95 * width / len(parts) + 0.3, sharex=True, sharey=True)
    for panel, (name, (cell_of, visited)) in zip(panels, parts.items(), strict=True):
        inside = np.isin(cell_of, list(visited))
        panel.plot(*points[~inside].T, ".", color=_PALE, markersize=4)
        for cell, color in zip(visited, cycle(COLORS), strict=False):
            panel.plot(*points[cell_of == cell].T, "o", color=color, markersize=3.5)
        _draw_query(panel, points, query, nearest)
        found = int(inside[list(nearest)].sum())
        title = f"{name}: {inside.sum()} of {len(points)} compared, {found} of {len(nearest)} neighbors found"
        panel.set_title(title, fontsize=10)
    return figure


def graph_search(
    points: np.ndarray, links: Sequence[Collection[int]], path: Sequence[int], query: np.ndarray,
    nearest: Sequence[int],
) -> Figure:  # fmt: skip
    """Show a search in a neighbor graph: links in gray, the path in color with its steps numbered.

    points : float (n, 2). links : the neighbors of each row. path : the visited rows in order.
    query : float (2,), a star. nearest : rows of the true neighbors, circled.
    """
    figure, (panel,) = panel_row(1, 7, 5.25)
    for row, others in enumerate(links):
        for other in others:
            # Each link once.
            if row < other or row not in links[other]:
                panel.plot(*points[[row, other]].T, color=_PALE, linewidth=0.5, zorder=1)
    panel.plot(*points.T, ".", color="0.55", markersize=4, zorder=2)
    panel.plot(*points[list(path)].T, "o-", color=COLORS[1], markersize=5, linewidth=2, zorder=3)
    for step, row in enumerate(path):
        panel.annotate(str(step), points[row], textcoords="offset points", xytext=(6, 4), fontsize=9, color=COLORS[1])
    _draw_query(panel, points, query, nearest)
    return figure


def trade_offs(table: pd.DataFrame) -> Figure:
    """Plot the milliseconds per query over recall: one panel per gallery, one line per index over its search effort.

    The recall axis is logarithmic in 1 - recall, to spread values between 0.9 and 1. Marker sizes grow with the square
    root of the bytes per vector; the legend gives the bytes in the last gallery.

    table : columns ``gallery, index, recall, milliseconds, bytes, count``.
    """
    galleries, indexes = (list(dict.fromkeys(table[name])) for name in ("gallery", "index"))
    figure, panels = panel_row(len(galleries), 13, 4.9, sharex=True, sharey=True, grid=True)
    weight = table["bytes"] / table["count"]
    # From the last and largest gallery: on small ones some libraries use many times the size of the vectors.
    heaviest = weight[table["gallery"] == galleries[-1]].max()
    shown = {}
    for panel, gallery in zip(panels, galleries, strict=True):
        for index, part in table[table["gallery"] == gallery].groupby("index", sort=False):
            number = indexes.index(index)
            color, marker = COLORS[number % len(COLORS)], _MARKERS[number % len(_MARKERS)]
            each = weight[part.index].mean()
            size = 9 * min(1.0, np.sqrt(each / heaviest))
            (line,) = panel.plot(
                _recall_axis(part["recall"]), part["milliseconds"], marker=marker, markersize=3 + size, color=color,
                linestyle="-" if number < len(COLORS) else "--", linewidth=1.2, alpha=0.85,
            )  # fmt: skip
            shown[index] = line, f"{index}: {each:,.0f} bytes per vector"
        panel.set_title(gallery, fontsize=10)
        panel.set_yscale("log")
        panel.set_xlabel("recall@10 against exact search")
    ticks = [recall for recall in (0, 0.5, 0.8, 0.9, 0.95, 0.99) if recall > table["recall"].min() - 0.2] + [1]
    panels[0].set_xticks(_recall_axis(ticks), [f"{recall:g}" for recall in ticks])
    panels[0].set_ylabel("milliseconds per query")
    lines, names = zip(*shown.values(), strict=True)
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def memory_plan(plans: pd.DataFrame, limits: Sequence[float]) -> Figure:
    """Plot gigabytes as bars: one group per row, one bar per column; limits of memory are dashed lines.

    plans : gigabytes, with the specs as index and the numbers of dimensions as columns.
    """
    figure, (panel,) = panel_row(1, 10, 0.55 * len(plans) + 1.6)
    plans.rename(columns="{:,} dimensions".format).plot.barh(ax=panel, width=0.8, color=COLORS, legend=False)
    for limit in limits:
        panel.axvline(limit, color="0.4", linestyle="--", linewidth=1)
        panel.annotate(
            f"{limit:g} GB", (limit, -0.6), ha="center", va="bottom", fontsize=9, color="0.3", backgroundcolor="white"
        )
    panel.set_ylim(len(plans) - 0.5, -0.9)
    panel.set_xlabel("gigabytes")
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def search_costs(table: pd.DataFrame, over: str, style: str) -> Figure:
    """Plot the milliseconds per query and the distances computed, one color per algorithm and one line style per group.

    table : the result of `helpers.lessons.tree_measurement.measure`.
    over : the column of the horizontal axis, ``dim`` or ``count``. style : the column that the line style shows.
    """
    figure, panels = panel_row(2, 12, 4.4, grid=True)
    algorithms, groups = (list(dict.fromkeys(table[name])) for name in ("algorithm", style))
    labels = {"milliseconds": "milliseconds per query", "compared": "distances computed / vectors"}
    for panel, (cost, label) in zip(panels, labels.items(), strict=True):
        for (algorithm, group), part in table.groupby(["algorithm", style], sort=False):
            number = groups.index(group)
            panel.plot(
                part[over], part[cost], color=COLORS[algorithms.index(algorithm)], linestyle=("-", "--", ":")[number],
                marker=_MARKERS[number], markersize=4, label=f"{algorithm}, {group}",
            )  # fmt: skip
        panel.set_xscale("log", base=2)
        ticks = sorted(set(table[over]))
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        panel.set(xlabel={"dim": "dimensions", "count": "vectors in the gallery"}[over], ylabel=label)
    panels[0].set_yscale("log")
    panels[1].set_ylim(0, 1.1)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _recall_axis(recall: ArrayLike) -> np.ndarray:
    """Positions on the axis: -log10(1 - recall), and a little beyond 0.998 for a recall of 1."""
    return -np.log10(np.maximum(1 - np.asarray(recall, float), 1.5e-3))


def _draw_query(panel: Axes, points: np.ndarray, query: np.ndarray, nearest: Sequence[int]) -> None:
    panel.plot(*points[list(nearest)].T, "o", markersize=10, markerfacecolor="none", markeredgecolor="black", zorder=4)
    panel.plot(*query, "*", color="black", markersize=13, zorder=5)
    panel.set(xticks=[], yticks=[])
