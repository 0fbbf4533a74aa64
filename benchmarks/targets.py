"""The targets of the recommended index among a million vectors; see `benchmarks.indexes`, option ``--targets``."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.lessons.index_measurement import milliseconds_at, sufficient
from helpers.lessons.index_tuning import Candidate

if TYPE_CHECKING:
    from helpers.search.backends.faiss_backend import FaissIndex

K, ENOUGH = 10, 0.95
_FOREST = tuple({"search": nodes} for nodes in (5000, 10_000, 15_000, 20_000, 30_000, 50_000))
#: The recommended index for a million vectors, and those that it is compared with, at the efforts around `ENOUGH`.
RECOMMENDED = "hnsw"
INDEXES = {
    "exact": Candidate("exact:cosine"),
    "annoy-30": Candidate("annoy:angular?trees=30", _FOREST),
    "annoy-100": Candidate("annoy:angular?trees=100", _FOREST),
    RECOMMENDED: Candidate("faiss:hnsw?m=32", tuple({"search": width} for width in (32, 48, 64, 80, 96))),
}
#: The targets of the recommended index: at most the first number times as long as FAISS alone, and at least the other
#: two numbers times as fast as exact search and as Annoy.
MOST_OF_RAW, LEAST_OF_EXACT, LEAST_OF_ANNOY = 1.15, 20, 5
#: Rounds of the comparison with FAISS, and queries of each.
ROUNDS, QUERIES = 10, 200


def raw_times(index: "FaissIndex", queries: np.ndarray) -> dict[str, float]:
    """``milliseconds_ours, milliseconds_raw``: of one query, by an index and by FAISS's own class on the same graph.

    They take turns after each `QUERIES` queries, so that other load affects both; the first round is not measured.

    index : ``faiss:hnsw`` of float32 vectors. queries : float32 (q, dim) of length one, which FAISS needs.
    """
    import faiss

    graph = faiss.downcast_index(index._index.index)
    if not isinstance(graph, faiss.IndexHNSWFlat):
        raise TypeError(f"FAISS alone is measured with IndexHNSWFlat, got {type(graph).__name__}")
    times: dict[str, list[float]] = {"milliseconds_ours": [], "milliseconds_raw": []}
    for number in range(ROUNDS + 1):
        for name, searched in (("milliseconds_ours", index), ("milliseconds_raw", graph)):
            for query in queries[:QUERIES]:
                start = time.perf_counter()
                searched.search(query[None], K)
                if number:
                    times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(spent)) for name, spent in times.items()}


def compare(found: Mapping[str, Mapping]) -> pd.DataFrame:
    """Print whether the recommended index reaches its targets.

    Returns one row per index: ``index, spec, count, recall, milliseconds, milliseconds_at_recall, times,
    build_seconds, peak``. ``milliseconds_at_recall`` is the time at the recall of the recommended index, and ``times``
    is that time divided by the time of the recommended index. The last row is FAISS alone.
    """
    sweeps = {name: pd.DataFrame(result["rows"]) for name, result in found.items()}
    best, own = sufficient(sweeps[RECOMMENDED], ENOUGH), found[RECOMMENDED]
    lines = []
    for name, rows in sweeps.items():
        row = sufficient(rows, ENOUGH)
        at = row["milliseconds"] if name in ("exact", RECOMMENDED) else milliseconds_at(rows, best["recall"])
        line = {"index": name} | {each: row[each] for each in ("spec", "count", "recall", "milliseconds")}
        line |= {"milliseconds_at_recall": at, "times": None if at is None else at / best["milliseconds"]}
        lines.append(line | {each: found[name][each] for each in ("build_seconds", "peak")})
    # Both were measured in turn, so their ratio holds even if the computer was slower then.
    ratio = own["milliseconds_ours"] / own["milliseconds_raw"]
    raw = {"index": f"{RECOMMENDED}, FAISS alone", "spec": "IndexHNSWFlat", "count": best["count"]}
    raw |= {"recall": best["recall"], "milliseconds": own["milliseconds_raw"]}
    lines.append(raw | {"milliseconds_at_recall": own["milliseconds_raw"], "times": 1 / ratio})
    made = pd.DataFrame(lines)
    times = made.set_index("index")["times"].drop(RECOMMENDED)
    forests = times[times.index.str.startswith("annoy")]
    print(f"{verdict(best['recall'] >= ENOUGH)} recall@{K} {best['recall']:.3f} (target: {ENOUGH} or more)")
    print(f"{verdict(ratio <= MOST_OF_RAW)} {ratio:.2f} times as long as FAISS alone (target: at most {MOST_OF_RAW})")
    for label, value, least in (
        ("exact search", times["exact"], LEAST_OF_EXACT),
        (f"{forests.idxmin()} at equal recall", forests.min(), LEAST_OF_ANNOY),
    ):
        print(f"{verdict(value >= least)} {value:.1f} times as fast as {label} (target: {least} or more)")
    return made


def verdict(reached: bool) -> str:
    """The word with which a line about a target begins."""
    return "reached:" if reached else "MISSED:"
