"""Chooses an index and its settings for requirements on recall, time and memory."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from helpers import extras
from helpers.lessons.index_measurement import (
    Measurement,
    build,
    check_queries,
    estimated_bytes,
    exact_truth,
    measure,
    recalls,
    standard_error,
)
from helpers.search.index import Index, check_k, open_index
from helpers.search.ranking import Ranking

if TYPE_CHECKING:
    import pandas as pd

#: The largest number of vectors that are held out as queries; a tenth of a small number of vectors.
HELD_OUT = 500
#: For more vectors than `MANY`, candidates are first built over `SAMPLE` of them.
MANY, SAMPLE = 60_000, 20_000
#: Standard errors between a measured recall and the lower bound of the true one, with a confidence of 95 %.
CONFIDENCE = 1.645

_GRAPH = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_NODES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
#: In the order of preference.
_STAGES = ("all", "sample", "estimate")


@dataclass(frozen=True)
class Candidate:
    """An index that may be chosen.

    spec : for `open_index`. efforts : options for `Index.tune`, from the fastest to the one with the highest recall.
    """

    spec: str
    efforts: tuple[dict[str, int], ...] = ({},)


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

    stage : ``"all"``, or ``"sample"`` if it was discarded over a sample, or ``"estimate"`` if it was not built.
    missed : requirements that it does not meet, in words.
    megabytes : estimated for all vectors. measured, build_seconds : None if it was not built.
    """

    spec: str
    stage: str
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
    def spec(self) -> str:
        """The spec of the chosen index, with its search options."""
        return self.trial.spec

    @property
    def missed(self) -> tuple[str, ...]:
        """The requirements that it does not meet, in words."""
        return self.trial.missed

    def open(self) -> Index:
        """An empty index of this kind."""
        return open_index(self.spec)

    @property
    def table(self) -> "pd.DataFrame":
        """One row per candidate; times are NaN if it was not built, and of the sample if only that was built."""
        import pandas as pd

        columns = ("recall", "milliseconds", "milliseconds95", "per_second", "megabytes")
        rows = []
        for trial in self.trials:
            numbers = {name: getattr(trial.measured, name) if trial.measured else np.nan for name in columns}
            row = {"spec": trial.spec, "over": trial.stage, **numbers, "build_seconds": trial.build_seconds}
            estimate = np.nan if trial.megabytes is None else trial.megabytes
            rows.append(row | {"megabytes_estimated": estimate, "missed": "; ".join(trial.missed)})
        return pd.DataFrame(rows)


def meets(recall: float, error: float, required: float) -> bool:
    """Whether a recall with this standard error is at least the required one, with a confidence of 95 %."""
    return recall - CONFIDENCE * error >= required


def default_candidates(metric: str = "cosine") -> tuple[Candidate, ...]:
    """Candidates that suit most galleries; for ``manhattan`` exact search, and Annoy if it is installed."""
    metric = open_index(f"exact:{metric}").metric
    exact = Candidate(f"exact:{metric}")
    if metric == "manhattan":
        nodes = tuple({"search": nodes} for nodes in _NODES)
        trees = (Candidate("annoy:manhattan?trees=30", nodes), Candidate("annoy:manhattan?trees=100", nodes))
        return (exact, *(trees if not extras.missing("annoy") else ()))
    graph = tuple({"search": width} for width in _GRAPH)
    probes = tuple({"probes": lists} for lists in _PROBES)
    # With more lists, it pays to refine more codes.
    codes = tuple({"probes": lists, "depth": min(64, max(4, lists))} for lists in _PROBES)
    expansions = tuple({"expansion_search": width} for width in _GRAPH)
    return (
        exact,
        Candidate(f"faiss:flat?metric={metric}"),
        Candidate(f"faiss:ivf?metric={metric}", probes),
        Candidate(f"faiss:opq?metric={metric}", codes),
        Candidate(f"faiss:hnsw?m=16&metric={metric}", graph),
        Candidate(f"faiss:hnsw?m=32&metric={metric}", graph),
        Candidate(f"usearch:{metric}", expansions),
        Candidate(f"usearch:{metric}?dtype=f16", expansions),
        *([Candidate("usearch:cosine?dtype=i8", expansions)] if metric == "cosine" else []),
    )


def tune(
    vectors: np.ndarray,
    queries: np.ndarray | None = None,
    recall: float = 0.95,
    milliseconds: float | None = None,
    megabytes: float | None = None,
    candidates: Sequence[Candidate] | None = None,
    k: int = 10,
    metric: str = "cosine",
    seed: int = 0,
    progress: bool = True,
) -> Choice:
    """The fastest index that meets all requirements, or the closest one, with the measurements of all candidates.

    Each candidate is built once, over all vectors but the queries. Bisection finds the least effort with sufficient
    recall, which is then measured. A candidate that by `estimated_bytes` exceeds ``megabytes`` is not built. For more
    than `MANY` vectors, each is first built over `SAMPLE` of them, and discarded if it misses recall or time there.

    Recall depends only on the vectors and ``seed``, except for graphs that several processors build
    (`helpers.search.backends.usearch_backend`). Time varies between runs, so the choice between two similar indexes may
    vary too.

    Parameters
    ----------
    vectors : float (n, dim). queries : float (q, dim), not among them; by default, a random sample of the vectors is
        held out, see `HELD_OUT`. Queries from another source may be harder.
    recall, milliseconds, megabytes : see `Requirements`. candidates : by default, `default_candidates`.

    Raises ValueError: an invalid requirement, no candidate, one with another metric or without an estimate, too few or
    bad vectors.
    """
    requirements, k = Requirements(recall, milliseconds, megabytes), check_k(k)
    candidates = default_candidates(metric) if candidates is None else tuple(candidates)
    _check(candidates, metric)
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must have shape (n, dim), got {vectors.shape}")
    random = np.random.default_rng(seed)
    if queries is None:
        vectors, queries = _hold_out(vectors, k, random)
    trials, sizes = _estimate(candidates, vectors.shape, megabytes)
    # The limit of memory is for all vectors, not for a sample.
    stages = [("all", vectors, requirements)]
    if len(vectors) > MANY:
        part = vectors[np.sort(random.choice(len(vectors), SAMPLE, replace=False))]
        stages.insert(0, ("sample", part, Requirements(recall, milliseconds)))
    for stage, part, limits in stages:
        left = [number for number in sizes if number not in trials or not trials[number].missed]
        if not left:
            break
        truth = exact_truth(part, queries, k, metric)
        bar = tqdm(left, desc=f"{len(part):,} vectors", unit="index", disable=None if progress else True)
        for number in bar:
            candidate = candidates[number]
            bar.set_postfix_str(candidate.spec)
            index, seconds = build(candidate.spec, part)
            measured = measure_least(index, candidate.efforts, queries, truth, recall, k)
            trials[number] = Trial(index.spec, stage, limits.missed(measured), sizes[number], measured, seconds)
    return choose([trials[number] for number in range(len(candidates))], requirements)


def _check(candidates: Sequence[Candidate], metric: str) -> None:
    if not candidates:
        raise ValueError("there is no candidate to choose from")
    expected = open_index(f"exact:{metric}").metric
    for candidate in candidates:
        index = open_index(candidate.spec)
        if index.metric != expected:
            raise ValueError(f"{candidate.spec} has metric {index.metric}, requested is {metric}: give it as metric")
        if not candidate.efforts:
            raise ValueError(f"{candidate.spec} has no effort to try; give one empty dict for the defaults")


def _estimate(
    candidates: Sequence[Candidate], shape: tuple[int, ...], megabytes: float | None
) -> tuple[dict[int, Trial], dict[int, float | None]]:
    """Trials of candidates that are too large, and the estimated megabytes of the others, by their numbers."""
    trials: dict[int, Trial] = {}
    sizes: dict[int, float | None] = {}
    for number, candidate in enumerate(candidates):
        size = None if megabytes is None else estimated_bytes(candidate.spec, *shape) / 1e6
        if size is not None and megabytes is not None and size > megabytes:
            missed = (f"about {size:.4g} MB by estimate, required {megabytes:g}",)
            trials[number] = Trial(open_index(candidate.spec).spec, "estimate", missed, size)
        else:
            sizes[number] = size
    return trials, sizes


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
    check_queries(queries, truth, k)

    def passes(effort: dict[str, int]) -> bool:
        found = recalls(index.tune(**effort).search(queries, k), truth, k)
        return meets(float(found.mean()), standard_error(found), recall)

    number = min(bisect.bisect_left(efforts, True, key=passes), len(efforts) - 1)
    return measure(index.tune(**efforts[number]), queries, truth, k)


def choose(trials: Sequence[Trial], requirements: Requirements) -> Choice:
    """The fastest trial that meets all requirements; if none does, the closest by `Requirements.distance`.

    Among trials that miss some, those over all vectors precede those over a sample, and these precede estimates.
    """

    def time_and_size(trial: Trial) -> tuple[float, int, str]:
        measured = trial.measured
        return (measured.milliseconds, measured.bytes, trial.spec) if measured else (np.inf, 0, trial.spec)

    def closeness(trial: Trial) -> tuple[int, float, str]:
        distance = requirements.distance(trial.measured) if trial.measured else trial.megabytes or 0
        return _STAGES.index(trial.stage), distance, trial.spec

    passed = sorted((trial for trial in trials if not trial.missed), key=time_and_size)
    if passed:
        why = f"{passed[0]}: the fastest of {len(passed)} out of {len(trials)} that meet all requirements"
        if len(passed) > 1:
            why += f"; next {passed[1]}"
        return Choice(True, why, passed[0], tuple(trials))
    best = min(trials, key=closeness)
    note = {"all": "", "sample": " (already over a sample of the vectors)", "estimate": " (so it was not built)"}
    why = f"none of {len(trials)} meets all requirements; {best.spec} comes closest and misses: "
    return Choice(False, why + "; ".join(best.missed) + note[best.stage], best, tuple(trials))
