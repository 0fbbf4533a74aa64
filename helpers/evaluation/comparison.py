"""Compares methods of image search on the same queries: extractors, backends and re-rankers.

`compare` measures scores and costs of each combination, and tests all pairs of them on the same queries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tqdm.auto import tqdm

from helpers.evaluation.comparison_costs import Cost, extraction_rate
from helpers.evaluation.comparison_search import Searcher
from helpers.evaluation.comparison_tasks import Task
from helpers.evaluation.intervals import Difference, Interval, bootstrap_intervals, simultaneous_differences
from helpers.evaluation.metrics import Scores, evaluate, relevance_mask
from helpers.evaluation.recommendation import Measured, Recommendation, recommend
from helpers.features.extractor import FeatureExtractor
from helpers.search.index import open_index
from helpers.search.rerank.registry import reranker

#: The metrics of a comparison; the last one decides.
METRICS = ("top-1", "top-5", "mAP")
#: Draws of the bootstrap.
RESAMPLES = 10_000
#: The most methods: all pairs of them are tested, and more tests need larger differences.
MOST_METHODS = 24
#: Results of each query that are kept.
KEPT = 10
#: Changed copies in memory at a time.
_BATCH = 32


@dataclass(frozen=True, order=True)
class Method:
    """A way to search: the names of an extractor, a backend and a re-ranker."""

    extractor: str
    backend: str
    reranker: str


@dataclass(frozen=True, eq=False)
class MethodResult:
    """Scores and costs of a method.

    Attributes
    ----------
    dim : numbers of a vector.
    intervals : metric → 95 % interval.
    first : int64 (q, at most `KEPT`), ids of the first results; -1 pads. right : bool, which of them are relevant.
    images_per_second : from file to vector. query_milliseconds : from vector to results.
    bytes_per_image : of the index.
    """

    method: Method
    dim: int
    scores: Scores
    intervals: dict[str, Interval]
    first: np.ndarray
    right: np.ndarray
    images_per_second: Cost
    query_milliseconds: Cost
    bytes_per_image: float

    @property
    def milliseconds(self) -> float:
        """From the file of a query to its results."""
        return 1000 / self.images_per_second.value + self.query_milliseconds.value


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `compare`.

    Attributes
    ----------
    results : name → result, from the highest mAP to the lowest. Names contain what differs between the methods.
    """

    task: Task
    results: dict[str, MethodResult]

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """(a, b) → mAP of a - mAP of b; the intervals hold for all pairs together."""
        values = {name: one.scores.values[METRICS[-1]] for name, one in self.results.items()}
        return simultaneous_differences(values, resamples=RESAMPLES, seed=self.task.seed, clusters=self.task.clusters)

    @cached_property
    def recommendation(self) -> Recommendation:
        """The method to use, with the uncertainty."""
        metric = METRICS[-1]
        methods = {
            name: Measured(one.scores.mean(metric), *one.intervals[metric], one.milliseconds, one.bytes_per_image)
            for name, one in self.results.items()
        }
        chance = next(iter(self.results.values())).scores.mean_chance(metric)
        unit = "images" if self.task.changes else "queries"
        first_right = {name: one.scores.mean("top-1") for name, one in self.results.items()}
        return recommend(methods, self.differences, chance, self.task.n_units, unit, first_right)

    @cached_property
    def rival(self) -> str:
        """The method to show next to the best one: the recommended one, or else the second best."""
        recommended = self.recommendation.method
        names = list(self.results)
        return recommended if recommended not in (None, names[0]) else names[1]

    def disagreements(self, first: str, second: str, most: int = 10) -> np.ndarray:
        """int64: the query rows where the average precision of two methods differs most.

        In half of them the first method is better, in the other half the second one. If one half has too few rows, the
        other has more. The rows are in order, from the largest difference to the smallest.
        """
        gains = self.results[first].scores.values[METRICS[-1]] - self.results[second].scores.values[METRICS[-1]]
        order = np.argsort(-np.abs(gains), kind="stable")
        better, worse = order[gains[order] > 0], order[gains[order] < 0]
        half = most // 2
        few = min(len(worse), max(half, most - len(better)))
        rows = np.concatenate([better[: most - few], worse[:few]])
        return rows[np.argsort(-np.abs(gains[rows]), kind="stable")]

    def recall_by_change(self) -> dict[str, dict[str, float]]:
        """For known items, change → name of the method → share of the queries whose first result is the original."""
        changes = np.array([str(change) for change in self.task.changes])
        return {
            change: {
                name: float(one.scores.values["top-1"][changes == change].mean()) for name, one in self.results.items()
            }
            for change in dict.fromkeys(changes.tolist())
        }


def compare(
    task: Task,
    extractors: Mapping[str, FeatureExtractor],
    vectors: Mapping[str, np.ndarray],
    methods: Sequence[Method],
) -> Comparison:
    """Measure each method on the queries of a task.

    Parameters
    ----------
    extractors : name → extractor, for the measurement of the rate.
    vectors : name → float32 (n + copies, dim), the vectors of the images, and of the changed copies (`copy_vectors`).
    methods : at least two, at most `MOST_METHODS`; see `combinations`.

    Scores depend on the images and the seed only; times differ between runs.
    """
    if not 2 <= len(methods) <= MOST_METHODS:
        raise ValueError(f"a comparison needs 2 to {MOST_METHODS} methods, got {len(methods)}")
    names = method_names(methods)
    files = [task.images.paths[row] for row in np.random.default_rng(task.seed).permutation(len(task.images))]
    compared = dict.fromkeys(one.extractor for one in methods)
    rates = {
        name: extraction_rate(extractors[name], files)
        for name in tqdm(compared, desc="speed of extraction", disable=None)
    }
    found: dict[str, MethodResult] = {}
    searchers: dict[tuple[str, str], Searcher] = {}
    for name, method in zip(names, methods, strict=True):
        key = method.extractor, method.backend
        # Methods with the same extractor and backend share an index. Only the last one is in memory.
        if key not in searchers:
            searchers = {key: Searcher(task, vectors[method.extractor], method.backend)}
        found[name] = _measured(method, searchers[key], rates[method.extractor], name)
    order = sorted(found, key=lambda name: (-found[name].scores.mean(METRICS[-1]), found[name].milliseconds, name))
    return Comparison(task, {name: found[name] for name in order})


def combinations(
    extractors: Iterable[str], backends: Iterable[str], rerankers: Sequence[str]
) -> tuple[list[Method], list[str]]:
    """All methods of some extractors, backends and re-rankers, and a message for each combination that is not possible.

    Raises ValueError for an unknown backend or re-ranker.
    """
    chosen = [reranker(name) for name in rerankers]
    opened = {spec: open_index(spec) for spec in backends}
    methods, messages = [], {}
    for extractor in extractors:
        for spec, index in opened.items():
            for one in chosen:
                try:
                    one.check(index.metric, has_image=True)
                except ValueError as error:
                    messages[spec, one.name] = f"{one.name} with {spec} is left out: {error}"
                else:
                    methods.append(Method(extractor, spec, one.name))
    return methods, list(messages.values())


def method_names(methods: Sequence[Method]) -> list[str]:
    """A name for each method, of the parts that differ between the methods, such as "resnet50 with diffusion"."""
    several = {part: len({getattr(one, part) for one in methods}) > 1 for part in ("extractor", "backend", "reranker")}
    return [_method_name(one, several) for one in methods]


def _method_name(method: Method, several: Mapping[str, bool]) -> str:
    name = " in ".join(getattr(method, part) for part in ("extractor", "backend") if several[part])
    if not several["reranker"]:
        return name or method.extractor
    if method.reranker == "none":
        return name or "no re-ranking"
    return f"{name} with {method.reranker}" if name else method.reranker


def copy_vectors(task: Task, extractors: Mapping[str, FeatureExtractor]) -> dict[str, np.ndarray]:
    """Name → float32 (q, dim): the vectors of the changed copies; each copy is made once, for all extractors."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in extractors}
    for start in tqdm(range(0, len(task.changes), _BATCH), desc="changed copies", disable=None):
        copies = [task.pixels(row) for row in range(start, min(start + _BATCH, len(task.changes)))]
        for name, extractor in extractors.items():
            parts[name].append(extractor.extract_arrays(copies, cache=True))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _measured(method: Method, searcher: Searcher, rate: Cost, name: str) -> MethodResult:
    """Rank the gallery for all queries, score the rankings, and measure the time of a query; ``name`` is displayed."""
    task = searcher.task
    ranking = searcher.ranking(method.reranker, name)
    scores = evaluate(ranking, task.protocol, ks=(1, 5), map_ks=())
    values = {metric: scores.values[metric] for metric in METRICS}
    intervals = bootstrap_intervals(values, resamples=RESAMPLES, seed=task.seed, clusters=task.clusters)
    first = ranking.head(KEPT)
    return MethodResult(
        method, searcher.vectors.shape[1], scores, intervals, first.ids, relevance_mask(first, task.protocol), rate,
        searcher.time(method.reranker), searcher.bytes_per_image,
    )  # fmt: skip
