"""Figures of notebook 15: precision over recall of the detector, coverage over the number of boxes, and mAP by size."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.evaluation.detection import DetectionScores
from helpers.visualization.curves import COLORS, log_ticks, panel_row

_MARKERS = "osD^vPX"
#: Colors of the methods of `size_curves`, which can be seven.
_METHOD_COLORS = (*COLORS, "#000000")


def precision_recall(scores: DetectionScores, names: Mapping[int, str]) -> Figure:
    """Plot the precision over the recall of classes, one curve per class, and mark the points at a score of 0.5.

    names : label → name of the classes to plot.
    """
    figure, (panel,) = panel_row(1, 6.5, 4, grid=True)
    for (label, name), color, marker in zip(names.items(), COLORS, _MARKERS, strict=False):
        matches = scores.matches[label]
        precision, recall = matches.curve()
        text = f"{name}, AP {matches.average_precision():.3f}, {matches.objects.sum()} objects"
        panel.step(recall, precision, where="post", color=color, label=text)
        shown = np.flatnonzero(matches.scores >= 0.5)
        if len(shown):
            panel.plot(recall[shown[-1]], precision[shown[-1]], marker, color=color, markersize=8, markeredgecolor="k")
    panel.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="precision")
    panel.legend(frameon=False, fontsize=9, title="mark: score 0.5")
    return figure


def coverage_curves(table: pd.DataFrame) -> Figure:
    """Plot the share of covered objects over the number of boxes, see `object_studies.coverage`."""
    figure, (panel,) = panel_row(1, 6.5, 4, grid=True)
    for (name, rows), color, marker in zip(table.groupby("source", sort=False), COLORS, _MARKERS, strict=False):
        panel.plot(rows["boxes"], rows["recall"], f"{marker}-", color=color, label=name)
        panel.fill_between(rows["boxes"], rows["low"], rows["high"], color=color, alpha=0.15, linewidth=0)
    log_ticks(panel, (1, 2, 5, 10, 20, 50, 100))
    panel.set(ylim=(0, 1.02), xlabel="mean number of boxes in a scene", ylabel="share of objects with IoU ≥ 0.5")
    panel.legend(frameon=False)
    return figure


def size_curves(table: pd.DataFrame) -> Figure:
    """Plot mAP over the object's area, one panel per task and one curve per method, see `object_search.size_table`."""
    tasks, methods = (list(dict.fromkeys(table[column])) for column in ("task", "method"))
    figure, panels = panel_row(len(tasks), 6 * len(tasks), 4.4, sharey=True, grid=True)
    for panel, task in zip(panels, tasks, strict=True):
        rows = table[table["task"] == task]
        bands = rows.drop_duplicates("area low")
        positions = np.arange(len(bands))
        for number, method in enumerate(methods):
            part = rows[rows["method"] == method]
            errors = part["mAP"] - part["low"], part["high"] - part["mAP"]
            # Moved apart, so that no interval hides another.
            x = positions + 0.07 * (number - (len(methods) - 1) / 2)
            panel.errorbar(
                x, part["mAP"], errors, fmt=f"{_MARKERS[number % 7]}-", color=_METHOD_COLORS[number % 7],
                markersize=5, linewidth=1.2, elinewidth=1, capsize=2, label=method,
            )  # fmt: skip
        panel.plot(positions, bands["chance"], "--", color="0.4", label="chance")
        names = [
            f"{low:.0%}–{min(high, 0.6):.0%}\n{queries} queries"
            for low, high, queries in zip(bands["area low"], bands["area high"], bands["queries"], strict=True)
        ]
        panel.set_xticks(positions, names)
        panel.set(ylim=(0, 1.02), xlabel="area of the object's box in the scene", title=task)
    panels[0].set_ylabel("mAP, 95 % interval")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure
