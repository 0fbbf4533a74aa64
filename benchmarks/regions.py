"""Indexing with regions: the time of each source of regions against the vectors of whole images only.

    python -m benchmarks.regions
    python -m benchmarks.regions --command
    python -m benchmarks.regions --command --images 100 --side 4000
    python -m benchmarks.regions --images 100 --times 1 --extractor resnet50 --crops 30

The work is that of ``lookalike index`` from files to vectors, without the writing of the index: reading, decoding,
finding the boxes, and extracting. Everything runs on one core, and times are processor times of all threads, which
other programs influence less than the elapsed time. Nothing is read from the cache. The methods take turns; ratios are
those of the medians.

- whole images: ``extract``, one vector for each image
- with regions: the same, then `helpers.features.regions.RegionSource.find` and
  `helpers.features.region_vectors.region_vectors` by the extractor's default method

With ``--crops``, that number of images is measured with the vectors of crops, which is slower.

With ``--command``, the command itself is measured, on all cores: the elapsed time of ``lookalike index FOLDER`` in a
new process, with and without ``--regions``. The networks are compiled before; hashes and vectors are not in the cache.
This is the time that a user waits, so nothing else may run on the computer. ``--side`` first enlarges the
images to this long side: photographs of a camera take longer to read, but the networks take the same time.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.inputs import conditions, real_images
from helpers import paths
from helpers.features.extractor import FeatureExtractor
from helpers.features.region_vectors import region_method, region_vectors
from helpers.features.regions import SOURCES, RegionSource, region_source
from helpers.features.registry import open_extractor
from helpers.images.imageset import ImageSet

#: The largest ratio that the project aims at.
GOAL = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--times", type=int, default=3, help="number of measurements of each")
    parser.add_argument("--extractor", default="efficientnet-lite0")
    parser.add_argument("--crops", type=int, default=0, metavar="N", help="measure crops on N images, too")
    parser.add_argument("--command", action="store_true", help="measure lookalike index")
    parser.add_argument("--side", type=int, metavar="PIXELS", help="enlarge the images to this long side")
    options = parser.parse_args()
    if options.command:
        compare_commands(options.extractor, real_images(options.images), options.times, options.side)
        return
    if options.side:
        parser.error("--side needs --command")
    on_one_core()
    extractor = open_extractor(options.extractor)
    sources = {name: region_source(name) for name in SOURCES}
    compare(extractor, sources, real_images(options.images), region_method(extractor), options.times)
    if options.crops and region_method(extractor) != "crops":
        compare(extractor, sources, real_images(options.crops), "crops", options.times)


def on_one_core() -> None:
    """Bind this process to one core, before a network is compiled for its cores."""
    import cv2

    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def compare(
    extractor: FeatureExtractor, sources: dict[str, RegionSource], images: ImageSet, method: str, times: int
) -> None:
    """Print vectors, bytes and milliseconds of an image, and the ratio to whole images, for each source."""
    print(f"{extractor.name}, vectors of regions by {method}: {conditions(images)}")
    counts = dict.fromkeys(sources, 0)

    def with_regions(name: str) -> None:
        boxes = [found.boxes if found else np.empty((0, 4), np.float32) for found in sources[name].find(images)]
        region_vectors(extractor, images, boxes, method=method, cache=False, progress=False)
        counts[name] = sum(map(len, boxes))

    def whole() -> None:
        extractor.extract(images, cache=False, progress=False)

    works: dict[str, Callable[[], None]] = {"whole images": whole}
    works |= {name: lambda name=name: with_regions(name) for name in sources}  # type: ignore[misc]
    few = images.subset(range(1))
    extractor.extract(few, cache=False, progress=False)
    region_vectors(extractor, few, [np.array([[0, 0, 20, 20]])], method=method, cache=False, progress=False)
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(times):
        for name, work in works.items():
            start = time.process_time()
            work()
            spent[name].append(1000 * (time.process_time() - start) / len(images))
    base = median(spent["whole images"])
    print(f"  {'whole images':13} 1.0 vectors, {4 * extractor.dim:,} bytes, {base:.1f} ms an image")
    for name in sources:
        vectors, total = 1 + counts[name] / len(images), base + median(spent[name])
        print(
            f"  {name:13} {vectors:.1f} vectors, {4 * extractor.dim * vectors:,.0f} bytes, {total:.1f} ms an image: "
            f"{total / base:.1f} times{'' if total <= GOAL * base else f', more than {GOAL}'}"
        )


def compare_commands(extractor: str, images: ImageSet, times: int, side: int | None) -> None:
    """Print the seconds of ``lookalike index`` without regions and with each source, and the ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary) / "images", Path(temporary) / "cache"
        folder.mkdir()
        for number, path in enumerate(images.paths):
            if side is None:
                shutil.copy(path, folder / f"{number:06}{path.suffix}")
            else:
                _enlarge(path, folder / f"{number:06}.jpg", side)

        def seconds(arguments: list[str]) -> float:
            for part in ("vectors", "regions"):
                shutil.rmtree(cache / part, ignore_errors=True)
            (cache / "file-hashes.sqlite").unlink(missing_ok=True)
            engine = Path(temporary) / "my.engine"
            shutil.rmtree(engine, ignore_errors=True)
            command = [sys.executable, "-m", "helpers.cli", "index", str(folder), "-o", str(engine)]
            start = time.perf_counter()
            subprocess.run(
                [*command, "--extractor", extractor, *arguments],
                env=os.environ | {"LOOKALIKE_CACHE": str(cache)}, cwd=paths.ROOT, capture_output=True, check=True,
            )  # fmt: skip
            return time.perf_counter() - start

        works: dict[str, list[str]] = {"whole images": []} | {name: ["--regions", name] for name in SOURCES}
        for arguments in works.values():
            seconds(arguments)
        enlarged = f", enlarged to {side} pixels" if side else ""
        print(f"lookalike index, {extractor}: {conditions(images)}{enlarged}")
        spent: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(times):
            for name, arguments in works.items():
                spent[name].append(seconds(arguments))
    base = median(spent["whole images"])
    for name, found in spent.items():
        print(f"  {name:13} {median(found):.1f} s: {median(found) / base:.1f} times")


def _enlarge(path: Path, target: Path, side: int) -> None:
    image = Image.open(path).convert("RGB")
    scale = side / max(image.size)
    image.resize((round(scale * image.width), round(scale * image.height))).save(target, quality=90)


if __name__ == "__main__":
    main()
