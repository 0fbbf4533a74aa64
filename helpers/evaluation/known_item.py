"""Known-item search: each query is a changed copy of one gallery image, its only relevant image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from helpers.evaluation.intervals import wilson_interval
from helpers.images.known_items import Change, queries
from helpers.search.ranking import Ranking

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class KnownItemResults:
    """The results of several methods for the same changed copies.

    Attributes
    ----------
    rankings : name of the method → Ranking, one row per query.
    originals : int64 (q,), the relevant id of each query. changes : (q,), the change of each query.
    """

    rankings: dict[str, Ranking]
    originals: np.ndarray
    changes: list[Change]

    def by_strength(self) -> "dict[str, pd.DataFrame]":
        """Method → the share of queries whose first result is the original, for each change and strength.

        Columns ``kind``, ``strength``, ``queries``, ``recall@1``, ``low`` and ``high`` (Wilson's 95 % interval);
        changes are in the order of their first occurrence.
        """
        return {name: self._recall(one, ["kind", "strength"]) for name, one in self.rankings.items()}

    def by_kind(self) -> "dict[str, pd.DataFrame]":
        """Like `by_strength`, over all strengths of a kind. The interval counts each original once."""
        return {name: self._recall(one, ["kind"]) for name, one in self.rankings.items()}

    def table(self) -> "pd.DataFrame":
        """`by_strength` of all methods in one table, with the method's name in the column ``method``."""
        import pandas as pd

        return pd.concat([table.assign(method=name) for name, table in self.by_strength().items()], ignore_index=True)

    def _recall(self, ranking: Ranking, columns: list[str]) -> "pd.DataFrame":
        import pandas as pd

        originals, changes = self.originals, self.changes
        if not len(changes) or not len(ranking) == len(originals) == len(changes):
            raise ValueError(
                f"one original and one change per query are needed, at least one: got {len(ranking)} rows, "
                f"{len(originals)} originals and {len(changes)} changes"
            )
        found = pd.DataFrame({column: [getattr(change, column) for change in changes] for column in columns})
        found = found.assign(original=originals, right=ranking.ids[:, 0] == originals)
        lines = []
        for group, rows in found.groupby(columns, sort=False):
            share = float(rows["right"].mean())
            lines.append([*group, len(rows), share, *wilson_interval(share, rows["original"].nunique())])
        return pd.DataFrame(lines, columns=[*columns, "queries", "recall@1", "low", "high"])


def search_known_items(
    methods: Mapping[str, Callable[[list[np.ndarray]], Ranking]],
    originals: Sequence[np.ndarray],
    frames: Sequence[np.ndarray],
    changes: Sequence[Change],
    seed: int = 0,
    progress: bool = True,
) -> KnownItemResults:
    """Search for the same changed copies with each method. Memory holds the copies of one change.

    Parameters
    ----------
    methods : name → search: list of uint8 (h, w, 3) → Ranking, one row per image; ids are rows of ``originals``.
    originals, frames, changes, seed : see `helpers.images.known_items.queries`.

    Raises ValueError: there is no original, or no change.
    """
    if not len(originals) or not len(changes):
        raise ValueError(
            f"at least one original and one change are needed, got {len(originals)} originals and {len(changes)} "
            "changes"
        )
    results: dict[str, list[Ranking]] = {name: [] for name in methods}
    rows: list[int] = []
    done: list[Change] = []
    for change in tqdm(changes, desc="known items", unit="change", disable=None if progress else True):
        made = list(queries(originals, frames, [change], seed))
        copies = [copy for _, _, copy in made]
        for name, search in methods.items():
            results[name].append(search(copies).head(1))
        rows += [row for row, _, _ in made]
        done += [change] * len(made)
    rankings = {
        name: Ranking(np.concatenate([one.ids for one in found]), np.concatenate([one.scores for one in found]))
        for name, found in results.items()
    }
    return KnownItemResults(rankings, np.array(rows), done)
