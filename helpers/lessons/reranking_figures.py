"""Figures of re-ranking: the gain of each method, query and setting, and the neighbors of a query's neighbors."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.evaluation.intervals import bootstrap_interval
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.visualization.curves import COLORS
from helpers.visualization.grids import RIGHT, WRONG

#: The color of gains whose interval contains 0.
UNDECIDED = "#777777"
_MARKERS = "osD^vP"


def gain_intervals(table: pd.DataFrame, columns: int = 3, width: float = 12) -> Figure:
    """One panel per task, one line per method: its gain with the 95 % interval, and the milliseconds per query.

    A gain is green, a loss red, and an interval that contains 0 gray. All panels share one scale.

    table : columns ``task, method, before, gain, low, high, ms``, as `RerankerComparison.table` has them.
    """
    tasks, methods = (list(dict.fromkeys(table[column])) for column in ("task", "method"))
    columns = min(columns, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(width, lines * (0.9 + 0.36 * len(methods))), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    left, right = min(0, table["low"].min()), max(0, table["high"].max())
    room = right - left
    for panel, task in zip(panels, tasks, strict=False):
        part = table[table["task"] == task].set_index("method")
        for method, row in part.iterrows():
            place = methods.index(method)
            color = RIGHT if row["low"] > 0 else WRONG if row["high"] < 0 else UNDECIDED
            bounds = [[row["gain"] - row["low"]], [row["high"] - row["gain"]]]
            panel.errorbar(row["gain"], place, xerr=bounds, fmt="o", color=color, capsize=3)
            # Adding 0 turns -0.000 into +0.000.
            text = f"{round(row['gain'], 3) + 0.0:+.3f} · {row['ms']:.1f} ms"
            panel.text(right + 0.06 * room, place, text, va="center", fontsize=8.5, color=color)
        panel.axvline(0, color="0.4", linewidth=1)
        panel.set_title(f"{task}: {part['before'].iloc[0]:.3f} before", fontsize=10)
        panel.grid(alpha=0.3, axis="x")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    # Beside the longest interval there is room for the words.
    panels[0].set_xlim(left - 0.06 * room, right + 0.7 * room)
    panels[0].set_xticks(_ticks(left, right))
    for panel in panels[len(tasks) :]:
        panel.axis("off")
    for panel in panels[max(0, len(tasks) - columns) : len(tasks)]:
        panel.set_xlabel("gain in mAP")
        panel.tick_params(labelbottom=True)
    return figure


def neighbor_rows(
    images: ImageSet, query: int, lines: Sequence[tuple[int, Sequence[int], Sequence[str]]], width: float = 13
) -> Figure:
    """One row per image: the image, then its nearest neighbors, each with a title.

    The query has a black frame wherever it occurs, images of its class a green one, others a red one.

    lines : (row of ``images``, rows of its neighbors, their titles); all have the same number of neighbors.
    """
    columns = 1 + max(len(nearest) for _, nearest, _ in lines)
    figure = Figure(figsize=(width, width / columns * 1.28 * len(lines)), layout="constrained")
    cells = figure.subplots(len(lines), columns, squeeze=False)
    for line, (asking, nearest, titles) in zip(cells, lines, strict=True):
        shown = [asking, *nearest]
        names = ["query" if asking == query else "its nearest →", *titles]
        for cell, row, title in zip(line, shown, names, strict=False):
            same = images.labels[row] == images.labels[query]
            color = "black" if row == query else RIGHT if same else WRONG
            cell.imshow(read_image(images.paths[row]))
            cell.set_title(title, fontsize=10, color=color)
            for spine in cell.spines.values():
                spine.set(color=color, linewidth=4 if row == query else 2)
        for cell in line:
            cell.set(xticks=[], yticks=[])
        for cell in line[len(shown) :]:
            cell.axis("off")
    return figure


def gain_strips(gains: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int = 0, width: float = 12) -> Figure:
    """One panel per task, one point per query: the gain of queries with a relevant first result, and of the others.

    The bar is the mean with its 95 % interval.

    gains : task → (float (q,), bool (q,)): the gain, and whether the first result was relevant.
    """
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    panels = figure.subplots(1, len(gains), squeeze=False, sharey=True)[0]
    rng = np.random.default_rng(seed)
    for panel, (task, (values, right)) in zip(panels, gains.items(), strict=True):
        names = []
        for place, (kind, color) in enumerate(((True, COLORS[0]), (False, COLORS[1]))):
            some = values[right == kind]
            names.append(f"first answer {'right' if kind else 'wrong'}\n{len(some)} queries")
            if not len(some):
                continue
            panel.plot(place + rng.uniform(-0.3, 0.3, len(some)), some, "o", color=color, alpha=0.35, markersize=4)
            mean, (low, high) = some.mean(), bootstrap_interval(some, seed=seed)
            bounds = np.nan_to_num([[mean - low], [high - mean]])
            panel.errorbar(place, mean, yerr=bounds, fmt="_", color="black", capsize=6, markersize=22, linewidth=2)
        panel.axhline(0, color="0.4", linewidth=1)
        panel.set_xticks((0, 1), names)
        panel.set_xlim(-0.6, 1.6)
        panel.set_title(task, fontsize=10)
        panel.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel("gain of a query in AP")
    return figure


def gain_over_share(table: pd.DataFrame, xlabel: str, width: float = 12) -> Figure:
    """Gain against how good the first results were: one panel per method, a color per task, a sign per extractor.

    table : columns ``method, task, extractor, share, gain, low, high``.
    """
    methods, tasks, extractors = (list(dict.fromkeys(table[name])) for name in ("method", "task", "extractor"))
    figure = Figure(figsize=(width, 4.1), layout="constrained")
    panels = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
    for panel, method in zip(panels, methods, strict=True):
        for row in table[table["method"] == method].itertuples():
            panel.errorbar(
                row.share, row.gain, yerr=[[row.gain - row.low], [row.high - row.gain]], capsize=2, markersize=6,
                fmt=_MARKERS[extractors.index(row.extractor)], color=COLORS[tasks.index(row.task)],
            )  # fmt: skip
        panel.axhline(0, color="0.4", linewidth=1)
        panel.set_title(method, fontsize=10)
        panel.set_xlim(0, 1.03)
        panel.set_xlabel(xlabel)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("gain in mAP")
    for color, task in zip(COLORS, tasks, strict=False):
        panels[0].plot([], [], "s", color=color, label=task)
    for marker, name in zip(_MARKERS, extractors, strict=False):
        panels[0].plot([], [], marker, color="0.4", label=name)
    figure.legend(loc="outside lower center", ncols=len(tasks) + len(extractors), frameon=False, fontsize=9)
    return figure


def gain_sweep(table: pd.DataFrame, width: float = 12) -> Figure:
    """Gain against a parameter: one panel per method, one line per task; bands are 95 % intervals.

    table : columns ``method, parameter, value, task, gain, low, high``; a method has one parameter.
    """
    methods, tasks = (list(dict.fromkeys(table[name])) for name in ("method", "task"))
    figure = Figure(figsize=(width, 3.8), layout="constrained")
    # Each panel has its own scale: one method's fall would flatten the others.
    panels = figure.subplots(1, len(methods), squeeze=False)[0]
    for panel, method in zip(panels, methods, strict=True):
        part = table[table["method"] == method]
        values = sorted(part["value"].unique())
        for color, task in zip(COLORS, tasks, strict=False):
            line = part[part["task"] == task].sort_values("value")
            panel.plot(line["value"], line["gain"], "o-", color=color, markersize=4, label=task)
            panel.fill_between(line["value"], line["low"], line["high"], color=color, alpha=0.15, linewidth=0)
        panel.axhline(0, color="0.4", linewidth=1)
        panel.set_xscale("log")
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.minorticks_off()
        panel.set_title(method, fontsize=10)
        panel.set_xlabel(part["parameter"].iloc[0])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("gain in mAP")
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def _ticks(left: float, right: float) -> np.ndarray:
    """Round numbers from ``left`` to ``right``, 0 among them, at most five."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        ticks = np.arange(np.ceil(left / step - 1e-9), right / step + 1e-9) * step
        if len(ticks) <= 5:
            break
    return ticks
