"""Figures of a network's features: feature maps, and scores by stage, pooling and size."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from helpers.visualization.curves import COLORS


def channels(pixels: np.ndarray, maps: Sequence[np.ndarray], shown: int = 3) -> Figure:
    """Show an image and the ``shown`` channels of each stage with the highest mean activation.

    pixels : uint8 (h, w, 3). maps : one feature map (h, w, channels) per stage.
    """
    figure = Figure(figsize=(11, 10.45 * shown / (len(maps) + 1)), layout="constrained")
    panels = figure.subplots(shown, len(maps) + 1, squeeze=False)
    for panel in panels[:, 0]:
        panel.axis("off")
    panels[shown // 2, 0].imshow(pixels)
    panels[shown // 2, 0].set_title("the image", fontsize=10)
    for column, each in enumerate(maps, start=1):
        strongest = np.argsort(-each.mean(axis=(0, 1)), kind="stable")[:shown]
        for panel, channel in zip(panels[:, column], strongest, strict=True):
            panel.imshow(each[..., channel], cmap="gray")
            panel.set(xticks=[], yticks=[])
            panel.set_xlabel(f"channel {channel}", fontsize=8)
        panels[0, column].set_title(f"stage {column}: {each.shape[0]} × {each.shape[1]}", fontsize=10)
    return figure


def stage_grid(scores: Mapping[str, pd.DataFrame]) -> Figure:
    """Show scores as a table per data set, with stages as rows and poolings as columns; the best score is bold.

    scores : data set → table with stages as rows and poolings as columns.
    """
    shape = next(iter(scores.values())).shape
    figure = Figure(figsize=(11, 0.9 + 0.5 * shape[0]), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
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
    return figure


def bytes_curves(tables: Mapping[str, pd.DataFrame], line: str) -> Figure:
    """Plot the mAP over the bytes per image: one panel per data set, one curve per value of the column ``line``.

    tables : data set → columns ``bytes``, ``mAP``, ``low`` and ``high`` (95 %), ``chance``, and ``line``.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for panel, (name, table) in zip(panels, tables.items(), strict=True):
        for color, (label, rows) in zip(COLORS, table.groupby(line, sort=False), strict=False):
            rows = rows.sort_values("bytes")
            panel.plot(rows["bytes"], rows["mAP"], marker="o", markersize=3.5, color=color, label=label)
            panel.fill_between(rows["bytes"], rows["low"], rows["high"], color=color, alpha=0.12, linewidth=0)
        panel.axhline(table["chance"].iloc[0], linestyle="--", color="0.4")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panel.set_title(name, fontsize=10)
        panel.set(xlabel="bytes per image", ylim=(0, 1))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mAP (dashed: chance)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    return figure
