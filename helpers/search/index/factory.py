"""Opens an empty index by its URL-like name."""

import importlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from helpers.search.index.base import Index

#: Accepted name of a metric → its name.
METRIC_NAMES = {
    "cosine": "cosine", "cos": "cosine", "euclidean": "euclidean", "l2": "euclidean", "manhattan": "manhattan",
    "l1": "manhattan", "cityblock": "manhattan",
}  # fmt: skip

#: Scheme of a spec → its class, imported at its first use. A new backend takes one line here and one file.
BACKENDS = {
    "exact": "helpers.search.backends.exact:ExactIndex",
    "sklearn": "helpers.search.backends.sklearn_backend:SklearnIndex",
    "annoy": "helpers.search.backends.annoy_backend:AnnoyIndex",
    "faiss": "helpers.search.backends.faiss_backend:FaissIndex",
    "usearch": "helpers.search.backends.usearch_backend:UsearchIndex",
    "milvus": "helpers.search.backends.milvus_backend:MilvusIndex",
    "elasticsearch": "helpers.search.backends.elasticsearch_backend:ElasticIndex",
    "opensearch": "helpers.search.backends.opensearch_backend:OpenSearchIndex",
}


def open_index(spec: str) -> "Index":
    """An empty index by its URL-like name: ``scheme:metric?option=value&option=value``.

    For example ``exact:cosine``, ``exact:euclidean?chunk=4096``, ``faiss:hnsw?m=32&search=128``,
    ``usearch:cosine?dtype=f16``, ``annoy:manhattan?trees=30``.

    Raises
    ------
    ValueError : the scheme, the metric or an option does not exist; the message lists those that do.
    ImportError : the backend's package is not installed.
    """
    head, _, query = str(spec).partition("?")
    scheme, _, rest = head.partition(":")
    if scheme not in BACKENDS:
        raise ValueError(f"there is no index {scheme!r} (in {spec!r}); there are: {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[scheme].partition(":")
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise ValueError(f"{spec!r}: write options as name=value, with & between them") from error
    if len(dict(options)) < len(options):
        raise ValueError(f"{spec!r}: an option is given twice")
    return getattr(importlib.import_module(module), name).from_spec(rest, dict(options))
