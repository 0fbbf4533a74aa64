"""Figures of keypoints and their matches."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.features.keypoints import Homography, Keypoints, Matches
from helpers.visualization.grids import NEGATIVE, POSITIVE


def keypoint_grid(image: np.ndarray, found: Mapping[str, Keypoints], shown: int = 60) -> Figure:
    """Show the ``shown`` strongest keypoints of each kind as circles with their size and direction.

    image : uint8 (height, width, 3) RGB. found : title → its keypoints.
    """
    height = 13 / len(found) * image.shape[0] / image.shape[1] + 0.35
    figure = Figure(figsize=(13, height), layout="constrained")
    for panel, (title, keypoints) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        _image(panel, image)
        points, sizes, angles = (column[:shown] for column in keypoints.geometry)
        circles = EllipseCollection(
            sizes, sizes, np.zeros(len(sizes)), units="xy", offsets=points, offset_transform=panel.transData,
            facecolors="none", edgecolors=_colors(len(points)), linewidths=1.3,
        )  # fmt: skip
        panel.add_collection(circles)
        # Angles run clockwise from the x axis: y points down.
        ends = points + sizes[:, None] / 2 * np.column_stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))])
        panel.add_collection(
            LineCollection(list(np.stack([points, ends], 1)), colors=_colors(len(points)), linewidths=1.3)
        )
        panel.set_title(f"{title}: {len(points)} of {len(keypoints)}", fontsize=10)
    return figure


def match_lines(
    image: np.ndarray, other: np.ndarray, query: Keypoints, gallery: Keypoints, matches: Matches,
    found: Homography | None = None,
) -> Figure:  # fmt: skip
    """Show two images side by side with a line for each match: green for inliers of the homography, red for others.

    image, other : uint8 (height, width, 3) RGB, the query and the gallery image.
    found : its matrix, if any, draws the query's outline in the other image. Without it all lines are green.
    """
    left = image.shape[1] + 12
    canvas = np.full((max(image.shape[0], other.shape[0]), left + other.shape[1], 3), 255, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    canvas[: other.shape[0], left:] = other
    figure = Figure(figsize=(12, 12 * canvas.shape[0] / canvas.shape[1] + 0.35), layout="constrained")
    panel = figure.subplots()
    _image(panel, canvas)
    lines = np.stack([query.points[matches.pairs[:, 0]], gallery.points[matches.pairs[:, 1]] + (left, 0)], 1)
    inliers = np.ones(len(lines), bool) if found is None else found.inliers
    # Outliers first, behind the inliers.
    for drawn, color, alpha in ((~inliers, NEGATIVE, 0.5), (inliers, POSITIVE, 0.8)):
        panel.add_collection(LineCollection(list(lines[drawn]), colors=color, linewidths=0.9, alpha=alpha))
    if found is not None and found.matrix is not None:
        rows, columns = query.shape
        corners = np.array([(0, 0, 1), (columns, 0, 1), (columns, rows, 1), (0, rows, 1), (0, 0, 1)])
        mapped = corners @ found.matrix.T
        outline = mapped[:, :2] / mapped[:, 2:] + (left, 0)
        (line,) = panel.plot(*outline.T, color="#E69F00", linewidth=2)
        # The outline may extend beyond the other image, also over the query.
        line.set_clip_path(Rectangle((left - 0.5, -0.5), *other.shape[1::-1], transform=panel.transData))
    title = f"{len(matches)} matches"
    panel.set_title(title if found is None else f"{title}, {found.count} inliers of one homography", fontsize=10)
    return figure


def _image(panel: Axes, image: np.ndarray) -> None:
    panel.imshow(image)
    panel.axis("off")
    panel.set_xlim(-0.5, image.shape[1] - 0.5)
    panel.set_ylim(image.shape[0] - 0.5, -0.5)


def _colors(n: int) -> list[str]:
    """Alternating colors, to tell overlapping circles apart."""
    return [("#E69F00", "#56B4E9", "#009E73", "#CC79A7")[i % 4] for i in range(n)]
