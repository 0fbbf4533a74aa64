"""The sample that ships with the course: photographs of ten everyday classes, drawings of some, and distractors.

``data/make_sample.py`` creates it from Tux Paint's stamps (GPL-2). The license and the origins are in its folder.
"""

import numpy as np

from helpers import paths
from helpers.images.folders import image_files
from helpers.images.imageset import NO_CLASS, EmptyImageSet, ImageSet
from helpers.text import read_csv


def photos() -> ImageSet:
    """The photographs of the ten classes, with keys ``photos/<class>/<name>.jpg``.

    Raises `EmptyImageSet` if the sample is missing, and `NotInCheckout` if the library is installed without it.
    """
    return _load("sample", "photos")


def with_distractors() -> ImageSet:
    """The photographs, followed by the distractors."""
    return _load("sample", "photos", "distractors")


def drawings() -> ImageSet:
    """Drawings of some of the classes; the class names are those of the photographs."""
    return _load("sample-drawings", "drawings")


def captions(images: ImageSet) -> list[str]:
    """The caption of each image of the sample, e.g. "A pair of binoculars."; the author of the stamp wrote it.

    Raises KeyError if an image is not of the sample.
    """
    folder = paths.checkout("The images of the sample") / "data" / "sample"
    listed = {row["key"]: row["caption"] for row in read_csv(folder / "captions.csv")}
    return [listed[key] for key in images.keys]


def _load(name: str, *kinds: str) -> ImageSet:
    folder = paths.checkout("The images of the sample") / "data" / "sample"
    if not (folder / "photos").is_dir():
        raise EmptyImageSet(f"{folder} is missing. Restore it with git checkout, or run data/make_sample.py.")
    class_names = sorted(path.name for path in (folder / "photos").iterdir() if path.is_dir())
    files = [path for kind in kinds for path in image_files(folder / kind)]
    labels = [
        NO_CLASS if path.parent == folder / "distractors" else class_names.index(path.parent.name) for path in files
    ]
    return ImageSet(name, tuple(files), np.array(labels), tuple(class_names), root=folder)
