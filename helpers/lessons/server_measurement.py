"""Measures the searches of a server that runs elsewhere, for notebook 18."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from helpers.lessons.index_measurement import measure
from helpers.search.backends.remote import Payload
from helpers.search.index import open_index
from helpers.search.ranking import Ranking

if TYPE_CHECKING:
    from helpers.search.backends.milvus_backend import MilvusIndex
    from helpers.search.backends.rest_documents import DocumentIndex


def measure_server(
    location: str, searches: Sequence[str], vectors: np.ndarray, payload: Sequence[Payload], queries: np.ndarray,
    truth: Ranking, k: int = 10,
) -> pd.DataFrame:  # fmt: skip
    """Add vectors to a new index of a server, search it, remove a part, open it again, and drop it; once per search.

    Parameters
    ----------
    location : spec without options, such as ``"opensearch://127.0.0.1:9200/name"``. An index of that name is dropped.
    searches : options of the spec, such as ``"search=exact&shards=30"``.
    vectors : float (n, dim), with ids 0, 1, 2 …; payload : one per vector. queries : float (q, dim).
    truth : of `exact_truth`, at least ``k`` results.

    Returns
    -------
    One row per search: ``search, count, recall, milliseconds, add_seconds, first, removed, found after removal, left``.
    ``first`` is the name in the payload of the first query's first result. Every tenth vector is removed, and the index
    is opened again; the last two are how many of these ids the queries still find, and how many vectors are left.
    """
    rows = []
    for options in searches:
        index = _opened(f"{location}?{options}")
        index.clear()
        start = time.perf_counter()
        index.add(vectors, np.arange(len(vectors)), payload)
        seconds = time.perf_counter() - start
        measured = measure(index, queries, truth, k)
        (first,) = index.payload(index.search(queries, k).ids[0, :1])
        gone = np.arange(0, len(vectors), 10)
        index.remove(gone)
        index.close()
        again = _opened(f"{location}?{options}")
        left = np.isin(again.search(queries, k).ids, gone).sum()
        row = {"search": options, "count": measured.count, "recall": measured.recall}
        row |= {"milliseconds": measured.milliseconds, "add_seconds": seconds, "first": first.name}
        rows.append(row | {"removed": len(gone), "found after removal": int(left), "left": len(again)})
        again.clear()
        again.close()
    return pd.DataFrame(rows)


def _opened(spec: str) -> "DocumentIndex | MilvusIndex":
    """The index of a server. These have ``close``, which their common base class does not declare."""
    return cast("DocumentIndex | MilvusIndex", open_index(spec))
