"""Labeled Faces in the Wild: 13,233 news photographs of 5,749 people, 250 × 250.

Huang, Ramesh, Berg & Learned-Miller 2007. Official layout: ``lfw/Name/Name_0001.jpg``. The frozen protocols use 1,943
images; ``load(2, official=True)`` has all.
"""

from collections import Counter

from helpers.images import download
from helpers.images.folders import image_files
from helpers.images.imageset import EmptyImageSet, ImageSet, numbered


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
    counts = Counter(path.parent.name for path in files)
    if max(counts.values()) < min_images:
        raise EmptyImageSet(f"no person in {folder} has {min_images} images; the most is {max(counts.values())}")
    kept = [file for file in files if (n := counts[file.parent.name]) >= min_images or (singletons and n == 1)]
    people, labels = numbered([file.parent.name if counts[file.parent.name] > 1 else "" for file in kept])
    names = tuple(person.replace("_", " ") for person in people)
    return ImageSet(f"lfw-all-{min_images}" if official else "lfw", tuple(kept), labels, names, root=folder)
