"""Re-ranking: better orders of results that a search found, and relevance feedback.

`rerank` and `rerank_each` open a re-ranker by its name, one of `RERANKERS`. The functions behind the names take whole
rankings of many queries, for experiments.
"""

from importlib import import_module

from helpers.search.rerank.registry import NAMES, RERANKERS, SHORTLIST, Reranker, names_for, reranker

#: Module → what is imported from it when it is first used: these need NumPy, which the help of a command does not.
_LATER = {
    "query": ("SearchSpace", "rerank", "rerank_each"),
    "expansion": (
        "alpha_query_expansion", "augmented", "average_query_expansion", "database_augmentation", "expanded_queries",
        "rescored",
    ),
    "reciprocal": ("k_reciprocal", "k_reciprocal_descriptions"),
    "diffusion": ("diffused", "neighbor_graph"),
    "geometry": ("verified",),
    "feedback": ("refined", "rocchio"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}

__all__ = ["NAMES", "RERANKERS", "SHORTLIST", "Reranker", "names_for", "reranker", *_MODULE_OF]  # noqa: PLE0604


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
