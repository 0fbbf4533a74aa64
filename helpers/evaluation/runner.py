"""Runs a protocol: searches the gallery for all queries and drops the ignored images from the rankings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from helpers.evaluation.protocol import Protocol, chunks
from helpers.search.index.filters import keep
from helpers.search.ranking import PAD, Ranking

if TYPE_CHECKING:
    from helpers.search.index import Index


def run(protocol: Protocol, vectors: np.ndarray, index: "Index", k: int | None = None) -> Ranking:
    """Put the gallery into ``index``, ask all queries, drop what never counts and keep the best ``k``.

    Parameters
    ----------
    vectors : float32 (n, d): row i describes image i of the protocol (see ``Protocol.bind``).
    index : empty; it holds the gallery afterwards.
    k : answers a query; None is the whole gallery, which mAP needs. That takes 12 to 16 bytes for each
        pair of query and gallery image; ``run_in_chunks`` does without.

    Returns
    -------
    Ranking (q, k), -1 where a query has fewer than ``k`` candidates; row j answers ``queries[j]``.

    Raises
    ------
    ValueError : vectors of the wrong shape or with NaN or infinity; an index that is not empty; k < 1.
    """
    width = int(protocol.n_candidates.max()) if k is None else k
    ids = np.full((len(protocol.queries), width), PAD, dtype=np.int64)
    scores = None
    for rows, part in run_in_chunks(protocol, vectors, index, k):
        if scores is None:
            scores = np.full(ids.shape, -np.inf, dtype=part.scores.dtype)
        ids[rows] = part.ids
        scores[rows] = part.scores
    return Ranking(ids, scores)


def run_in_chunks(
    protocol: Protocol, vectors: np.ndarray, index: "Index", k: int | None = None
) -> Iterator[tuple[np.ndarray, Ranking]]:
    """``run``, a few queries at a time: yields (query rows, their Ranking) and holds no more than that."""
    vectors = _checked_vectors(protocol, vectors)
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1 or None, got {k}")
    if hasattr(index, "__len__") and len(index):
        raise ValueError(f"the index must be empty, it holds {len(index)} vectors; open a new one")
    width = int(protocol.n_candidates.max()) if k is None else k
    index.add(vectors[protocol.gallery], protocol.gallery)
    for rows in chunks(len(protocol.queries), max(width, len(protocol))):
        yield rows, index.search(vectors[protocol.queries[rows]], width, excluded=protocol.ignored_ids.take(rows))


def excluding(ranking: Ranking, protocol: Protocol, k: int | None = None) -> Ranking:
    """Drop what never counts from each row, close the gaps, and keep the best ``k`` (None: as wide as it was).

    Rows that come out shorter than ``k`` end in -1, so search for ``k + protocol.n_ignored.max()``
    answers first.

    Raises
    ------
    ValueError : not one row a query, or an id that the protocol does not know.
    """
    if len(ranking) != len(protocol.queries):
        raise ValueError(f"{protocol.name}: {len(protocol.queries)} queries, but the ranking has {len(ranking)} rows")
    width = ranking.k if k is None else k
    ids = np.full((len(ranking), width), PAD, dtype=np.int64)
    scores = np.full(ids.shape, -np.inf, dtype=ranking.scores.dtype)
    for rows in chunks(len(ranking), max(ranking.k, len(protocol))):
        part = _excluding(Ranking(ranking.ids[rows], ranking.scores[rows]), protocol, rows, width)
        ids[rows], scores[rows] = part.ids, part.scores
    return Ranking(ids, scores)


def _excluding(ranking: Ranking, protocol: Protocol, rows: np.ndarray, width: int) -> Ranking:
    if ranking.ids.size and ranking.ids.max() >= len(protocol):
        raise ValueError(f"{protocol.name}: id {ranking.ids.max()} in the ranking, but ids end at {len(protocol) - 1}")
    kept = (ranking.ids != PAD) & ~protocol.ignored_mask(rows, ranking.ids)
    ids, scores = keep(ranking.ids, ranking.scores, kept, width)
    return Ranking(ids, scores.astype(ranking.scores.dtype))


def _checked_vectors(protocol: Protocol, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(protocol):
        raise ValueError(
            f"{protocol.name}: vectors must have shape ({len(protocol)}, d), one row an image of the protocol, "
            f"got {vectors.shape}. Describe the images that Protocol.bind returns."
        )
    vectors = vectors.astype(np.float32, copy=False)
    finite = np.concatenate([np.isfinite(vectors[rows]).all(axis=1) for rows in chunks(*vectors.shape)])
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise ValueError(
            f"{protocol.name}: {int((~finite).sum())} of {len(vectors)} vectors hold NaN or infinity, the first is "
            f"row {first} ({protocol.keys[first]}). Look at that image and at the extractor's preprocessing."
        )
    return vectors
