"""Search by keypoints: each keypoint of the query votes for images with similar keypoints, then geometry is verified.

The votes are those of Video Google (Sivic & Zisserman 2003), but without a vocabulary: descriptors are searched in an
approximate index (HNSW: Malkov & Yashunin 2020). The first images are verified by a homography between the voting
pairs, so images are not matched again. Each pair of keypoints determines a rotation and a scale (Philbin et al. 2007),
which excludes most images before RANSAC.
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
    """An index of images by their keypoints.

    Parameters
    ----------
    kind : kind of the keypoints, see `helpers.features.keypoints.KINDS`.
    links : HNSW's M. breadth : HNSW's efSearch. Higher values have a better recall and take longer.
    """

    def __init__(self, kind: str = "sift", links: int = 16, breadth: int = 32):
        import faiss

        self.kind = kind
        self.width, self.binary = kind_of(kind).width, kind_of(kind).dtype is np.uint8
        binary, floats = faiss.IndexBinaryHNSW, faiss.IndexHNSWFlat
        self._index = binary(8 * self.width, links) if self.binary else floats(self.width, links)
        self._index.hnsw.efSearch = breadth
        self._geometry = KeypointGeometry.empty()
        self._owners = np.empty(0, np.int64)
        self.ids = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """About the memory of the index: descriptors, links and positions."""
        descriptor = self.width * (1 if self.binary else 4)
        # HNSW has twice the links in its lowest layer, int32 each.
        links = 8 * self._index.hnsw.nb_neighbors(1)  # type: ignore[union-attr]  # missing in the stubs
        return len(self._owners) * (descriptor + links + 4 * 4 + 8)

    def add(self, images: Sequence[Keypoints], ids: Sequence[int]) -> "VoteIndex":
        """Add images; one without keypoints is ranked behind all images with votes."""
        added = np.asarray(ids, np.int64)
        self._check(images)
        if added.shape != (len(images),):
            raise ValueError(f"there are {len(images)} images, but the ids have shape {added.shape}")
        if (added < 0).any() or len(np.unique(np.concatenate([self.ids, added]))) < len(self) + len(added):
            raise ValueError("ids must not be negative, and each must occur once")
        counts = np.array([len(one) for one in images], np.int64)
        if counts.sum():
            self._index.add(np.concatenate([one.descriptors for one in images]))
        self._geometry = KeypointGeometry.concatenate([self._geometry, *(one.geometry for one in images)])
        self._owners = np.concatenate([self._owners, np.repeat(np.arange(len(self), len(self) + len(added)), counts)])
        self.ids = np.concatenate([self.ids, added])
        return self

    def search(self, queries: Sequence[Keypoints], k: int, neighbors: int = 10, verify: int = 50) -> Ranking:
        """The ``k`` images with the most agreeing keypoints, then images with votes, then all others by id.

        Parameters
        ----------
        k : number of results per query; rows end in -1 if there are fewer images.
        neighbors : number of gallery descriptors that a query descriptor votes for. The next nearest one is the
            distance of a random match: the nearer a descriptor is than that, the higher is the weight of its vote.
        verify : number of images with the most votes to verify; 0 uses the votes alone.

        Returns
        -------
        Ranking (q, k): the score is the number of agreeing pairs beyond those of a random match, plus the share of the
        votes, which is below 1.
        """
        self._check(queries)
        if not len(self):
            raise ValueError("the index is empty: add images first")
        if k < 1 or neighbors < 1 or verify < 0:
            raise ValueError(f"k and neighbors must be at least 1, verify at least 0; got {k}, {neighbors}, {verify}")
        from joblib import cpu_count

        with ThreadPoolExecutor(cpu_count()) as pool:
            rows = list(pool.map(lambda query: self._scores(query, k, neighbors, verify), queries))
        scores = np.array(rows).reshape(-1, len(self))
        missing = max(0, k - len(self))
        return rank(np.pad(self.ids, (0, missing), constant_values=PAD), np.pad(scores, ((0, 0), (0, missing))), k)

    def _scores(self, query: Keypoints, k: int, neighbors: int, verify: int) -> np.ndarray:
        """float64 (n,): the score of each image; exact for the ``k`` best, and not too high for the others."""
        scores = np.zeros(len(self))
        if not len(query) or not len(self._owners):
            return scores
        distances, rows = self._index.search(query.descriptors, min(neighbors + 1, len(self._owners)))
        distances = distances.astype(np.float64)
        accident = distances[:, -1:] if distances.shape[1] > neighbors else distances.max(axis=1, keepdims=True) + 1
        weights = np.clip(1 - distances / np.maximum(accident, 1e-12), 0, 1)[:, :neighbors]
        rows = rows[:, :neighbors]
        weights[rows < 0] = 0  # HNSW found fewer descriptors
        owners = self._owners[rows]
        # An image gets one vote of each keypoint, that of its nearest descriptor.
        repeated = (owners[:, :, None] == owners[:, None, :]) & np.tri(rows.shape[1], k=-1, dtype=bool)
        weights[repeated.any(axis=2)] = 0
        votes = np.bincount(owners.ravel(), weights.ravel(), minlength=len(self))
        scores += votes / (1 + votes.sum())
        candidates = []
        for image in np.argsort(-votes, kind="stable")[:verify]:
            keypoints, columns = np.nonzero((owners == image) & (weights > 0))
            if len(keypoints) > CHANCE_INLIERS:
                candidates.append((image, keypoints, columns))
        # Images with the most pairs come first. Most others then cannot reach the first k and are not verified.
        candidates.sort(key=lambda candidate: -len(candidate[1]))
        for image, keypoints, columns in candidates:
            needed = np.partition(scores, -k)[-k] if k < len(self) else -np.inf
            if scores[image] + len(keypoints) - CHANCE_INLIERS < needed:
                continue
            here, there = query.geometry.subset(keypoints), self._geometry.subset(rows[keypoints, columns])
            agree = similarity_inliers(here, there)
            count = int(agree.sum())
            if count > CHANCE_INLIERS and scores[image] + count - CHANCE_INLIERS >= needed:
                # Most of these pairs are right, or none, so a few samples suffice.
                found = fit_homography(here.points[agree], there.points[agree], query.shape, tries=300)
                scores[image] += max(0, found.count - CHANCE_INLIERS)
        return scores

    def _check(self, images: Sequence[Keypoints]) -> None:
        for number, one in enumerate(images):
            if one.kind != self.kind:
                raise ValueError(f"image {number} has {one.kind} keypoints, the index has {self.kind}")
