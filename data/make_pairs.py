"""Create ``data/pairs/`` from Debian's package ``opencv-doc`` (Apache-2.0).

    apt-get download opencv-doc
    python data/make_pairs.py opencv-doc_*.deb      # or the folder that it was unpacked to

Two classic pairs of images for keypoint matching: a wall with graffiti from two viewpoints, with the homography that
Mikolajczyk & Schmid published, and a box, alone and in a scene. The wall is reduced to 60 %, and its homography is
changed accordingly. The same package and the same version of Pillow give the same bytes. ``LICENSE`` and ``ORIGINS.md``
are written by hand and are not changed.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from debian_package import argument, unpacked
from PIL import Image

PAIRS = Path(__file__).resolve().parent / "pairs"
EXAMPLES = Path("usr/share/doc/opencv-doc/examples/data")
#: File → the factor by which it is reduced.
SCALES = {"graf1": 0.6, "graf3": 0.6, "box": 1.0, "box_in_scene": 1.0}
QUALITY = 90


def main(package: Path) -> None:
    with unpacked(package) as root:
        make(root / EXAMPLES)


def make(examples: Path) -> None:
    """Write the images and the homography from the folder of OpenCV's example images."""
    missing = [name for name in (*(f"{name}.png" for name in SCALES), "H1to3p.xml") if not (examples / name).is_file()]
    if missing:
        sys.exit(f"{', '.join(missing)}: not in {examples}. Is this opencv-doc 4.6.0? Nothing was changed.")
    PAIRS.mkdir(exist_ok=True)
    for name, scale in SCALES.items():
        with Image.open(examples / f"{name}.png") as image:
            size = round(image.width * scale), round(image.height * scale)
            image.resize(size, Image.Resampling.LANCZOS).save(PAIRS / f"{name}.jpg", quality=QUALITY, optimize=True)
    file = cv2.FileStorage(str(examples / "H1to3p.xml"), cv2.FILE_STORAGE_READ)
    homography = scaled(file.getNode("H13").mat(), SCALES["graf1"])
    np.savetxt(PAIRS / "graf1_to_graf3.txt", homography, fmt="%.8e")


def scaled(homography: np.ndarray, scale: float) -> np.ndarray:
    """The homography between two images of which each is reduced by ``scale``.

    The center of pixel (0, 0) is at (0, 0), so resizing maps x to ``scale * (x + 0.5) - 0.5``.
    """
    shift = (scale - 1) / 2
    resize = np.array([[scale, 0, shift], [0, scale, shift], [0, 0, 1]])
    found = resize @ homography @ np.linalg.inv(resize)
    return found / found[2, 2]


if __name__ == "__main__":
    main(argument(__doc__))
