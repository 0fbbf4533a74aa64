"""Images with boxes: detections, anchors, and the parts that match a query."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.networks.detectors import Detections
from helpers.search.region_search import RegionRanking
from helpers.text import printable
from helpers.visualization.curves import COLORS
from helpers.visualization.grids import SIGNS, image_cells, outline

#: Width of the lines of boxes, and size of their labels, in points.
LINE_WIDTH, LABEL_SIZE = 2.0, 8.5
#: Above this brightness, in 0 … 1, a label's text is black, else white.
_BRIGHT = 0.5


@dataclass(frozen=True, eq=False)
class BoxedImage:
    """An image with boxes.

    image : uint8 (height, width, 3) RGB.
    boxes : floating (n, 4), x, y, width, height in pixels.
    labels : a text for each box, or none.
    colors : a color for each box; by default those of `helpers.visualization.curves.COLORS`, in turn.
    title : text above the image.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: Sequence[str] = ()
    colors: Sequence[str] = ()
    title: str = ""


def box_grid(items: Sequence[BoxedImage], columns: int = 4, line_width: float = LINE_WIDTH) -> Figure:
    """Show images with their boxes."""
    cells = image_cells(max(1, -(-len(items) // columns)), columns, 12, 0.85)
    for cell, item in zip(cells.ravel(), items, strict=False):
        draw_boxes(cell, item, line_width)
    return cells[0, 0].figure


def draw_boxes(panel: Axes, item: BoxedImage, line_width: float = LINE_WIDTH) -> None:
    """Draw an image, its boxes, and their labels in a panel; the first boxes are drawn last, above the others."""
    boxes = np.asarray(item.boxes, np.float64).reshape(-1, 4)
    for name, values in (("labels", item.labels), ("colors", item.colors)):
        if len(values) not in (0, len(boxes)):
            raise ValueError(f"{len(boxes)} boxes need as many {name}, got {len(values)}")
    panel.imshow(item.image)
    panel.autoscale(False)
    panel.set_title(printable(item.title), fontsize=9, parse_math=False)
    for row in reversed(range(len(boxes))):
        color = item.colors[row] if item.colors else COLORS[row % len(COLORS)]
        outline(panel, boxes[row], color, line_width)
        if item.labels and item.labels[row]:
            _label(panel, boxes[row], item.image.shape[:2], item.labels[row], color)


def _label(panel: Axes, box: np.ndarray, size: tuple[int, int], text: str, color: str) -> None:
    """A label above its box, or inside at its top if there is no place above it.

    It begins at the left edge of the box; in the right half of the image, it ends at the right edge.
    """
    x, y, width, _ = box
    above, right = y >= 0.09 * size[0], x > 0.5 * size[1]
    red, green, blue = to_rgb(color)
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > _BRIGHT
    panel.annotate(
        printable(text), ((x + width if right else x) - 0.5, y - 0.5), xytext=(-1 if right else 1, 2 if above else -2),
        textcoords="offset points", fontsize=LABEL_SIZE, color="black" if bright else "white",
        ha="right" if right else "left", va="bottom" if above else "top", parse_math=False,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": color, "edgecolor": "none"},
    )  # fmt: skip


def detected(image: np.ndarray, detections: Detections, title: str = "") -> BoxedImage:
    """An image with its detections; each label has the class and the score."""
    labels = [f"{name} {score:.2f}" for name, score in zip(detections.names, detections.scores, strict=True)]
    return BoxedImage(image, detections.boxes, labels, title=title)


def region_results(
    query: BoxedImage, images: ImageSet, found: RegionRanking, relevant: Sequence[int] = (), columns: int = 6
) -> Figure:
    """Show a query and its results, with the matched part of each image in the color of the part of the query.

    A match with the whole image has no box.

    query : its boxes are the parts of the query. images : row *i* is id *i* of the results.
    relevant : ids of relevant images, marked by ○; others are marked by ✗. Without ids, there are no marks.
    """
    items = [query]
    pairs = zip(found.ranking.ids[0], found.ranking.scores[0], found.matches, strict=False)
    for rank, (id, score, matches) in enumerate(pairs, 1):
        shown = [(part, match) for part, match in enumerate(matches) if match is not None and match.box is not None]
        mark = f"{SIGNS[id in relevant]} " if len(relevant) else ""
        items.append(
            BoxedImage(
                read_image(images.paths[id]),
                np.array([match.box for _, match in shown]).reshape(-1, 4),
                [f"{match.class_name or ''} {match.score:.2f}".strip() for _, match in shown],
                [COLORS[part % len(COLORS)] for part, _ in shown],
                f"{mark}{rank} · {score:.2f}",
            )
        )
    return box_grid(items, columns)
