"""Figures of re-ranking: the gain per method, query and setting, and neighbors of neighbors."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers.evaluation.intervals import bootstrap_interval
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.visualization.curves import COLORS, log_ticks, panel_row
from helpers.visualization.grids import NEGATIVE, POSITIVE, image_cells

#: The color of gains whose interval contains 0.
UNDECIDED = "#777777"


def gain_intervals(table: pd.DataFrame) -> Figure:
    """Plot the gain of each method with its 95 % interval and its milliseconds per query, one panel per task.

    Gains are green, losses red, and intervals that contain 0 gray. All panels share one scale.

    table : columns ``task, method, before, gain, low, high, ms``, as in `RerankerComparison.table`.
    """
    tasks, methods = (list(dict.fromkeys(table[column])) for column in ("task", "method"))
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(12, lines * (0.9 + 0.36 * len(methods))), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    left, right = min(0, table["low"].min()), max(0, table["high"].max())
    room = right - left
    for panel, task in zip(panels, tasks, strict=False):
        part = table[table["task"] == task].set_index("method")
        for method, row in part.iterrows():
            y = methods.index(method)
            color = POSITIVE if row["low"] > 0 else NEGATIVE if row["high"] < 0 else UNDECIDED
            bounds = [[row["gain"] - row["low"]], [row["high"] - row["gain"]]]
            panel.errorbar(row["gain"], y, xerr=bounds, fmt="o", color=color, capsize=3)
            # Adding 0 turns -0.000 into +0.000.
            text = f"{round(row['gain'], 3) + 0.0:+.3f} · {row['ms']:.1f} ms"
            panel.text(right + 0.06 * room, y, text, va="center", fontsize=8.5, color=color)
        panel.axvline(0, color="0.4", linewidth=1)
        panel.set_title(f"{task}: {part['before'].iloc[0]:.3f} before", fontsize=10)
        panel.grid(alpha=0.3, axis="x")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    # Room for the text next to the longest interval.
    panels[0].set_xlim(left - 0.06 * room, right + 0.7 * room)
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(left, right)
    panels[0].set_xticks(ticks[(ticks >= left) & (ticks <= right)])
    for panel in panels[len(tasks) :]:
        panel.axis("off")
    for panel in panels[max(0, len(tasks) - columns) : len(tasks)]:
        panel.set_xlabel("gain in mAP")
        panel.tick_params(labelbottom=True)
    return figure


def neighbor_rows(images: ImageSet, query: int, lines: Sequence[tuple[int, Sequence[int], Sequence[str]]]) -> Figure:
    """Show images and their nearest neighbors, one line per image.

    The frame of the query is black, that of images of its class green, that of others red.

    lines : tuples of (row of ``images``, rows of its neighbors, their titles), with equally many neighbors.
    """
    cells = image_cells(len(lines), 1 + max(len(nearest) for _, nearest, _ in lines), 13, 1.28)
    for line, (first, nearest, titles) in zip(cells, lines, strict=True):
        names = ["query" if first == query else "its nearest →", *titles]
        for cell, row, title in zip(line, [first, *nearest], names, strict=False):
            same = images.labels[row] == images.labels[query]
            color = "black" if row == query else POSITIVE if same else NEGATIVE
            cell.axis("on")
            cell.imshow(read_image(images.paths[row]))
            cell.set_title(title, fontsize=10, color=color)
            for spine in cell.spines.values():
                spine.set(color=color, linewidth=4 if row == query else 2)
    return cells[0, 0].figure


def gain_strips(gains: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int = 0) -> Figure:
    """Plot the gain of each query, split by whether its first result was relevant, one panel per task.

    The black mark is the mean with its 95 % interval.

    gains : task → (float (q,), bool (q,)): the gain, and whether the first result was relevant.
    """
    figure, panels = panel_row(len(gains), 12, 3.6, sharey=True)
    rng = np.random.default_rng(seed)
    for panel, (task, (values, relevant)) in zip(panels, gains.items(), strict=True):
        parts = values[relevant], values[~relevant]
        for x, (part, color) in enumerate(zip(parts, COLORS, strict=False)):
            if not len(part):
                continue
            panel.plot(x + rng.uniform(-0.3, 0.3, len(part)), part, "o", color=color, alpha=0.35, markersize=4)
            mean, (low, high) = part.mean(), bootstrap_interval(part, seed=seed)
            bounds = np.nan_to_num([[mean - low], [high - mean]])
            panel.errorbar(x, mean, yerr=bounds, fmt="_", color="black", capsize=6, markersize=22, linewidth=2)
        panel.axhline(0, color="0.4", linewidth=1)
        panel.set_xticks(
            (0, 1), [f"first result {'not ' * i}relevant\n{len(part)} queries" for i, part in enumerate(parts)]
        )
        panel.set_xlim(-0.6, 1.6)
        panel.set_title(task, fontsize=10)
        panel.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel("gain of a query in AP")
    return figure


def gain_sweep(table: pd.DataFrame) -> Figure:
    """Plot the gain over a parameter: one panel per method, one line per task; bands are 95 % intervals.

    table : columns ``method, parameter, value, task, gain, low, high``, with one parameter per method.
    """
    methods, tasks = (list(dict.fromkeys(table[name])) for name in ("method", "task"))
    # No shared scale: the losses of one method would flatten the others.
    figure, panels = panel_row(len(methods), 12, 3.8, grid=True)
    for panel, method in zip(panels, methods, strict=True):
        part = table[table["method"] == method]
        values = sorted(part["value"].unique())
        for color, task in zip(COLORS, tasks, strict=False):
            line = part[part["task"] == task].sort_values("value")
            panel.plot(line["value"], line["gain"], "o-", color=color, markersize=4, label=task)
            panel.fill_between(line["value"], line["low"], line["high"], color=color, alpha=0.15, linewidth=0)
        panel.axhline(0, color="0.4", linewidth=1)
        log_ticks(panel, values)
        panel.set_title(method, fontsize=10)
        panel.set_xlabel(part["parameter"].iloc[0])
    panels[0].set_ylabel("gain in mAP")
    panels[0].legend(frameon=False, fontsize=9)
    return figure
