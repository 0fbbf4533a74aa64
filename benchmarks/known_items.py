"""Search for known items: votes in an approximate index against brute force over all descriptors.

    python -m benchmarks.known_items
    python -m benchmarks.known_items --originals 60 --queries 20

Both look for the originals of the same changed copies, with 500 SIFT keypoints an image, one query at a time, in turn;
the time includes the extraction from the query.

- votes: `helpers.lessons.keypoint_votes.VoteIndex` with its defaults: neighbors from HNSW, RANSAC only for images
  whose pairs agree on one rotation, scale and translation.
- rough: the ten nearest of all descriptors by comparing with each of them (OpenCV's brute-force matcher, which uses all
  cores), then for each of the 50 images with the most of them RANSAC with OpenCV's defaults, and the image with the
  most agreeing pairs.

OpenCV and faiss choose their numbers of threads themselves, alike for both.
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

#: One of each kind that needs no other image, of middling strength.
CHANGES = (
    Change("rotation", 45), Change("scale", 0.5), Change("crop", 0.5), Change("perspective", 0.2), Change("blur", 2),
    Change("noise", 20), Change("jpeg", 10), Change("brightness", 0.5),
)  # fmt: skip

NEIGHBORS, VERIFY = 10, 50


class Rough:
    """What one would write first: compare with everything, verify everything."""

    def __init__(self, gallery: Sequence[Keypoints]):
        self.points = np.concatenate([one.points for one in gallery])
        self.descriptors = np.concatenate([one.descriptors for one in gallery])
        self.owners = np.repeat(np.arange(len(gallery)), [len(one) for one in gallery])
        self.matcher = cv2.BFMatcher(cv2.NORM_L2)

    def first(self, query: Keypoints) -> int:
        """The image that fits best; -1 where none got a vote."""
        if not len(query):
            return -1
        found = self.matcher.knnMatch(query.descriptors, self.descriptors, k=NEIGHBORS)
        ours = np.array([one.queryIdx for line in found for one in line])
        theirs = np.array([one.trainIdx for line in found for one in line])
        votes = np.bincount(self.owners[theirs], minlength=self.owners.max() + 1)
        best, most = -1, (-1, -1)
        for image in np.argsort(-votes, kind="stable")[:VERIFY]:
            pairs = np.flatnonzero(self.owners[theirs] == image)
            agree = 0
            if len(pairs) >= 4:
                _, mask = cv2.findHomography(query.points[ours[pairs]], self.points[theirs[pairs]], cv2.RANSAC)
                agree = 0 if mask is None else int(mask.sum())
            if (agree, votes[image]) > most:
                best, most = int(image), (agree, votes[image])
        return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--originals", type=int, default=150, help="images of the gallery")
    parser.add_argument("--queries", type=int, default=64, help="changed copies to ask with")
    asked = parser.parse_args()
    images = real_images(asked.originals)
    images = [reading.read_image(path) for path in images.paths]
    gallery = extract_each(images)
    print(f"{conditions(images)}; {sum(map(len, gallery))} descriptors, {asked.queries} queries")
    rough, index = Rough(gallery), VoteIndex().add(gallery, range(len(gallery)))
    methods = {
        "rough": rough.first,
        "votes": lambda query: int(index.search([query], 1).ids[0, 0]),
    }
    times, right = {name: [] for name in methods}, {name: [] for name in methods}
    for row, image in copies(images, asked.queries):
        for name, first in methods.items():
            start = time.perf_counter()
            result = first(extract(image))
            times[name].append(time.perf_counter() - start)
            right[name].append(result == row)
    for name in methods:
        low, high = wilson_interval(np.mean(right[name]), asked.queries)
        print(
            f"  {name}: {1000 * np.median(times[name]):.1f} ms a query, "
            f"recall@1 {np.mean(right[name]):.3f} [{low:.3f}, {high:.3f}]"
        )
    print(f"  votes are {np.median(times['rough']) / np.median(times['votes']):.1f} times as fast")


def copies(images: Sequence[np.ndarray], count: int) -> list[tuple[int, np.ndarray]]:
    """(row of the original, changed copy): the originals spread over the gallery, the changes in turn."""
    rows = np.linspace(0, len(images) - 1, count).astype(int)
    found = []
    for number, row in enumerate(rows):
        change = CHANGES[number % len(CHANGES)]
        ((_, _, copy),) = known_items.queries([images[row]], [], [change], seed=number)
        found.append((int(row), copy))
    return found


if __name__ == "__main__":
    main()
