"""Figures of a network's features: feature maps, regions, principal axes, and scores by stage, pooling and size."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from helpers.visualization.curves import COLORS, panel_row
from helpers.visualization.grids import outline


def channels(pixels: np.ndarray, maps: Sequence[np.ndarray], title: str, shown: int = 3) -> Figure:
    """Show an image and the ``shown`` channels of each stage with the highest mean activation.

    pixels : uint8 (h, w, 3). maps : one feature map (h, w, channels) per stage.
    """
    figure = Figure(figsize=(11, 1.0 + 9.9 * shown / (len(maps) + 1)), layout="constrained")
    panels = figure.subplots(shown, len(maps) + 1, squeeze=False)
    for panel in panels[:, 0]:
        panel.axis("off")
    panels[shown // 2, 0].imshow(pixels)
    panels[shown // 2, 0].set_title("the image", fontsize=10)
    for column, each in enumerate(maps, start=1):
        strongest = np.argsort(-each.mean(axis=(0, 1)), kind="stable")[:shown]
        for panel, channel in zip(panels[:, column], strongest, strict=True):
            highest = each[..., channel].max()
            drawn = panel.imshow(each[..., channel], cmap="viridis", vmin=0, vmax=max(highest, 1e-9))
            panel.set(xticks=[], yticks=[])
            panel.set_xlabel(f"channel {channel}, maximum {highest:.1f}", fontsize=8)
        panels[0, column].set_title(f"stage {column}: {each.shape[0]} × {each.shape[1]} cells", fontsize=10)
    bar = figure.colorbar(drawn, ax=panels[:, -1], ticks=[0, drawn.get_clim()[1]], aspect=30)
    bar.ax.set_yticklabels(["0 or less", "maximum of\nthe channel"], fontsize=8)
    figure.suptitle(f"{title}. A cell is one position of the map; its color is the activation of one channel there.")
    return figure


def regions(pixels: np.ndarray, squares: Sequence[tuple[int, int, int]], side: int) -> Figure:
    """Draw the regions of R-MAC on an image, with one panel for each size of region.

    pixels : uint8 (h, w, 3). squares : (top, left, side) each, in cells of a square map with ``side`` cells per side.
    """
    sizes = sorted({size for _, _, size in squares}, reverse=True)
    figure, panels = panel_row(len(sizes), 3.4 * len(sizes), 3.7)
    height, width = pixels.shape[0] / side, pixels.shape[1] / side
    for panel, size in zip(panels, sizes, strict=True):
        panel.imshow(pixels)
        panel.set_xticks(np.arange(side + 1) * width - 0.5, [])
        panel.set_yticks(np.arange(side + 1) * height - 0.5, [])
        panel.tick_params(length=0)
        panel.grid(color="0.75", linewidth=0.6)
        chosen = [square for square in squares if square[2] == size]
        for number, (top, left, _) in enumerate(chosen):
            # Regions of one size overlap: each outline is a little smaller than the one before.
            inset = 1 + 1.6 * number
            box = np.array([left * width, top * height, size * width, size * height]) + inset * np.array([1, 1, -2, -2])
            outline(panel, box, COLORS[number % len(COLORS)])
        count = f"{len(chosen)} region{'s' if len(chosen) > 1 else ''}"
        panel.set_title(f"{count} of {size} × {size} cells", fontsize=10)
    return figure


def principal_axes(points: np.ndarray, rotated: np.ndarray, whitened: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw points with two features in three panels: as they are, along their principal axes, and whitened.

    points, rotated, whitened : (n, 2) each. names : of the two features.

    The arrows of the first panel are two standard deviations long. They are computed from ``rotated``.
    """
    figure, panels = panel_row(3, 11, 3.9, grid=True)
    center = points.mean(axis=0)
    axes, *_ = np.linalg.lstsq(rotated, points - center, rcond=None)
    titles = ("1. features", "2. rotated to the principal axes", "3. whitened")
    for number, (panel, values, title) in enumerate(zip(panels, (points, rotated, whitened), titles, strict=True)):
        panel.scatter(values[:, 0], values[:, 1], s=9, color=COLORS[0], alpha=0.5, linewidth=0)
        deviations = values.std(axis=0, ddof=1)
        panel.set_title(f"{title}\nstandard deviations {deviations[0]:.2f} and {deviations[1]:.2f}", fontsize=10)
        panel.set_aspect("equal", "datalim")
        labels = names if number == 0 else ("first principal axis", "second principal axis")
        panel.set(xlabel=labels[0], ylabel=labels[1])
    for axis, spread, color in zip(axes, rotated.std(axis=0, ddof=1), COLORS[1:3], strict=True):
        panels[0].annotate(
            "", center + 2 * spread * axis, center, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 2.2}
        )
    return figure


def stage_grid(scores: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Show scores as a table per data set, with stages as rows and poolings as columns; the best score is bold.

    scores : data set → table with stages as rows and poolings as columns.
    """
    figure, panels = panel_row(len(scores), 11, 1.6 + 0.5 * len(next(iter(scores.values()))))
    for number, (panel, (name, table)) in enumerate(zip(panels, scores.items(), strict=True)):
        values = table.to_numpy(float)
        panel.imshow(values, cmap="Blues", vmin=0, vmax=values.max() * 1.6, aspect="auto")
        best = np.unravel_index(values.argmax(), values.shape)
        for row, column in np.ndindex(values.shape):
            bold = "bold" if (row, column) == best else "normal"
            panel.text(column, row, f"{values[row, column]:.3f}", ha="center", va="center", fontsize=9, weight=bold)
        panel.set_xticks(range(len(table.columns)), table.columns, fontsize=9)
        panel.set_yticks(range(len(table.index)), table.index if number == 0 else [""] * len(table.index), fontsize=9)
        panel.tick_params(length=0)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("pooling", fontsize=9)
    meaning = "A cell is the mAP with one stage and one pooling; darker is higher within a panel, bold is its highest."
    figure.suptitle(f"{title}. {meaning}" if title else meaning, fontsize=10)
    return figure


def score_curves(tables: Mapping[str, pd.DataFrame], x: str, line: str, xlabel: str) -> Figure:
    """Plot the mAP over a column ``x``: one panel per data set, one curve per value of the column ``line``.

    tables : data set → columns ``mAP``, ``low`` and ``high`` (95 %), ``chance``, and the two named ones.
    """
    figure, panels = panel_row(len(tables), 11, 3.6, grid=True)
    for panel, (name, table) in zip(panels, tables.items(), strict=True):
        for color, (label, rows) in zip(COLORS, table.groupby(line, sort=False), strict=False):
            rows = rows.sort_values(x)
            panel.plot(rows[x], rows["mAP"], marker="o", markersize=3.5, color=color, label=label)
            panel.fill_between(rows[x], rows["low"], rows["high"], color=color, alpha=0.12, linewidth=0)
        panel.axhline(table["chance"].iloc[0], linestyle="--", color="0.4")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panel.set_title(name, fontsize=10)
        panel.set(xlabel=xlabel, ylim=(0, 1))
    panels[0].set_ylabel("mAP (dashed: chance)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    return figure
