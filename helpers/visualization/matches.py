"""Keypoints and their matches, drawn into the pictures."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.features.keypoints import Homography, Keypoints, Matches
from helpers.visualization.grids import RIGHT, WRONG


def keypoint_grid(picture: np.ndarray, found: Mapping[str, Keypoints], shown: int = 60, width: float = 13) -> Figure:
    """A picture once for each kind, its ``shown`` strongest keypoints as circles of their size with their direction.

    picture : uint8 (height, width, 3) RGB. found : title → keypoints of it.
    """
    height = width / len(found) * picture.shape[0] / picture.shape[1] + 0.35
    figure = Figure(figsize=(width, height), layout="constrained")
    for panel, (title, keypoints) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        _picture(panel, picture)
        points, sizes, angles = (column[:shown] for column in keypoints.placed)
        circles = EllipseCollection(
            sizes, sizes, np.zeros(len(sizes)), units="xy", offsets=points, offset_transform=panel.transData,
            facecolors="none", edgecolors=_colours(len(points)), linewidths=1.3,
        )  # fmt: skip
        panel.add_collection(circles)
        # Clockwise from the x axis, as y runs downwards.
        ends = points + sizes[:, None] / 2 * np.column_stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))])
        panel.add_collection(LineCollection(np.stack([points, ends], 1), colors=_colours(len(points)), linewidths=1.3))
        panel.set_title(f"{title}: {len(points)} of {len(keypoints)}", fontsize=10)
    return figure


def match_lines(
    picture: np.ndarray, other: np.ndarray, query: Keypoints, gallery: Keypoints, matches: Matches,
    found: Homography | None = None, width: float = 12,
) -> Figure:  # fmt: skip
    """Two pictures side by side, a line for each match: green if the homography agrees with it, else red.

    picture, other : uint8 (height, width, 3) RGB, that of the query and that of the gallery.
    found : where it has a matrix, the outline of the query is drawn in the other picture; without it all lines are
        green.
    """
    height = max(picture.shape[0], other.shape[0])
    gap = 12
    canvas = np.full((height, picture.shape[1] + gap + other.shape[1], 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    canvas[: other.shape[0], picture.shape[1] + gap :] = other
    figure = Figure(figsize=(width, width * canvas.shape[0] / canvas.shape[1] + 0.35), layout="constrained")
    panel = figure.subplots()
    _picture(panel, canvas)
    beside = np.array([picture.shape[1] + gap, 0])
    lines = np.stack([query.points[matches.pairs[:, 0]], gallery.points[matches.pairs[:, 1]] + beside], 1)
    agree = np.ones(len(lines), bool) if found is None else found.inliers
    # The wrong ones first, so that they hide none of the right ones.
    for right, colour, alpha in ((False, WRONG, 0.5), (True, RIGHT, 0.8)):
        panel.add_collection(LineCollection(lines[agree == right], colors=colour, linewidths=0.9, alpha=alpha))
    if found is not None and found.matrix is not None:
        rows, columns = query.shape
        corners = np.array([(0, 0, 1), (columns, 0, 1), (columns, rows, 1), (0, rows, 1), (0, 0, 1)])
        mapped = corners @ found.matrix.T
        outline = mapped[:, :2] / mapped[:, 2:] + beside
        (line,) = panel.plot(*outline.T, color="#E69F00", linewidth=2)
        # Where the query shows more than the other picture, its outline would run on over the query itself.
        line.set_clip_path(Rectangle(beside - 0.5, *other.shape[1::-1], transform=panel.transData))
    title = f"{len(matches)} matches"
    panel.set_title(title if found is None else f"{title}, {found.count} agree with one homography", fontsize=10)
    return figure


def _picture(panel: Axes, picture: np.ndarray) -> None:
    panel.imshow(picture)
    panel.axis("off")
    panel.set_xlim(-0.5, picture.shape[1] - 0.5)
    panel.set_ylim(picture.shape[0] - 0.5, -0.5)


def _colours(n: int) -> list[str]:
    """Neighbours in strength look different, so that circles that overlap can be told apart."""
    return [("#E69F00", "#56B4E9", "#009E73", "#CC79A7")[i % 4] for i in range(n)]
