"""Maps: who is taken for whom, and the gallery laid out in the plane."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, read_image, resize

#: float64 (256, 3), 0 … 255: from nothing to most, readable in gray, too.
_COLORS = colormaps["inferno"](range(256))[:, :3] * 255


def confusion_map(counts: np.ndarray, class_names: Sequence[str], size: float = 6.5) -> Figure:
    """Class of the query (rows) against class of its nearest answer (columns; the last one is "no class").

    counts : int64 (classes, classes + 1), as `helpers.evaluation.metrics.confusion` gives it. Colors are shares of a
    row; numbers are written where there is room (at most 20 classes). Classes that nobody asked for are left out.
    """
    asked = np.flatnonzero(counts.sum(axis=1))
    columns = np.append(asked, counts.shape[1] - 1) if counts[:, -1].any() else asked
    counts = counts[np.ix_(asked, columns)]
    names = [class_names[i] for i in asked]
    share = counts / counts.sum(axis=1, keepdims=True)
    figure = Figure(figsize=(size * 1.15, size), layout="constrained")
    panel = figure.subplots()
    drawn = panel.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(drawn, label="share of the class's queries", shrink=0.8)
    fontsize = 8 if len(names) <= 20 else 5
    panel.set_xticks(
        range(len(columns)), names + ["no class"] * (len(columns) - len(names)), rotation=90, fontsize=fontsize
    )
    panel.set_yticks(range(len(names)), names, fontsize=fontsize)
    panel.set_xlabel("class of the nearest answer")
    panel.set_ylabel("class of the query")
    if len(names) <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if share[row, column] > 0.5 else "black"
            panel.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=color)
    return figure


def similar_places(pairs: Sequence[tuple], size: float = 2.2) -> Figure:
    """Pairs of images, one a line; under each the places that make it similar to the other one.

    pairs : tuples of (first, second, map of the first, map of the second, title): uint8 (s, s, 3) images and float
    (h, w) maps as `helpers.features.similarity_maps` gives them. Both maps of a pair share one scale; places that
    speak against are as dark as places that say nothing.
    """
    figure = Figure(figsize=(4 * size, len(pairs) * size * 1.1), layout="constrained")
    cells = figure.subplots(len(pairs), 4, squeeze=False)
    for line, (first, second, first_map, second_map, title) in zip(cells, pairs, strict=True):
        highest = max(first_map.max(), second_map.max(), 1e-12)
        for cell, image, places in zip(line, (first, second) * 2, (None, None, first_map, second_map), strict=True):
            cell.axis("off")
            cell.imshow(image, extent=(0, 1, 0, 1))
            if places is not None:
                cell.imshow(
                    np.clip(places / highest, 0, 1), extent=(0, 1, 0, 1), cmap="inferno", alpha=0.6, vmin=0, vmax=1,
                    interpolation="bicubic",
                )  # fmt: skip
        line[0].set_title(title, fontsize=9, loc="left")
    return figure


def overlaid(image: np.ndarray, places: np.ndarray, highest: float | None = None, strength: float = 0.6) -> np.ndarray:
    """An image under its map: uint8 (height, width, 3), bright where a place adds most, dark where it adds nothing.

    Parameters
    ----------
    image : uint8 (height, width, 3), upright.
    places : float (h, w), which cut the image into equal parts, as `helpers.features.explain.why` gives them. Below
        zero is as dark as zero.
    highest : what is brightest; the map's own maximum by default. Give two maps the same to compare them.
    strength : how much of the map's colors covers the image, 0 … 1.

    Raises
    ------
    ValueError : no such image or map, or a strength outside 0 … 1.
    """
    image, places = np.asarray(image), np.asarray(places, np.float32)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image must be uint8 (height, width, 3) RGB, got {image.dtype} {image.shape}")
    if places.ndim != 2 or not places.size or not np.isfinite(places).all():
        raise ValueError(f"a map must be (h, w) of finite numbers, got {places.shape}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie between 0 and 1, got {strength}")
    highest = max(float(places.max()) if highest is None else highest, 1e-12)
    # Linear between the middles of places: a curve would swing below zero beside a bright place.
    wide = cv2.resize(np.clip(places / highest, 0, 1), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colors = _COLORS[np.round(wide * 255).astype(np.uint8)]
    return np.round(image * (1 - strength) + colors * strength).astype(np.uint8)


def gallery_map(
    images: ImageSet, vectors: np.ndarray, max_images: int = 250, seed: int = 0, zoom: int = 36, size: float = 10
) -> Figure:
    """The set's vectors in the plane by t-SNE (van der Maaten & Hinton 2008), each place shown by its image.

    Neighbors in the plane are neighbors among the vectors; distances and empty space mean nothing.

    vectors : float32 (n, dim) without NaN; at most ``max_images`` of them, drawn by ``seed``, are laid out.
    """
    from sklearn.manifold import TSNE

    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:max_images])
    perplexity = min(30, (len(rows) - 1) / 3)
    places = TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors[rows])
    figure = Figure(figsize=(size, size * 0.8), layout="constrained")
    panel = figure.subplots()
    panel.axis("off")
    panel.set_xlim(places[:, 0].min() - 1, places[:, 0].max() + 1)
    panel.set_ylim(places[:, 1].min() - 1, places[:, 1].max() + 1)
    for row, place in zip(rows, places, strict=True):
        try:
            thumbnail = resize(read_image(images.paths[row]), zoom, "pad")
        except UnreadableImage:
            continue
        # White margins must not hide the neighbors.
        visible = np.where((thumbnail >= 250).all(axis=2, keepdims=True), 0, 255).astype(np.uint8)
        thumbnail = np.concatenate([thumbnail, visible], axis=2)
        panel.add_artist(AnnotationBbox(OffsetImage(thumbnail), place, frameon=False, pad=0))
    return figure
