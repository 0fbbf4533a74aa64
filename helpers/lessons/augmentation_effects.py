"""Grids of augmented images, a fixed transformation, and the detail that interpolation leaves, for notebook 03."""

from collections.abc import Mapping, Sequence

import cv2
import keras
import numpy as np
from matplotlib.figure import Figure

from helpers.images.augmentation import RandomAffine


def pixel_grid(
    rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[Sequence[str]] | None = None, width: float = 11
) -> Figure:
    """Show rows of images with the name of each row at its left.

    rows : name → uint8 (h, w, 3) or gray (h, w) images; all rows have the same number.
    titles : one per image, above it.
    """
    count = len(next(iter(rows.values())))
    side = width / (count + 0.8)
    above = [0.35 if titles and any(titles[line]) else 0.08 for line in range(len(rows))]
    figure = Figure(figsize=(width, len(rows) * side + sum(above)), layout="constrained")
    grid = figure.subplots(len(rows), count, squeeze=False, height_ratios=[side + space for space in above])
    for line, (cells, (name, images)) in enumerate(zip(grid, rows.items(), strict=True)):
        for column, (cell, image) in enumerate(zip(cells, images, strict=True)):
            cell.imshow(image, cmap="gray_r")
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
            if titles:
                cell.set_title(titles[line][column], fontsize=9)
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def detail(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean square of the Laplacian of the gray images inside a mask, a measure of fine detail: float64 (n,).

    images : uint8 or float (n, h, w, 3). mask : bool (h, w).
    """
    grays = np.asarray(images, dtype=np.float32).mean(axis=-1)
    return np.array([np.square(cv2.Laplacian(gray, cv2.CV_32F))[mask].mean(dtype=np.float64) for gray in grays])


def one_matrix(
    images: np.ndarray, angle: float = 0, down: float = 0, right: float = 0, zoom: float = 0, flip: bool = False,
    fill_mode: str = "nearest",
) -> np.ndarray:  # fmt: skip
    """Transform all images alike by `RandomAffine.matrices` and one interpolation: float32 (n, h, w, 3).

    The result is that of Keras's layers ``RandomRotation((angle, angle))``, ``RandomTranslation((down, down),
    (right, right))``, ``RandomZoom((zoom, zoom))`` and a horizontal flip, one after the other, but less blurred.
    Keras's signs of the rotation and the translation are the opposite of those of `RandomAffine`.

    images : float32 (n, h, w, 3). angle : in full turns, counterclockwise. down, right : fractions of the sides.
    """
    n, height, width, _ = images.shape
    values = {
        "theta": -2 * np.pi * angle, "down": -down, "right": -right, "shear": 0, "zoom_y": 1 + zoom,
        "zoom_x": 1 + zoom, "mirror": -1 if flip else 1,
    }  # fmt: skip
    arrays = {name: np.full(n, value, np.float32) for name, value in values.items()}
    matrices = RandomAffine.matrices(**arrays, height=height, width=width)
    transformed = keras.ops.image.affine_transform(
        images, matrices, interpolation="bilinear", fill_mode=fill_mode, data_format="channels_last"
    )
    return np.asarray(transformed)
