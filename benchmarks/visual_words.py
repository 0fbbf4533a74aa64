"""Visual words: extraction on all cores against one, and the memory of learning a vocabulary.

    python -m benchmarks.visual_words
    python -m benchmarks.visual_words --images 200 --times 1 --learn 100

Speed: `open_extractor("sift-vlad").extract(images, cache=False)`, from file to vector, in a fresh process on all cores
and in a fresh process on one core, with one thread for OpenCV, NumPy and this project. Both run several times in turn;
the ratio is that of the medians. Both must give the same vectors. "Cores used" is processor time over time: if it is
far below 1 for the process on one core, other processes interfered, and the ratio means little.

Memory: the peak of a fresh process that learns 64 words from n, 2n and 4n images. The sample of descriptors has a fixed
size, which n images fill, so the three peaks should be about equal.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from statistics import median

from benchmarks import processes
from benchmarks.inputs import conditions, real_images
from benchmarks.processes import peak_memory

#: Number of descriptors to learn from; every set of images has more.
SAMPLE = 10_000

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="to extract from")
    parser.add_argument("--times", type=int, default=3, help="number of measurements of each")
    parser.add_argument("--learn", type=int, default=250, help="n of the n, 2n and 4n images to learn from; 0: none")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options.images)))
        return
    compare_speed(options.images, options.times)
    if options.learn:
        compare_memory(options.learn)


def compare_speed(images: int, times: int) -> None:
    print(f"sift-vlad: {conditions(real_images(images))}")
    runs = {"one": [], "all": []}
    for _ in range(times):
        for cores, found in runs.items():
            found.append(child(cores, images, ONE_THREAD if cores == "one" else {}))
            print(f"  {cores:>3}: {found[-1]['seconds']:.1f} s, {found[-1]['used']:.2f} cores used", flush=True)
    hashes = {run["vectors"] for found in runs.values() for run in found}
    one, every = (median(run["seconds"] for run in found) for found in runs.values())
    print(f"  one core {images / one:.0f} images/s, all cores {images / every:.0f}: {one / every:.2f} times as fast")
    print(f"  vectors: {'the same to the last bit' if len(hashes) == 1 else 'NOT THE SAME'}")


def compare_memory(n: int) -> None:
    print(f"learning 64 words: {conditions(real_images(4 * n))}")
    peaks = [child("learn", count)["peak"] for count in (n, 2 * n, 4 * n)]
    if None in peaks:
        print("  the peak memory is not available on this system")
        return
    for count, peak in zip((n, 2 * n, 4 * n), peaks, strict=True):
        print(f"  {count:>5} images: peak {peak / 1e6:.0f} MB")
    print(f"  {4 * n} images take {peaks[-1] / peaks[0]:.2f} times the memory of {n}")


def child(task: str, images: int, variables: dict[str, str] | None = None) -> dict:
    """Measurements of a fresh process."""
    return processes.child("benchmarks.visual_words", "--child", task, "--images", str(images), variables=variables)


def extract(count: int) -> dict:
    from helpers.features.registry import open_extractor

    images, words = real_images(count), open_extractor("sift-vlad")
    # The first batch includes one-time work.
    words.extract(images.subset(range(min(8, count))), cache=False, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        # In an empty cache, keypoints are extracted, not read from disk.
        os.environ["LOOKALIKE_CACHE"] = folder
        start, used = time.perf_counter(), time.process_time()
        vectors = words.extract(images, cache=False, progress=False)
        seconds = time.perf_counter() - start
        used = time.process_time() - used
    return {
        "seconds": seconds,
        "used": used / seconds,
        "vectors": hashlib.sha256(vectors.tobytes()).hexdigest(),
    }


def extract_on_one_core(count: int) -> dict:
    import cv2

    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return extract(count)


def learn(count: int) -> dict:
    from helpers.features import vocabulary

    vocabulary.learn(real_images(count), 64, sample=SAMPLE, progress=False)
    return {"peak": peak_memory()}


CHILDREN = {"one": extract_on_one_core, "all": extract, "learn": learn}


if __name__ == "__main__":
    main()
