"""The index: one interface for all backends, opened by name or from a file."""

from helpers.search.index.base import Index, StoredIndex, UnsupportedByIndex
from helpers.search.index.checks import check_count, check_k
from helpers.search.index.factory import BACKENDS, METRIC_NAMES, open_index
from helpers.search.index.filters import IdSet, IdsPerQuery
from helpers.search.index.storage import IndexFileError, Streamed, load_index

__all__ = [
    "BACKENDS",
    "METRIC_NAMES",
    "IdSet",
    "IdsPerQuery",
    "Index",
    "IndexFileError",
    "StoredIndex",
    "Streamed",
    "UnsupportedByIndex",
    "check_count",
    "check_k",
    "load_index",
    "open_index",
]
