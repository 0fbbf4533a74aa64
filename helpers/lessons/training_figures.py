"""Figures of a training: curves, gains, first-layer filters and activations."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.networks.training import Training
from helpers.visualization.curves import COLORS, panel_row
from helpers.visualization.grids import image_cells

#: Column → axis label, if it is not the column's name.
AXES = {"score": "validation retrieval score"}


def training_curves(trainings: Mapping[str, Training], quantities: Sequence[str] = ("loss", "accuracy")) -> Figure:
    """Plot quantities over the epochs, one panel each: training (solid), validation (dashed), ● the best epoch.

    Earlier trainings have wider lines, so that curves on top of each other stay visible.

    trainings : name → training. quantities : columns of its table, such as ``score``; a training without a column is
        left out of that panel.
    """
    figure, panels = panel_row(len(quantities), 11, 3.4, grid=True)
    shown: dict[str, Line2D] = {}
    for number, ((name, training), color) in enumerate(zip(trainings.items(), cycle(COLORS), strict=False)):
        table, thickness = training.table.set_index("epoch"), 1.5 + min(3, 0.6 * (len(trainings) - 1 - number))
        for panel, quantity in zip(panels, quantities, strict=True):
            for column, style in ((quantity, "-"), (f"val_{quantity}", "--")):
                if column in table:
                    (line,) = panel.plot(table[column], style, color=color, linewidth=thickness, label=name)
                    panel.plot(training.best_epoch, table[column][training.best_epoch], "o", color=color, markersize=6)
                    shown.setdefault(name, line)
    for panel, quantity in zip(panels, quantities, strict=True):
        panel.set_xlabel("epoch")
        panel.set_ylabel(AXES.get(quantity, quantity.replace("_", " ")))
        panel.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    if any(line.get_linestyle() == "--" for panel in panels for line in panel.lines):
        shown["training"] = Line2D([], [], linestyle="-", color="0.3")
        shown["validation"] = Line2D([], [], linestyle="--", color="0.3")
    if shown:
        figure.legend(shown.values(), shown, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def seed_curves(histories: Mapping[int, pd.DataFrame], quantities: Sequence[str] = ("loss", "accuracy")) -> Figure:
    """Plot the histories of ``model.fit`` of several seeds: training (solid) and validation (dashed), one panel each.

    histories : seed → table with one row per epoch and the columns of ``history.history``.
    """
    figure, panels = panel_row(len(quantities), 11, 3.4, grid=True)
    for panel, quantity in zip(panels, quantities, strict=True):
        for (seed, table), color in zip(histories.items(), cycle(COLORS), strict=False):
            epochs = np.arange(1, len(table) + 1)
            panel.plot(epochs, table[quantity], "-", color=color, label=f"seed {seed}, training")
            panel.plot(epochs, table[f"val_{quantity}"], "--", color=color, label=f"seed {seed}, validation")
        panel.set(xlabel="epoch", ylabel=quantity)
        panel.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    return figure


def gains(
    differences: Mapping[str, tuple[float, float, float]], seeds: Mapping[str, Sequence[float]], xlabel: str
) -> Figure:
    """Plot each method's gain over a baseline: the mean with its interval, and one ring per seed.

    differences : name → (mean, low, high). seeds : name → the gain of each seed.
    """
    figure, (panel,) = panel_row(1, 7, 0.9 + 0.42 * len(differences))
    names = list(differences)[::-1]
    for y, name in enumerate(names):
        mean, low, high = differences[name]
        panel.plot([low, high], [y, y], "-", color=COLORS[0], linewidth=2)
        panel.plot(mean, y, "o", color=COLORS[0], markersize=7)
        panel.plot(seeds[name], [y - 0.22] * len(seeds[name]), "o", color=COLORS[1], fillstyle="none", markersize=5)
    panel.axvline(0, linestyle="--", color="0.4")
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(-0.6, len(names) - 0.5)
    panel.locator_params(axis="x", nbins=6)
    panel.set_xlabel(xlabel)
    panel.grid(axis="x", alpha=0.3)
    return figure


def filters(kernels: np.ndarray, columns: int = 16, width: float = 10) -> Figure:
    """Show first-layer filters as small images, each stretched to the full range of brightness.

    kernels : float (h, w, 3, n), as ``layer.get_weights()[0]`` of a convolution over color images returns them.
    """
    if kernels.ndim != 4 or kernels.shape[2] != 3:
        raise ValueError(f"filters of color images must be (h, w, 3, n), got shape {kernels.shape}")
    return _sheet(list(np.moveaxis(kernels, 3, 0)), columns, width)


def activations(maps: np.ndarray, most: int = 32) -> Figure:
    """Show the first ``most`` channels of a feature map of one image; bright is a high activation.

    maps : float (h, w, channels).
    """
    if maps.ndim != 3:
        raise ValueError(f"a feature map of one image must be (h, w, channels), got shape {maps.shape}")
    return _sheet(list(np.moveaxis(maps, 2, 0)[:most]), 16, 10)


def _sheet(images: list[np.ndarray], columns: int, width: float) -> Figure:
    cells = image_cells(-(-len(images) // columns), columns, width, 1)
    for cell, image in zip(cells.ravel(), images, strict=False):
        low, high = image.min(), image.max()
        # A constant channel stays dark.
        shown = (image - low) / (high - low) if high > low else np.zeros_like(image)
        cell.imshow(shown, cmap="magma", vmin=0, vmax=1)
    return cells[0, 0].figure
