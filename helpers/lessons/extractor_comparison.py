"""Compares feature vectors of the same images, from several extractors or settings, under one protocol."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, replace

import numpy as np
import pandas as pd

from helpers.evaluation import metrics, runner
from helpers.evaluation.intervals import bootstrap_intervals, paired_difference, paired_differences
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.search.index import open_index
from helpers.vectors import l2_normalize

COLUMNS = (
    "version", "dim", "bytes", "mAP", "low", "high", "top-1", "difference", "difference low", "difference high", "p",
    "chance", "ceiling",
)  # fmt: skip

PAIRED_COLUMNS = (
    "queries of", "queries", "metric", "first", "second", "difference", "low", "high", "p", "class low", "class high",
)  # fmt: skip


def search(vectors: np.ndarray, protocol: Protocol) -> Scores:
    """The scores of an exact search by cosine. vectors : float32 (n, dim), row *i* for id *i* of the protocol."""
    return metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol)


def mean_scores(runs: Sequence[Scores]) -> Scores:
    """The mean of each query's values over several runs of the same protocol, such as trainings with other seeds."""
    first = runs[0]
    if any(not np.array_equal(run.rows, first.rows) or run.metrics != first.metrics for run in runs):
        raise ValueError("the runs must have the same queries and metrics")
    values = {metric: np.mean([run.values[metric] for run in runs], axis=0) for metric in first.metrics}
    return replace(first, values=values)


def compare_extractors(
    versions: Mapping[str, np.ndarray], protocol: Protocol, reference: str, seed: int = 0
) -> pd.DataFrame:
    """Score each version of the vectors, and compare it with the ``reference`` on the same queries.

    Parameters
    ----------
    versions : name → float32 or float16 (n, d), row *i* for id *i* of the protocol. The search is by cosine.
    reference : the name of the version that the others are compared with.

    Returns
    -------
    One row per version, with `COLUMNS`: bytes per image; low and high bound the 95 % interval of mAP; the difference is
    in mAP, with its paired interval and two-sided p (NaN for the reference itself); chance and ceiling are of mAP.
    """
    if reference not in versions:
        raise KeyError(f"no version is called {reference!r}; available: {', '.join(versions)}")
    scores = {name: search(_short(np.asarray(vectors, np.float32)), protocol) for name, vectors in versions.items()}
    values = {name: score.values["mAP"] for name, score in scores.items()}
    gains, spans = paired_differences(values, values[reference], seed=seed), bootstrap_intervals(values, seed=seed)
    rows = []
    for name, score in scores.items():
        vectors, gain = versions[name], gains[name]
        rows.append(
            (
                name, vectors.shape[1], vectors.shape[1] * vectors.dtype.itemsize, score.mean("mAP"), *spans[name],
                score.mean("top-1"), gain.difference, gain.low, gain.high,
                np.nan if name == reference else gain.p_value, score.mean_chance("mAP"), score.mean_ceiling("mAP"),
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _short(vectors: np.ndarray) -> np.ndarray:
    """Vectors of at most n numbers with the same cosine similarities as (n, d); those with d ≤ 8 n are not changed.

    The exact search of vectors with 100,000 numbers takes minutes. The eigenvectors of their Gram matrix, scaled by the
    roots of its eigenvalues, have the same scalar products.
    """
    count, dim = vectors.shape
    if dim <= 8 * count:
        return vectors
    vectors, gram = l2_normalize(vectors), np.zeros((count, count))
    for start in range(0, dim, 2**13):
        # Products in float32 take half the time; their sum is in float64.
        part = vectors[:, start : start + 2**13]
        gram += part @ part.T
    values, axes = np.linalg.eigh(gram)
    return (axes * np.sqrt(np.maximum(values, 0))).astype(np.float32)


def compare_pair(
    first: Scores, second: Scores, protocol: Protocol, parts: Mapping[str, Collection[str]] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Compare two methods on the same queries, by top-1 accuracy and mAP.

    Parameters
    ----------
    first, second : scores under ``protocol``.
    parts : name → the classes of a part of the queries. By default one part, "all classes".

    Returns
    -------
    Two rows per part, with `PAIRED_COLUMNS`: the difference is second - first; low and high bound its 95 % interval for
    other queries of the same classes; class low and class high bound it for other classes, NaN for a single class.
    """
    if not np.array_equal(first.rows, second.rows):
        raise ValueError("both methods must be scored on the same queries")
    labels = protocol.labels[protocol.queries[first.rows]]
    names = np.array([protocol.class_names[label] for label in labels])
    rows = []
    for part, classes in (parts or {"all classes": set(names)}).items():
        mask = np.isin(names, list(classes))
        if not mask.any():
            raise ValueError(f"no query belongs to the classes of {part!r}: {', '.join(sorted(classes))}")
        for metric in ("top-1", "mAP"):
            a, b = second.values[metric][mask], first.values[metric][mask]
            by_query = paired_difference(a, b, seed=seed)
            by_class = paired_difference(a, b, seed=seed, clusters=labels[mask])
            rows.append(
                (
                    part, int(mask.sum()), metric, b.mean(), a.mean(), *astuple(by_query), by_class.low, by_class.high,
                )
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(PAIRED_COLUMNS))
