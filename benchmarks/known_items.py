"""Known-item search: votes in an approximate index, relative to brute force over all descriptors.

    python -m benchmarks.known_items
    python -m benchmarks.known_items --originals 60 --queries 20

Both methods search for the originals of the same modified copies, with 500 SIFT keypoints per image. They take turns,
one query at a time. The time includes the extraction of the query's keypoints.

- votes: `helpers.lessons.keypoint_votes.VoteIndex` with its defaults: neighbors from HNSW, and RANSAC only for images
  whose matches agree on one rotation, scale and translation.
- brute force: OpenCV's brute-force matcher, which uses all cores, finds the ten nearest descriptors. The 50 images with
  the most matches are verified by RANSAC with OpenCV's defaults, and the image with the most inliers wins.

OpenCV and faiss use their default numbers of threads.
"""

import argparse
import time
from collections.abc import Sequence

import cv2
import numpy as np

from benchmarks.inputs import conditions, real_images
from helpers.evaluation.intervals import wilson_interval
from helpers.features.keypoints import Keypoints, extract, extract_each
from helpers.images import known_items, reading
from helpers.images.known_items import Change
from helpers.lessons.keypoint_votes import VoteIndex

#: One modification of each kind that needs no other image, of medium strength.
CHANGES = (
    Change("rotation", 45), Change("scale", 0.5), Change("crop", 0.5), Change("perspective", 0.2), Change("blur", 2),
    Change("noise", 20), Change("jpeg", 10), Change("brightness", 0.5),
)  # fmt: skip

NEIGHBORS, VERIFY = 10, 50


class BruteForce:
    """The simplest method: compare all descriptors and verify all candidates."""

    def __init__(self, gallery: Sequence[Keypoints]):
        self.points = np.concatenate([one.points for one in gallery])
        self.descriptors = np.concatenate([one.descriptors for one in gallery])
        self.owners = np.repeat(np.arange(len(gallery)), [len(one) for one in gallery])
        self.matcher = cv2.BFMatcher(cv2.NORM_L2)

    def first(self, query: Keypoints) -> int:
        """The image with the most inliers, or -1 if no image has a match."""
        if not len(query):
            return -1
        found = self.matcher.knnMatch(query.descriptors, self.descriptors, k=NEIGHBORS)
        ours = np.array([one.queryIdx for line in found for one in line])
        theirs = np.array([one.trainIdx for line in found for one in line])
        votes = np.bincount(self.owners[theirs], minlength=self.owners.max() + 1)
        best, most = -1, (-1, -1)
        for image in np.argsort(-votes, kind="stable")[:VERIFY]:
            pairs = np.flatnonzero(self.owners[theirs] == image)
            inliers = 0
            if len(pairs) >= 4:
                _, mask = cv2.findHomography(query.points[ours[pairs]], self.points[theirs[pairs]], cv2.RANSAC)
                inliers = 0 if mask is None else int(mask.sum())
            if (inliers, votes[image]) > most:
                best, most = int(image), (inliers, votes[image])
        return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--originals", type=int, default=150, help="images in the gallery; default: %(default)s")
    parser.add_argument("--queries", type=int, default=64, help="modified copies to search with; default: %(default)s")
    options = parser.parse_args()
    images = real_images(options.originals)
    originals = [reading.read_image(path) for path in images.paths]
    gallery = extract_each(originals)
    print(f"{conditions(images)}; {sum(map(len, gallery))} descriptors, {options.queries} queries")
    brute_force, index = BruteForce(gallery), VoteIndex().add(gallery, range(len(gallery)))
    methods = {
        "brute force": brute_force.first,
        "votes": lambda query: int(index.search([query], 1).ids[0, 0]),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    correct: dict[str, list[bool]] = {name: [] for name in methods}
    for row, image in modified_copies(originals, options.queries):
        for name, first in methods.items():
            start = time.perf_counter()
            result = first(extract(image))
            times[name].append(time.perf_counter() - start)
            correct[name].append(result == row)
    for name in methods:
        low, high = wilson_interval(float(np.mean(correct[name])), options.queries)
        print(
            f"  {name}: {1000 * np.median(times[name]):.1f} ms per query, "
            f"recall@1 {np.mean(correct[name]):.3f} [{low:.3f}, {high:.3f}]"
        )
    print(f"  votes are {np.median(times['brute force']) / np.median(times['votes']):.1f} times as fast")


def modified_copies(images: Sequence[np.ndarray], count: int) -> list[tuple[int, np.ndarray]]:
    """(row of the original, modified copy), with originals from the whole gallery and alternating modifications."""
    rows = np.linspace(0, len(images) - 1, count).astype(int)
    found = []
    for number, row in enumerate(rows):
        change = CHANGES[number % len(CHANGES)]
        ((_, _, copy),) = known_items.queries([images[row]], [], [change], seed=number)
        found.append((int(row), copy))
    return found


if __name__ == "__main__":
    main()
