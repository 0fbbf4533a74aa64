"""Figures of notebook 14: results of texts, images and words in one plane, and shares over the weight of a text."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image, resize
from helpers.text import printable
from helpers.visualization.curves import COLORS, panel_row
from helpers.visualization.grids import NEGATIVE, POSITIVE, SIGNS, image_cells
from helpers.visualization.heatmaps import add_thumbnail


def text_results(
    images: ImageSet, results: Mapping[str, np.ndarray], relevant: Mapping[str, str] | None = None
) -> Figure:
    """Show the first eight results of texts, one line per text; ○ is relevant, ✗ is not.

    results : text → int64 (k,), rows of ``images``, the best first.
    relevant : text → the class whose images are relevant; None for no frames.
    """
    cells = image_cells(len(results), 9, 12, 1.3125)
    for line, (text, rows) in zip(cells, results.items(), strict=True):
        line[0].text(0.5, 0.5, printable(text), ha="center", va="center", fontsize=11, wrap=True, parse_math=False)
        for cell, row in zip(line[1:], rows, strict=False):
            cell.imshow(resize(read_image(images.paths[row]), 128, "pad"))
            title, color = images.class_name(int(row)), "black"
            if relevant is not None:
                hit = title == relevant[text]
                title, color = f"{SIGNS[hit]} {title}", POSITIVE if hit else NEGATIVE
                cell.add_patch(Rectangle((0, 0), 127, 127, fill=False, color=color, linewidth=3))
            cell.set_title(printable(title), fontsize=9, color=color, parse_math=False)
    return cells[0, 0].figure


def word_plane(images: ImageSet, points: np.ndarray, words: Sequence[str], word_points: np.ndarray) -> Figure:
    """Draw images and words at their positions in one plane; words of the images' classes are bold.

    points : float (n, 2), of the images. word_points : float (m, 2).
    """
    figure, (panel,) = panel_row(1, 12, 9)
    every = np.concatenate([points, word_points])
    low, high = every.min(axis=0), every.max(axis=0)
    margin = 0.03 * (high - low)
    panel.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    panel.axis("off")
    for path, point in zip(images.paths, points, strict=True):
        add_thumbnail(panel, resize(read_image(path), 34, "pad"), *point)
    frame = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
    for word, (x, y) in zip(words, _apart(word_points, 0.1 * (high - low)[0], 0.027 * (high - low)[1]), strict=True):
        weight, color = ("bold", COLORS[1]) if word in images.class_names else ("normal", COLORS[0])
        panel.text(
            x, y, printable(word), fontsize=12, weight=weight, color=color, ha="center", va="center", zorder=5,
            parse_math=False, bbox=frame,
        )  # fmt: skip
    return figure


def _apart(points: np.ndarray, width: float, height: float) -> np.ndarray:
    """float (m, 2): points (m, 2) moved down until no two are within a width and a height, so that no text overlaps."""
    placed: list[tuple[float, float]] = []
    moved = points.astype(float).copy()
    for row in np.argsort(-points[:, 1], kind="stable"):
        x, y = moved[row]
        near = sorted((other for other in placed if abs(other[0] - x) < width), key=lambda other: -other[1])
        for _, taken in near:
            if abs(taken - y) < height:
                y = taken - height
        placed.append((x, y))
        moved[row, 1] = y
    return moved


def weight_curves(table: pd.DataFrame) -> Figure:
    """Plot `first_result_shares`: the share of first results with the class of the image and that of the text."""
    figure, (panel,) = panel_row(1, 8, 3.6, grid=True)
    labels = {"image": "class of the image", "text": "class of the text"}
    for color, marker, (name, label) in zip(COLORS, "os", labels.items(), strict=False):
        values = table[name]
        errors = values - table[f"{name} low"], table[f"{name} high"] - values
        panel.errorbar(table["weight"], values, errors, fmt=f"{marker}-", color=color, capsize=3, label=label)
    chance = table["chance"].iloc[0]
    panel.axhline(chance, linestyle="--", color="0.4", label=f"chance {chance:.3f}")
    panel.set(xlabel="weight of the text (the image has weight 1)", ylabel="share of first results", ylim=(0, 1.02))
    panel.legend(frameon=False)
    return figure


def direction_bars(words: Sequence[str], values: np.ndarray, left: str, right: str) -> Figure:
    """Plot the cosine of words with a direction, sorted; ``left`` and ``right`` name its ends."""
    order = np.argsort(values)
    figure, (panel,) = panel_row(1, 8, 0.8 + 0.28 * len(words))
    panel.barh(range(len(order)), values[order], color=[COLORS[1] if values[row] < 0 else COLORS[0] for row in order])
    panel.set_yticks(range(len(order)), [words[row] for row in order])
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_xlabel(f"cosine with the direction: ← {left} … {right} →")
    panel.grid(axis="x", alpha=0.3)
    return figure
