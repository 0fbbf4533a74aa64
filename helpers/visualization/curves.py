"""Curves and bars: distances, recall over k, verification errors, and scores with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.evaluation.verification import ErrorCurve

#: Okabe and Ito's palette, distinguishable for color-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def panel_row(count: int, width: float, height: float, grid: bool = False, **options: Any) -> tuple[Figure, list[Axes]]:
    """A new figure and its panels, side by side.

    width, height : of the figure, in inches. grid : draw light grid lines. options : of `Figure.subplots`.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(1, count, squeeze=False, **options)[0])
    if grid:
        for panel in panels:
            panel.grid(alpha=0.3)
    return figure, panels


def log_ticks(panel: Axes, values: Iterable[float]) -> None:
    """Make the horizontal axis logarithmic, with ticks at these values only."""
    values = list(values)
    panel.set_xscale("log")
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()


def distance_histogram(vectors: Mapping[str, np.ndarray], protocol: Protocol, seed: int = 0) -> Figure:
    """Plot the cosine distances from queries to relevant and to other gallery images, one panel per extractor.

    vectors : name → float32 (n, dim), normalized; row *i* is id *i* of the protocol.
    seed : for the 200 queries and the pairs that are compared.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(np.flatnonzero(protocol.has_relevant))[:200])
    figure, panels = panel_row(len(vectors), 5.5 * len(vectors), 3.4)
    for panel, (name, matrix) in zip(panels, vectors.items(), strict=True):
        parts = []
        for row in rows:
            distance = 1 - matrix[protocol.gallery] @ matrix[protocol.queries[row]]
            ignored = np.isin(protocol.gallery, protocol.ignored(row))
            relevant = np.isin(protocol.gallery, protocol.relevant(row))
            parts.append((distance[relevant], distance[~ignored & ~relevant]))
        same, different = (np.concatenate(part) for part in zip(*parts, strict=True))
        edges = np.linspace(0, max(same.max(), different.max()), 60).tolist()
        panel.hist(different, edges, density=True, alpha=0.6, color=COLORS[1], label="different class")
        panel.hist(same, edges, density=True, alpha=0.6, color=COLORS[0], label="same class")
        # Random pairs of distances: the area under the ROC.
        first, second = rng.choice(same, 100_000), rng.choice(different, 100_000)
        farther = (first < second).mean() + (first == second).mean() / 2
        panel.set_title(f"{name}: a different class is farther in {farther:.1%} of pairs", fontsize=10)
        panel.set(xlabel="cosine distance", ylabel="density")
        panel.legend(frameon=False)
    return figure


def recall_curves(
    curves: Mapping[str, np.ndarray], ks: Sequence[int], chance: np.ndarray, ceiling: np.ndarray | None = None,
    ylabel: str = "top-k accuracy",
) -> Figure:  # fmt: skip
    """Plot values (len(ks),) over k, one curve per name, with chance and ceiling in gray."""
    figure, (panel,) = panel_row(1, 6.5, 4.2, grid=True)
    for (name, values), color in zip(curves.items(), COLORS, strict=False):
        panel.plot(ks, values, marker="o", markersize=3.5, color=color, label=name)
    panel.plot(ks, chance, "--", color="0.5", label="chance")
    if ceiling is not None:
        panel.plot(ks, ceiling, ":", color="0.5", label="ceiling")
    log_ticks(panel, ks)
    panel.set(ylim=(0, 1.02), xlabel="k", ylabel=ylabel)
    panel.legend(frameon=False)
    return figure


def top_k_curves(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot top-k accuracy over k with 95 % intervals, chance and ceiling: one panel per title.

    panels : title → table with the columns name, metric (such as "top-5"), value, low, high, chance and ceiling, one
        row per curve and k. A name has the same color in all panels.
    """
    figure, axes = panel_row(len(panels), 5.5 * len(panels), 4, sharey=True, grid=True)
    names = list(dict.fromkeys(name for table in panels.values() for name in table["name"]))
    for panel, (title, table) in zip(axes, panels.items(), strict=True):
        table = table.assign(k=table["metric"].str.removeprefix("top-").astype(int))
        for name, rows in table.groupby("name", sort=False):
            color, marker = COLORS[names.index(name) % len(COLORS)], "osD^vP"[names.index(name) % 6]
            panel.plot(rows["k"], rows["value"], marker=marker, markersize=4, color=color, label=name)
            panel.fill_between(rows["k"], rows["low"], rows["high"], color=color, alpha=0.15, linewidth=0)
        bounds = table.drop_duplicates("k").sort_values("k")
        panel.plot(bounds["k"], bounds["chance"], "--", color="0.5", label="chance")
        panel.plot(bounds["k"], bounds["ceiling"], ":", color="0.5", label="ceiling")
        log_ticks(panel, bounds["k"])
        panel.set_title(title, fontsize=10)
        panel.set(ylim=(0, 1.02), xlabel="k")
        panel.legend(frameon=False, fontsize=9, loc="lower right")
    axes[0].set_ylabel("top-k accuracy")
    return figure


def strength_curves(tables: Mapping[str, pd.DataFrame], units: Mapping[str, str], columns: int = 5) -> Figure:
    """Plot recall@1 of known items over the strength of each change, one panel per kind; bands are 95 % intervals.

    Earlier methods have wider lines, so that curves on top of each other stay visible.

    tables : method → the table of `helpers.evaluation.known_item.KnownItemResults.by_strength`.
    units : kind → unit of its strength.
    """
    kinds = list(dict.fromkeys(kind for table in tables.values() for kind in table["kind"]))
    lines = -(-(len(kinds) + 1) // columns)
    figure = Figure(figsize=(11, 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, kind in zip(panels, kinds, strict=False):
        for (name, table), color, above in zip(tables.items(), COLORS, range(len(tables) - 1, -1, -1), strict=False):
            part = table[table["kind"] == kind]
            # Evenly spaced: some strengths double from one to the next.
            positions = np.arange(len(part))
            panel.plot(
                positions, part["recall@1"], "o-", markersize=3 + 1.5 * above, linewidth=1.3 + 1.2 * above, color=color,
                label=name,
            )  # fmt: skip
            panel.fill_between(positions, part["low"], part["high"], color=color, alpha=0.12, linewidth=0)
        ticks = positions[:: max(1, -(-len(positions) // 8))]
        panel.set_xticks(ticks, [f"{strength:g}" for strength in part["strength"].iloc[ticks]])
        panel.set_title(kind, fontsize=10)
        panel.set_xlabel(units[kind], fontsize=8)
        panel.set_ylim(-0.03, 1.03)
        panel.grid(alpha=0.3)
    for panel in panels[len(kinds) :]:
        panel.axis("off")
    for panel in panels[::columns]:
        panel.set_ylabel("recall@1")
    panels[len(kinds)].legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    return figure


def error_curves(curves: Mapping[str, ErrorCurve], threshold: float) -> Figure:
    """Plot both error rates over the threshold (left) and against each other (right).

    threshold : the chosen one, drawn as a line.
    """
    figure, (left, right) = panel_row(2, 11, 3.6, grid=True)
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
        known = np.isfinite(curve.thresholds)
        left.plot(curve.thresholds[known], curve.false_accept[known], "-", color=color, label=f"{name}: false accepts")
        left.plot(curve.thresholds[known], curve.false_reject[known], "--", color=color, label=f"{name}: false rejects")
        # The log axis has no 0.
        shown = curve.false_accept > 0
        error = curve.equal_error()
        label = f"{name}, both {error.rate:.1%} at {error.threshold:.3f}"
        right.plot(curve.false_accept[shown], curve.false_reject[shown], color=color, label=label)
        right.plot(error.rate, error.rate, "o", color=color, markersize=4)
    left.axvline(threshold, color="0.4", linestyle=":", label=f"chosen: {threshold:.3f}")
    left.set(xlabel="similarity threshold", ylabel="share of pairs")
    right.set(xscale="log", xlabel="false accepts", ylabel="false rejects")
    for panel in (left, right):
        panel.set_ylim(0, 1.02)
        panel.legend(frameon=False, fontsize=8)
    return figure


def interval_bars(
    names: Sequence[str], values: ArrayLike, low: ArrayLike, high: ArrayLike, chance: float, xlabel: str,
    width: float = 7,
) -> Figure:  # fmt: skip
    """Plot one bar per method with its 95 % interval, and a line for chance."""
    figure, (panel,) = panel_row(1, width, 0.8 + 0.38 * len(names))
    values, low, high = (np.asarray(array, dtype=float) for array in (values, low, high))
    positions = np.arange(len(names))[::-1]
    panel.barh(positions, values, color=COLORS[0], alpha=0.75, height=0.65)
    panel.errorbar(values, positions, xerr=(values - low, high - values), fmt="none", ecolor="black", capsize=3)
    for position, value, top in zip(positions, values, high, strict=True):
        panel.text(max(value, top) + 0.012, position, f"{value:.3f}", va="center", fontsize=9)
    panel.axvline(chance, linestyle="--", color="0.4", label=f"chance {chance:.3f}")
    panel.set_yticks(positions, names)
    panel.set(xlim=(0, 1.1), xlabel=xlabel)
    # Above the panel, where it covers no bar.
    panel.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def score_bars(scores: Mapping[str, Scores], metric: str) -> Figure:
    """`interval_bars` of one metric of several methods under one protocol."""
    table = pd.DataFrame([score.table().set_index("metric").loc[metric] for score in scores.values()])
    return interval_bars(list(scores), table["value"], table["low"], table["high"], table["chance"].iloc[0], metric)


def view_distances(views: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]) -> Figure:
    """Plot the distances of images to changed views of themselves, one box per kind, above gray reference boxes.

    A box spans the quartiles with a line at the median; whiskers span 5 % to 95 %.

    views, references : name → cosine distances.
    """
    lines = [*((name, values, COLORS[0]) for name, values in views.items()),
             *((name, values, "0.6") for name, values in references.items())]  # fmt: skip
    for name, values, _ in lines:
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"{name!r}: needs at least one distance, and all must be finite")
    figure, (panel,) = panel_row(1, 9, 0.9 + 0.34 * len(lines))
    boxes = panel.boxplot(
        [values for _, values, _ in lines], orientation="horizontal", whis=(5, 95), showfliers=False, widths=0.6,
        patch_artist=True, medianprops={"color": "black"}, tick_labels=[name for name, _, _ in lines],
    )  # fmt: skip
    for box, (_, _, color) in zip(boxes["boxes"], lines, strict=True):
        box.set(facecolor=color, alpha=0.75)
    # The first line on top, as in a table.
    panel.invert_yaxis()
    panel.axhline(len(views) + 0.5, color="0.4", linestyle=":")
    panel.set_xlim(left=-0.01)
    panel.grid(alpha=0.3, axis="x")
    panel.set_xlabel("cosine distance")
    return figure
