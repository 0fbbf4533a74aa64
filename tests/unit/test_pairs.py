"""The pairs that ship: the homography holds for the images, and is the published one at their size."""

import runpy

import cv2
import numpy as np
import pytest

from helpers import paths
from helpers.images import pairs
from helpers.images.reading import read_image

#: Of the files of 800 × 640 pixels, as published.
PUBLISHED = np.array(
    [[0.76285898, -0.29922929, 225.67123], [0.33443473, 1.0143901, -76.999973], [3.4663091e-4, -1.4364524e-5, 1]]
)


def test_the_homography_is_the_published_one_at_the_reduced_size():
    """The centers of pixels move as a resize moves them: x to 0.6 (x + 0.5) - 0.5."""
    points = np.array([[[0.0, 0.0], [799, 0], [799, 639], [0, 639], [400, 320]]])
    expected = (cv2.perspectiveTransform(points, PUBLISHED) + 0.5) * 0.6 - 0.5
    found = cv2.perspectiveTransform((points + 0.5) * 0.6 - 0.5, pairs.graffiti()[2])
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_script_scales_it_so(monkeypatch):
    monkeypatch.syspath_prepend(paths.data_dir())  # as for a script that is started
    script = runpy.run_path(str(paths.data_dir() / "make_pairs.py"))
    assert script["scaled"](PUBLISHED, 0.6) == pytest.approx(pairs.graffiti()[2], abs=1e-6)
    assert script["scaled"](PUBLISHED, 1.0) == pytest.approx(PUBLISHED, abs=1e-9)


def test_the_first_image_warped_by_the_homography_is_the_second():
    first, second, homography = pairs.graffiti()
    first, second = (cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY) for path in (first, second))
    assert first.shape == second.shape == (384, 480)
    warped = cv2.warpPerspective(first, homography, (480, 384))
    inside = cv2.warpPerspective(np.full_like(first, 255), homography, (480, 384)) == 255
    correlation = np.corrcoef(warped[inside], second[inside])[0, 1]
    # A shift of one pixel lowers it to 0.80, three pixels to 0.61.
    assert inside.mean() > 0.5 and correlation > 0.85


def test_sizes_and_license():
    sizes = [read_image(path).shape[:2] for path in pairs.box()]
    assert sizes == [(223, 324), (384, 512)]
    folder = paths.data_dir() / "pairs"
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
