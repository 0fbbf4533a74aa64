"""Compares feature vectors of the same images, from several extractors or settings, under one protocol."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from helpers.evaluation import metrics, runner
from helpers.evaluation.intervals import bootstrap_interval, paired_difference
from helpers.evaluation.protocol import Protocol
from helpers.search.index import open_index

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "version", "dim", "bytes", "mAP", "low", "high", "top-1", "difference", "difference low", "difference high", "p",
    "chance", "ceiling",
)  # fmt: skip


def compare_extractors(
    versions: Mapping[str, np.ndarray], protocol: Protocol, reference: str, seed: int = 0
) -> "pd.DataFrame":
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
    import pandas as pd

    if reference not in versions:
        raise KeyError(f"no version is called {reference!r}; available: {', '.join(versions)}")
    scores = {}
    for name, vectors in versions.items():
        ranking = runner.run(protocol, np.asarray(vectors, np.float32), open_index("exact:cosine"))
        scores[name] = metrics.evaluate(ranking, protocol)
    base, rows = scores[reference].values["mAP"], []
    for name, score in scores.items():
        vectors, values = versions[name], score.values["mAP"]
        gain = paired_difference(values, base, seed=seed)
        interval = bootstrap_interval(values, seed=seed)
        rows.append(
            (
                name, vectors.shape[1], vectors.shape[1] * vectors.dtype.itemsize, score.mean("mAP"), *interval,
                score.mean("top-1"), gain.difference, gain.low, gain.high,
                np.nan if name == reference else gain.p_value, score.mean_chance("mAP"), score.mean_ceiling("mAP"),
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))
