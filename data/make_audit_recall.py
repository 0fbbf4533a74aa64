"""Measure which changed copies `lookalike audit` finds: writes ``data/audit_recall.csv``.

    python data/make_audit_recall.py [--images N]

Each change is applied to all photographs of the sample, and the originals are audited together with the changed copies.
A copy is found if it is in the group of its original. Copies that share a group with another photograph, or with the
changed copy of another one, are false alarms.
Needs ResNet50's weights: the search for crops uses its vectors.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from helpers import paths
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.images.duplicates import audit
from helpers.images.imageset import ImageSet, concatenate

Change = Callable[[Image.Image], Image.Image]


def rotated(degrees: float) -> Change:
    """Rotation with white corners."""
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


def cropped(share: float, corner: bool = False) -> Change:
    """The middle of an image, or its lower right corner: ``share`` of the width and of the height."""

    def crop(image: Image.Image) -> Image.Image:
        width, height = (round(side * share) for side in image.size)
        left, top = (image.width - width, image.height - height)
        return image.crop((left, top, image.width, image.height)) if corner else ImageOps.fit(image, (width, height),
            bleed=(1 - share) / 2, method=Image.Resampling.BICUBIC)  # fmt: skip

    return crop


def resized(scale: float) -> Change:
    """Another size."""
    return lambda image: image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def bordered(share: float, color: str) -> Change:
    """A frame on all sides, in parts of the short side."""
    return lambda image: ImageOps.expand(image, round(share * min(image.size)), color)


def with_text(height: float) -> Change:
    """A line of text across the middle; ``height`` in parts of the image's height."""

    def write(image: Image.Image) -> Image.Image:
        copy = image.copy()
        font = ImageFont.load_default(size=max(8, round(height * image.height)))
        ImageDraw.Draw(copy).text((image.width / 2, image.height / 2), "SAMPLE", "red", font, anchor="mm")
        return copy

    return write


def colder(image: Image.Image) -> Image.Image:
    """Less red and more blue."""
    red, green, blue = image.split()
    return Image.merge("RGB", (red.point(lambda v: round(v * 0.8)), green, blue.point(lambda v: min(255, v * 6 // 5))))


#: Change → how it is made, and the JPEG quality of the copy.
CHANGES: dict[str, tuple[Change, int]] = {
    "saved as JPEG of quality 30": (lambda image: image, 30),
    "half the size": (resized(0.5), 90),
    "a quarter of the size": (resized(0.25), 90),
    "20 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.2), 90),
    "20 % darker": (lambda image: ImageEnhance.Brightness(image).enhance(0.8), 90),
    "30 % more contrast": (lambda image: ImageEnhance.Contrast(image).enhance(1.3), 90),
    "colder colors": (colder, 90),
    "gray": (lambda image: image.convert("L").convert("RGB"), 90),
    "negative": (ImageOps.invert, 90),
    "mirrored": (ImageOps.mirror, 90),
    "upside down": (ImageOps.flip, 90),
    "rotated by 2°": (rotated(2), 90),
    "rotated by 10°": (rotated(10), 90),
    "rotated by 90°": (rotated(90), 90),
    "crop, middle 90 % of the sides": (cropped(0.9), 90),
    "crop, middle 80 % of the sides": (cropped(0.8), 90),
    "crop, middle 70 % of the sides": (cropped(0.7), 90),
    "crop, middle 50 % of the sides": (cropped(0.5), 90),
    "crop, corner of 70 % of the sides": (cropped(0.7, corner=True), 90),
    "mirrored crop, 80 % of the sides": (lambda image: ImageOps.mirror(cropped(0.8)(image)), 90),
    "black border of 5 %": (bordered(0.05, "black"), 90),
    "black border of 15 %": (bordered(0.15, "black"), 90),
    "text of a tenth of the height": (with_text(0.1), 90),
    "text of a quarter of the height": (with_text(0.25), 90),
}
COLUMNS = ("change", "extractor", "images", "recall", "false_alarms")


def changed(images: ImageSet, change: Change, quality: int, folder: Path) -> ImageSet:
    """The changed copies of a set, in its order."""
    files = []
    for row, path in enumerate(images.paths):
        files.append(folder / f"{row:04}.jpg")
        with Image.open(path) as image:
            change(image.convert("RGB")).save(files[-1], quality=quality)
    return ImageSet("changed", tuple(files), images.labels, images.class_names, root=folder)


def found(both: ImageSet, vectors: np.ndarray | None) -> tuple[float, int]:
    """The share of the copies that are in the group of their original, and the number of copies in a wrong group."""
    n = len(both) // 2
    groups = audit(both, vectors, np.repeat([0, 1], n)).groups()
    originals, copies = groups[:n], groups[n:]
    own = (copies >= 0) & (copies == originals)
    # Each photograph once for each of its groups; a right group has one photograph.
    photographs = np.unique(np.stack([groups, np.tile(np.arange(n), 2)]), axis=1)[0]
    wrong, count = np.unique(photographs[photographs >= 0], return_counts=True)
    return float(own.mean()), int(np.isin(copies, wrong[count > 1]).sum())


def measured(images: ImageSet) -> Iterator[tuple]:
    """One row per change and extractor."""
    resnet50 = open_extractor("resnet50")
    of_originals = resnet50.extract(images)
    for name, (change, quality) in CHANGES.items():
        with tempfile.TemporaryDirectory() as folder:
            copies = changed(images, change, quality, Path(folder))
            both = concatenate(name, [images, copies])
            vectors = np.concatenate([of_originals, resnet50.extract(copies)])
            for extractor, used in (("none", None), ("resnet50", vectors)):
                recall, false_alarms = found(both, used)
                print(f"{name:36} {extractor:10} {recall:.3f} {false_alarms}", flush=True)
                yield name, extractor, len(images), f"{recall:.3f}", false_alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="measure on the first N photographs only, and write nothing")
    options = parser.parse_args()
    images = samples.photos()
    if options.images is None:
        rows = list(measured(images))
        with (paths.data_dir() / "audit_recall.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    else:
        list(measured(images.subset(range(min(options.images, len(images))))))


if __name__ == "__main__":
    main()
