"""Geometric verification: results that show the same object or scene as the query come first."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.features.keypoints import CHANCE_INLIERS, Keypoints, fit_homography, match, similarity_inliers
from helpers.search.ranking import PAD, Ranking, rank


def verified(
    ranking: Ranking,
    queries: Sequence[Keypoints],
    gallery: Mapping[int, Keypoints] | Sequence[Keypoints],
    depth: int = 50,
    ratio: float = 0.8,
) -> Ranking:
    """Re-rank the first ``depth`` results by the number of keypoints that agree with the query's on one homography.

    Geometric verification as in Philbin et al. 2007: keypoints are matched (Lowe's ratio test), then RANSAC. Results
    with no more agreeing pairs than chance keep their order behind the others.

    Parameters
    ----------
    queries : one per row of the ranking. gallery : id → keypoints.

    Returns
    -------
    Ranking (q, k), float64: the number of agreeing pairs above chance, plus a fraction below 1 for the former rank.
    """
    from joblib import cpu_count

    if len(queries) != len(ranking) or depth < 1:
        raise ValueError(
            f"one query per row and a depth of at least 1: got {len(queries)} queries, {len(ranking)} rows, depth "
            f"{depth}"
        )
    # Decreases with the former rank, which breaks ties.
    scores = np.tile(1 - (1 + np.arange(ranking.k)) / (ranking.k + 1), (len(ranking), 1))

    def pairs(cell: tuple[int, ...]) -> int:
        id = ranking.ids[cell]
        try:
            other = gallery[id]
        except (KeyError, IndexError):
            raise KeyError(f"image {id} was found, but the gallery has no keypoints of it") from None
        return _agreeing(queries[cell[0]], other, ratio)

    # In parallel over pairs of images, so that a single query uses all cores too.
    cells = list(zip(*np.nonzero(ranking.ids[:, :depth] != PAD), strict=True))
    with ThreadPoolExecutor(cpu_count()) as pool:
        for cell, count in zip(cells, pool.map(pairs, cells), strict=True):
            scores[cell] += count
    return rank(ranking.ids, scores)


def _agreeing(query: Keypoints, other: Keypoints, ratio: float) -> int:
    """Pairs that agree on a homography beyond `CHANCE_INLIERS`."""
    pairs = match(query, other, ratio, mutual=False).pairs
    if len(pairs) <= CHANCE_INLIERS:
        return 0
    here, there = query.geometry.subset(pairs[:, 0]), other.geometry.subset(pairs[:, 1])
    agree = similarity_inliers(here, there)
    if agree.sum() <= CHANCE_INLIERS:
        return 0
    found = fit_homography(here.points[agree], there.points[agree], query.shape, tries=300)
    return max(0, found.count - CHANCE_INLIERS)
