"""Filters of a search: every backend against brute force over the allowed vectors, and sets of ids by hand."""

import threading
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.search.index import IdSet, IdsPerQuery, open_index
from helpers.search.index.filters import Selection, keep
from helpers.search.ranking import PAD

EXACT = (
    "exact:cosine",
    "exact:euclidean",
    "exact:manhattan",
    "exact:cosine?chunk=7",
    "sklearn:cosine",
    "sklearn:euclidean?algorithm=kd_tree",
    "faiss:flat",
    "faiss:flat?metric=euclidean",
)
APPROXIMATE = (
    "faiss:flat?storage=int8",
    "faiss:ivf",
    "faiss:ivf?metric=euclidean&storage=float16",
    "faiss:hnsw",
    "faiss:hnsw?metric=euclidean",
    "faiss:pq",
    "faiss:pq?refine=none",
    "faiss:opq",
    "faiss:opq?refine=none&metric=euclidean",
    "usearch:cosine",
    "usearch:euclidean?dtype=f16",
    "annoy:cosine",
    "annoy:manhattan",
)
#: Codes alone put vectors that are near each other into another order, with or without a filter.
COARSE = ("faiss:pq?refine=none", "faiss:opq?refine=none&metric=euclidean")
SIZE, DIM, QUERIES, K = 2000, 16, 20, 10


def clustered(count: int, dim: int = DIM) -> np.ndarray:
    """float32 (count, dim) around forty centers."""
    rng = np.random.default_rng(count)
    centers = np.random.default_rng(7).normal(size=(40, dim))
    return (centers[rng.integers(40, size=count)] + 0.4 * rng.normal(size=(count, dim))).astype(np.float32)


VECTORS, QUERY_VECTORS = clustered(SIZE), clustered(QUERIES)
#: Not 0 … n - 1, and not in order.
IDS = np.random.default_rng(1).permutation(5 * SIZE)[:SIZE]


@cache
def filled(spec: str):
    if spec.startswith("annoy"):
        pytest.importorskip("annoy", reason="NOT TESTED: Annoy is not installed")
    return open_index(spec).add(VECTORS, IDS)


def metric_of(spec: str) -> str:
    return next((name for name in ("euclidean", "manhattan") if name in spec), "cosine")


def scores_of(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """float64 (q, n) by the definition."""
    queries, vectors = queries.astype(np.float64)[:, None], vectors.astype(np.float64)[None]
    if metric == "cosine":
        return (queries * vectors).sum(2) / np.linalg.norm(queries, axis=2) / np.linalg.norm(vectors, axis=2)
    return -np.linalg.norm(queries - vectors, 2 if metric == "euclidean" else 1, axis=2)


def brute_force(queries, k, metric, allowed=None, excluded=None, vectors=VECTORS, ids=IDS):
    """Ids and scores (q, k) of a loop over sets."""
    candidates = set(ids.tolist() if allowed is None else allowed) - set([] if excluded is None else excluded)
    stay = [row for row, id in enumerate(ids.tolist()) if id in candidates]
    scores = scores_of(queries, vectors[stay], metric)
    best, near = np.full((len(queries), k), PAD), np.full((len(queries), k), -np.inf)
    for row, own in enumerate(scores):
        order = np.lexsort((ids[stay], -own))[:k]
        best[row, : len(order)], near[row, : len(order)] = ids[stay][order], own[order]
    return best, near


def check(found, expected, allowed=None, excluded=None):
    """The same scores, and only ids that may be found; ids may differ where float32 makes a tie."""
    ids, scores = expected
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=2e-3)
    assert ((found.ids == PAD) == (ids == PAD)).all()
    assert (found.ids == ids).mean() > 0.98
    real = found.ids[found.ids != PAD]
    assert allowed is None or np.isin(real, allowed).all()
    assert excluded is None or not np.isin(real, excluded).any()


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    shares = [len(set(a) & set(b) - {PAD}) / len(set(b) - {PAD}) for a, b in zip(found, expected, strict=True)]
    return float(np.mean(shares))


def some(part: float, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).permutation(IDS)[: round(part * SIZE)]


@pytest.mark.parametrize("spec", EXACT)
@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.5, 0.9, 1])
def test_exact_backends_equal_brute_force(spec, part):
    ids = some(part)
    for filters in ({"allowed": ids}, {"excluded": ids}, {"allowed": some(0.5, 4), "excluded": ids}):
        expected = brute_force(QUERY_VECTORS, K, metric_of(spec), **filters)
        check(filled(spec).search(QUERY_VECTORS, K, **filters), expected, **filters)
        prepared = {name: IdSet(each) for name, each in filters.items()}
        for _ in range(2):
            check(filled(spec).search(QUERY_VECTORS, K, **prepared), expected, **filters)
        check(filled(spec).search(QUERY_VECTORS[:1], K, **filters), [each[:1] for each in expected], **filters)


@pytest.mark.parametrize("spec", APPROXIMATE)
@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.5, 0.9])
def test_approximate_backends_find_most(spec, part):
    for filters in ({"allowed": some(part)}, {"excluded": some(1 - part)}):
        ids, _ = brute_force(QUERY_VECTORS, K, metric_of(spec), **filters)
        found = filled(spec).search(QUERY_VECTORS, K, **filters).ids
        real = found[found != PAD]
        assert np.isin(real, filters.get("allowed", IDS)).all()
        assert not np.isin(real, filters.get("excluded", [])).any()
        if spec in COARSE:
            least = (
                recall(filled(spec).search(QUERY_VECTORS, K).ids, brute_force(QUERY_VECTORS, K, metric_of(spec))[0])
                - 0.1
            )
        else:
            least = 0.9
        assert recall(found, ids) >= least


@pytest.mark.parametrize("spec", EXACT + APPROXIMATE)
def test_the_edges(spec):
    index = filled(spec)
    outside = np.array([-5, 10**6, 2**62])
    nothing = [
        {"allowed": []}, {"allowed": outside}, {"excluded": IDS}, {"allowed": IDS[:3], "excluded": IDS},
        {"allowed": IDS[:2], "excluded": IDS[1::-1]},
    ]  # fmt: skip
    for filters in nothing:
        found = index.search(QUERY_VECTORS, 3, **filters)
        assert (found.ids == PAD).all() and found.ids.shape == (QUERIES, 3)
        assert index.count(**filters) == 0
    few = index.search(QUERY_VECTORS, 9, allowed=np.concatenate([IDS[:4], outside, IDS[:2]]), excluded=IDS[3:4])
    assert [sorted(row) for row in few.ids.tolist()] == [sorted([*IDS[:3], *[PAD] * 6])] * QUERIES
    plain = index.search(QUERY_VECTORS, 5)
    for filters in ({"excluded": []}, {"excluded": outside}, {"allowed": IDS}, {"allowed": IdSet(range(5 * SIZE))}):
        # An approximate index that looks at more for some more results may find better ones.
        assert spec not in EXACT or np.array_equal(index.search(QUERY_VECTORS, 5, **filters).ids, plain.ids)
        assert index.count(**filters) == SIZE
    assert index.search(QUERY_VECTORS[:0], 5, allowed=IDS[:3]).ids.shape == (0, 5)
    with pytest.raises(ValueError, match="whole numbers"):
        index.search(QUERY_VECTORS, 5, allowed=[0.5])


@pytest.mark.parametrize(
    "spec", ["exact:cosine", "faiss:flat", "faiss:ivf", "faiss:hnsw", "faiss:opq", "usearch:cosine"]
)
def test_ids_may_be_large_and_sets_far_larger_than_needed(spec):
    ids = IDS.astype(np.int64) * 2**40
    index = open_index(spec).add(VECTORS, ids)
    for filters in (
        {"allowed": ids[:300], "excluded": -np.arange(1, 40)},
        {"allowed": ids[100:1500], "excluded": np.concatenate([ids[:300], np.arange(1, 999)])},
        {"excluded": np.concatenate([ids[500:], [-3]])},
    ):
        expected, _ = brute_force(QUERY_VECTORS, K, "cosine", **filters, ids=ids)
        assert recall(index.search(QUERY_VECTORS, K, **filters).ids, expected) > 0.9


@pytest.mark.parametrize("spec", ["exact:cosine", "exact:euclidean", "faiss:flat", "sklearn:cosine"])
@given(data=st.data())
@settings(max_examples=25)
def test_any_filter_equals_brute_force(spec, data):
    index, metric, size = small(spec), metric_of(spec), 60
    ids = st.none() | st.lists(st.integers(-3, size + 10), max_size=size)
    filters = {"allowed": data.draw(ids), "excluded": data.draw(ids)}
    k = data.draw(st.integers(1, size + 5))
    held = {name: None if each is None else np.array(each, np.int64) for name, each in filters.items()}
    vectors, numbers = clustered(size, 4), np.arange(size)
    best, near = brute_force(QUERY_VECTORS[:3, :4], k, metric, **held, vectors=vectors, ids=numbers)
    found = index.search(QUERY_VECTORS[:3, :4], k, **filters)
    np.testing.assert_allclose(found.scores, near, atol=1e-3)
    assert ((found.ids == PAD) == (best == PAD)).all()
    assert index.count(**filters) == (best != PAD)[0].sum() or k < index.count(**filters)


@cache
def small(spec: str):
    return open_index(spec).add(clustered(60, 4))


@pytest.mark.parametrize("spec", ["exact:cosine", "exact:euclidean", "exact:manhattan", "sklearn:euclidean"])
def test_ties_stand_by_id(spec):
    vectors = np.repeat(clustered(50), 6, axis=0)
    index = open_index(spec).add(vectors, np.arange(300)[::-1])
    for filters in ({"excluded": np.arange(0, 300, 3)}, {"allowed": np.arange(0, 300, 3)}, {"allowed": [5, 2, 4]}):
        found = index.search(vectors[:60:6], 7, **filters)
        expected = brute_force(vectors[:60:6], 7, index.metric, **filters, vectors=vectors, ids=np.arange(300)[::-1])
        same = found.scores[:, :-1] == found.scores[:, 1:]
        same &= found.ids[:, 1:] != PAD
        assert (found.ids[:, :-1][same] < found.ids[:, 1:][same]).all()
        # The group of a query itself: two of its six copies are left, and the lowest ids of the last group.
        assert np.array_equal(found.ids[:, :2], expected[0][:, :2])


def test_many_excluded_ids_are_not_all_fetched(monkeypatch):
    """A tenth is excluded: a search fetches about a tenth more, and only queries with too few results fetch again."""
    index, calls = open_index("usearch:cosine").add(VECTORS), []
    search = type(index)._search
    monkeypatch.setattr(
        index, "_search", lambda queries, k: calls.append((len(queries), k)) or search(index, queries, k)
    )
    index.search(QUERY_VECTORS, K, excluded=np.arange(0, SIZE, 10))
    assert calls[0] == (QUERIES, 14) and all(count < QUERIES / 4 for count, _ in calls[1:])
    nearest = index.search(QUERY_VECTORS[:1], 200).ids[0]
    del calls[:]
    found = index.search(QUERY_VECTORS, K, excluded=nearest)
    assert [count for count, _ in calls] == sorted([count for count, _ in calls], reverse=True) and calls[0][1] == 14
    assert calls[-1][0] < QUERIES and not np.isin(found.ids, nearest).any() and (found.ids != PAD).all()
    del calls[:]
    index.search(QUERY_VECTORS, K, allowed=np.arange(50))
    assert calls == [], "fifty are compared one by one"


@pytest.mark.parametrize("spec", ["exact:cosine", "faiss:ivf", "usearch:cosine", "sklearn:cosine"])
def test_what_is_nearest_may_be_excluded(spec):
    """The thousand nearest to a query: a few more than k results do not reach beyond them."""
    index = filled(spec)
    nearest, _ = brute_force(QUERY_VECTORS[:1], 1000, "cosine")
    expected, _ = brute_force(QUERY_VECTORS[:1], K, "cosine", excluded=nearest[0])
    found = index.search(QUERY_VECTORS[:1], K, excluded=nearest[0]).ids
    assert len(set(found[0]) & set(expected[0])) >= (8 if spec == "faiss:ivf" else 10)


@pytest.mark.parametrize("spec", ["exact:cosine", "faiss:hnsw", "usearch:cosine"])
def test_each_query_may_have_its_own_ids_excluded(spec):
    index, rng = filled(spec), np.random.default_rng(5)
    plain = index.search(QUERY_VECTORS, 30)
    sets = [rng.permutation(row)[: rng.integers(0, 20)] for row in plain.ids]
    sets[3] = np.array([10**9, -4])
    found = index.search(QUERY_VECTORS, 8, excluded=IdsPerQuery.of(sets), allowed=IdSet(IDS))
    for row, own in enumerate(sets):
        assert found.ids[row].tolist() == [id for id in plain.ids[row].tolist() if id not in set(own.tolist())][:8]
    with pytest.raises(ValueError, match="2 sets of ids for 20 queries"):
        index.search(QUERY_VECTORS, 8, excluded=IdsPerQuery.of([[1], [2]]))


def test_ids_per_query_and_a_filter_of_all():
    index, most = filled("exact:cosine"), some(0.9)
    sets = [[row] for row in index.search(QUERY_VECTORS, 1, allowed=most).ids[:, 0]]
    found = index.search(QUERY_VECTORS, 5, allowed=most, excluded=IdsPerQuery.of(sets))
    assert np.array_equal(found.ids, index.search(QUERY_VECTORS, 6, allowed=most).ids[:, 1:])
    assert (index.search(QUERY_VECTORS[:1], SIZE, excluded=IdsPerQuery.of([IDS])).ids == PAD).all()


@given(
    st.lists(st.lists(st.integers(0, 40), max_size=9), min_size=1, max_size=5), st.integers(1, 60), st.integers(0, 99)
)
def test_ids_per_query_against_sets(sets, k, seed):
    ids = np.random.default_rng(seed).integers(-1, 45, (len(sets), k))
    own = IdsPerQuery.of(sets)
    expected = [[id in each for id in row] for row, each in zip(ids.tolist(), sets, strict=True)]
    assert own.contains(ids).tolist() == expected
    rows = np.random.default_rng(seed).integers(len(sets), size=3)
    assert own.take(rows).contains(ids[rows]).tolist() == [expected[row] for row in rows]
    assert own.max_size == max(map(len, sets)) and len(own) == len(sets)


def test_an_id_set_by_hand():
    ids = IdSet([9, 3, 3, -2])
    assert ids.ids.tolist() == [-2, 3, 9] and len(ids) == 3
    assert ids.contains(np.array([[3, 4], [-2, 10]])).tolist() == [[True, False], [True, False]]
    assert ids.bitmap.tolist() == [0b1000, 0b10] and not len(IdSet([-1]).bitmap)
    held = np.array([1, 3, 8, 9])
    assert ids.rows_in(held).tolist() == [1, 3] and ids.rows_in(held) is ids.rows_in(held)
    assert ids.rows_in(np.array([3])).tolist() == [0] and not len(IdSet([]).rows_in(held))
    assert IdSet.of(ids) is ids and IdSet.of(None) is None


def test_a_selection_by_hand():
    held = np.array([1, 3, 8, 9])
    both = Selection(held, IdSet([1, 3, 7, 9]), IdSet([3, 8]))
    assert (both.count, both.rows.tolist(), both.mask.tolist()) == (2, [0, 3], [True, False, False, True])
    assert both.contains(np.array([9, 3, 8, 7, -1])).tolist() == [True, False, False, True, False]
    less = Selection(held, None, IdSet([3, 4]))
    assert (less.count, less.rows.tolist(), less.mask.tolist()) == (3, [0, 2, 3], [True, False, True, True])


def test_keep_closes_gaps_and_pads():
    ids, scores = np.array([[4, 2, 7]]), np.array([[0.9, 0.8, 0.7]])
    kept = np.array([[False, True, True]])
    assert [each.tolist() for each in keep(ids, scores, kept, 2)] == [[[2, 7]], [[0.8, 0.7]]]
    assert keep(ids, scores, kept, 5)[0].tolist() == [[2, 7, PAD, PAD, PAD]]


@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 14), st.integers(0, 99))
def test_keep_of_one_row_and_of_many(count, width, k, seed):
    rng = np.random.default_rng(seed)
    ids, scores = rng.permutation(count * width).reshape(count, width), rng.random((count, width))
    kept = rng.random((count, width)) < 0.7
    together = keep(ids, scores, kept, k)
    for row in range(count):
        expected = ids[row][kept[row]].tolist()[:k]
        assert together[0][row].tolist() == expected + [PAD] * (k - len(expected))
        own = keep(ids[row : row + 1], scores[row : row + 1], kept[row : row + 1], k)
        assert all(np.array_equal(one[0], each[row]) for one, each in zip(own, together, strict=True))


@pytest.mark.parametrize("spec", ["exact:cosine", "faiss:opq", "annoy:cosine"])
def test_an_empty_exclusion_is_no_filter(spec):
    plain = filled(spec).search(QUERY_VECTORS, K)
    for nothing in ([], IdSet([])):
        found = filled(spec).search(QUERY_VECTORS, K, excluded=nothing)
        assert np.array_equal(found.ids, plain.ids) and np.array_equal(found.scores, plain.scores)
    assert (filled(spec).search(QUERY_VECTORS, K, allowed=[]).ids == PAD).all()


def test_annoy_finds_as_many_with_a_filter():
    """With few trees, Annoy misses results. A tenth fewer vectors must not change the share."""
    pytest.importorskip("annoy", reason="NOT TESTED: Annoy is not installed")
    vectors = np.random.default_rng(0).normal(size=(5000, 32)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(200, 32)).astype(np.float32)
    index, exact = open_index("annoy:cosine?trees=10").add(vectors), open_index("exact:cosine").add(vectors)
    tenth = np.arange(0, 5000, 10)
    plain, filtered = (
        recall(index.search(queries, K, excluded=ids).ids, exact.search(queries, K, excluded=ids).ids)
        for ids in ([], tenth)
    )
    assert plain < 0.9 and abs(filtered - plain) < 0.05


@pytest.mark.parametrize("spec", ["exact:cosine", "faiss:ivf", "usearch:cosine"])
def test_filtered_searches_while_adding(spec):
    index, failed, done = open_index(spec).add(VECTORS[:1200], IDS[:1200]), [], threading.Event()
    excluded, allowed = IdSet(some(0.3)), IdSet(some(0.6, 8))

    def search():
        while not done.is_set():
            found = index.search(QUERY_VECTORS, K, allowed=allowed, excluded=excluded).ids
            good = allowed.contains(found) & ~excluded.contains(found)
            if not good.all():
                failed.append(found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(1200, SIZE, 50):
        index.add(VECTORS[start : start + 50], IDS[start : start + 50])
    done.set()
    for thread in threads:
        thread.join()
    assert not failed
    expected, _ = brute_force(QUERY_VECTORS, K, "cosine", allowed=allowed.ids, excluded=excluded.ids)
    found = index.search(QUERY_VECTORS, K, allowed=allowed, excluded=excluded).ids
    assert (found == expected).mean() > (0.99 if spec == "exact:cosine" else 0.8)
