"""Figures of a search for hyper-parameters: parallel coordinates, and the curves of the trials."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from helpers.networks.tuning import COLUMNS, SearchResult
from helpers.visualization.curves import COLORS, panel_row

#: Readable on white, in gray print, and for color-blind readers.
COLOR_MAP = colormaps["viridis_r"]
#: An axis has a tick at each value up to this number of different values.
MOST_VALUES = 6


def parallel_coordinates(
    table: pd.DataFrame, logarithmic: Collection[str] = ("learning_rate", "weight_decay"), label: str = "score"
) -> Figure:
    """Plot each trial as a line across its hyper-parameters, one vertical axis each, and its score as the last axis.

    The color is the score. Dashed lines are trials that the scheduler stopped; the thick line is the best trial.

    Parameters
    ----------
    table : of `helpers.networks.tuning.SearchResult`; the hyper-parameters are the columns that are not in `COLUMNS`.
    logarithmic : hyper-parameters with a logarithmic axis.
    label : name of the score.
    """
    names = [name for name in table if name not in COLUMNS]
    if not names or not len(table):
        raise ValueError(f"a table of at least one trial and one hyper-parameter is needed, got {table.shape}")
    figure, (panel,) = panel_row(1, 10, 4.5)
    heights = np.column_stack(
        [_axis(panel, x, table[name], name in logarithmic) for x, name in enumerate([*names, "score"])]
    )
    scores = table["score"].to_numpy()
    norm = Normalize(scores.min(), scores.max() if scores.max() > scores.min() else scores.min() + 1)
    for row in np.argsort(scores, kind="stable"):
        best = row == np.argmax(scores)
        panel.plot(
            heights[row], color=COLOR_MAP(norm(scores[row])), linewidth=3.5 if best else 1.4, zorder=3 if best else 2,
            linestyle="--" if table["state"].iloc[row] == "stopped" else "-",
        )  # fmt: skip
    panel.set_xticks(range(len(names) + 1), [name.replace("_", " ") for name in names] + [label])
    panel.tick_params(axis="x", length=0, pad=8)
    panel.set(yticks=[], xlim=(-0.25, len(names) + 0.35), ylim=(-0.04, 1.04))
    panel.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(norm, COLOR_MAP), ax=panel, label=label, pad=0.01)
    kinds: tuple[tuple[str, Literal["-", "--"], float], ...]
    kinds = (("best trial", "-", 3.5), ("trained to the end", "-", 1.4), ("stopped", "--", 1.4))
    lines = [Line2D([], [], color="0.35", label=name, linestyle=style, linewidth=w) for name, style, w in kinds]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def _axis(panel: Axes, x: int, values: pd.Series, logarithmic: bool) -> np.ndarray:
    """Draw a vertical axis with ticks at ``x``; returns the heights of the values, 0 … 1."""
    numbers, ticks, labels = _scale(values, logarithmic)
    low, high = min(numbers.min(), min(ticks)), max(numbers.max(), max(ticks))
    span = high - low or 1.0
    panel.axvline(x, color="0.35", linewidth=1, zorder=1)
    for tick, text in zip(ticks, labels, strict=True):
        y = (tick - low) / span
        panel.plot([x - 0.02, x + 0.02], [y, y], color="0.35", linewidth=1)
        panel.text(
            x + 0.04, y, text, va="center", fontsize=9, zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    return (numbers - low) / span


def _scale(values: pd.Series, logarithmic: bool) -> tuple[np.ndarray, Sequence[float], Sequence[str]]:
    """Values as numbers along the axis; positions and labels of the ticks."""
    different = sorted(values.unique())
    if values.dtype.kind not in "iuf":
        places = {value: place for place, value in enumerate(different)}
        return values.map(places).to_numpy(float), list(places.values()), [str(value) for value in different]
    numbers = values.to_numpy(float)
    if logarithmic:
        decades = np.arange(np.floor(np.log10(numbers.min())), np.ceil(np.log10(numbers.max())) + 1)
        return np.log10(numbers), list(decades), [f"$10^{{{decade:.0f}}}$" for decade in decades]
    if len(different) <= MOST_VALUES:
        return numbers, different, [f"{value:g}" for value in different]
    ticks = np.linspace(numbers.min(), numbers.max(), 5)
    return numbers, list(ticks), [f"{tick:.2f}" for tick in ticks]


def trial_curves(result: SearchResult, rungs: Collection[int] = (), label: str = "score") -> Figure:
    """Plot the score of each trial over the epochs; ● where the scheduler stopped a trial; the best trial is thick.

    rungs : epochs after which the scheduler decides, as dashed lines.
    """
    figure, (panel,) = panel_row(1, 8, 3.6, grid=True)
    for trial, curve in enumerate(result.scores):
        stopped, best = len(curve) < result.max_epochs, trial == result.best_trial
        color = COLORS[1] if best else COLORS[0] if not stopped else "0.6"
        epochs = range(1, len(curve) + 1)
        panel.plot(epochs, curve, color=color, linewidth=3 if best else 1.4, zorder=3 if best else 2)
        if stopped:
            panel.plot(len(curve), curve[-1], "o", color=color, markersize=5)
    for rung in rungs:
        panel.axvline(rung, linestyle="--", color="0.4", linewidth=1)
    for name, color in (("best", COLORS[1]), ("finished", COLORS[0]), ("stopped", "0.6")):
        panel.plot([], [], color=color, label=name)
    panel.set(xlabel="epoch", ylabel=label)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper", frameon=False)
    return figure
