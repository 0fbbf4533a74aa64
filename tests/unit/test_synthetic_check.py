"""The check of synthetic vectors names an index that they flatter, and finds the dimension of a neighborhood."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import targets
from helpers.lessons import synthetic_check
from helpers.lessons.index_tuning import Candidate
from helpers.lessons.synthetic_vectors import synthesize
from helpers.search.index import open_index
from helpers.vectors import l2_normalize


def plane(count, dim, seed=0):
    """float32 (count, 16) of length one, near one direction, in ``dim`` other ones."""
    vectors = np.zeros((count, 16), np.float32)
    vectors[:, 0] = 20
    vectors[:, 1 : dim + 1] = np.random.default_rng(seed).standard_normal((count, dim))
    return l2_normalize(vectors)


#: An index that finds everything cannot gain.
EXACT = {"codes 1": 1.0, "codes 1 ±": 0.0}
ONE = {"lists": Candidate("faiss:ivf?lists=16", ({"probes": 1},))}


@pytest.mark.parametrize("dim", [2, 6])
def test_the_dimension_of_a_neighborhood(dim):
    row, recalls = synthetic_check.describe(plane(3000, dim), plane(40, dim, 1), ONE)
    assert row["dimension"] == pytest.approx(dim, rel=0.25)
    assert row["distance 1"] < row["distance 10"] < row["distance 100"]
    assert list(recalls) == ["lists 1"] and recalls["lists 1"].shape == (40,) and 0 < recalls["lists 1"].mean() < 1


def test_each_growth_is_made_from_fewer_real_vectors():
    rows = synthetic_check.compare(plane(800, 4), plane(20, 4, 1), (2, 40), subsets=2, indexes=ONE)
    assert rows["growth"].tolist() == [1, 2, 2, 40, 40] and rows["subset"].tolist() == [0, 0, 1, 0, 1]
    assert rows["gallery"].tolist()[::2] == ["800 REAL", "800 SYNTHETIC from 400", "800 SYNTHETIC from 20"]
    assert rows["distance 1"][3] != rows["distance 1"][4]
    table = synthetic_check.table(rows)
    assert list(table) == list(dict.fromkeys(rows["gallery"])) and "lists 1 ±" not in table.index
    assert table.loc["lists 1"].iloc[2] == pytest.approx(rows["lists 1"][3:].mean())


def test_an_index_that_is_flattered_is_named():
    rows = pd.DataFrame({"growth": [1, 2, 8, 8], "lists 1": [0.5, 0.9, 0.4, 0.5], "graph 10": [0.6, 0.1, 0.7, 0.8]})
    rows = rows.assign(**{"lists 1 ±": [0, 0.1, 0.01, 0.03], "graph 10 ±": [0, 0.1, 0.03, 0.05]})
    flattered = ("graph 10", pytest.approx(0.15), pytest.approx(0.04))
    assert synthetic_check.largest_gain(rows) == flattered
    assert synthetic_check.largest_gain(rows.assign(**EXACT)) == flattered
    lists = rows.drop(columns=["graph 10", "graph 10 ±"]).assign(**EXACT)
    assert synthetic_check.largest_gain(lists) == ("lists 1", pytest.approx(-0.05), pytest.approx(0.02))


def test_the_error_is_that_of_the_difference_paired_by_query():
    real, queries = plane(2000, 4), plane(50, 4, 1)
    rows = synthetic_check.compare(real, queries, (2,), subsets=1, indexes=ONE)
    _, over_real = synthetic_check.describe(real, queries, ONE)
    part = real[np.random.default_rng(0).permutation(2000)[:1000]]
    _, over_made = synthetic_check.describe(np.concatenate(list(synthesize(part, 2000, 0))), queries, ONE)
    differences = over_made["lists 1"] - over_real["lists 1"]
    low, high = stats.t.interval(0.95, 49, differences.mean(), stats.sem(differences))
    assert rows["lists 1"][1] - rows["lists 1"][0] == pytest.approx(differences.mean())
    assert rows["lists 1 ±"].tolist() == [0, pytest.approx((high - low) / 2, rel=0.05)]


@pytest.mark.parametrize("growth", [0, 73])
def test_a_growth_with_too_few_real_vectors_is_rejected(growth):
    with pytest.raises(ValueError, match="growth must be from 1 to 72"):
        synthetic_check.compare(plane(800, 4), plane(20, 4, 1), (growth,))


def found(milliseconds, recalls=(0.9, 0.96), **other):
    rows = [
        {"spec": "s", "count": 100, "recall": recall, "milliseconds": time}
        for recall, time in zip(recalls, milliseconds, strict=True)
    ]
    return {"rows": rows, "build_seconds": 1.0, "peak": 5} | other


@pytest.mark.parametrize(
    ("ours", "raw", "forest", "verdicts"),
    [(1.1, 1.0, 6.0, ["reached"] * 4), (1.2, 1.0, 4.0, ["reached", "MISSED", "reached", "MISSED"])],
)
def test_targets_are_compared_at_equal_recall(ours, raw, forest, verdicts, capsys):
    measured = {
        "exact": found([25.0], [1.0]),
        "annoy-30": found([0.5, 99.0], [0.5, 0.96]),
        "annoy-100": found([2.0, 2 * forest - 2.0], [0.94, 0.98]),
        "hnsw": found([0.5, 1.0], milliseconds_ours=ours, milliseconds_raw=raw),
    }
    table = targets.compare(measured).set_index("index")
    assert table.loc["annoy-100", "milliseconds_at_recall"] == pytest.approx(forest)
    assert table.loc["annoy-100", "times"] == pytest.approx(forest) and table.loc["exact", "times"] == 25
    assert table.loc["hnsw, FAISS alone", "times"] == pytest.approx(raw / ours)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == verdicts


def test_faiss_alone_searches_the_same_graph():
    vectors = plane(300, 6)
    index = open_index(targets.INDEXES[targets.RECOMMENDED].spec).add(vectors)
    times = targets.raw_times(index, vectors[:5])
    assert set(times) == {"milliseconds_ours", "milliseconds_raw"} and min(times.values()) > 0
    with pytest.raises(TypeError, match="IndexHNSWFlat"):
        targets.raw_times(open_index("faiss:ivf?lists=4").add(vectors), vectors[:5])
