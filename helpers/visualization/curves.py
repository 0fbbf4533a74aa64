"""Curves: how far apart same and different are, and how recall grows with k."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.evaluation.verification import ErrorCurve

#: Okabe & Ito's palette: distinguishable for color-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def distance_histogram(
    vectors: Mapping[str, np.ndarray], protocol: Protocol, queries: int = 200, bins: int = 60, seed: int = 0
) -> Figure:
    """Cosine distance from queries to relevant and to other gallery images, one panel an extractor.

    Parameters
    ----------
    vectors : name → float32 (n, dim), length one, row *i* for id *i* of the protocol.
    queries : so many of the queries, drawn by ``seed``, are taken.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(np.flatnonzero(protocol.answerable))[:queries])
    figure = Figure(figsize=(5.5 * len(vectors), 3.4), layout="constrained")
    panels = figure.subplots(1, len(vectors), squeeze=False)[0]
    for panel, (name, matrix) in zip(panels, vectors.items(), strict=True):
        same, different = [], []
        for row in rows:
            distance = 1 - matrix[protocol.gallery] @ matrix[protocol.queries[row]]
            counted = ~np.isin(protocol.gallery, protocol.ignored(row))
            relevant = np.isin(protocol.gallery, protocol.relevant(row))
            same.append(distance[relevant])
            different.append(distance[counted & ~relevant])
        same, different = np.concatenate(same), np.concatenate(different)
        edges = np.linspace(0, max(same.max(), different.max()), bins)
        panel.hist(different, edges, density=True, alpha=0.6, color=COLORS[1], label="different class")
        panel.hist(same, edges, density=True, alpha=0.6, color=COLORS[0], label="same class")
        farther = _separation(same, different, rng)
        panel.set_title(f"{name}: a different one is farther in {farther:.1%} of pairs", fontsize=10)
        panel.set_xlabel("cosine distance")
        panel.set_ylabel("density")
        panel.legend(frameon=False)
    return figure


def _separation(same: np.ndarray, different: np.ndarray, rng: np.random.Generator, draws: int = 100_000) -> float:
    """Probability that a random different pair is farther apart than a random same pair (the area under the ROC)."""
    first, second = rng.choice(same, draws), rng.choice(different, draws)
    return float((first < second).mean() + (first == second).mean() / 2)


def recall_curves(
    curves: Mapping[str, np.ndarray], ks: Sequence[int], chance: np.ndarray, ceiling: np.ndarray | None = None,
    ylabel: str = "top-k accuracy",
) -> Figure:  # fmt: skip
    """Name → values (len(ks),) over k, with chance (and the most that is reachable) in gray."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    panel = figure.subplots()
    for (name, values), color in zip(curves.items(), COLORS, strict=False):
        panel.plot(ks, values, marker="o", markersize=3.5, color=color, label=name)
    panel.plot(ks, chance, "--", color="0.5", label="chance")
    if ceiling is not None:
        panel.plot(ks, ceiling, ":", color="0.5", label="ceiling")
    panel.set_xscale("log")
    panel.set_xticks(ks, [str(k) for k in ks])
    panel.minorticks_off()
    panel.set_ylim(0, 1.02)
    panel.set_xlabel("k")
    panel.set_ylabel(ylabel)
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    return figure


def strength_curves(
    tables: Mapping[str, pd.DataFrame], units: Mapping[str, str], columns: int = 5, width: float = 14
) -> Figure:
    """Recall@1 of known items over the strength of each change, a panel a kind; bands are 95 % intervals.

    Earlier methods have wider lines: many changes are solved by all, and what lies below must still be seen.

    tables : method → what `helpers.evaluation.known_item.recall_by_strength` gives.
    units : kind → unit of its strength.
    """
    kinds = list(dict.fromkeys(kind for table in tables.values() for kind in table["kind"]))
    lines = -(-(len(kinds) + 1) // columns)
    figure = Figure(figsize=(width, 2.5 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel, kind in zip(panels, kinds, strict=False):
        for (name, table), color, above in zip(tables.items(), COLORS, range(len(tables) - 1, -1, -1), strict=False):
            part = table[table["kind"] == kind]
            # By place: the strengths of some kinds are doubled from one to the next.
            places = np.arange(len(part))
            panel.plot(
                places, part["recall@1"], "o-", markersize=3 + 1.5 * above, linewidth=1.3 + 1.2 * above, color=color,
                label=name,
            )  # fmt: skip
            panel.fill_between(places, part["low"], part["high"], color=color, alpha=0.12, linewidth=0)
        shown = places[:: max(1, -(-len(places) // 8))]
        panel.set_xticks(shown, [f"{part['strength'].iloc[place]:g}" for place in shown])
        panel.set_title(kind, fontsize=10)
        panel.set_xlabel(units[kind], fontsize=8)
        panel.set_ylim(-0.03, 1.03)
        panel.grid(alpha=0.3)
    for panel in panels[len(kinds) :]:
        panel.axis("off")
    for line in range(lines):
        panels[line * columns].set_ylabel("recall@1")
    panels[len(kinds)].legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    return figure


def error_curves(curves: Mapping[str, ErrorCurve], threshold: float | None = None, width: float = 11) -> Figure:
    """Left: both errors over the threshold. Right: one against the other, with a log axis for the rare false accepts.

    threshold : the one that was chosen, drawn as a line.
    """
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
        known = np.isfinite(curve.thresholds)
        left.plot(curve.thresholds[known], curve.false_accept[known], "-", color=color, label=f"{name}: false accepts")
        left.plot(curve.thresholds[known], curve.false_reject[known], "--", color=color, label=f"{name}: false rejects")
        # Below one accepted pair there is nothing to see, and no logarithm.
        shown = curve.false_accept > 0
        error = curve.equal_error()
        label = f"{name}, both {error.rate:.1%} at {error.threshold:.3f}"
        right.plot(curve.false_accept[shown], curve.false_reject[shown], color=color, label=label)
        right.plot(error.rate, error.rate, "o", color=color, markersize=4)
    if threshold is not None:
        left.axvline(threshold, color="0.4", linestyle=":", label=f"chosen: {threshold:.3f}")
    left.set_xlabel("similarity from which two count as the same")
    left.set_ylabel("share of pairs")
    right.set_xscale("log")
    right.set_xlabel("false accepts")
    right.set_ylabel("false rejects")
    for panel in (left, right):
        panel.set_ylim(0, 1.02)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    return figure


def interval_bars(names: Sequence[str], values, low, high, chance: float, xlabel: str, width: float = 7) -> Figure:
    """One bar a method with its 95 % interval, and a line for chance."""
    figure = Figure(figsize=(width, 0.8 + 0.38 * len(names)), layout="constrained")
    panel = figure.subplots()
    values, low, high = (np.asarray(array, dtype=float) for array in (values, low, high))
    places = np.arange(len(names))[::-1]
    panel.barh(places, values, color=COLORS[0], alpha=0.75, height=0.65)
    panel.errorbar(values, places, xerr=(values - low, high - values), fmt="none", ecolor="black", capsize=3)
    for place, value, top in zip(places, values, high, strict=True):
        panel.text(max(value, top) + 0.012, place, f"{value:.3f}", va="center", fontsize=9)
    panel.axvline(chance, linestyle="--", color="0.4", label=f"chance {chance:.3f}")
    panel.set_yticks(places, names)
    panel.set_xlim(0, 1.1)
    panel.set_xlabel(xlabel)
    # Above the bars: inside, it would lie on one of them.
    panel.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def score_bars(scores: Mapping[str, Scores], metric: str, width: float = 7) -> Figure:
    """`interval_bars` of one metric of several methods under one protocol."""
    rows = [score.table().set_index("metric").loc[metric] for score in scores.values()]
    value, low, high = ([row[column] for row in rows] for column in ("value", "low", "high"))
    return interval_bars(list(scores), value, low, high, rows[0]["chance"], metric, width)


def view_distances(views: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray], width: float = 9) -> Figure:
    """How far images are from changed views of themselves, each kind one box, above what that compares with in gray.

    Parameters
    ----------
    views, references : name → cosine distances, any number of them. A box reaches from the lower to the upper quartile
        with a line at the median, its whiskers from 5 % to 95 %.

    Raises
    ------
    ValueError : a name has no distance, or one that is NaN or infinite.
    """
    lines = [*((name, values, COLORS[0]) for name, values in views.items()),
             *((name, values, "0.6") for name, values in references.items())]  # fmt: skip
    for name, values, _ in lines:
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"{name!r}: at least one distance is needed, and none of them NaN or infinite")
    figure = Figure(figsize=(width, 0.9 + 0.34 * len(lines)), layout="constrained")
    panel = figure.subplots()
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
