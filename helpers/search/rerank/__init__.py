"""Re-ranking: better orders of results that a search found, and relevance feedback.

`rerank` and `rerank_each` open a re-ranker by its name, one of `RERANKERS`. The functions behind the names take whole
rankings of many queries, for experiments.
"""

from importlib import import_module
from typing import Any

from helpers.search.rerank.registry import NAMES, RERANKERS, SHORTLIST, Reranker, names_for, reranker

#: Module → names that are imported from it at their first use: it needs NumPy, which the command line's help does not.
_LAZY = {
    "query": ("SearchSpace", "rerank", "rerank_each"),
    "expansion": (
        "alpha_query_expansion", "augmented", "average_query_expansion", "database_augmentation", "expanded_queries",
        "rescored",
    ),
    "reciprocal": ("k_reciprocal", "k_reciprocal_encodings"),
    "diffusion": ("diffused", "neighbor_graph"),
    "geometry": ("verified",),
    "feedback": ("refined", "rocchio"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

__all__ = ["NAMES", "RERANKERS", "SHORTLIST", "Reranker", "names_for", "reranker", *_MODULE_OF]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
