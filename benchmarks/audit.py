"""The peak memory and the time of an audit (`helpers.images.duplicates`), against those of a smaller one.

    python -m benchmarks.audit sizes        64 BMP files of equal size, 4 MB each, and 128
    python -m benchmarks.audit copies       120 copies of one image, and 1,200
    python -m benchmarks.audit scale        hashes and vectors of 50,000 synthetic images, and of 100,000
    python -m benchmarks.audit files        audit 30,000 generated JPEGs of 64 × 48 pixels, with color histograms

Each audit runs in a new process. Times are processor times of all threads. Memory is the peak above the peak before the
audit. In ``scale``, no file is read: the hashes, thumbnails and vectors are random, a tenth of the images has a
near-copy, and keypoints are not compared. The memory of the hashes, thumbnails and vectors is not counted: 1 KB per
image, and four bytes per number.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.processes import child, peak_memory
from helpers.features.registry import open_extractor
from helpers.images import crops, perceptual_hashes, samples
from helpers.images.components import Components
from helpers.images.duplicates import audit
from helpers.images.folders import from_folder

SIZES = {"sizes": (64, 128), "copies": (120, 1200), "scale": (50_000, 100_000), "files": (30_000,)}


def write_sizes(folder: Path, count: int) -> None:
    """Different BMP files of equal size, 1152 × 1152."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (18, 18, 3), np.uint8)
        Image.fromarray(pixels).resize((1152, 1152), Image.Resampling.BICUBIC).save(folder / f"{number:05}.bmp")


def write_copies(folder: Path, count: int) -> None:
    """Copies of one photograph; every second one has other bytes and the same pixels."""
    content = samples.photos().paths[0].read_bytes()
    for number in range(count):
        (folder / f"{number:05}.jpg").write_bytes(content + (number.to_bytes(4, "big") if number % 2 else b""))


def write_files(folder: Path, count: int) -> None:
    """Different small JPEGs."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg")


WRITERS = {"sizes": write_sizes, "copies": write_copies, "files": write_files}


def audit_folder(folder: Path, extractor: str) -> dict:
    """Audit a folder in this process."""
    images = from_folder(folder)
    vectors = None if extractor == "none" else open_extractor(extractor).extract(images)
    before, start = peak_memory() or 0, time.process_time()
    found = audit(images, vectors)
    return {
        "processor": time.process_time() - start, "bytes": (peak_memory() or 0) - before, "duplicates": len(found),
        "groups": len({pair.first for pair in found.pairs}),
    }  # fmt: skip


def audit_synthetic(count: int, dim: int) -> dict:
    """Compare random hashes, thumbnails and vectors; every tenth image is a near-copy of the one before it."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (count, 2), np.uint64, endpoint=False)
    thumbs = rng.integers(0, 256, (count, perceptual_hashes.SIDE, perceptual_hashes.SIDE), np.uint8)
    vectors = rng.standard_normal((count, dim), np.float32)
    copies = np.arange(9, count, 10)
    hashes[copies], vectors[copies] = hashes[copies - 1] ^ np.uint64(1), vectors[copies - 1]
    thumbs[copies] = thumbs[copies - 1]
    rows, found = np.arange(count), Components(count)
    before, start = peak_memory() or 0, time.process_time()
    perceptual_hashes.compare(hashes, thumbs, rows, found)
    middle = time.process_time()
    assert len(found.links) == len(copies)
    # As if the hashes had found nothing, so that each near-copy is a neighbor.
    pairs = crops.neighbors(vectors, rows, rows, np.zeros(count, int), rows)
    assert len(pairs) == len(copies)
    return {
        "hashes": middle - start, "neighbors": time.process_time() - middle, "bytes": (peak_memory() or 0) - before,
    }  # fmt: skip


def shown(result: dict) -> str:
    """A result as text."""
    return ", ".join(
        f"{name} {value / 2**20:,.0f} MiB" if name == "bytes" else
        f"{name} {value:,.1f} s" if isinstance(value, float) else f"{value:,} {name}"
        for name, value in result.items()
    ).replace("bytes", "memory")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=SIZES)
    parser.add_argument("--counts", type=int, nargs="+", metavar="N", help="numbers of images")
    parser.add_argument("--dim", type=int, default=256, help="numbers in each synthetic vector; default: %(default)s")
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        (count,) = options.counts
        extractor = "hsv-histogram" if options.what == "files" else "none"
        result = (
            audit_synthetic(count, options.dim)
            if options.what == "scale"
            else audit_folder(Path(options.child), extractor)
        )
        print(json.dumps(result))
        return
    for count in options.counts or SIZES[options.what]:
        with tempfile.TemporaryDirectory() as folder:
            if options.what in WRITERS:
                WRITERS[options.what](Path(folder), count)
            arguments = [options.what, "--counts", str(count), "--dim", str(options.dim), "--child", folder]
            result = child("benchmarks.audit", *arguments)
        print(f"{options.what}, {count:,} images: {shown(result)}", flush=True)


if __name__ == "__main__":
    main()
