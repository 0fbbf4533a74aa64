"""Caltech-101: 101 classes of objects and a class of random pictures (Fei-Fei, Fergus & Perona 2004).

Official layout: ``101_ObjectCategories/<class>/image_0001.jpg``. Its classes Faces and Faces_easy hold the same
people twice, which the audit finds and `load` therefore marks.
"""

import numpy as np

from helpers.pictures import download
from helpers.pictures.imageset import NO_CLASS, ImageSet, picture_files

BACKGROUND = "BACKGROUND_Google"


def load(per_class: int | None = None, seed: int = 0) -> ImageSet:
    """All classes; the pictures of BACKGROUND_Google have no class: they are distractors.

    per_class : at most so many pictures of each class, drawn by ``seed`` (the full set has 31 to 800).

    Raises
    ------
    DownloadError : it is neither in the cache nor can it be fetched.
    """
    folder = download.fetch("caltech101")
    files = picture_files(folder)
    class_names = sorted({path.parent.name for path in files} - {BACKGROUND})
    number = {class_name: i for i, class_name in enumerate(class_names)} | {BACKGROUND: NO_CLASS}
    labels = np.array([number[path.parent.name] for path in files])
    images = ImageSet("caltech101", tuple(files), labels, tuple(class_names), root=folder)
    return images if per_class is None else images.sample(per_class, seed)
