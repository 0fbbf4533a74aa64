"""Runs a protocol: searches the gallery for all queries, without the ignored images."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from helpers.evaluation.protocol import Protocol, chunks
from helpers.search.index.filters import keep
from helpers.search.ranking import PAD, Ranking

if TYPE_CHECKING:
    from helpers.search.index import Index


def run(protocol: Protocol, vectors: np.ndarray, index: "Index", k: int | None = None) -> Ranking:
    """Add the gallery to ``index`` and search it for all queries, without the ignored images.

    Parameters
    ----------
    vectors : float32 (n, d): row i is the feature vector of image i of the protocol (see `Protocol.bind`).
    index : an empty index.
    k : number of results per query; None is the whole gallery, which mAP needs. That takes 12 to 16 bytes for each
        pair of a query and a gallery image.

    Returns
    -------
    Ranking (q, k), -1 where a query has fewer than ``k`` candidates; row j has the results of ``queries[j]``.
    """
    vectors = _checked_vectors(protocol, vectors)
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1 or None, got {k}")
    if len(index):
        raise ValueError(f"the index must be empty, it has {len(index)} vectors; open a new one")
    width = int(protocol.n_candidates.max()) if k is None else k
    index.add(vectors[protocol.gallery], protocol.gallery)
    parts = (
        (rows, index.search(vectors[protocol.queries[rows]], width, excluded=protocol.ignored_ids.take(rows)))
        for rows in chunks(len(protocol.queries), max(width, len(protocol)))
    )
    return _joined(parts, (len(protocol.queries), width))


def excluding(ranking: Ranking, protocol: Protocol, k: int | None = None) -> Ranking:
    """Drop the ignored images from each row, close the gaps, and keep the best ``k`` (None: the ranking's width).

    Shorter rows end in -1. To get ``k`` results, search for ``k + protocol.n_ignored.max()`` first.
    """
    check_rows(ranking, protocol)
    if ranking.ids.size and ranking.ids.max() >= len(protocol):
        raise ValueError(f"{protocol.name}: id {ranking.ids.max()} in the ranking, but ids end at {len(protocol) - 1}")
    width = ranking.k if k is None else k

    def part(rows: np.ndarray) -> Ranking:
        ids, scores = ranking.ids[rows], ranking.scores[rows]
        ids, kept = keep(ids, scores, (ids != PAD) & ~protocol.ignored_mask(rows, ids), width)
        return Ranking(ids, kept.astype(scores.dtype))

    parts = ((rows, part(rows)) for rows in chunks(len(ranking), max(ranking.k, len(protocol))))
    return _joined(parts, (len(ranking), width))


def check_rows(ranking: Ranking, protocol: Protocol) -> None:
    """Check that a ranking has one row per query."""
    if len(ranking) != len(protocol.queries):
        raise ValueError(f"{protocol.name}: {len(protocol.queries)} queries, but the ranking has {len(ranking)} rows")


def _joined(parts: Iterable[tuple[np.ndarray, Ranking]], shape: tuple[int, int]) -> Ranking:
    """One ranking from (rows, their ranking). One part at a time is in memory, in addition to the result."""
    ids, scores = np.empty(shape, np.int64), np.empty(0)
    for rows, part in parts:
        if not len(scores):
            scores = np.empty(shape, part.scores.dtype)
        ids[rows], scores[rows] = part.ids, part.scores
    return Ranking(ids, scores)


def _checked_vectors(protocol: Protocol, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(protocol):
        raise ValueError(
            f"{protocol.name}: vectors must have shape ({len(protocol)}, d), one row per image of the protocol, "
            f"got {vectors.shape}. Extract the features of the images that Protocol.bind returns."
        )
    vectors = vectors.astype(np.float32, copy=False)
    finite = np.concatenate([np.isfinite(vectors[rows]).all(axis=1) for rows in chunks(*vectors.shape)])
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise ValueError(
            f"{protocol.name}: {int((~finite).sum())} of {len(vectors)} vectors contain NaN or infinity, the first is "
            f"row {first} ({protocol.keys[first]}). Check that image and the extractor's preprocessing."
        )
    return vectors
