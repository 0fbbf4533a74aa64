"""Keypoints and their matches, drawn into the images."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.features.keypoints import Homography, Keypoints, Matches
from helpers.visualization.grids import RIGHT, WRONG


def keypoint_grid(image: np.ndarray, found: Mapping[str, Keypoints], shown: int = 60, width: float = 13) -> Figure:
    """An image once for each kind, its ``shown`` strongest keypoints as circles of their size with their direction.

    image : uint8 (height, width, 3) RGB. found : title → keypoints of it.
    """
    height = width / len(found) * image.shape[0] / image.shape[1] + 0.35
    figure = Figure(figsize=(width, height), layout="constrained")
    for panel, (title, keypoints) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        _image(panel, image)
        points, sizes, angles = (column[:shown] for column in keypoints.placed)
        circles = EllipseCollection(
            sizes, sizes, np.zeros(len(sizes)), units="xy", offsets=points, offset_transform=panel.transData,
            facecolors="none", edgecolors=_colors(len(points)), linewidths=1.3,
        )  # fmt: skip
        panel.add_collection(circles)
        # Clockwise from the x axis, as y runs downwards.
        ends = points + sizes[:, None] / 2 * np.column_stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))])
        panel.add_collection(LineCollection(np.stack([points, ends], 1), colors=_colors(len(points)), linewidths=1.3))
        panel.set_title(f"{title}: {len(points)} of {len(keypoints)}", fontsize=10)
    return figure


def match_lines(
    image: np.ndarray, other: np.ndarray, query: Keypoints, gallery: Keypoints, matches: Matches,
    found: Homography | None = None, width: float = 12,
) -> Figure:  # fmt: skip
    """Two images side by side, a line for each match: green if the homography agrees with it, else red.

    image, other : uint8 (height, width, 3) RGB, that of the query and that of the gallery.
    found : where it has a matrix, the outline of the query is drawn in the other image; without it all lines are
        green.
    """
    height = max(image.shape[0], other.shape[0])
    gap = 12
    canvas = np.full((height, image.shape[1] + gap + other.shape[1], 3), 255, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    canvas[: other.shape[0], image.shape[1] + gap :] = other
    figure = Figure(figsize=(width, width * canvas.shape[0] / canvas.shape[1] + 0.35), layout="constrained")
    panel = figure.subplots()
    _image(panel, canvas)
    beside = np.array([image.shape[1] + gap, 0])
    lines = np.stack([query.points[matches.pairs[:, 0]], gallery.points[matches.pairs[:, 1]] + beside], 1)
    agree = np.ones(len(lines), bool) if found is None else found.inliers
    # The wrong ones first, so that they hide none of the right ones.
    for right, color, alpha in ((False, WRONG, 0.5), (True, RIGHT, 0.8)):
        panel.add_collection(LineCollection(lines[agree == right], colors=color, linewidths=0.9, alpha=alpha))
    if found is not None and found.matrix is not None:
        rows, columns = query.shape
        corners = np.array([(0, 0, 1), (columns, 0, 1), (columns, rows, 1), (0, rows, 1), (0, 0, 1)])
        mapped = corners @ found.matrix.T
        outline = mapped[:, :2] / mapped[:, 2:] + beside
        (line,) = panel.plot(*outline.T, color="#E69F00", linewidth=2)
        # Where the query shows more than the other image, its outline would run on over the query itself.
        line.set_clip_path(Rectangle(beside - 0.5, *other.shape[1::-1], transform=panel.transData))
    title = f"{len(matches)} matches"
    panel.set_title(title if found is None else f"{title}, {found.count} agree with one homography", fontsize=10)
    return figure


def _image(panel: Axes, image: np.ndarray) -> None:
    panel.imshow(image)
    panel.axis("off")
    panel.set_xlim(-0.5, image.shape[1] - 0.5)
    panel.set_ylim(image.shape[0] - 0.5, -0.5)


def _colors(n: int) -> list[str]:
    """Neighbors in strength look different, so that circles that overlap can be told apart."""
    return [("#E69F00", "#56B4E9", "#009E73", "#CC79A7")[i % 4] for i in range(n)]
