"""Measuring an index: recall by hand, time with an index of known speed, truth by brute force, estimated memory."""

import time

import numpy as np
import pandas as pd
import pytest

from helpers import paths
from helpers.features.results import ResultsWarning
from helpers.lessons import index_measurement
from helpers.lessons.index_measurement import (
    build,
    estimated_bytes,
    exact_truth,
    measure,
    recalls,
    standard_error,
)
from helpers.search.index import open_index
from helpers.search.ranking import Ranking


def vectors_of(n, dim=16, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def ranking(*rows):
    ids = np.array(rows)
    return Ranking(ids, np.where(ids < 0, -np.inf, -np.arange(ids.shape[1], dtype=float)))


class Slow:
    """Returns the given results; a single query takes 2 ms, every tenth 12 ms, a batch 40 ms."""

    spec, dim, nbytes = "slow:cosine", 16, 3_500_000

    def __init__(self, truth):
        self.truth, self.calls = truth, []

    def __len__(self):
        return 77

    def search(self, queries, k):
        self.calls.append(len(queries))
        if len(queries) > 1:
            time.sleep(0.04)
            return self.truth.head(k)
        time.sleep(0.012 if self.calls.count(1) % 10 == 0 else 0.002)
        return self.truth.head(k)


# ---- recall ------------------------------------------------------------------------------------------------------


def test_recall_counts_true_results_whatever_their_order():
    truth = ranking([1, 2, 3], [4, 5, 6], [7, 8, 9])
    found = ranking([3, 1, 2], [4, 9, 5], [-1, -1, -1])
    np.testing.assert_allclose(recalls(found, truth, 3), [1, 2 / 3, 0])


def test_recall_of_k_looks_at_the_first_k_of_both():
    np.testing.assert_allclose(recalls(ranking([2, 3, 1]), ranking([1, 2, 3]), 2), [0.5])


def test_recall_where_fewer_are_held_than_k_is_of_those():
    np.testing.assert_allclose(recalls(ranking([5, 6, -1]), ranking([5, 7, -1]), 3), [0.5])


def test_the_standard_error_is_that_of_a_mean():
    assert standard_error(np.array([0.0, 1.0, 0.0, 1.0])) == pytest.approx((1 / 3) ** 0.5 / 2)
    assert standard_error(np.array([1.0])) == 0


# ---- measure -----------------------------------------------------------------------------------------------------


def test_the_least_effort_that_suffices_or_else_the_one_that_finds_most():
    rows = pd.DataFrame({"recall": [0.5, 0.96, 0.99, 0.94]}, index=[3, 5, 7, 9])
    assert index_measurement.sufficient(rows).name == 5
    assert index_measurement.sufficient(rows, 0.99).name == 7
    assert index_measurement.sufficient(rows, 1).name == 7
    assert index_measurement.sufficient(rows.iloc[[0]]).name == 3


def test_time_at_a_recall_lies_between_those_of_the_efforts_around_it():
    rows = pd.DataFrame({"recall": [0.5, 0.9, 0.8, 1.0], "milliseconds": [1.0, 2.0, 3.0, 5.0]}, index=[4, 5, 6, 7])
    assert index_measurement.milliseconds_at(rows, 0.7) == pytest.approx(1.5)
    assert index_measurement.milliseconds_at(rows, 0.95) == pytest.approx(4)
    # The first effort is the least there is.
    assert index_measurement.milliseconds_at(rows, 0.1) == 1
    assert index_measurement.milliseconds_at(rows.iloc[:3], 0.95) is None


def test_times_are_of_single_queries_and_of_a_batch():
    index = Slow(ranking(*[[0, 1]] * 60))
    found = measure(index, vectors_of(60), index.truth, 2)
    assert (found.spec, found.count, found.dim, found.k, found.queries) == ("slow:cosine", 77, 16, 2, 60)
    assert (found.recall, found.recall_error, found.bytes, found.megabytes) == (1, 0, 3_500_000, 3.5)
    assert 2 <= found.milliseconds < 12
    assert found.milliseconds95 >= 12
    assert found.per_second <= 60 / 0.04
    assert found.threads >= 1


def test_some_queries_go_before_the_clock_runs():
    index = Slow(ranking(*[[0, 1]] * 60))
    measure(index, vectors_of(60), index.truth, 2)
    assert index.calls[:2] == [index_measurement.WARM_UP, 60]
    assert index.calls.count(1) == index_measurement.WARM_UP + 60


def test_many_queries_all_run_in_a_batch_but_not_all_one_by_one():
    count = index_measurement.SINGLES + 50
    index = Slow(ranking(*[[0, 1]] * count))
    measure(index, vectors_of(count), index.truth, 2)
    assert count in index.calls
    assert index.calls.count(1) == index_measurement.WARM_UP + index_measurement.SINGLES


def test_an_exact_index_finds_all_and_a_lame_one_less():
    vectors, queries = vectors_of(2000), vectors_of(50, seed=1)
    truth = exact_truth(vectors, queries, cache=False)
    assert measure(build("faiss:flat", vectors)[0], queries, truth).recall == 1
    lame = measure(build("faiss:ivf?probes=1", vectors)[0], queries, truth)
    assert lame.recall < 0.9
    assert lame.recall_error > 0


@pytest.mark.parametrize(
    ("queries", "rows", "k", "message"),
    [
        (vectors_of(3), 2, 2, "one row per query, and at least one: got 2 for 3"),
        (vectors_of(0), 0, 2, "got 0 for 0"),
        (vectors_of(2), 2, 3, "recall of 3 results needs 3 true ones, truth has 2: make it with k=3"),
        (vectors_of(2), 2, 0, "k must be a whole number of at least 1"),
    ],
)
def test_queries_that_do_not_fit_the_truth_are_refused(queries, rows, k, message):
    truth = Ranking(np.tile([0, 1], (rows, 1)), np.tile([0.0, -1.0], (rows, 1)))
    with pytest.raises(ValueError, match=message):
        measure(open_index("exact:cosine").add(vectors_of(5)), queries, truth, k)


def test_building_leaves_an_index_that_is_ready():
    pytest.importorskip("annoy", reason="NOT TESTED: Annoy is not installed (requirements-compiled.txt)")
    index, seconds = build("annoy:cosine?trees=5", vectors_of(300))
    assert len(index) == 300
    assert seconds > 0
    # Before its trees are made, Annoy holds vectors only.
    assert index.nbytes > open_index("annoy:cosine?trees=5").add(vectors_of(300)).nbytes


# ---- truth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
def test_truth_is_what_brute_force_finds(metric, monkeypatch):
    monkeypatch.setattr(index_measurement, "_STEP", 64)
    vectors, queries = vectors_of(300), vectors_of(20, seed=1)
    # Equal vectors in different parts stand by rising id.
    vectors[299] = vectors[3]
    truth = exact_truth(vectors, queries, 8, metric, cache=False)
    whole = open_index(f"exact:{metric}").add(vectors).search(queries, 8)
    assert np.array_equal(truth.ids, whole.ids)
    assert np.array_equal(truth.scores, whole.scores)
    difference = queries[:, None].astype(float) - vectors
    by_hand = {
        "cosine": 1 - queries @ vectors.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(vectors, axis=1),
        "euclidean": np.linalg.norm(difference, axis=2),
        "manhattan": np.abs(difference).sum(axis=2),
    }[metric]
    np.testing.assert_allclose(
        np.take_along_axis(by_hand, truth.ids, axis=1), np.sort(by_hand, axis=1)[:, :8], atol=1e-6
    )


def test_truth_of_fewer_vectors_than_results_is_padded():
    assert exact_truth(vectors_of(3), vectors_of(1), 5, cache=False).ids[0, 3:].tolist() == [-1, -1]


def test_truth_is_found_once_and_kept_by_content(own_cache, monkeypatch):
    vectors, queries = vectors_of(100), vectors_of(5, seed=1)
    first = exact_truth(vectors, queries, 3)
    others = [exact_truth(vectors, queries, 4), exact_truth(vectors, queries, 3, "euclidean")]
    changed = vectors.copy()
    changed[first.ids[0, 0]] = -queries[0]
    others += [exact_truth(changed, queries, 3), exact_truth(vectors, queries[::-1], 3)]
    assert len(list((paths.cache_dir() / "results").glob("truth-*"))) == 5
    assert first.ids[0, 0] not in others[2].ids[0]
    monkeypatch.setattr(index_measurement, "open_index", None)
    again = exact_truth(vectors.copy(), queries, 3)
    assert np.array_equal(again.ids, first.ids)
    assert np.array_equal(again.scores, first.scores)
    assert np.array_equal(others[3].ids, first.ids[::-1])


@pytest.mark.parametrize("damage", [b"", b"no zip file", None])
def test_truth_whose_file_is_damaged_is_found_anew(own_cache, damage):
    vectors, queries = vectors_of(100), vectors_of(5, seed=1)
    first = exact_truth(vectors, queries, 3)
    (path,) = (paths.cache_dir() / "results").glob("truth-*")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.warns(ResultsWarning, match="is damaged"):
        again = exact_truth(vectors, queries, 3)
    assert np.array_equal(again.ids, first.ids)
    assert path.read_bytes() == whole


# ---- memory before building --------------------------------------------------------------------------------------

SPECS = [
    "exact:cosine",
    "sklearn:euclidean",
    "faiss:flat",
    "faiss:flat?storage=int8",
    "faiss:ivf",
    "faiss:ivf?lists=16&storage=float16",
    "faiss:hnsw",
    "faiss:hnsw?m=8",
    "faiss:pq?bytes=4",
    "faiss:opq",
    "faiss:opq?refine=none",
    "usearch:cosine",
    "usearch:cosine?dtype=i8",
    "annoy:cosine",
    "annoy:manhattan?trees=100",
]


@pytest.mark.parametrize(("count", "dim"), [(3000, 32), (1500, 100)])
@pytest.mark.parametrize("spec", SPECS)
def test_memory_is_known_before_building(spec, count, dim):
    if spec.startswith("annoy"):
        pytest.importorskip("annoy", reason="NOT TESTED: Annoy is not installed (requirements-compiled.txt)")
    index, _ = build(spec, vectors_of(count, dim))
    assert estimated_bytes(spec, count, dim) == pytest.approx(
        index.nbytes, rel=0.1 if spec.startswith("annoy") else 0.02
    )


def test_usearch_takes_memory_in_ever_larger_pieces():
    graph = open_index("usearch:cosine?expansion_add=2&dtype=f16").add(vectors_of(20_000, 256))
    # 9.8 MiB of numbers in 8 + 16 MiB, 3.7 MiB of links in 8.
    assert graph.nbytes == pytest.approx(32 * 2**20, rel=0.02)
    assert estimated_bytes(graph.spec, 20_000, 256) == pytest.approx(graph.nbytes, rel=0.02)


def test_the_memory_of_a_server_is_not_guessed(tmp_path):
    with pytest.raises(ValueError, match="cannot be estimated; known: exact, sklearn, faiss, usearch, annoy"):
        estimated_bytes(f"milvus:{tmp_path}/some.db", 1000, 32)
    assert not list(tmp_path.iterdir()), "an estimate makes no file"
