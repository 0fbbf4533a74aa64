"""Figures of keypoints and their matches."""

from collections.abc import Mapping

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from helpers.features.keypoints import Homography, Keypoints, Matches
from helpers.visualization.curves import COLORS, panel_row

#: Of more matches, this number is drawn at random.
MOST_LINES = 60
#: A dark line behind a light one.
_OUTLINE = [Stroke(linewidth=2.6, foreground="black", alpha=0.75), Normal()]


def image_row(images: Mapping[str, np.ndarray], width: float = 12) -> Figure:
    """Show images side by side with their titles, all with the same height.

    images : title → uint8 (height, width, 3) RGB.
    """
    ratios = [image.shape[1] / image.shape[0] for image in images.values()]
    figure, panels = panel_row(len(images), width, width / sum(ratios) + 0.35, width_ratios=ratios)
    for panel, (title, image) in zip(panels, images.items(), strict=True):
        panel.imshow(image)
        panel.axis("off")
        panel.set_title(title, fontsize=10)
    return figure


def spread(points: np.ndarray, responses: np.ndarray, distance: float) -> np.ndarray:
    """Select keypoints so that a drawing stays readable: none is near a stronger one that is selected.

    Parameters
    ----------
    points : float (n, 2). responses : float (n,). distance : the minimum between two selected points, in pixels.

    Returns
    -------
    int64 (m,): the selected rows, strongest first.
    """
    selected: list[int] = []
    for row in np.argsort(-np.asarray(responses), kind="stable"):
        if not selected or np.linalg.norm(points[selected] - points[row], axis=1).min() >= distance:
            selected.append(int(row))
    return np.array(selected, np.int64)


def ratio_curves(errors: Mapping[str, tuple[np.ndarray, np.ndarray]], within: float = 3) -> Figure:
    """Plot the precision and the number of correct matches over the bound of the ratio test, one curve per name.

    Parameters
    ----------
    errors : name → (ratios, errors), float (m,) each: the distance to the nearest over the second nearest neighbor of
        each match, and its error in pixels.
    within : maximum error of a correct match.
    """
    bounds = np.round(np.arange(0.5, 1.0001, 0.025), 3)
    figure, (left, right) = panel_row(2, 9, 3.2, grid=True)
    for (name, (ratios, wrong_by)), color, style in zip(errors.items(), COLORS, ("-", "--", "-."), strict=False):
        kept = ratios[None, :] < bounds[:, None]
        correct = (kept & (wrong_by <= within)).sum(axis=1)
        left.plot(bounds, correct / np.maximum(kept.sum(axis=1), 1), style, color=color, label=name)
        right.plot(bounds, correct, style, color=color, label=name)
    left.set(ylabel="precision", ylim=(0, 1.02))
    right.set(ylabel="correct matches")
    right.set_ylim(bottom=0)
    for panel in (left, right):
        panel.set_xlabel("upper bound of the ratio")
        panel.axvline(0.8, color="0.4", linestyle=":", label="0.8")
        panel.legend(frameon=False)
    return figure


def match_lines(
    image: np.ndarray, other: np.ndarray, query: Keypoints, gallery: Keypoints, matches: Matches, found: Homography
) -> Figure:
    """Show two images side by side with a line for each match: blue for inliers of the homography, orange for others.

    The lines have a dark outline, so that they are visible on every image.

    Parameters
    ----------
    image, other : uint8 (height, width, 3) RGB, the query and the gallery image.
    found : its matrix, if any, draws the query's outline in the other image.
    """
    left = image.shape[1] + 12
    canvas = np.full((max(image.shape[0], other.shape[0]), left + other.shape[1], 3), 255, np.uint8)
    for shown, start in ((image, 0), (other, left)):
        canvas[: shown.shape[0], start : start + shown.shape[1]] = shown
    figure, (panel,) = panel_row(1, 7.5, 7.5 * canvas.shape[0] / canvas.shape[1] + 0.35)
    panel.imshow(canvas)
    panel.axis("off")
    panel.autoscale(False)
    lines = np.stack([query.points[matches.pairs[:, 0]], gallery.points[matches.pairs[:, 1]] + (left, 0)], 1)
    selected = np.zeros(len(lines), bool)
    selected[np.random.default_rng(0).permutation(len(lines))[:MOST_LINES]] = True
    # Outliers first, behind the inliers.
    for drawn, color in ((~found.inliers & selected, COLORS[4]), (found.inliers & selected, COLORS[5])):
        panel.add_collection(LineCollection(list(lines[drawn]), colors=color, linewidths=1.1, path_effects=_OUTLINE))
    if found.matrix is not None:
        rows, columns = query.shape
        corners = np.array([(0, 0, 1), (columns, 0, 1), (columns, rows, 1), (0, rows, 1), (0, 0, 1)])
        mapped = corners @ found.matrix.T
        outline = mapped[:, :2] / mapped[:, 2:] + (left, 0)
        (line,) = panel.plot(*outline.T, color="white", linewidth=2, path_effects=_OUTLINE)
        # The outline may extend beyond the other image, also over the query.
        line.set_clip_path(Rectangle((left - 0.5, -0.5), *other.shape[1::-1], transform=panel.transData))
    title = f"{len(matches)} matches, {found.count} inliers of one homography"
    panel.set_title(title if selected.all() else f"{title}; {MOST_LINES} matches are drawn", fontsize=10)
    return figure
