"""Labeled Faces in the Wild: 13,233 news photographs of 5,749 people, 250 × 250.

Huang, Ramesh, Berg & Learned-Miller 2007. Official layout: ``lfw/Name/Name_0001.jpg``. The frozen protocols use 1,943
images; ``load(2, official=True)`` has all.
"""

import numpy as np

from helpers.images import download
from helpers.images.folders import image_files
from helpers.images.imageset import NO_CLASS, EmptyImageSet, ImageSet


def load(min_images: int = 20, singletons: bool = True, official: bool = False) -> ImageSet:
    """People with ``min_images`` (at least 2) as classes, people with one image as distractors; others are left out.

    Raises `DownloadError` if it is not available, and `EmptyImageSet` if no person has that many images.

    singletons : include the distractors.
    official : use the official archive even if a mirror has the set, because a mirror may have a part of it. The set is
        then called ``lfw-all-20`` after ``min_images``: scores on it are not those of the frozen protocols.
    """
    if min_images < 2:
        raise ValueError(f"min_images must be at least 2, got {min_images}")
    folder = download.fetch("lfw", official)
    files = image_files(folder)
    people, which, counts = np.unique([path.parent.name for path in files], return_inverse=True, return_counts=True)
    many = np.flatnonzero(counts >= min_images)
    if not len(many):
        raise EmptyImageSet(f"no person in {folder} has {min_images} images; the most is {counts.max()}")
    number = np.full(len(people), NO_CLASS)
    number[many] = np.arange(len(many))
    kept = np.isin(which, many) | (singletons & (counts[which] == 1))
    rows = np.flatnonzero(kept)
    names = tuple(str(person).replace("_", " ") for person in people[many])
    name = f"lfw-all-{min_images}" if official else "lfw"
    return ImageSet(name, tuple(files[row] for row in rows), number[which[rows]], names, root=folder)
