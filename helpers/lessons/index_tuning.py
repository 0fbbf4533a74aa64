"""Chooses an index and its settings for requirements on recall, time and memory."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from tqdm.auto import tqdm

from helpers.lessons.index_measurement import (
    Measurement,
    build,
    estimated_bytes,
    exact_truth,
    measure,
    recalls,
    standard_error,
)
from helpers.search.index import Index, check_k, open_index
from helpers.search.ranking import Ranking

#: The largest number of vectors that are held out as queries; a tenth of a small number of vectors.
HELD_OUT = 500
#: Standard errors between a measured recall and the lower bound of the true one, with a confidence of 95 %.
CONFIDENCE = 1.645
_COLUMNS = [
    "spec", "over", "recall", "milliseconds", "milliseconds95", "per_second", "megabytes", "build_seconds",
    "megabytes_estimated", "missed",
]  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """An index that may be chosen.

    spec : for `open_index`. efforts : options for `Index.tune`, from the fastest to the one with the highest recall.
    """

    spec: str
    efforts: tuple[dict[str, int], ...] = ({},)


def sweep(candidates: Mapping[str, Candidate], vectors: np.ndarray, queries: np.ndarray, k: int = 10) -> pd.DataFrame:
    """Build each index once, and measure it at each of its efforts: columns ``index, build_seconds`` and `Measurement`.

    Recall refers to exact search by the metric of the index.
    """
    rows = []
    for name, candidate in candidates.items():
        index, seconds = build(candidate.spec, vectors)
        truth = exact_truth(vectors, queries, k, index.metric)
        for effort in candidate.efforts:
            measured = measure(index.tune(**effort), queries, truth, k)
            rows.append({"index": name, "build_seconds": seconds} | measured.row())
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Requirements:
    """recall : from 0 to 1. milliseconds : of a query, the median. megabytes : `Index.nbytes` / 10⁶."""

    recall: float = 0.95
    milliseconds: float | None = None
    megabytes: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ValueError(f"recall must be above 0 and at most 1, got {self.recall}")
        for name in ("milliseconds", "megabytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}; omit it for no limit")

    def missed(self, measured: Measurement) -> dict[str, float]:
        """The requirements that are not met, in words → the logarithm of the measured value over the required one.

        Recall must be met with a confidence of 95 %; its logarithm is that of the missed results.
        """
        # One missed result in all is the smallest measurable error.
        least, margin = 1 / (measured.queries * measured.k), CONFIDENCE * measured.recall_error
        missed: dict[str, float] = {}
        if not meets(measured.recall, measured.recall_error, self.recall):
            text = f"recall@{measured.k} {measured.recall:.3f} ± {margin:.3f}, required {self.recall:g}"
            missed[text] = log(max(1 - measured.recall + margin, least) / max(1 - self.recall, least))
        if self.milliseconds is not None and measured.milliseconds > self.milliseconds:
            text = f"{measured.milliseconds:.3g} ms per query, required {self.milliseconds:g}"
            missed[text] = log(measured.milliseconds / self.milliseconds)
        if self.megabytes is not None and measured.megabytes > self.megabytes:
            text = f"{measured.megabytes:.4g} MB, required {self.megabytes:g}"
            missed[text] = log(measured.megabytes / self.megabytes)
        return missed


class Choice(NamedTuple):
    """The chosen index, and the reason.

    Attributes
    ----------
    satisfied : whether it meets all requirements; otherwise it is the closest one.
    why : the reason, in words. spec : of the chosen index.
    table : one row per candidate; ``over`` is "estimate" and the measured numbers are NaN if it was not built.
    """

    satisfied: bool
    why: str
    spec: str
    table: pd.DataFrame


def meets(recall: float, error: float, required: float) -> bool:
    """Whether a recall with this standard error is at least the required one, with a confidence of 95 %."""
    return recall - CONFIDENCE * error >= required


def tune(
    vectors: np.ndarray,
    queries: np.ndarray | None = None,
    recall: float = 0.95,
    milliseconds: float | None = None,
    megabytes: float | None = None,
    *,
    candidates: Sequence[Candidate],
    k: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Choice:
    """The fastest index that meets all requirements, or the closest one, with the measurements of all candidates.

    Each candidate is built once, over all vectors but the queries. Bisection finds the least effort with sufficient
    recall, which is then measured. A candidate that by `estimated_bytes` exceeds ``megabytes`` is not built.

    Recall depends only on the vectors and ``seed``, except for graphs that several processors build
    (`helpers.search.backends.usearch_backend`). Time varies between runs, so the choice between two similar indexes may
    vary too.

    Parameters
    ----------
    vectors : float (n, dim). queries : float (q, dim), not among them; by default, a random sample of the vectors is
        held out, see `HELD_OUT`. Queries from another source may be harder.
    recall, milliseconds, megabytes : see `Requirements`. candidates : at least one, all with the same metric.
    """
    requirements, k = Requirements(recall, milliseconds, megabytes), check_k(k)
    metric = _common_metric(candidates)
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must have shape (n, dim), got {vectors.shape}")
    if queries is None:
        held_out = min(HELD_OUT, -(-len(vectors) // 10))
        vectors, queries = train_test_split(vectors, test_size=held_out, random_state=seed)
    limit = np.inf if megabytes is None else megabytes
    sizes = [np.nan if megabytes is None else estimated_bytes(one.spec, *vectors.shape) / 1e6 for one in candidates]
    truth = exact_truth(vectors, queries, k, metric)
    rows = []
    bar = tqdm(candidates, desc=f"{len(vectors):,} vectors", unit="index", disable=None if progress else True)
    for candidate, size in zip(bar, sizes, strict=True):
        bar.set_postfix_str(candidate.spec)
        row = {"spec": open_index(candidate.spec).spec, "over": "estimate", "megabytes_estimated": size}
        if size > limit:
            missed = {f"about {size:.4g} MB by estimate, required {megabytes:g}": size}
        else:
            index, seconds = build(candidate.spec, vectors)
            measured = measure_least(index, candidate.efforts, queries, truth, recall, k)
            missed = requirements.missed(measured)
            row |= measured.row() | {"over": "all", "build_seconds": seconds}
        rows.append(row | {"missed": "; ".join(missed), "distance": sum(missed.values())})
    return choose(pd.DataFrame(rows))


def _common_metric(candidates: Sequence[Candidate]) -> str:
    """The metric of all candidates."""
    if not candidates:
        raise ValueError("there is no candidate to choose from")
    for candidate in candidates:
        if not candidate.efforts:
            raise ValueError(f"{candidate.spec} has no effort to try; give one empty dict for the defaults")
    metrics = {candidate.spec: open_index(candidate.spec).metric for candidate in candidates}
    if len(set(metrics.values())) > 1:
        raise ValueError(f"the candidates must have one metric, got {metrics}")
    return metrics[candidates[0].spec]


def measure_least(
    index: Index, efforts: Sequence[dict[str, int]], queries: np.ndarray, truth: Ranking, recall: float, k: int = 10
) -> Measurement:
    """`measure` at the least of increasing efforts that `meets` the recall, or else at the greatest; tunes the index.

    Bisection assumes that recall increases with the effort.
    """

    def passes(effort: dict[str, int]) -> bool:
        found = recalls(index.tune(**effort).search(queries, k), truth, k)
        return meets(float(found.mean()), standard_error(found), recall)

    number = min(bisect.bisect_left(efforts, True, key=passes), len(efforts) - 1)
    return measure(index.tune(**efforts[number]), queries, truth, k)


def choose(table: pd.DataFrame) -> Choice:
    """The fastest candidate that meets all requirements; if none does, the one with the smallest distance.

    Among candidates that miss some, measured ones precede those that were too large to be built.

    table : the columns of `Choice.table`, ``k``, and ``distance``, the sum of `Requirements.missed`.
    """
    shown, passed = table.reindex(columns=_COLUMNS), table[table["missed"] == ""]
    if len(passed):
        passed = passed.sort_values(["milliseconds", "megabytes", "spec"])
        texts = [
            f"{row.spec} with recall@{row.k:.0f} {row.recall:.3f}, {row.milliseconds:.3g} ms per query, "
            f"{row.megabytes:.4g} MB"
            for row in passed.head(2).itertuples()
        ]
        why = f"{texts[0]}: the fastest of {len(passed)} out of {len(table)} that meet all requirements"
        return Choice(True, "; next ".join([why, *texts[1:]]), passed["spec"].iloc[0], shown)
    best = table.sort_values(["over", "distance", "spec"]).iloc[0]
    why = f"none of {len(table)} meets all requirements; {best['spec']} comes closest and misses: {best['missed']}"
    return Choice(False, why + " (so it was not built)" * (best["over"] == "estimate"), best["spec"], shown)
