"""k-reciprocal re-ranking: against the published algorithm written densely, by hand, and what must not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.search.backends.exact import ExactIndex
from helpers.search.ranking import PAD, Ranking
from helpers.search.rerank import reciprocal
from helpers.search.rerank.reciprocal import k_reciprocal, k_reciprocal_encodings


def clusters(q=6, n=90, d=8, seed=0, spread=0.6):
    """float32 queries and gallery around a few directions, so that some sets are reciprocal and some are not."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(7, d))
    vectors = centers[rng.integers(0, 7, q + n)] + spread * rng.normal(size=(q + n, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:q].astype(np.float32), vectors[q:].astype(np.float32)


def distances(first, second):
    first, second = (v.astype(np.float64) / np.linalg.norm(v, axis=1, keepdims=True) for v in (first, second))
    return 1 - first @ second.T


def published(distance, k1, k2):
    """V of the published code, dense: one pool of images, by a loop and by sets.

    Also the list of neighbors, and the half-sized reciprocal set of each image.
    """
    n = len(distance)
    lists = np.argsort(distance, axis=1, kind="stable")
    half = int(np.around(k1 / 2))

    def reciprocal_set(i, k):
        return {j for j in lists[i, : k + 1].tolist() if i in lists[j, : k + 1]}

    encoded = np.zeros((n, n))
    for i in range(n):
        own = reciprocal_set(i, k1)
        wide = set(own)
        for candidate in own:
            others = reciprocal_set(candidate, half)
            if len(others & own) > 2 / 3 * len(others):
                wide |= others
        members = sorted(wide)
        weights = np.exp(-distance[i, members])
        encoded[i, members] = weights / weights.sum()
    averaged = np.array([encoded[lists[i, :k2]].mean(axis=0) for i in range(n)])
    return averaged, encoded, lists, [reciprocal_set(i, half) for i in range(n)]


def jaccard(one, others):
    return 1 - np.minimum(one, others).sum(axis=1) / np.maximum(one, others).sum(axis=1)


def slow(query, gallery, k1, k2, weight):
    """float64 (n,): the distance of one query to all, which is added to a gallery that was encoded without it."""
    averaged, encoded, lists, halves = published(distances(gallery, gallery), k1, k2)
    among = distances(gallery, gallery)
    own_distance = distances(query[None], gallery)[0]
    order = np.argsort(own_distance, kind="stable")
    own = {g for g in order[:k1].tolist() if own_distance[g] <= among[g, lists[g, k1]]}
    wide = set(own)
    for candidate in own:
        if len(halves[candidate] & own) > 2 / 3 * len(halves[candidate]):
            wide |= halves[candidate]
    mine = np.zeros(len(gallery))
    for g in wide:
        mine[g] = np.exp(-own_distance[g])
    mine /= mine.sum() or 1
    mine = np.vstack([mine[None], encoded[order[: k2 - 1]]]).mean(axis=0)
    return (1 - weight) * jaccard(mine, averaged) + weight * own_distance


@pytest.mark.parametrize("k1, k2", [(20, 6), (7, 1), (5, 3), (3, 4), (1, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_descriptions_are_those_of_the_published_algorithm(k1, k2, seed):
    _, pool = clusters(0, 96, seed=seed)
    expected, encoded, *_ = published(distances(pool, pool), k1, k2)
    found = k_reciprocal_encodings(pool, ExactIndex().add(pool).search(pool, k1 + 1), k1, k2)
    assert np.allclose(found.toarray(), expected, atol=1e-5)
    assert np.allclose(found.sum(axis=1), 1)
    # The example distinguishes the steps: the sets differ, and averaging changes them.
    assert k1 == 1 or len(set((encoded > 0).sum(axis=1).tolist())) > 2
    assert k2 == 1 or not np.allclose(encoded, expected, atol=1e-3)


def test_the_example_has_sets_that_are_widened():
    """Otherwise the reference would agree with a version without this step."""
    _, pool = clusters(0, 96)
    _, encoded, lists, _ = published(distances(pool, pool), 20, 1)
    plain = [{j for j in lists[i, :21].tolist() if i in lists[j, :21]} for i in range(96)]
    wider = sum((encoded[i] > 0).sum() > len(plain[i]) for i in range(96))
    assert 10 < wider < 96


@pytest.mark.parametrize("k1, k2, weight", [(20, 6, 0.3), (7, 1, 0), (5, 3, 0.5), (4, 2, 1)])
def test_distances_against_a_dense_reference(k1, k2, weight):
    queries, gallery = clusters()
    ids = np.random.default_rng(1).permutation(500)[: len(gallery)]
    index = ExactIndex().add(gallery, ids)
    before, neighbors = index.search(queries, len(gallery)), index.search(gallery, k1 + 1)
    after = k_reciprocal(before, queries, gallery, neighbors, k1, k2, weight, ids)
    row_of = {id: row for row, id in enumerate(ids.tolist())}
    for row, query in enumerate(queries):
        expected = slow(query, gallery, k1, k2, weight)
        assert np.allclose(-after.scores[row], expected[[row_of[id] for id in after.ids[row].tolist()]], atol=1e-5)
    assert after.scores.dtype == np.float64
    # A shorter ranking has the same scores for what it holds.
    short = k_reciprocal(before.head(30), queries, gallery, neighbors, k1, k2, weight, ids)
    for row in range(len(queries)):
        score_of = dict(zip(after.ids[row].tolist(), after.scores[row].tolist(), strict=True))
        assert sorted(short.ids[row].tolist()) == sorted(before.ids[row, :30].tolist())
        assert np.allclose(short.scores[row], [score_of[id] for id in short.ids[row].tolist()])


def test_who_shares_neighbors_comes_before_who_is_merely_near():
    """Six images around the query's own, and a stranger with a crowd of its own that is nearer than most of them."""
    here = [-14, -12, -10, 10, 12, 14]
    there = [8, 8.1, 8.2, 7.9, 7.8, 8.05, 7.95]
    angles = np.radians(here + there)
    # The crowd stands off the plane, so that it is nearer to itself than to anything else.
    gallery = np.column_stack([np.cos(angles), np.sin(angles), [0] * 6 + [0.2] * 7]).astype(np.float32)
    query = np.array([[1, 0, 0]], np.float32)
    index = ExactIndex().add(gallery)
    before, neighbors = index.search(query, 13), index.search(gallery, 7)
    after = k_reciprocal(before, query, gallery, neighbors, 6, 1, 0)
    rank_of = {id: rank for rank, id in enumerate(after.ids[0].tolist())}
    assert max(rank_of[id] for id in range(4)) < min(rank_of[id] for id in range(6, 13))


def test_the_whole_weight_on_the_former_distance_changes_nothing():
    queries, gallery = clusters()
    index = ExactIndex().add(gallery)
    before = index.search(queries, 25)
    after = k_reciprocal(before, queries, gallery, index.search(gallery, 21), original_weight=1)
    assert np.array_equal(after.ids, before.ids) and np.allclose(after.scores, before.scores - 1)


def test_a_query_s_results_do_not_depend_on_other_queries(monkeypatch):
    queries, gallery = clusters()
    index = ExactIndex().add(gallery)
    before, neighbors = index.search(queries, 40), index.search(gallery, 21)
    together = k_reciprocal(before, queries, gallery, neighbors)
    monkeypatch.setattr(reciprocal, "_ROWS", 4)
    apart = k_reciprocal(before, queries, gallery, neighbors)
    assert np.array_equal(apart.ids, together.ids) and np.allclose(apart.scores, together.scores, atol=1e-12)
    one = Ranking(before.ids[3:4], before.scores[3:4])
    alone = k_reciprocal(one, queries[3:4], gallery, neighbors)
    assert np.array_equal(alone.ids[0], together.ids[3])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 12), st.integers(1, 3), st.integers(1, 2))
def test_rows_keep_their_ids_and_padding(seed, k, k1, k2):
    rng = np.random.default_rng(seed)
    # Few different numbers: equal vectors and zero vectors occur.
    queries, gallery = rng.integers(-1, 2, (3, 2)), rng.integers(-1, 2, (8, 2))
    index = ExactIndex().add(gallery)
    before = index.search(queries, k)
    after = k_reciprocal(before, queries, gallery, index.search(gallery, 13), k1, k2)
    assert np.array_equal(np.sort(after.ids, axis=1), np.sort(before.ids, axis=1))
    assert np.array_equal(after.ids == PAD, before.ids == PAD)


def test_little_or_nothing_to_work_with():
    queries, gallery = clusters(3, 5)
    index = ExactIndex().add(gallery)
    neighbors = index.search(gallery, 21)
    # A gallery smaller than k1: all are neighbors of all.
    few = k_reciprocal(index.search(queries, 9), queries, gallery, neighbors)
    assert (few.ids[:, 5:] == PAD).all() and (np.sort(few.ids[:, :5], axis=1) == np.arange(5)).all()
    full = k_reciprocal_encodings(gallery, neighbors, 20, 1).toarray()
    assert (full > 0).all()
    # Rows without results, no query, one image, only copies.
    some = Ranking([[2] + [PAD] * 19, [PAD] * 20], [[1.0] + [0] * 19, [0] * 20])
    after = k_reciprocal(some, np.vstack([gallery[2], queries[0]]), gallery, neighbors)
    assert after.ids.tolist() == some.ids.tolist()
    empty = Ranking(np.empty((0, 20)), np.empty((0, 20)))
    assert k_reciprocal(empty, np.empty((0, 8)), gallery, neighbors).ids.shape == (0, 20)
    alone = ExactIndex().add(gallery[:1])
    one = k_reciprocal(alone.search(queries, 2), queries, gallery[:1], alone.search(gallery[:1], 21))
    assert one.ids.tolist() == [[0, PAD]] * 3
    copies = np.repeat(gallery[:1], 30, axis=0)
    same = ExactIndex().add(copies)
    found = k_reciprocal(same.search(queries, 30), queries, copies, same.search(copies, 21))
    assert (np.sort(found.ids, axis=1) == np.arange(30)).all() and np.isfinite(found.scores).all()
    zero = np.zeros((1, 8), np.float32)
    mixed = ExactIndex().add(np.vstack([gallery, zero]))
    vectors = np.vstack([gallery, zero])
    found = k_reciprocal(mixed.search(zero, 6), zero, vectors, mixed.search(vectors, 4), 3, 2)
    assert np.isfinite(found.scores).all()
    # Without averaging, the encoding of a query without reciprocal neighbors is empty: the largest distance.
    ring = np.eye(8, dtype=np.float32)[:4] + np.float32(0.01) * gallery[:4]
    pairs = np.vstack([ring, ring])
    index = ExactIndex().add(pairs)
    lone = k_reciprocal(index.search(queries[:1], 8), queries[:1], pairs, index.search(pairs, 2), 1, 1, 0)
    assert (lone.scores == -1).all() and lone.ids[0].tolist() == list(range(8))


def test_bad_input_is_named():
    queries, gallery = clusters(2, 30)
    index = ExactIndex().add(gallery)
    ranking, neighbors = index.search(queries, 20), index.search(gallery, 21)
    with pytest.raises(ValueError, match="got 1 queries, 2 rows"):
        k_reciprocal(ranking, queries[:1], gallery, neighbors)
    with pytest.raises(ValueError, match=r"got \(2, 7\) and \(30, 8\)"):
        k_reciprocal(ranking, queries[:, :7], gallery, neighbors)
    with pytest.raises(ValueError, match="original_weight must lie between 0 and 1, got 1.5"):
        k_reciprocal(ranking, queries, gallery, neighbors, original_weight=1.5)
    with pytest.raises(ValueError, match="k1 must be a whole number of at least 1, got 0"):
        k_reciprocal(ranking, queries, gallery, neighbors, 0)
    with pytest.raises(ValueError, match="k2 must be a whole number of at least 1, got 0"):
        k_reciprocal_encodings(gallery, neighbors, 20, 0)
    with pytest.raises(ValueError, match="at most 21, got 22"):
        k_reciprocal(ranking, queries, gallery, neighbors, 20, 22)
    with pytest.raises(ValueError, match="k1 = 20 needs as many results per query, the ranking has 10"):
        k_reciprocal(ranking.head(10), queries, gallery, neighbors)
    with pytest.raises(ValueError, match="21 neighbors besides the image itself need 22 columns"):
        k_reciprocal(ranking, queries, gallery, neighbors, 21)
    with pytest.raises(KeyError, match="is not in the gallery"):
        k_reciprocal(Ranking(ranking.ids + 30, ranking.scores), queries, gallery, neighbors)
    with pytest.raises(KeyError, match="is not in the gallery"):
        k_reciprocal(ranking, queries, gallery, Ranking(neighbors.ids + 30, neighbors.scores))
    with pytest.raises(ValueError, match="ranking: scores must be the cosines"):
        k_reciprocal(ranking, queries[::-1], gallery, neighbors)
    distant = ExactIndex("euclidean").add(gallery)
    with pytest.raises(ValueError, match="neighbors: scores must be the cosines"):
        k_reciprocal(ranking, queries, gallery, distant.search(gallery, 21))
