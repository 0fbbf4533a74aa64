"""Re-ranking: better orders of results that a search found, and relevance feedback.

`rerank` and `rerank_each` open a re-ranker by its name, one of `RERANKERS`. The functions behind the names take whole
rankings of many queries, for experiments.
"""

from helpers import lazy
from helpers.search.rerank.registry import NAMES, RERANKERS, SHORTLIST, Reranker, names_for, reranker

# These need NumPy, which the command line's help does not.
_later, __getattr__ = lazy.exports(
    __name__,
    {
        "query": ("SearchSpace", "rerank", "rerank_each"),
        "expansion": (
            "alpha_query_expansion", "augmented", "average_query_expansion", "database_augmentation",
            "expanded_queries", "rescored",
        ),
        "reciprocal": ("k_reciprocal", "k_reciprocal_encodings"),
        "diffusion": ("diffused", "neighbor_graph"),
        "geometry": ("verified",),
        "feedback": ("rocchio",),
    },
)  # fmt: skip
__all__ = ["NAMES", "RERANKERS", "SHORTLIST", "Reranker", "names_for", "reranker", *_later]  # noqa: PLE0604
