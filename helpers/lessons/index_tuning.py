"""Chooses an index and its settings for requirements on recall, time and memory."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import pandas as pd
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

    def missed(self, measured: Measurement) -> tuple[str, ...]:
        """The requirements that are not met, in words; recall must be met with a confidence of 95 %."""
        missed = []
        if not meets(measured.recall, measured.recall_error, self.recall):
            missed.append(
                f"recall@{measured.k} {measured.recall:.3f} ± {CONFIDENCE * measured.recall_error:.3f}, "
                f"required {self.recall:g}"
            )
        if self.milliseconds is not None and measured.milliseconds > self.milliseconds:
            missed.append(f"{measured.milliseconds:.3g} ms per query, required {self.milliseconds:g}")
        if self.megabytes is not None and measured.megabytes > self.megabytes:
            missed.append(f"{measured.megabytes:.4g} MB, required {self.megabytes:g}")
        return tuple(missed)

    def distance(self, measured: Measurement) -> float:
        """0 if all are met; otherwise the sum of the logarithms of time, memory and errors over the required ones."""
        # One missed result in all is the smallest measurable error.
        least = 1 / (measured.queries * measured.k)
        bound = measured.recall - CONFIDENCE * measured.recall_error
        parts: list[tuple[float, float | None]] = [(max(1 - bound, least), max(1 - self.recall, least))]
        parts += [(measured.milliseconds, self.milliseconds), (measured.megabytes, self.megabytes)]
        return sum(max(0.0, log(value / limit)) for value, limit in parts if limit is not None)


@dataclass(frozen=True)
class Trial:
    """The outcome of one candidate.

    missed : requirements that it does not meet, in words.
    megabytes : estimated; None without a limit. measured, build_seconds : None if it was too large to be built.
    """

    spec: str
    missed: tuple[str, ...]
    megabytes: float | None
    measured: Measurement | None = None
    build_seconds: float | None = None

    def __str__(self) -> str:
        if (measured := self.measured) is None:
            return self.spec
        return (
            f"{self.spec} with recall@{measured.k} {measured.recall:.3f}, {measured.milliseconds:.3g} ms per query, "
            f"{measured.megabytes:.4g} MB"
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen index, and the reason.

    Attributes
    ----------
    satisfied : whether it meets all requirements; otherwise it is the closest one.
    why : the reason, in words. trial : of the chosen index. trials : of all candidates.
    """

    satisfied: bool
    why: str
    trial: Trial
    trials: tuple[Trial, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row per candidate; ``over`` is "estimate" and the measured numbers are NaN if it was not built."""
        columns = ("recall", "milliseconds", "milliseconds95", "per_second", "megabytes")
        rows = []
        for trial in self.trials:
            numbers = {name: getattr(trial.measured, name) if trial.measured else np.nan for name in columns}
            row = {"spec": trial.spec, "over": "all" if trial.measured else "estimate", **numbers}
            estimate = np.nan if trial.megabytes is None else trial.megabytes
            more = {"build_seconds": trial.build_seconds, "megabytes_estimated": estimate}
            rows.append(row | more | {"missed": "; ".join(trial.missed)})
        return pd.DataFrame(rows)


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
        vectors, queries = _hold_out(vectors, k, np.random.default_rng(seed))
    sizes: list[float | None] = [None] * len(candidates)
    if megabytes is not None:
        sizes = [estimated_bytes(candidate.spec, *vectors.shape) / 1e6 for candidate in candidates]
    truth = exact_truth(vectors, queries, k, metric)
    trials = []
    bar = tqdm(candidates, desc=f"{len(vectors):,} vectors", unit="index", disable=None if progress else True)
    for candidate, size in zip(bar, sizes, strict=True):
        bar.set_postfix_str(candidate.spec)
        if size is not None and megabytes is not None and size > megabytes:
            missed = (f"about {size:.4g} MB by estimate, required {megabytes:g}",)
            trials.append(Trial(open_index(candidate.spec).spec, missed, size))
            continue
        index, seconds = build(candidate.spec, vectors)
        measured = measure_least(index, candidate.efforts, queries, truth, recall, k)
        trials.append(Trial(index.spec, requirements.missed(measured), size, measured, seconds))
    return choose(trials, requirements)


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


def _hold_out(vectors: np.ndarray, k: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The vectors without the queries, and the queries."""
    count = min(HELD_OUT, len(vectors) // 10)
    if count < 1 or len(vectors) - count < k:
        raise ValueError(f"{len(vectors)} vectors are too few to hold out queries and find {k} results: give queries")
    out = np.zeros(len(vectors), bool)
    out[random.choice(len(vectors), count, replace=False)] = True
    return vectors[~out], vectors[out]


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


def choose(trials: Sequence[Trial], requirements: Requirements) -> Choice:
    """The fastest trial that meets all requirements; if none does, the closest by `Requirements.distance`.

    Among trials that miss some, measured ones precede those that were too large to be built.
    """

    def time_and_size(trial: Trial) -> tuple[float, int, str]:
        measured = trial.measured
        return (measured.milliseconds, measured.bytes, trial.spec) if measured else (np.inf, 0, trial.spec)

    def closeness(trial: Trial) -> tuple[bool, float, str]:
        distance = requirements.distance(trial.measured) if trial.measured else trial.megabytes or 0
        return trial.measured is None, distance, trial.spec

    passed = sorted((trial for trial in trials if not trial.missed), key=time_and_size)
    if passed:
        why = f"{passed[0]}: the fastest of {len(passed)} out of {len(trials)} that meet all requirements"
        if len(passed) > 1:
            why += f"; next {passed[1]}"
        return Choice(True, why, passed[0], tuple(trials))
    best = min(trials, key=closeness)
    why = f"none of {len(trials)} meets all requirements; {best.spec} comes closest and misses: "
    note = "" if best.measured else " (so it was not built)"
    return Choice(False, why + "; ".join(best.missed) + note, best, tuple(trials))
