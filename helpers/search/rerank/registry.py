"""The registry of re-rankers: names, one-sentence summaries and default settings.

`helpers.search.rerank.query` runs them. This module imports nothing heavy, because the command line's help needs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The largest number of first results that are re-ranked. Later results keep their order.
SHORTLIST = 100

_ALL_METRICS = ("cosine", "euclidean", "manhattan")


@dataclass(frozen=True)
class Reranker:
    """One way to re-rank the results of a query.

    Attributes
    ----------
    name : the name that users type.
    summary : one sentence for users.
    settings : parameters of its function, with their values.
    metrics : supported metrics of the index.
    needs_image : whether it compares pixels, so that the query's vector is not enough.
    """

    name: str
    summary: str
    settings: Mapping[str, Any]
    metrics: tuple[str, ...] = ("cosine",)
    needs_image: bool = False

    def check(self, metric: str, has_image: bool) -> None:
        """Raise ValueError if the metric is not supported, or if it needs an image and there is none."""
        if metric not in self.metrics:
            raise ValueError(
                f"The re-ranker {self.name} needs cosines, but this index has {metric} distances. Use an index "
                f"of metric cosine, or choose {' or '.join(names_for(metric))}."
            )
        if self.needs_image and not has_image:
            raise ValueError(
                f"The re-ranker {self.name} compares pixels. Give the query's image: its vector is not enough."
            )


#: Name → re-ranker. The settings are those of the papers, see the modules.
RERANKERS = {
    reranker.name: reranker
    for reranker in (
        Reranker("none", "Keeps the order of the index.", {}, _ALL_METRICS),
        Reranker(
            "expansion", "Searches again with the mean of the query and its first two results.", {"top": 2, "alpha": 0}
        ),
        Reranker(
            "alpha-expansion",
            "Searches again with the query and its first five results, weighted by their cosines to the power of 3.",
            {"top": 5, "alpha": 3},
        ),
        Reranker(
            "k-reciprocal",
            "Prefers results that share their nearest neighbors with the query, in both directions.",
            {"k1": 20, "k2": 6, "original_weight": 0.3},
        ),
        Reranker(
            "diffusion",
            "Prefers results that are connected with the best ones by chains of similar images.",
            {"top": 3, "k": 10, "alpha": 0.9, "gamma": 3},
        ),
        Reranker(
            "geometry",
            "Puts results that show the same object or scene first: their keypoints agree with the query's.",
            {"depth": 50, "ratio": 0.8, "longest": 640},
            _ALL_METRICS,
            needs_image=True,
        ),
    )
}
NAMES = tuple(RERANKERS)


def reranker(name: str) -> Reranker:
    """The re-ranker of this name. Raises ValueError, which lists the names, if there is none."""
    if name not in RERANKERS:
        raise ValueError(f"There is no re-ranker {name!r}. Choose one of: {', '.join(NAMES)}.")
    return RERANKERS[name]


def names_for(metric: str) -> tuple[str, ...]:
    """Those of `NAMES` that support this metric."""
    return tuple(name for name, one in RERANKERS.items() if metric in one.metrics)
