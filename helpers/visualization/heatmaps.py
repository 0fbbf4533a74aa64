"""Confusion matrices, similarity maps over images, and t-SNE maps of a gallery."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image, resize
from helpers.text import printable, printable_lines
from helpers.visualization.curves import panel_row
from helpers.visualization.grids import image_cells

#: float64 (256, 3), 0 … 255: a color map that also works in gray print.
_COLORS = colormaps["inferno"](range(256))[:, :3] * 255
#: Opacity of a heatmap over its image.
_OPACITY = 0.6


def confusion_map(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Plot the class of each query (rows) against the class of its nearest image (columns, "no class" last).

    Colors are shares of a row. Numbers are shown for up to 20 classes. Classes without a query are left out.

    counts : int64 (classes, classes + 1), as `helpers.evaluation.metrics.confusion` returns it.
    """
    classes = np.flatnonzero(counts.sum(axis=1)).tolist()
    names = [printable(class_names[i]) for i in classes]
    others = [counts.shape[1] - 1] if counts[:, -1].any() else []
    counts = counts[np.ix_(classes, classes + others)]
    share = counts / counts.sum(axis=1, keepdims=True)
    figure, (panel,) = panel_row(1, 7.475, 6.5)
    drawn = panel.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(drawn, label="share of the class's queries", shrink=0.8)
    # A class may be "$5", which is not a formula.
    fontsize, labels = 8 if len(names) <= 20 else 5, names + ["no class"] * len(others)
    panel.set_xticks(range(counts.shape[1]), labels, rotation=90, fontsize=fontsize, parse_math=False)
    panel.set_yticks(range(len(names)), names, fontsize=fontsize, parse_math=False)
    panel.set(xlabel="class of the first result", ylabel="class of the query")
    if len(names) <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if share[row, column] > 0.5 else "black"
            panel.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=color)
    return figure


def similarity_grid(pairs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]]) -> Figure:
    """Show pairs of images, one per line, then the same with maps of what makes them similar.

    Both maps of a pair share one scale; negative values are as dark as 0.

    pairs : tuples of (first image, second image, first map, second map, title): uint8 (s, s, 3) images and float (h, w)
        maps as `helpers.features.similarity_maps` returns them.
    """
    cells = image_cells(len(pairs), 4, 8.8, 1.1)
    for line, (first, second, first_map, second_map, title) in zip(cells, pairs, strict=True):
        highest = max(first_map.max(), second_map.max(), 1e-12)
        for cell, image in zip(line, (first, second) * 2, strict=True):
            cell.imshow(image, extent=(0, 1, 0, 1))
        for cell, similarity in zip(line[2:], (first_map, second_map), strict=True):
            cell.imshow(
                np.clip(similarity / highest, 0, 1), extent=(0, 1, 0, 1), cmap="inferno", alpha=_OPACITY,
                vmin=0, vmax=1, interpolation="bicubic",
            )  # fmt: skip
        line[0].set_title(printable_lines(title), fontsize=9, loc="left", parse_math=False)
    return cells[0, 0].figure


def overlay(image: np.ndarray, heatmap: np.ndarray, highest: float) -> np.ndarray:
    """Blend an image with its heatmap, uint8 (height, width, 3): bright for high values, dark for 0 and below.

    Parameters
    ----------
    image : uint8 (height, width, 3), upright.
    heatmap : float (h, w), a grid over the image, as `helpers.features.explain.why` returns it.
    highest : the value of the brightest color. Pass the same value to compare two heatmaps.
    """
    shares = np.clip(np.asarray(heatmap, np.float32) / max(highest, 1e-12), 0, 1)
    # Linear: a cubic interpolation would go below zero next to a bright cell.
    resized = cv2.resize(shares, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colors = _COLORS[np.round(resized * 255).astype(np.uint8)]
    return np.round(image * (1 - _OPACITY) + colors * _OPACITY).astype(np.uint8)


def gallery_map(images: ImageSet, vectors: np.ndarray, max_images: int = 250, seed: int = 0) -> Figure:
    """Plot a set's images in the plane by t-SNE of their vectors (van der Maaten & Hinton 2008).

    Neighbors in the plane are neighbors among the vectors; larger distances and empty space mean nothing.

    vectors : float32 (n, dim) without NaN; at most ``max_images`` of them, drawn with ``seed``, are shown.
    """
    from sklearn.manifold import TSNE

    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:max_images])
    perplexity = min(30, (len(rows) - 1) / 3)
    points = TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors[rows])
    figure, (panel,) = panel_row(1, 10, 8)
    panel.axis("off")
    panel.set_xlim(points[:, 0].min() - 1, points[:, 0].max() + 1)
    panel.set_ylim(points[:, 1].min() - 1, points[:, 1].max() + 1)
    for row, point in zip(rows, points, strict=True):
        add_thumbnail(panel, resize(read_image(images.paths[row]), 36, "pad"), *point)
    return figure


def add_thumbnail(panel: Axes, thumbnail: np.ndarray, x: float, y: float) -> None:
    """Draw an image, uint8 (s, s, 3), at a point; its margins are transparent, so that they do not hide neighbors."""
    alpha = np.where((thumbnail >= 250).all(axis=2, keepdims=True), 0, 255).astype(np.uint8)
    drawing = OffsetImage(np.concatenate([thumbnail, alpha], axis=2))
    panel.add_artist(AnnotationBbox(drawing, (x, y), frameon=False, pad=0))
