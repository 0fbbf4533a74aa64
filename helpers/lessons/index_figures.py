"""Indexes, drawn: which parts of a gallery a search looks into, and what recall costs in time and memory."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.visualization.curves import COLORS

_MARKERS = "osD^vPX*<>"
_PALE = "0.8"


def cells(
    points: np.ndarray, query: np.ndarray, nearest: Sequence[int],
    parts: Mapping[str, tuple[np.ndarray, Collection[int]]], width: float = 12,
) -> Figure:  # fmt: skip
    """How a gallery is cut up, a panel a way: looked-into parts in color, the rest pale.

    Parameters
    ----------
    points : float (n, 2). query : float (2,), a star. nearest : rows of the true answers, circled.
    parts : way → (int (n,), the part that each point is in; the parts that are looked into).
    """
    figure = Figure(figsize=(width, 0.95 * width / len(parts) + 0.3), layout="constrained")
    panels = figure.subplots(1, len(parts), squeeze=False, sharex=True, sharey=True)[0]
    for panel, (way, (part_of, looked)) in zip(panels, parts.items(), strict=True):
        inside = np.isin(part_of, list(looked))
        panel.plot(*points[~inside].T, ".", color=_PALE, markersize=4)
        for place, part in enumerate(looked):
            panel.plot(*points[part_of == part].T, "o", color=COLORS[place % len(COLORS)], markersize=3.5)
        _query(panel, points, query, nearest)
        found = int(inside[list(nearest)].sum())
        title = f"{way}: {inside.sum()} of {len(points)} looked at, {found} of {len(nearest)} answers in them"
        panel.set_title(title, fontsize=10)
    return figure


def walk(
    points: np.ndarray, links: Sequence[Collection[int]], path: Sequence[int], query: np.ndarray,
    nearest: Sequence[int], width: float = 7,
) -> Figure:  # fmt: skip
    """A walk over a graph of neighbors: all links in gray, the way in color, its steps numbered.

    points : float (n, 2). links : rows that each is joined with. path : rows, in the order of the walk.
    query : float (2,), a star. nearest : rows of the true answers, circled.
    """
    figure = Figure(figsize=(width, 0.75 * width), layout="constrained")
    panel = figure.subplots()
    for row, joined in enumerate(links):
        for other in joined:
            # Each link once.
            if row < other or row not in links[other]:
                panel.plot(*points[[row, other]].T, color=_PALE, linewidth=0.5, zorder=1)
    panel.plot(*points.T, ".", color="0.55", markersize=4, zorder=2)
    panel.plot(*points[list(path)].T, "o-", color=COLORS[1], markersize=5, linewidth=2, zorder=3)
    for step, row in enumerate(path):
        panel.annotate(str(step), points[row], textcoords="offset points", xytext=(6, 4), fontsize=9, color=COLORS[1])
    _query(panel, points, query, nearest)
    return figure


def trade_offs(table: pd.DataFrame, width: float = 13) -> Figure:
    """Recall against the milliseconds of a query, a panel a gallery, a line an index over its efforts.

    The scale of recall gives each tenth of the errors the same room, for what matters lies between 0.9 and 1.
    A marker grows with the root of the bytes a vector; the legend says how many, of the last gallery.

    table : columns ``gallery, index, recall, milliseconds, bytes, count``.
    """
    galleries, indexes = (list(dict.fromkeys(table[name])) for name in ("gallery", "index"))
    figure = Figure(figsize=(width, 4.9), layout="constrained")
    panels = figure.subplots(1, len(galleries), squeeze=False, sharex=True, sharey=True)[0]
    weight = table["bytes"] / table["count"]
    # Of a small gallery, some libraries take many times what its vectors need.
    heaviest = weight[table["gallery"] == galleries[-1]].max()
    shown = {}
    for panel, gallery in zip(panels, galleries, strict=True):
        for index, part in table[table["gallery"] == gallery].groupby("index", sort=False):
            place = indexes.index(index)
            color, marker = COLORS[place % len(COLORS)], _MARKERS[place % len(_MARKERS)]
            each = weight[part.index].mean()
            size = 9 * min(1.0, np.sqrt(each / heaviest))
            (line,) = panel.plot(
                _room(part["recall"]), part["milliseconds"], marker=marker, markersize=3 + size, color=color,
                linestyle="-" if place < len(COLORS) else "--", linewidth=1.2, alpha=0.85,
            )  # fmt: skip
            shown[index] = line, f"{index}: {each:,.0f} bytes a vector"
        panel.set_title(gallery, fontsize=10)
        panel.set_yscale("log")
        panel.set_xlabel("recall@10 against exact search")
        panel.grid(alpha=0.3)
    ticks = [recall for recall in (0, 0.5, 0.8, 0.9, 0.95, 0.99) if recall > table["recall"].min() - 0.2] + [1]
    panels[0].set_xticks(_room(ticks), [f"{recall:g}" for recall in ticks])
    panels[0].set_ylabel("milliseconds, one query")
    lines, names = zip(*shown.values(), strict=True)
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _room(recall: Sequence[float]) -> np.ndarray:
    """Where a recall stands: the logarithm of its errors; where there is none, a little beyond 0.998."""
    return -np.log10(np.maximum(1 - np.asarray(recall, float), 1.5e-3))


def _query(panel: Axes, points: np.ndarray, query: np.ndarray, nearest: Sequence[int]) -> None:
    panel.plot(*points[list(nearest)].T, "o", markersize=10, markerfacecolor="none", markeredgecolor="black", zorder=4)
    panel.plot(*query, "*", color="black", markersize=13, zorder=5)
    panel.set(xticks=[], yticks=[])
