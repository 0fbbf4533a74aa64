"""ImageNet: Imagenette, or any folder of WordNet ID (wnid) folders, with readable class names.

ImageNet: Deng et al. 2009, https://www.image-net.org. Imagenette: ten easy classes of it,
https://github.com/fastai/imagenette.
"""

import functools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers import paths
from helpers.images import download
from helpers.images.folders import SkippedFilesWarning, image_files
from helpers.images.imageset import EmptyImageSet, ImageSet, numbered
from helpers.text import read_csv

WNID = re.compile(r"n\d{8}")


@functools.cache
def classes() -> dict[str, str]:
    """wnid → readable name of the 1000 classes, ordered by ImageNet's class index (0 … 999)."""
    return {row["wnid"]: row["name"] for row in read_csv(paths.data_dir() / "imagenet_classes.csv")}


def load(folder: str | Path, name: str | None = None) -> ImageSet:
    """Any folder of wnid folders, with or without ``train``/``val`` above them, as one set.

    Keys begin with the split: ``images.where(lambda key: key.startswith("val/"))``. Raises `EmptyImageSet` if no
    image is in a folder whose name is a wnid, such as ``n01440764``. Other images, such as the validation images of
    ImageNet, whose classes are in a separate file, are left out with a `SkippedFilesWarning`.
    """
    folder = Path(folder).resolve()
    files = image_files(folder)
    found = [(path, path.parent.name) for path in files if WNID.fullmatch(path.parent.name)]
    if not found:
        raise EmptyImageSet(f"{folder} contains no images in folders named by a wnid, such as n01440764/x.JPEG.")
    if len(found) < len(files):
        others = [path.relative_to(folder) for path in files if not WNID.fullmatch(path.parent.name)]
        warnings.warn(
            f"{folder}: {len(others)} of {len(files)} images are left out, because their folder is not named by "
            f"a wnid: {others[0]}{', …' if len(others) > 1 else ''}",
            SkippedFilesWarning,
            stacklevel=2,
        )
    wnids, labels = numbered([wnid for _, wnid in found])
    return ImageSet(name or folder.name, tuple(path for path, _ in found), labels, _readable(wnids), root=folder)


def _readable(wnids: Sequence[str]) -> tuple[str, ...]:
    """Unique names: ImageNet has two cranes and two maillots. A class outside the 1000 is named by its wnid."""
    names = [classes().get(wnid, wnid) for wnid in wnids]
    return tuple(f"{name} ({wnid})" if names.count(name) > 1 else name for name, wnid in zip(names, wnids, strict=True))


def imagenette() -> ImageSet:
    """Imagenette's ten classes, with keys ``train/…`` and ``val/…``. Raises `DownloadError` if it is not available."""
    return load(download.fetch("imagenette"), "imagenette")


def one_per_class() -> ImageSet:
    """One training image of each of ImageNet's 1000 classes; label *i* is class index *i*.

    Only a mirror has it, there is no official archive. Raises `DownloadError` if it is not available.
    """
    folder = download.fetch("imagenet-one-per-class")
    files, wnids = image_files(folder), list(classes())
    labels = np.array([wnids.index(path.name[:9]) for path in files])
    return ImageSet("imagenet-one-per-class", tuple(files), labels, _readable(wnids), root=folder)
