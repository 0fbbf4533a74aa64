"""Two classic pairs of images for keypoint matching; they ship with the project (`data/pairs/ORIGINS.md`)."""

from pathlib import Path

import numpy as np

from helpers import paths


def graffiti() -> tuple[Path, Path, np.ndarray]:
    """A wall from two viewpoints, and the published homography, float64 (3, 3), from the first image to the second.

    Mikolajczyk & Schmid 2005, https://doi.org/10.1109/TPAMI.2005.188.
    """
    folder = paths.data_dir() / "pairs"
    return folder / "graf1.jpg", folder / "graf3.jpg", np.loadtxt(folder / "graf1_to_graf3.txt")


def box() -> tuple[Path, Path]:
    """A box, and a scene that contains it."""
    folder = paths.data_dir() / "pairs"
    return folder / "box.jpg", folder / "box_in_scene.jpg"
