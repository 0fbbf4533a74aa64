"""Visual words: describing on all cores against one, and the memory that learning a vocabulary takes.

    python -m benchmarks.visual_words
    python -m benchmarks.visual_words --pictures 200 --times 1 --learn 100

Speed: `open_extractor("sift-vlad").describe(images, cache=False)`, from file to vector, in a fresh process that may use
all cores, against a fresh process that is held to one core, with one thread for OpenCV, for NumPy and for our own. Both
in turn, several times; the ratio is that of the medians. Both must give the same vectors. "Cores used" is processor
time over time: far below 1 for the process on one core, other work was in the way, and the ratio says little.

Memory: the peak of a fresh process that learns 64 words from n, 2n and 4n pictures. What is learnt from is a sample of
fixed size, which is full from n on, so the three should be alike.
"""

import argparse
import hashlib
import json
import os
import time
from statistics import median

from benchmarks import processes
from benchmarks.inputs import conditions, real_pictures
from benchmarks.processes import peak_memory

#: Descriptors to learn from: fewer than any of the sets of pictures has.
SAMPLE = 10_000

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000, help="to describe")
    parser.add_argument("--times", type=int, default=3, help="each is measured so often")
    parser.add_argument("--learn", type=int, default=250, help="n of the n, 2n and 4n pictures to learn from; 0: none")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(CHILDREN[asked.child](asked.pictures)))
        return
    compare_speed(asked.pictures, asked.times)
    if asked.learn:
        compare_memory(asked.learn)


def compare_speed(pictures: int, times: int) -> None:
    print(f"sift-vlad: {conditions(real_pictures(pictures))}")
    runs = {"one": [], "all": []}
    for _ in range(times):
        for cores, found in runs.items():
            found.append(child(cores, pictures, ONE_THREAD if cores == "one" else {}))
            print(f"  {cores:>3}: {found[-1]['seconds']:.1f} s, {found[-1]['used']:.2f} cores used", flush=True)
    hashes = {run["vectors"] for found in runs.values() for run in found}
    one, every = (median(run["seconds"] for run in found) for found in runs.values())
    print(
        f"  one core {pictures / one:.0f} pictures/s, all cores {pictures / every:.0f}: {one / every:.2f} times as fast"
    )
    print(f"  vectors: {'the same to the last bit' if len(hashes) == 1 else 'NOT THE SAME'}")


def compare_memory(n: int) -> None:
    print(f"learning 64 words: {conditions(real_pictures(4 * n))}")
    peaks = [child("learn", count)["peak"] for count in (n, 2 * n, 4 * n)]
    if None in peaks:
        print("  the peak of memory is not known on this system")
        return
    for count, peak in zip((n, 2 * n, 4 * n), peaks, strict=True):
        print(f"  {count:>5} pictures: peak {peak / 1e6:.0f} MB")
    print(f"  {4 * n} pictures take {peaks[-1] / peaks[0]:.2f} times the memory of {n}")


def child(task: str, pictures: int, variables: dict[str, str] | None = None) -> dict:
    """What a fresh process measures."""
    return processes.child("benchmarks.visual_words", "--child", task, "--pictures", str(pictures), variables=variables)


def describe(pictures: int) -> dict:
    from helpers.features.registry import open_extractor

    images, words = real_pictures(pictures), open_extractor("sift-vlad")
    # The first batch also loads what is loaded once.
    words.describe(images.subset(range(min(8, pictures))), cache=False, progress=False)
    start, used = time.perf_counter(), time.process_time()
    vectors = words.describe(images, cache=False, progress=False)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "used": (time.process_time() - used) / seconds,
        "vectors": hashlib.sha256(vectors.tobytes()).hexdigest(),
    }


def describe_on_one_core(pictures: int) -> dict:
    import cv2

    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return describe(pictures)


def learn(pictures: int) -> dict:
    from helpers.features import vocabulary

    vocabulary.learn(real_pictures(pictures), 64, sample=SAMPLE, progress=False)
    return {"peak": peak_memory()}


CHILDREN = {"one": describe_on_one_core, "all": describe, "learn": learn}


if __name__ == "__main__":
    main()
