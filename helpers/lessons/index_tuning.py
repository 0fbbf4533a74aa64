"""Choosing an index and its settings for wishes: so much of the true answers, within so much time and memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from helpers import extras
from helpers.lessons.index_measurement import (
    Measured,
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

#: Vectors that are held out as queries, at most; of few vectors a tenth.
HELD_OUT = 500
#: With more vectors than `MANY`, hopeless candidates are told by building them over `SAMPLE` of these.
MANY, SAMPLE = 60_000, 20_000
#: Standard errors between a measured recall and the least that the true one is, with a confidence of 95 %.
CONFIDENCE = 1.645

_GRAPH = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_NODES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)


@dataclass(frozen=True)
class Candidate:
    """An index that may be chosen.

    spec : what it is built by. efforts : options for `Index.tune`, from the quickest to the one that finds most.
    """

    spec: str
    efforts: tuple[dict[str, int], ...] = ({},)


@dataclass(frozen=True)
class Wishes:
    """recall : of the true answers, 0 to 1. milliseconds : a query, the median. megabytes : `Index.nbytes` / 10⁶."""

    recall: float = 0.95
    milliseconds: float | None = None
    megabytes: float | None = None

    def __post_init__(self):
        if not 0 < self.recall <= 1:
            raise ValueError(f"recall must be above 0 and at most 1, got {self.recall}")
        for name in ("milliseconds", "megabytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}; leave it out to wish for none")

    def missed(self, measured: Measured) -> tuple[str, ...]:
        """What is not kept, in words; a recall is kept if it holds for other queries too, with a confidence of 95 %."""
        missed = []
        if not enough(measured.recall, measured.recall_error, self.recall):
            missed.append(
                f"recall@{measured.k} {measured.recall:.3f} ± {CONFIDENCE * measured.recall_error:.3f}, "
                f"wished {self.recall:g}"
            )
        if self.milliseconds is not None and measured.milliseconds > self.milliseconds:
            missed.append(f"{measured.milliseconds:.3g} ms a query, wished {self.milliseconds:g}")
        if self.megabytes is not None and measured.megabytes > self.megabytes:
            missed.append(f"{measured.megabytes:.4g} MB, wished {self.megabytes:g}")
        return tuple(missed)

    def distance(self, measured: Measured) -> float:
        """How far off, 0 where all is kept: the logarithms of time, memory and errors over what was wished, added."""
        # One missed answer in all is the least error that can be told from none.
        least = 1 / (measured.queries * measured.k)
        surely = measured.recall - CONFIDENCE * measured.recall_error
        parts = [(max(1 - surely, least), max(1 - self.recall, least))]
        parts += [(measured.milliseconds, self.milliseconds), (measured.megabytes, self.megabytes)]
        return sum(max(0.0, log(got / wished)) for got, wished in parts if wished is not None)


@dataclass(frozen=True)
class Trial:
    """What became of one candidate.

    stage : ``"all"``, or ``"sample"`` if it was discarded over a sample, or ``"estimate"`` if it was not built.
    missed : wishes that it does not keep, in words.
    megabytes : estimated for all vectors. measured, build_seconds : None where it was not built.
    """

    spec: str
    stage: str
    missed: tuple[str, ...]
    megabytes: float | None
    measured: Measured | None = None
    build_seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """Which index, and why.

    Attributes
    ----------
    spec : opens it, options of the search and all.
    satisfied : whether all wishes are kept; if not, it is the one that came nearest, and ``missed`` says in words what
        it misses.
    trial : what was measured of it. trials : of all candidates.
    why : in words.
    """

    spec: str
    satisfied: bool
    missed: tuple[str, ...]
    why: str
    trial: Trial
    trials: tuple[Trial, ...]

    def open(self) -> Index:
        """An empty index of this kind."""
        return open_index(self.spec)

    @property
    def table(self) -> "pd.DataFrame":
        """One line a candidate; times are NaN where it was not built, and those of the sample where only that was."""
        import pandas as pd

        columns = ("recall", "milliseconds", "milliseconds95", "per_second", "megabytes")
        lines = []
        for trial in self.trials:
            numbers = {name: getattr(trial.measured, name) if trial.measured else np.nan for name in columns}
            line = {"spec": trial.spec, "over": trial.stage, **numbers, "build_seconds": trial.build_seconds}
            estimate = np.nan if trial.megabytes is None else trial.megabytes
            lines.append(line | {"megabytes_estimated": estimate, "missed": "; ".join(trial.missed)})
        return pd.DataFrame(lines)


def enough(recall: float, error: float, wished: float) -> bool:
    """Whether a recall is surely as high as wished, given its standard error."""
    return recall - CONFIDENCE * error >= wished


def default_candidates(metric: str = "cosine") -> tuple[Candidate, ...]:
    """What is worth trying without knowing more; for ``manhattan`` there is Annoy beside exact search, if installed."""
    metric = open_index(f"exact:{metric}").metric
    exact = Candidate(f"exact:{metric}")
    if metric == "manhattan":
        nodes = tuple({"search": nodes} for nodes in _NODES)
        trees = (Candidate("annoy:manhattan?trees=30", nodes), Candidate("annoy:manhattan?trees=100", nodes))
        return (exact, *(trees if not extras.missing("annoy") else ()))
    graph = tuple({"search": width} for width in _GRAPH)
    probes = tuple({"probes": lists} for lists in _PROBES)
    # The more lists, the more codes are worth a second look.
    codes = tuple({"probes": lists, "depth": min(64, max(4, lists))} for lists in _PROBES)
    ours = tuple({"expansion_search": width} for width in _GRAPH)
    return (
        exact,
        Candidate(f"faiss:flat?metric={metric}"),
        Candidate(f"faiss:ivf?metric={metric}", probes),
        Candidate(f"faiss:opq?metric={metric}", codes),
        Candidate(f"faiss:hnsw?m=16&metric={metric}", graph),
        Candidate(f"faiss:hnsw?m=32&metric={metric}", graph),
        Candidate(f"usearch:{metric}", ours),
        Candidate(f"usearch:{metric}?dtype=f16", ours),
        *([Candidate("usearch:cosine?dtype=i8", ours)] if metric == "cosine" else []),
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
    """The fastest index that keeps all wishes, or the one that comes nearest, with what was measured of each.

    Each candidate is built once, over all vectors but the queries, and the least effort at which its recall suffices is
    found by bisection; there it is measured. One that by `estimated_bytes` can't fit ``megabytes`` is not built. With
    more than `MANY` vectors, each is first built over `SAMPLE` of them, and discarded if that, which is easier, already
    misses recall or time.

    Recall depends on the vectors and ``seed`` alone for indexes that are built alike every time; graphs that several
    processors build are not quite (`helpers.search.backends.usearch_backend`). Time depends on what else the computer
    does: where two are nearly as fast, now one is chosen and now the other.

    Parameters
    ----------
    vectors : float (n, dim). queries : float (q, dim), not among them; without it, a seeded sample of the vectors is
        held out, see `HELD_OUT`. Queries from elsewhere may be harder than vectors like those in the index.
    recall, milliseconds, megabytes : see `Wishes`. candidates : without it, `default_candidates`.

    Raises
    ------
    ValueError : a wish can't be meant, there is no candidate, one measures by another metric or can't be estimated,
        too few vectors, or bad ones.
    """
    wishes, k = Wishes(recall, milliseconds, megabytes), check_k(k)
    candidates = default_candidates(metric) if candidates is None else tuple(candidates)
    _check(candidates, metric)
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must have shape (n, dim), got {vectors.shape}")
    random = np.random.default_rng(seed)
    if queries is None:
        vectors, queries = _hold_out(vectors, k, random)
    trials: dict[int, Trial] = {}
    sizes: dict[int, float | None] = {}
    for place, candidate in enumerate(candidates):
        size = None if megabytes is None else estimated_bytes(candidate.spec, *vectors.shape) / 1e6
        if size is not None and size > megabytes:
            missed = (f"about {size:.4g} MB by estimate, wished {megabytes:g}",)
            trials[place] = Trial(open_index(candidate.spec).spec, "estimate", missed, size)
        else:
            sizes[place] = size
    # Memory is for all vectors to keep, not for a part.
    stages = [("all", vectors, wishes)]
    if len(vectors) > MANY:
        part = vectors[np.sort(random.choice(len(vectors), SAMPLE, replace=False))]
        stages.insert(0, ("sample", part, Wishes(recall, milliseconds)))
    for stage, part, kept in stages:
        left = [place for place in sizes if place not in trials or not trials[place].missed]
        if not left:
            break
        truth = exact_truth(part, queries, k, metric)
        bar = tqdm(left, desc=f"{len(part):,} vectors", unit="index", disable=None if progress else True)
        for place in bar:
            bar.set_postfix_str(candidates[place].spec)
            trials[place] = _try(candidates[place], sizes[place], part, queries, truth, k, kept, stage)
    trials = [trials[place] for place in range(len(candidates))]
    return choose(trials, wishes)


def _check(candidates: Sequence[Candidate], metric: str) -> None:
    if not candidates:
        raise ValueError("there is no candidate to choose from")
    wanted = open_index(f"exact:{metric}").metric
    for candidate in candidates:
        index = open_index(candidate.spec)
        if index.metric != wanted:
            raise ValueError(f"{candidate.spec} measures by {index.metric}, asked for is {metric}: give it as metric")
        if not candidate.efforts:
            raise ValueError(f"{candidate.spec} has no effort to try; for the defaults that is one empty dict")


def _hold_out(vectors: np.ndarray, k: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The vectors without the queries, and the queries."""
    count = min(HELD_OUT, len(vectors) // 10)
    if count < 1 or len(vectors) - count < k:
        raise ValueError(f"{len(vectors)} vectors are too few to hold out queries and find {k} answers: give queries")
    out = np.zeros(len(vectors), bool)
    out[random.choice(len(vectors), count, replace=False)] = True
    return vectors[~out], vectors[out]


def _try(
    candidate: Candidate,
    megabytes: float | None,
    vectors: np.ndarray,
    queries: np.ndarray,
    truth: Ranking,
    k: int,
    wishes: Wishes,
    stage: str,
) -> Trial:
    index, seconds = build(candidate.spec, vectors)
    measured = measure_least(index, candidate.efforts, queries, truth, wishes.recall, k)
    return Trial(index.spec, stage, wishes.missed(measured), megabytes, measured, seconds)


def measure_least(
    index: Index, efforts: Sequence[dict[str, int]], queries: np.ndarray, truth: Ranking, recall: float, k: int = 10
) -> Measured:
    """`measure` at the least of rising efforts that finds `enough`, or else at the greatest; the index stays tuned so.

    Found by bisection, which supposes that more effort never finds less.
    """
    check_queries(queries, truth, k)

    def passes(place: int) -> bool:
        found = recalls(index.tune(**efforts[place]).search(queries, k), truth, k)
        return enough(float(found.mean()), standard_error(found), recall)

    place = min(first(len(efforts), passes), len(efforts) - 1)
    return measure(index.tune(**efforts[place]), queries, truth, k)


def first(count: int, passes: Callable[[int], bool]) -> int:
    """The first of 0 … count - 1 that passes, if all after it do too; ``count`` if none does."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if passes(middle):
            high = middle
        else:
            low = middle + 1
    return low


def choose(trials: Sequence[Trial], wishes: Wishes) -> Choice:
    """The fastest that keeps all wishes; if none does, what comes nearest by `Wishes.distance`.

    Of those that miss some, what was built over all vectors goes before what was discarded over a sample, and that
    before what was not built.
    """
    keep = [trial for trial in trials if not trial.missed]
    if keep:
        best = min(keep, key=lambda trial: (trial.measured.milliseconds, trial.measured.bytes, trial.spec))
        why = f"{_said(best)}: the fastest of {len(keep)} out of {len(trials)} that keep all wishes"
        others = sorted((trial for trial in keep if trial is not best), key=lambda trial: trial.measured.milliseconds)
        if others:
            why += f"; next {_said(others[0])}"
        return Choice(best.spec, True, (), why, best, tuple(trials))
    stages = ("all", "sample", "estimate")
    best = min(
        trials,
        key=lambda trial: (
            stages.index(trial.stage),
            wishes.distance(trial.measured) if trial.measured else trial.megabytes,
            trial.spec,
        ),
    )
    where = {"all": "", "sample": " (already over a sample of the vectors)", "estimate": " (so it was not built)"}
    why = f"none of {len(trials)} keeps all wishes; {best.spec} comes nearest and misses: {'; '.join(best.missed)}"
    return Choice(best.spec, False, best.missed, why + where[best.stage], best, tuple(trials))


def _said(trial: Trial) -> str:
    measured = trial.measured
    return (
        f"{trial.spec} with recall@{measured.k} {measured.recall:.3f}, {measured.milliseconds:.3g} ms a query, "
        f"{measured.megabytes:.4g} MB"
    )
