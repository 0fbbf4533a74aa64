"""Choosing an index: requirements hold in an independent measurement, and bisection finds the least effort."""

from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest

from helpers.lessons import index_tuning
from helpers.lessons.index_measurement import (
    Measurement,
    build,
    estimated_bytes,
    exact_truth,
    measure,
    recalls,
    standard_error,
)
from helpers.lessons.index_tuning import (
    Candidate,
    Requirements,
    choose,
    measure_least,
    meets,
    sweep,
    tune,
)
from helpers.search.index import open_index

PROBES = tuple({"probes": lists} for lists in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64))
WIDTHS = tuple({"search": width} for width in (4, 8, 16, 32, 64, 128, 256))
CODES = tuple({"probes": lists, "depth": lists} for lists in (4, 8, 16, 32, 64))
IVF = Candidate("faiss:ivf", PROBES)
HNSW = Candidate("faiss:hnsw?m=8", WIDTHS)
EXACT = Candidate("exact:cosine")


def clustered(n, dim=32, seed=0):
    """float32 (n, dim): 60 classes that overlap, each in few directions, as embeddings of images are."""
    shape, random = np.random.default_rng(99), np.random.default_rng(seed)
    centers, axes = shape.standard_normal((60, dim)), shape.standard_normal((60, 10, dim))
    which = random.integers(0, 60, n)
    return (centers[which] + 0.4 * np.einsum("nk,nkd->nd", random.standard_normal((n, 10)), axes[which])).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def vectors():
    return clustered(5000)


@pytest.fixture(autouse=True)
def quiet(own_cache):
    """A cache of its own, and one thread, with which a graph comes out the same every time."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def measured(spec="a", recall=0.99, error=0.0, ms=1.0, mb=10.0):
    return Measurement(spec, 1000, 32, 10, 100, recall, error, ms, 2 * ms, 1000 / ms, round(mb * 1e6), 1)


def trials(requirements, *numbers, large=()):
    """The table of `choose`: indexes with these numbers, and others that were too large to be built."""
    rows = [measured(**each) for each in numbers]
    missed = [requirements.missed(each) for each in rows]
    rows = [
        each.row() | {"over": "all", "missed": "; ".join(texts), "distance": sum(texts.values())}
        for each, texts in zip(rows, missed, strict=True)
    ]
    rows += [
        {"spec": spec, "over": "estimate", "missed": f"about {size} MB by estimate", "distance": size}
        for spec, size in large
    ]
    return pd.DataFrame(rows)


# ---- requirements ------------------------------------------------------------------------------------------------


def test_what_is_kept_is_not_missed():
    assert Requirements(0.95, 1.0, 10.0).missed(measured(recall=0.95)) == {}


def test_all_that_is_missed_is_said():
    missed = Requirements(0.95, 0.5, 8).missed(measured(recall=0.9, error=0.01))
    assert list(missed) == [
        "recall@10 0.900 ± 0.016, required 0.95",
        "1 ms per query, required 0.5",
        "10 MB, required 8",
    ]


def test_a_recall_that_may_be_chance_does_not_meet_a_requirement():
    assert meets(0.95, 0, 0.95)
    assert not meets(0.955, 0.01, 0.95)
    assert meets(0.97, 0.01, 0.95)


def test_twice_the_time_is_as_far_off_as_twice_the_memory_or_twice_the_errors():
    requirements = Requirements(0.9, 1.0, 10.0)
    off = [measured(ms=2.0), measured(mb=20.0), measured(recall=0.8)]
    assert [list(requirements.missed(one).values()) for one in off] == [[pytest.approx(np.log(2))]] * 3
    assert list(requirements.missed(measured(ms=2.0, mb=20.0)).values()) == pytest.approx([np.log(2)] * 2)


def test_the_distance_to_a_recall_of_one_is_finite():
    assert 0 < sum(Requirements(1.0).missed(measured(recall=0.99)).values()) < np.inf
    assert Requirements(1.0).missed(measured(recall=1.0)) == {}


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ({"recall": 0}, "recall must be above 0 and at most 1, got 0"),
        ({"recall": 95}, "got 95"),
        ({"recall": float("nan")}, "got nan"),
        ({"milliseconds": 0}, "milliseconds must be above 0, got 0"),
        ({"megabytes": -1}, "megabytes must be above 0, got -1"),
    ],
)
def test_an_invalid_requirement_is_refused(requirements, message, vectors):
    with pytest.raises(ValueError, match=message):
        tune(vectors, **requirements, candidates=[EXACT])


# ---- bisection ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidate", [IVF, HNSW], ids=lambda candidate: candidate.spec)
@pytest.mark.parametrize("recall", [0.5, 0.8, 0.9, 0.99])
def test_the_least_effort_by_bisection_is_that_of_a_sweep(candidate, recall, vectors):
    gallery, queries = vectors[:4500], vectors[4500:]
    truth = exact_truth(gallery, queries)
    index, _ = build(candidate.spec, gallery)
    sweep = [recalls(index.tune(**effort).search(queries, 10), truth, 10) for effort in candidate.efforts]
    assert np.all(np.diff([found.mean() for found in sweep]) >= 0), "this test needs a sweep that rises"
    passing = [meets(found.mean(), standard_error(found), recall) for found in sweep]
    expected = candidate.efforts[passing.index(True)]
    found = measure_least(index, candidate.efforts, queries, truth, recall)
    assert expected.items() <= index.options.items()
    assert found.spec == index.spec
    assert found.recall == sweep[passing.index(True)].mean()


def test_where_no_effort_suffices_the_greatest_is_measured(vectors):
    gallery, queries = vectors[:4500], vectors[4500:]
    index, _ = build("faiss:ivf?lists=64", gallery)
    found = measure_least(index, PROBES[:3], queries, exact_truth(gallery, queries), 1.0)
    assert index.options["probes"] == 3
    assert found.recall < 1


# ---- choosing ----------------------------------------------------------------------------------------------------


def test_the_fastest_that_meets_all_requirements_is_chosen():
    choice = choose(
        trials(
            Requirements(0.95, megabytes=20),
            {"spec": "slow", "ms": 3},
            {"spec": "fast but inaccurate", "ms": 0.1, "recall": 0.6},
            {"spec": "fast but large", "ms": 0.2, "mb": 30},
            {"spec": "good", "ms": 1},
        )
    )
    assert (choice.spec, choice.satisfied) == ("good", True)
    assert "the fastest of 2 out of 4 that meet all requirements; next slow" in choice.why


def test_among_equally_fast_ones_the_smaller_is_chosen_whatever_their_order():
    table = trials(Requirements(), {"spec": "b", "mb": 9}, {"spec": "a", "mb": 9}, {"spec": "c", "mb": 10})
    assert {choose(order).spec for order in (table, table[::-1])} == {"a"}


def test_if_none_meets_all_the_closest_is_named_with_what_it_misses():
    choice = choose(trials(Requirements(0.95, milliseconds=1.0), {"spec": "far", "ms": 5}, {"spec": "near", "ms": 1.1}))
    assert (choice.spec, choice.satisfied) == ("near", False)
    assert choice.why == "none of 2 meets all requirements; near comes closest and misses: 1.1 ms per query, required 1"


def test_a_measured_index_precedes_one_that_was_too_large_to_be_built():
    requirements, large = Requirements(0.95, milliseconds=1.0), [("large", 90.0), ("larger", 91.0)]
    assert choose(trials(requirements, {"spec": "slow", "ms": 9}, large=large)).spec == "slow"
    only = choose(trials(requirements, large=large))
    assert (only.spec, only.satisfied) == ("large", False)
    assert only.why.endswith("about 90.0 MB by estimate (so it was not built)")


# ---- tune --------------------------------------------------------------------------------------------------------


def chosen(choice):
    """The row of the chosen index."""
    return choice.table.set_index("spec").loc[choice.spec]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recall", "candidates", "megabytes"),
    [
        (0.9, (EXACT, IVF, HNSW), None),
        (
            0.99,
            (EXACT, Candidate("faiss:flat?metric=cosine"), Candidate("faiss:opq", CODES)),
            estimated_bytes("faiss:opq", 4500, 32) / 1e6 * 1.02,
        ),
    ],
    ids=["any memory", "little memory"],
)
def test_requirements_hold_in_an_independent_measurement(recall, candidates, megabytes, vectors):
    choice = tune(vectors, recall=recall, megabytes=megabytes, candidates=candidates, progress=False)
    assert choice.satisfied
    queries = clustered(1000, seed=7)
    index, _ = build(choice.spec, vectors)
    assert index.spec == choice.spec
    found = measure(index, queries, exact_truth(vectors, queries))
    assert found.recall >= recall - 2 * found.recall_error
    assert len(choice.table) == len(candidates)
    if megabytes:
        assert found.megabytes <= megabytes * 5000 / 4500
        assert choice.table.query("over == 'estimate'").spec.tolist() == ["exact:cosine", "faiss:flat"]


def test_time_can_be_required(vectors):
    choice = tune(vectors, milliseconds=1000, candidates=[EXACT, IVF], progress=False)
    assert choice.satisfied
    assert chosen(choice).milliseconds <= 1000


def test_impossible_requirements_are_reported(vectors):
    choice = tune(vectors, recall=1.0, milliseconds=1e-6, candidates=[EXACT, IVF], progress=False)
    assert not choice.satisfied
    assert "ms per query, required 1e-06" in chosen(choice).missed
    assert choice.spec in choice.why
    assert "none of 2 meets all requirements" in choice.why
    assert choice.table.missed.str.len().gt(0).all()


def test_what_cannot_fit_is_not_built(vectors, monkeypatch):
    built = []
    monkeypatch.setattr(index_tuning, "build", lambda spec, given: built.append(spec) or build(spec, given))
    compressed = Candidate("faiss:pq?refine=none&bytes=4")
    choice = tune(vectors, recall=0.1, megabytes=0.3, candidates=[EXACT, IVF, compressed], progress=False)
    assert built == [compressed.spec]
    assert choice.satisfied
    assert chosen(choice).megabytes <= 0.3
    assert choice.table.over.tolist() == ["estimate", "estimate", "all"]


def test_if_nothing_fits_nothing_is_built_and_the_smallest_is_named(vectors, monkeypatch):
    monkeypatch.setattr(index_tuning, "build", None)
    choice = tune(vectors, megabytes=0.01, candidates=[HNSW, EXACT], progress=False)
    assert (choice.spec, choice.satisfied) == ("exact:cosine", False)
    assert chosen(choice).missed == "about 0.648 MB by estimate, required 0.01"
    assert choice.table.recall.isna().all()


def test_two_choices_are_the_same_but_for_time(vectors):
    first_table, again, other = (
        tune(vectors[:3000], candidates=[IVF, HNSW], seed=seed, progress=False).table for seed in (0, 0, 1)
    )
    same = ["spec", "over", "recall", "megabytes", "missed"]
    assert first_table[same].equals(again[same])
    assert not first_table.recall.equals(other.recall)


def test_held_out_queries_are_not_in_the_index_and_not_its_results(vectors):
    choice = tune(vectors, candidates=[EXACT], progress=False)
    assert chosen(choice).megabytes == pytest.approx(4500 * (4 * 32 + 8) / 1e6, rel=0.1)
    # If the queries stay in the index, each is its own result, and the effort too small.
    inside = tune(vectors, vectors[:200], candidates=[EXACT], progress=False)
    assert chosen(inside).megabytes > chosen(choice).megabytes


def test_given_queries_are_used(vectors):
    hard = np.random.default_rng(0).standard_normal((200, 32)).astype(np.float32)
    efforts = [tune(vectors, queries, 0.9, candidates=[IVF], progress=False).spec for queries in (None, hard)]
    probes = [open_index(spec).options["probes"] for spec in efforts]
    assert probes[1] > probes[0]


def test_another_metric_is_tuned_for_by_its_own_truth(vectors):
    candidate = Candidate("faiss:ivf?metric=euclidean", PROBES)
    choice = tune(vectors, 5 * vectors[:100] + 0.1, candidates=[candidate], progress=False)
    assert choice.satisfied
    assert "metric=euclidean" in choice.spec
    # Queries of other lengths have the same neighbors by cosine, and others by the distance.
    truth = exact_truth(vectors, 5 * vectors[:100] + 0.1, 10, "euclidean")
    index, _ = build(choice.spec, vectors)
    assert chosen(choice).recall == recalls(index.search(5 * vectors[:100] + 0.1, 10), truth, 10).mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidates": []}, "no candidate to choose from"),
        ({"candidates": [EXACT, Candidate("exact:l2")]}, "one metric, got .*'exact:l2': 'euclidean'"),
        ({"candidates": [Candidate("exact:cosinus")]}, "'cosinus'"),
        ({"candidates": [Candidate("exact:cosine", ())]}, "has no effort to try"),
        ({"candidates": [Candidate("faiss:hsnw")]}, "faiss has no kind 'hsnw'"),
        ({"candidates": [EXACT], "k": 0}, "k must be a whole number"),
    ],
)
def test_what_cannot_be_tuned_is_refused(arguments, message, vectors):
    with pytest.raises(ValueError, match=message):
        tune(vectors, **arguments)


def test_a_single_vector_is_refused(vectors):
    with pytest.raises(ValueError, match=r"vectors must have shape \(n, dim\), got \(32,\)"):
        tune(vectors[0], megabytes=1, candidates=[EXACT])


def test_truth_is_kept_in_the_cache(vectors, own_cache):
    tune(vectors, candidates=[EXACT], progress=False)
    assert len(list(Path(own_cache, "results").glob("truth-*"))) == 1


def test_each_index_is_measured_at_each_effort():
    vectors = np.random.default_rng(0).standard_normal((1100, 8)).astype(np.float32)
    efforts = ({"probes": 1}, {"probes": 16})
    candidates = {"lists": Candidate("faiss:ivf?lists=16", efforts), "taxi": Candidate("exact:manhattan")}
    rows = sweep(candidates, vectors[20:], vectors[:20], 5)
    assert rows["index"].tolist() == ["lists", "lists", "taxi"] and (rows["k"] == 5).all()
    few, every, taxi = rows["recall"]
    assert few < every == taxi == 1
    assert rows["build_seconds"].nunique() == 2 and rows["spec"][0] == "faiss:ivf?lists=16&probes=1"
