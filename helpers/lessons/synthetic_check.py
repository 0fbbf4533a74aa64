"""Checks that no index looks better on synthetic vectors than on as many real ones.

The synthetic vectors are made from a small part of the real ones.

``growth`` is the number of synthetic vectors per real one. A million synthetic vectors from 11,000 real ones have the
growth 88. There are not a million real ones to compare them with, but the same growth can be checked on a smaller
scale: 11,000 synthetic vectors from 128 real ones are compared with 11,000 real ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.lessons.index_measurement import exact_truth, recalls
from helpers.lessons.index_tuning import Candidate
from helpers.lessons.synthetic_vectors import NEIGHBORS, synthesize
from helpers.search.index import open_index

K = 10
#: The end of the name of a column with the error of a difference.
ERROR = " ±"
#: Of a query: their distances are compared.
RANKS = (1, 10, 100)
#: One index of each kind at low efforts, where its recall differs most from one. The graph and the trees are those of
#: `benchmarks.targets`.
INDEXES = {
    "lists": Candidate("faiss:ivf", ({"probes": 1}, {"probes": 4})),
    "sparse graph": Candidate("faiss:hnsw?m=4&construction=20", ({"search": 10}, {"search": 40})),
    "graph": Candidate("faiss:hnsw?m=32", ({"search": 10}, {"search": 40})),
    "trees": Candidate("annoy:angular?trees=30", ({"search": 300}, {"search": 3000})),
    "codes": Candidate("faiss:pq?refine=none"),
    "rotated codes": Candidate("faiss:opq?depth=2", ({"probes": 4},)),
    "int8 graph": Candidate("usearch:cosine?dtype=i8", ({"expansion_search": 32},)),
}


def intrinsic_dimension(distances: np.ndarray) -> float:
    """The median local dimension over queries, from increasing distances (q, k).

    Source: Levina & Bickel 2004, "Maximum likelihood estimation of intrinsic dimension".
    """
    return float(np.median(1 / np.log(distances[:, -1:] / distances[:, :-1]).mean(axis=1)))


def describe(
    vectors: np.ndarray, queries: np.ndarray, indexes: Mapping[str, Candidate] = INDEXES
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """A gallery as its queries see it: median distances and the local dimension; and the recalls (q,) of indexes.

    vectors : float (n, dim) of length one, at least 100. queries : float (q, dim).
    """
    truth = exact_truth(vectors, queries, max(RANKS), cache=False)
    distances = np.sqrt(np.maximum(2 - 2 * truth.scores, 1e-12))
    row = {f"distance {rank}": float(np.median(distances[:, rank - 1])) for rank in RANKS}
    row["dimension"] = intrinsic_dimension(distances[:, : 2 * K])
    found = {}
    for name, candidate in indexes.items():
        index = open_index(candidate.spec).add(vectors)
        for effort in candidate.efforts:
            label = " ".join([name, *(f"{value}" for value in effort.values())])
            found[label] = recalls(index.tune(**effort).search(queries, K), truth, K)
    return row, found


def compare(
    real: np.ndarray, queries: np.ndarray, growths: Sequence[int], subsets: int = 3, seed: int = 0,
    indexes: Mapping[str, Candidate] = INDEXES,
) -> pd.DataFrame:  # fmt: skip
    """One row per gallery: the real vectors, and for each growth as many synthetic ones from ``subsets`` random parts.

    Returns columns ``gallery, growth, subset``, those of `describe` with mean recalls, and for each index half of the
    95 % interval of the difference from the recall over the real vectors, paired by query (`ERROR` ends the name). The
    first row is that of the real vectors, with the growth 1.

    Raises ValueError: a growth leaves too few real vectors.
    """
    most = len(real) // (NEIGHBORS + 1)
    if not all(1 <= growth <= most for growth in growths):
        raise ValueError(f"growth must be from 1 to {most} with {len(real)} real vectors, got {list(growths)}")
    row, over_real = describe(real, queries, indexes)
    rows = [{"gallery": f"{len(real):,} REAL", "growth": 1, "subset": 0} | row | _recalls(over_real, over_real)]
    random = np.random.default_rng(seed)
    for growth in growths:
        for subset in range(subsets):
            part = real[random.permutation(len(real))[: len(real) // growth]]
            made = np.concatenate(list(synthesize(part, len(real), seed + subset)))
            name = f"{len(real):,} SYNTHETIC from {len(part):,}"
            row, found = describe(made, queries, indexes)
            rows.append({"gallery": name, "growth": growth, "subset": subset} | row | _recalls(found, over_real))
    return pd.DataFrame(rows)


def _recalls(found: dict[str, np.ndarray], over_real: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean recall of each index, and the error of its difference."""
    columns: dict[str, float] = {}
    for name, values in found.items():
        error = 1.96 * (values - over_real[name]).std(ddof=1) / len(values) ** 0.5
        columns |= {name: float(values.mean()), f"{name}{ERROR}": float(error)}
    return columns


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `compare` as a table: one column per gallery, the mean over its subsets."""
    errors = [name for name in rows if name.endswith(ERROR)]
    return rows.drop(columns=["growth", "subset", *errors]).groupby("gallery", sort=False).mean().T


def largest_gain(rows: pd.DataFrame) -> tuple[str, float, float]:
    """The index whose recall over synthetic vectors exceeds that over real ones by most, at the last growth.

    Returns its name, the difference (mean over the subsets), and half of the 95 % interval over the queries (the mean
    over the subsets, as if they had the same error). A negative difference says that each index finds less among
    synthetic vectors. An index that finds everything among the real ones cannot gain; it is left out.
    """
    last = rows[rows["growth"] == rows["growth"].iloc[-1]]
    names = [name.removesuffix(ERROR) for name in rows if name.endswith(ERROR)]
    measured = [name for name in names if rows[name].iloc[0] < 1]
    gains = last[measured].mean() - rows[measured].iloc[0]
    best = str(gains.idxmax())
    return best, float(gains.max()), float(last[f"{best}{ERROR}"].mean())
