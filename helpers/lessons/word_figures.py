"""Figures of hand-crafted features: HOG, patches of visual words, and curves over their number."""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from helpers.features.color_shape import Hog
from helpers.features.keypoints import extract
from helpers.features.vocabulary import Vocabulary
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image, resize
from helpers.visualization.curves import COLORS, log_ticks, panel_row
from helpers.visualization.grids import image_cells

#: Width of SIFT's patch over the keypoint's size (Lowe 2004: 4 × 4 cells, each 3 scales wide).
PATCH = 6


def hog_lines(images: Sequence[np.ndarray], hog: Hog) -> Figure:
    """Show images and, below them, their HOG: one line per cell and edge direction, opaque for strong edges.

    images : uint8 (h, w, 3), of any size.
    """
    figure = Figure(figsize=(12, 24 / len(images) + 0.1), layout="constrained")
    upper, lower = figure.subplots(2, len(images), squeeze=False)
    cells = hog.size // hog.settings["cell"]
    # The gradient is perpendicular to the edge; the line is parallel to it.
    angles = np.pi * (np.arange(hog.DIRECTIONS) + 0.5) / hog.DIRECTIONS + np.pi / 2
    along = np.column_stack([np.cos(angles), np.sin(angles)])
    for panel, lines, image in zip(upper, lower, images, strict=True):
        square = resize(image, (hog.size, hog.size))
        strength = cell_histograms(hog.compute(square[None])[0], cells, hog.DIRECTIONS)
        strength /= max(strength.max(), 1e-12)
        centers = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1)[:, :, None] + 0.5
        segments = np.stack([centers - 0.45 * along, centers + 0.45 * along], axis=3).reshape(-1, 2, 2)
        lines.add_collection(LineCollection(list(segments), colors="black", alpha=strength.ravel(), linewidths=1.6))
        lines.set(xlim=(0, cells), ylim=(cells, 0), aspect="equal", xticks=[], yticks=[])
        panel.imshow(square)
        panel.axis("off")
    return figure


def cell_histograms(vector: np.ndarray, cells: int, count: int) -> np.ndarray:
    """HOG vector → float (cells, cells, count): the histogram of each cell, averaged over its blocks.

    OpenCV's order: blocks column by column, and in each block its cells column by column.
    """
    blocks = np.asarray(vector, np.float64).reshape(cells - 1, cells - 1, 2, 2, count)
    sums, times = np.zeros((cells, cells, count)), np.zeros((cells, cells, 1))
    for column, row in np.ndindex(2, 2):
        part = slice(row, row + cells - 1), slice(column, column + cells - 1)
        sums[part] += blocks[:, :, column, row].transpose(1, 0, 2)
        times[part] += 1
    return sums / times


def word_grid(images: ImageSet, vocabulary: Vocabulary, words: Sequence[int], count: int = 12) -> Figure:
    """Show the ``count`` patches nearest to each word, one per image; one line per word.

    Patches are rotated so that the keypoint's direction points right.
    """
    config = vocabulary.config
    best: dict[int, list[tuple[float, np.ndarray]]] = {word: [] for word in words}
    for path in images.paths:
        gray = cv2.cvtColor(resize(read_image(path), (config.size, config.size), config.rule), cv2.COLOR_RGB2GRAY)
        found = extract(gray, config.kind, config.limit)
        if not len(found):
            continue
        nearest, squared = (column[:, 0] for column in vocabulary.nearest(vocabulary.project(found.descriptors)))
        for word in words:
            own = np.flatnonzero(nearest == word)
            if len(own):
                row = own[squared[own].argmin()]
                best[word].append((squared[row], _patch(gray, found.points[row], found.sizes[row], found.angles[row])))
    panels = image_cells(len(words), count, 12, 1)
    for line, word in zip(panels, words, strict=True):
        patches = [patch for _, patch in sorted(best[word], key=lambda pair: pair[0])[:count]]
        for panel in line[: max(1, len(patches))]:
            panel.axis("on")
        for panel, patch in zip(line, patches, strict=False):
            panel.imshow(patch, cmap="gray")  # stretched: SIFT ignores contrast
        line[0].set_ylabel(f"word {word}", fontsize=10)
    return panels[0, 0].figure


def size_curves(table: pd.DataFrame) -> Figure:
    """Plot the Davies–Bouldin index and the mAP over the number of words.

    table : columns ``words``, ``davies_bouldin``, ``chosen``, ``mAP``, ``low``, ``high``, ``chance``.
    """
    figure, (left, right) = panel_row(2, 11, 3.4, grid=True)
    words = table["words"]
    left.plot(words, table["davies_bouldin"], "o-", color=COLORS[0])
    left.set_ylabel("Davies–Bouldin (lower is better)")
    right.errorbar(
        words, table["mAP"], (table["mAP"] - table["low"], table["high"] - table["mAP"]),
        fmt="o-", color=COLORS[1], capsize=3,
    )  # fmt: skip
    right.axhline(table["chance"].iloc[0], linestyle="--", color="0.4", label=f"chance {table['chance'].iloc[0]:.3f}")
    right.set_ylabel("mAP (higher is better)")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, loc="lower right")
    for panel, column in ((left, "davies_bouldin"), (right, "mAP")):
        chosen = table[table["chosen"]]
        panel.plot(chosen["words"], chosen[column], "o", markersize=13, fillstyle="none", color="black")
        log_ticks(panel, words)
        panel.set_xlabel("words (circled: chosen by Davies–Bouldin)")
    return figure


def _patch(gray: np.ndarray, point: np.ndarray, size: float, angle: float, side: int = 48) -> np.ndarray:
    """uint8 (side, side): the patch of a keypoint, rotated so that its direction points right."""
    scale = side / (PATCH * size)
    turn = np.radians(-angle)
    linear = scale * np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    matrix = np.column_stack([linear, side / 2 - linear @ point])
    return cv2.warpAffine(gray, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
