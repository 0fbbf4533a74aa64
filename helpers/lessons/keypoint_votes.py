"""Search by keypoints: each of the query's votes for images that have one like it, and geometry has the last word.

The votes are those of video Google (Sivic & Zisserman 2003) without a vocabulary: descriptors are looked up in an
approximate index (HNSW: Malkov & Yashunin 2020). The first images are then verified by a homography between the very
pairs that voted, so no image is matched anew. As each pair of keypoints says by itself how far the image was turned
and scaled (Philbin et al. 2007), most images are ruled out before RANSAC is asked.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.features.keypoints import (
    CHANCE_INLIERS,
    KeypointGeometry,
    Keypoints,
    fit_homography,
    kind_of,
    similarity_inliers,
)
from helpers.search.ranking import PAD, Ranking, rank


class VoteIndex:
    """A gallery of images, each a bag of keypoints.

    Parameters
    ----------
    kind : of the keypoints, see `helpers.features.keypoints.KINDS`.
    links : of each descriptor in HNSW's graph; more find better and take longer.
    breadth : of the search in that graph.
    """

    def __init__(self, kind: str = "sift", links: int = 16, breadth: int = 32):
        import faiss

        self.kind = kind
        self.width, self.binary = kind_of(kind).width, kind_of(kind).dtype is np.uint8
        if self.binary:
            self._index = faiss.IndexBinaryHNSW(8 * self.width, links)
        else:
            self._index = faiss.IndexHNSWFlat(self.width, links)
        self._index.hnsw.efSearch = breadth
        self._geometry = KeypointGeometry.empty()
        self._owners = np.empty(0, np.int64)
        self.ids = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """About what the index takes in memory: descriptors, links and places."""
        descriptor = self.width * (1 if self.binary else 4)
        # HNSW keeps twice the links on its ground floor, int32 each.
        links = 8 * self._index.hnsw.nb_neighbors(1)
        return len(self._owners) * (descriptor + links + 4 * 4 + 8)

    def add(self, images: Sequence[Keypoints], ids: Sequence[int]) -> "VoteIndex":
        """Add images; one without keypoints is there and is never found before one with votes.

        Raises
        ------
        ValueError : another kind of keypoints, ids that are negative, repeated or there already, or not one an image.
        """
        ids = np.asarray(ids, np.int64)
        self._check(images)
        if ids.shape != (len(images),):
            raise ValueError(f"there are {len(images)} images, but the ids have shape {ids.shape}")
        if (ids < 0).any() or len(np.unique(np.concatenate([self.ids, ids]))) < len(self) + len(ids):
            raise ValueError("ids must not be negative, and each stands for one image")
        if not len(ids):
            return self
        counts = [len(one) for one in images]
        if sum(counts):
            self._index.add(np.concatenate([one.descriptors for one in images]))
        self._geometry = KeypointGeometry.concatenate([self._geometry, *(one.geometry for one in images)])
        self._owners = np.concatenate([self._owners, np.repeat(np.arange(len(self), len(self) + len(ids)), counts)])
        self.ids = np.concatenate([self.ids, ids])
        return self

    def search(self, queries: Sequence[Keypoints], k: int, neighbors: int = 10, verify: int = 50) -> Ranking:
        """The ``k`` images with the most agreeing keypoints; behind them those with votes, then the rest by id.

        Parameters
        ----------
        k : where it is more than there is, the rows end in -1.
        neighbors : descriptors of the gallery that one of the query votes for. The next one after them is what an
            accident looks like: a vote counts the more, the nearer it is than that.
        verify : so many images with the most votes are verified; 0 leaves it at votes.

        Returns
        -------
        Ranking (q, k): the score is the number of agreeing pairs beyond an accident, plus the share of the votes, which
        is below 1.

        Raises
        ------
        ValueError : another kind of keypoints, an empty index, or k, neighbors or verify out of range.
        """
        self._check(queries)
        if not len(self):
            raise ValueError("the index is empty: add images first")
        if k < 1 or neighbors < 1 or verify < 0:
            raise ValueError(f"k and neighbors must be at least 1, verify at least 0; got {k}, {neighbors}, {verify}")
        from joblib import cpu_count

        with ThreadPoolExecutor(cpu_count()) as pool:
            scores = list(pool.map(lambda query: self._scores(query, k, neighbors, verify), queries))
        scores = np.array(scores).reshape(-1, len(self))
        missing = max(0, k - len(self))
        return rank(np.pad(self.ids, (0, missing), constant_values=PAD), np.pad(scores, ((0, 0), (0, missing))), k)

    def _scores(self, query: Keypoints, k: int, neighbors: int, verify: int) -> np.ndarray:
        """float64 (n,), one an image; right for the ``k`` best, at most too low for others."""
        scores = np.zeros(len(self))
        if not len(query) or not len(self._owners):
            return scores
        distances, rows = self._index.search(query.descriptors, min(neighbors + 1, len(self._owners)))
        distances = distances.astype(np.float64)
        accident = distances[:, -1:] if distances.shape[1] > neighbors else distances.max(axis=1, keepdims=True) + 1
        weights = np.clip(1 - distances / np.maximum(accident, 1e-12), 0, 1)[:, :neighbors]
        rows = rows[:, :neighbors]
        weights[rows < 0] = 0  # the graph gave out
        owners = self._owners[rows]
        # An image gets one vote of each keypoint, its nearest.
        again = (owners[:, :, None] == owners[:, None, :]) & np.tri(rows.shape[1], k=-1, dtype=bool)
        weights[again.any(axis=2)] = 0
        votes = np.bincount(owners.ravel(), weights.ravel(), minlength=len(self))
        scores += votes / (1 + votes.sum())
        candidates = []
        for image in np.argsort(-votes, kind="stable")[:verify]:
            ours, place = np.nonzero((owners == image) & (weights > 0))
            if len(ours) > CHANCE_INLIERS:
                candidates.append((image, ours, place))
        # Those that can gain most come first: then most others can't reach the first k any more and need no geometry.
        candidates.sort(key=lambda candidate: -len(candidate[1]))
        for image, ours, place in candidates:
            needed = np.partition(scores, -k)[-k] if k < len(self) else -np.inf
            if scores[image] + len(ours) - CHANCE_INLIERS < needed:
                continue
            here, there = query.geometry.subset(ours), self._geometry.subset(rows[ours, place])
            agree = similarity_inliers(here, there)
            count = int(agree.sum())
            if count > CHANCE_INLIERS and scores[image] + count - CHANCE_INLIERS >= needed:
                # Most of these are right, or none, so a few draws tell.
                found = fit_homography(here.points[agree], there.points[agree], query.shape, tries=300)
                scores[image] += max(0, found.count - CHANCE_INLIERS)
        return scores

    def _check(self, images: Sequence[Keypoints]) -> None:
        for number, one in enumerate(images):
            if one.kind != self.kind:
                raise ValueError(f"image {number} has {one.kind} keypoints, the index holds {self.kind}")
