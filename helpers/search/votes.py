"""Search by keypoints: each of the query's votes for pictures that have one like it, and geometry has the last word.

The votes are those of video Google (Sivic & Zisserman 2003) without a vocabulary: descriptors are looked up in an
approximate index (HNSW: Malkov & Yashunin 2020). The first pictures are then verified by a homography between the very
pairs that voted (Philbin et al. 2007), so no picture is matched anew.
"""

from collections.abc import Sequence

import faiss
import numpy as np

from helpers.features.keypoints import Keypoints, fit_homography, kind_of
from helpers.search.ranking import Ranking, rank

#: So many pairs agree on some homography by accident.
ACCIDENT = 4


class VoteIndex:
    """A gallery of pictures, each a bag of keypoints.

    Parameters
    ----------
    kind : of the keypoints, see `helpers.features.keypoints.KINDS`.
    links : of each descriptor in HNSW's graph; more find better and take longer.
    breadth : of the search in that graph.
    """

    def __init__(self, kind: str = "sift", links: int = 16, breadth: int = 32):
        self.kind = kind
        self.width, self.binary = kind_of(kind).width, kind_of(kind).dtype is np.uint8
        if self.binary:
            self._index = faiss.IndexBinaryHNSW(8 * self.width, links)
        else:
            self._index = faiss.IndexHNSWFlat(self.width, links)
        self._index.hnsw.efSearch = breadth
        self._points = np.empty((0, 2), np.float32)
        self._owners = np.empty(0, np.int64)
        self.ids = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, pictures: Sequence[Keypoints], ids: Sequence[int]) -> None:
        """Add pictures; one without keypoints is there and is never found before one with votes.

        Raises
        ------
        ValueError : another kind of keypoints, ids that are negative, repeated or there already, or not one a picture.
        """
        ids = np.asarray(ids, np.int64)
        self._check(pictures)
        if ids.shape != (len(pictures),):
            raise ValueError(f"there are {len(pictures)} pictures, but the ids have shape {ids.shape}")
        if (ids < 0).any() or len(np.unique(np.concatenate([self.ids, ids]))) < len(self) + len(ids):
            raise ValueError("ids must not be negative, and each stands for one picture")
        if not len(ids):
            return
        counts = [len(one) for one in pictures]
        self._index.add(np.concatenate([one.descriptors for one in pictures]))
        self._points = np.concatenate([self._points, *(one.points for one in pictures)])
        self._owners = np.concatenate([self._owners, np.repeat(np.arange(len(self), len(self) + len(ids)), counts)])
        self.ids = np.concatenate([self.ids, ids])

    def search(self, queries: Sequence[Keypoints], k: int, neighbours: int = 10, verify: int = 50) -> Ranking:
        """The ``k`` pictures with the most agreeing keypoints; behind them those with votes, then the rest by id.

        Parameters
        ----------
        neighbours : descriptors of the gallery that one of the query votes for. The next one after them is what an
            accident looks like: a vote counts the more, the nearer it is than that.
        verify : so many pictures with the most votes are verified; 0 leaves it at votes.

        Returns
        -------
        Ranking (q, k): the score is the number of agreeing pairs beyond an accident, plus the share of the votes, which
        is below 1.

        Raises
        ------
        ValueError : another kind of keypoints, an empty index, or k, neighbours or verify out of range.
        """
        self._check(queries)
        if not len(self):
            raise ValueError("the index is empty: add pictures first")
        if k < 1 or neighbours < 1 or verify < 0:
            raise ValueError(f"k and neighbours must be at least 1, verify at least 0; got {k}, {neighbours}, {verify}")
        scores = np.stack([self._scores(query, neighbours, verify) for query in queries]) if queries else None
        if scores is None:
            return Ranking(np.empty((0, k), np.int64), np.empty((0, k)))
        return rank(self.ids, scores, min(k, len(self)))

    def _scores(self, query: Keypoints, neighbours: int, verify: int) -> np.ndarray:
        """float64 (n,), one a picture."""
        scores = np.zeros(len(self))
        if not len(query) or not len(self._owners):
            return scores
        distances, rows = self._index.search(query.descriptors, min(neighbours + 1, len(self._owners)))
        distances = distances.astype(np.float64)
        accident = distances[:, -1:] if distances.shape[1] > neighbours else distances.max(axis=1, keepdims=True) + 1
        weights = np.clip(1 - distances / np.maximum(accident, 1e-12), 0, 1)[:, :neighbours]
        rows = rows[:, :neighbours]
        weights[rows < 0] = 0  # the graph gave out
        owners = self._owners[rows]
        # A picture gets one vote of each keypoint, its nearest.
        again = (owners[:, :, None] == owners[:, None, :]) & np.tri(rows.shape[1], k=-1, dtype=bool)
        weights[again.any(axis=2)] = 0
        votes = np.bincount(owners.ravel(), weights.ravel(), minlength=len(self))
        scores += votes / (1 + votes.sum())
        for picture in np.argsort(-votes, kind="stable")[:verify]:
            pairs = np.argwhere((owners == picture) & (weights > 0))
            if len(pairs) > ACCIDENT:
                ours, theirs = query.points[pairs[:, 0]], self._points[rows[pairs[:, 0], pairs[:, 1]]]
                scores[picture] += max(0, fit_homography(ours, theirs, query.shape).count - ACCIDENT)
        return scores

    def _check(self, pictures: Sequence[Keypoints]) -> None:
        for number, one in enumerate(pictures):
            if one.kind != self.kind:
                raise ValueError(f"picture {number} has {one.kind} keypoints, the index holds {self.kind}")
