"""A comparison as plain JSON: parameters, versions, scores with intervals, costs, differences and queries."""

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from helpers import extras
from helpers.evaluation.comparison import METRICS, RESAMPLES, Comparison, MethodResult
from helpers.search.ranking import PAD

#: The version of the format. It increases when a key changes its meaning.
FORMAT = 1
#: Distributions whose versions can change the numbers.
_PACKAGES = (
    "lookalike",
    "numpy",
    "scipy",
    "keras",
    "openvino",
    "opencv-contrib-python-headless",
    "pillow",
    "faiss-cpu",
)


def record(comparison: Comparison, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison as a dictionary of JSON's types; a number that does not exist is None.

    facts : what the caller knows, such as the command and the numbers of images; they come first.
    """
    task, recommended = comparison.task, comparison.recommendation
    content = {
        "format": FORMAT,
        **facts,
        "mode": task.kind,
        "seed": task.seed,
        "metric": METRICS[-1],
        "resamples": RESAMPLES,
        "queries": {
            "count": len(task.protocol.queries),
            "images": task.n_units,
            "eligible": task.eligible,
            "without_relevant": task.alone,
            "keys": [task.protocol.keys[id] for id in task.protocol.queries.tolist()],
        },
        "gallery": len(task.protocol.gallery),
        "methods": [_method(comparison, name, one) for name, one in comparison.results.items()],
        "differences": [
            {"first": first, "second": second, **one._asdict()}
            for (first, second), one in comparison.differences.items()
        ],
        "recommendation": {name: getattr(recommended, name) for name in ("method", "best", "tied", "worse", "text")},
        "disagreements": _disagreements(comparison),
        "top1_by_change": comparison.recall_by_change(),
        "versions": {"python": platform.python_version()}
        | {name: extras.version(name) or "not installed" for name in _PACKAGES},
        "computer": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
    }
    return _plain(content)


def _method(comparison: Comparison, name: str, one: MethodResult) -> dict[str, Any]:
    metrics = {
        metric: {
            "value": one.scores.mean(metric),
            **one.intervals[metric]._asdict(),
            "chance": one.scores.mean_chance(metric),
            "ceiling": one.scores.mean_ceiling(metric),
        }
        for metric in METRICS
    }
    best = comparison.recommendation.best
    return {
        "name": name,
        **asdict(one.method),
        "dim": one.dim,
        "metrics": metrics,
        "minus_best": None if name == best else comparison.differences[name, best]._asdict(),
        "images_per_second": one.images_per_second.value,
        "images_timed": one.images_per_second.timed,
        "query_ms": one.query_milliseconds.value,
        "queries_timed": one.query_milliseconds.timed,
        "bytes_per_image": one.bytes_per_image,
        "vector_bytes": 4 * one.dim,
        "average_precision": one.scores.values[METRICS[-1]].tolist(),
    }


def _disagreements(comparison: Comparison) -> list[dict[str, Any]]:
    """The queries where the best method and its rival differ most, with the first results of both."""
    pair = next(iter(comparison.results)), comparison.rival
    task, rows = comparison.task, []
    for row in comparison.disagreements(*pair).tolist():
        results = {}
        for name in pair:
            one = comparison.results[name]
            results[name] = {
                "average_precision": one.scores.values[METRICS[-1]][row],
                "first": [
                    {"key": task.protocol.keys[id], "relevant": bool(right)}
                    for id, right in zip(one.first[row].tolist(), one.right[row].tolist(), strict=True)
                    if id != PAD
                ],
            }
        rows.append({"query": task.protocol.keys[task.protocol.queries[row]], "methods": results})
    return rows


def _plain(value: Any) -> Any:
    """Only JSON's types: NaN, which JSON lacks, becomes None."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
