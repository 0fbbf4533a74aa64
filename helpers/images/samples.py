"""The images that ship with the course: photographs of ten everyday classes, drawings of some, distractors.

Cut from Tux Paint's stamps (GPL-2) by ``data/make_sample.py``; origins and license lie beside them.
"""

import csv
from pathlib import Path

import numpy as np

from helpers import paths
from helpers.images.imageset import NO_CLASS, EmptyImageSet, ImageSet, image_files


def photos() -> ImageSet:
    """The photographs of the ten classes; keys ``photos/<class>/<name>.jpg``.

    Raises
    ------
    EmptyImageSet : the sample is missing.
    NotInCheckout : the library is installed without a checkout.
    """
    return _load("sample", "photos")


def with_distractors() -> ImageSet:
    """The photographs, then images of other things, which have no class."""
    return _load("sample", "photos", "distractors")


def drawings() -> ImageSet:
    """Drawings of things of some of the classes; the class names are those of the photographs."""
    return _load("sample-drawings", "drawings")


def captions() -> dict[str, str]:
    """Key → one English line that says what is to be seen."""
    with (_folder() / "captions.csv").open(newline="", encoding="utf-8") as file:
        return {row["key"]: row["caption"] for row in csv.DictReader(file)}


def _folder() -> Path:
    folder = paths.checkout("The images of the sample") / "data" / "sample"
    if not (folder / "photos").is_dir():
        raise EmptyImageSet(f"{folder} is missing. Restore it (git checkout) or make it: data/make_sample.py says how.")
    return folder


def _load(name: str, *kinds: str) -> ImageSet:
    folder = _folder()
    class_names = sorted(path.name for path in (folder / "photos").iterdir() if path.is_dir())
    files = [path for kind in kinds for path in image_files(folder / kind)]
    labels = [
        NO_CLASS if path.parent == folder / "distractors" else class_names.index(path.parent.name) for path in files
    ]
    return ImageSet(name, tuple(files), np.array(labels), tuple(class_names), root=folder)
