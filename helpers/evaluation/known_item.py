"""Known-item search: each query is a changed copy of one gallery picture, and only that one is right."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.evaluation.intervals import wilson_interval
from helpers.pictures.known_items import Change
from helpers.search.ranking import Ranking


def recall_by_strength(ranking: Ranking, originals: Sequence[int], changes: Sequence[Change]) -> pd.DataFrame:
    """How often the original comes first, for each change and strength.

    Parameters
    ----------
    ranking : one row a query, answers are ids of originals. originals : int (q,), the right id of each query.
    changes : (q,), what was done to it.

    Returns
    -------
    Columns ``kind``, ``strength``, ``queries``, ``recall@1``, ``low`` and ``high`` (Wilson's 95 % interval), in the
    order in which the changes first came.

    Raises
    ------
    ValueError : not one original and one change a query, or no query.
    """
    return _table(ranking, originals, changes, lambda change: (change.kind, change.strength), ["kind", "strength"])


def recall_by_kind(ranking: Ranking, originals: Sequence[int], changes: Sequence[Change]) -> pd.DataFrame:
    """As `recall_by_strength`, over all strengths of a kind; the interval counts each original once."""
    return _table(ranking, originals, changes, lambda change: (change.kind,), ["kind"])


def _table(ranking, originals, changes, key, columns) -> pd.DataFrame:
    originals = np.asarray(originals)
    if not len(changes) or not len(ranking) == len(originals) == len(changes):
        raise ValueError(
            f"one original and one change a query, and at least one: got {len(ranking)} rows, "
            f"{len(originals)} originals and {len(changes)} changes"
        )
    right = ranking.ids[:, 0] == originals
    keys = [key(change) for change in changes]
    lines = []
    for wanted in dict.fromkeys(keys):
        rows = np.array([one == wanted for one in keys])
        share = float(right[rows].mean())
        lines.append([*wanted, int(rows.sum()), share, *wilson_interval(share, len(np.unique(originals[rows])))])
    return pd.DataFrame(lines, columns=[*columns, "queries", "recall@1", "low", "high"])
