"""ImageNet's images (objects): Imagenette, or any folder of wnid folders, with class names that a person can read.

ImageNet: Deng et al. 2009, https://www.image-net.org. Imagenette: ten easy classes of it,
https://github.com/fastai/imagenette.
"""

import csv
import functools
import re
from pathlib import Path

import numpy as np

from helpers import paths
from helpers.images import download
from helpers.images.imageset import EmptyImageSet, ImageSet, image_files

WNID = re.compile(r"n\d{8}")


@functools.cache
def classes() -> dict[str, str]:
    """wnid → readable name of the 1000 classes, in the order of ImageNet's class indices (0 … 999)."""
    with (paths.data_dir() / "imagenet_classes.csv").open(newline="", encoding="utf-8") as file:
        return {row["wnid"]: row["name"] for row in csv.DictReader(file)}


def class_index(wnid: str) -> int:
    """The index of a class in a classifier's 1000 outputs."""
    return list(classes()).index(wnid)


def load(folder: str | Path, name: str | None = None) -> ImageSet:
    """Any folder of wnid folders, with or without ``train``/``val`` above them, as one set.

    Keys begin with the split where there is one, so ``images.where(lambda key: key.startswith("val/"))`` is a split.

    Raises
    ------
    EmptyImageSet : no image lies in a folder that is named by a wnid (``n01440764``).
    """
    folder = Path(folder).resolve()
    found = [(path, path.parent.name) for path in image_files(folder) if WNID.fullmatch(path.parent.name)]
    if not found:
        raise EmptyImageSet(f"{folder} holds no images in folders named by a wnid, such as n01440764/x.JPEG.")
    wnids = sorted({wnid for _, wnid in found})
    number = {wnid: i for i, wnid in enumerate(wnids)}
    return ImageSet(
        name or folder.name,
        tuple(path for path, _ in found),
        np.array([number[wnid] for _, wnid in found]),
        # A class outside the thousand keeps its wnid as its name. ImageNet has two cranes and two maillots.
        tuple(_readable(wnids)),
        root=folder,
    )


def _readable(wnids: list[str]) -> list[str]:
    names = [classes().get(wnid, wnid) for wnid in wnids]
    return [f"{name} ({wnid})" if names.count(name) > 1 else name for name, wnid in zip(names, wnids, strict=True)]


def imagenette() -> ImageSet:
    """Imagenette, both splits in one set: ten classes, keys ``train/…`` and ``val/…``.

    Raises
    ------
    DownloadError : it is neither in the cache nor can it be fetched.
    """
    return load(download.fetch("imagenette"), "imagenette")


def one_per_class() -> ImageSet:
    """One training image of each of ImageNet's 1000 classes; label *i* is class index *i*.

    Raises
    ------
    DownloadError : it is neither in the cache nor in the mirror (there is no official archive of it).
    """
    folder = download.fetch("imagenet-one-per-class")
    files = image_files(folder)
    labels = [class_index(path.name[:9]) for path in files]
    return ImageSet(
        "imagenet-one-per-class", tuple(files), np.array(labels), tuple(_readable(list(classes()))), root=folder
    )
