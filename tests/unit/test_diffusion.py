"""Diffusion: against a dense solution, by hand, along a chain, and what must not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.search.backends.exact import ExactIndex
from helpers.search.ranking import PAD, Ranking
from helpers.search.rerank import diffusion
from helpers.search.rerank.diffusion import diffused, neighbor_graph


def at(*degrees):
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def drawn(q=9, n=60, d=6, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0.4, 1, (q + n, d)).astype(np.float32)
    return vectors[:q], vectors[q:]


def dense_graph(gallery, k, gamma):
    """S of Iscen et al. 2017 from all cosines."""
    unit = gallery.astype(np.float64) / np.linalg.norm(gallery, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    near = np.zeros(cosine.shape, bool)
    np.put_along_axis(near, order, True, axis=1)
    weights = np.where(near & near.T, np.maximum(cosine, 0) ** gamma, 0)
    degrees = weights.sum(axis=1)
    scale = np.array([1 / degree**0.5 if degree else 0 for degree in degrees])
    return scale[:, None] * weights * scale


@pytest.mark.parametrize("k, gamma", [(1, 3), (5, 3), (20, 1), (59, 0.5)])
def test_the_graph_against_all_cosines(k, gamma):
    _, gallery = drawn()
    ids = np.random.default_rng(1).permutation(500)[: len(gallery)]
    found = neighbor_graph(ExactIndex().add(gallery, ids).search(gallery, k + 1), k, gamma, ids)
    assert np.allclose(found.toarray(), dense_graph(gallery, k, gamma), atol=1e-6)
    assert np.array_equal(found.toarray(), found.toarray().T) and (found.diagonal() == 0).all()
    assert found.nnz <= k * len(gallery)


@pytest.mark.parametrize(
    "top, k, alpha, gamma", [(1, 5, 0.9, 3), (10, 20, 0.99, 3), (3, 8, 0.5, 1), (60, 30, 0.999, 2)]
)
def test_scores_against_a_dense_solution(top, k, alpha, gamma):
    queries, gallery = drawn()
    ids = np.random.default_rng(1).permutation(500)[: len(gallery)]
    index = ExactIndex().add(gallery, ids)
    before, neighbors = index.search(queries, 60), index.search(gallery, k + 1)
    after = diffused(before, neighbors, top, k, alpha, gamma, ids)
    inverse = np.linalg.inv(np.eye(60) - alpha * dense_graph(gallery, k, gamma))
    row_of = {id: row for row, id in enumerate(ids.tolist())}
    for row in range(len(queries)):
        source = np.zeros(60)
        for id, score in zip(before.ids[row, :top].tolist(), before.scores[row, :top].tolist(), strict=True):
            source[row_of[id]] = max(score, 0) ** gamma
        expected = inverse @ source
        results = [row_of[id] for id in after.ids[row].tolist()]
        reached = after.scores[row] > 0
        assert np.allclose(after.scores[row][reached], expected[results][reached], atol=1e-4 * source.max())
        assert np.allclose(expected[results][~reached], 0, atol=1e-9)
    assert after.scores.dtype == np.float64
    # The equations are of the whole graph, so a shorter ranking has the same scores.
    short = diffused(before.head(max(top, 12)), neighbors, top, k, alpha, gamma, ids)
    for row in range(len(queries)):
        score_of = dict(zip(after.ids[row].tolist(), after.scores[row].tolist(), strict=True))
        assert np.allclose(short.scores[row], [score_of[id] for id in short.ids[row].tolist()], atol=1e-9)


def test_two_images_by_hand():
    """S = (0 1; 1 0) and y = (c³, 0): f = c³ / (1 - alpha²) · (1, alpha)."""
    gallery = at(30, 40)
    index = ExactIndex().add(gallery)
    after = diffused(index.search(at(0), 2), index.search(gallery, 2), top=1, k=1, alpha=0.8)
    assert after.ids.tolist() == [[0, 1]]
    assert np.allclose(after.scores, np.cos(np.radians(30)) ** 3 / (1 - 0.64) * np.array([[1, 0.8]]), atol=1e-5)


def test_it_follows_a_chain_past_what_is_nearer():
    """From 0°, a chain leads by steps of 8° to 56°; strangers at -40° … -44° are nearer than its end."""
    chain, strangers = list(range(8, 57, 8)), [-40, -42, -44]
    gallery = at(*chain, *strangers)
    index = ExactIndex().add(gallery)
    before = index.search(at(0), 10)
    assert before.ids[0, -1] == 6
    after = diffused(before, index.search(gallery, 3), top=2, k=2)
    assert set(after.ids[0, :7].tolist()) == set(range(7))


def test_what_nothing_reaches_keeps_its_place_behind_the_rest():
    gallery = at(10, 12, 70, 60, 75, 65, 150)
    index = ExactIndex().add(gallery)
    before, neighbors = index.search(at(0), 7), index.search(gallery, 2)
    after = diffused(before, neighbors, top=2, k=1)
    assert after.ids.tolist() == [[0, 1, 3, 5, 2, 4, 6]]
    assert np.allclose(after.scores[0, 2:], before.scores[0, 2:] - 1)
    # Negative cosines are no links, and no sources.
    opposite = diffused(index.search(at(250), 7), neighbors, top=7, k=1)
    assert np.array_equal(opposite.ids, index.search(at(250), 7).ids) and (opposite.scores <= 0).all()


def test_a_query_s_results_do_not_depend_on_other_queries():
    queries, gallery = drawn()
    index = ExactIndex().add(gallery)
    before, neighbors = index.search(queries, 30), index.search(gallery, 21)
    together = diffused(before, neighbors, k=20)
    for row in range(len(queries)):
        alone = diffused(Ranking(before.ids[[row]], before.scores[[row]]), neighbors, k=20)
        assert np.array_equal(alone.ids[0], together.ids[row])
        assert np.allclose(alone.scores[0], together.scores[row], rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 12), st.integers(1, 3), st.integers(1, 12))
def test_rows_keep_their_ids_and_padding(seed, depth, top, k):
    rng = np.random.default_rng(seed)
    # Few different numbers: equal vectors and zero vectors occur.
    queries, gallery = rng.integers(-1, 2, (3, 2)), rng.integers(-1, 2, (8, 2))
    index = ExactIndex().add(gallery)
    before = index.search(queries, depth)
    after = diffused(before, index.search(gallery, 13), top, k)
    assert np.array_equal(np.sort(after.ids, axis=1), np.sort(before.ids, axis=1))
    assert np.array_equal(after.ids == PAD, before.ids == PAD)


def test_little_or_nothing_to_work_with():
    queries, gallery = drawn(3, 5)
    index = ExactIndex().add(gallery)
    neighbors = index.search(gallery, 51)
    few = diffused(index.search(queries, 10), neighbors)
    assert (few.ids[:, 5:] == PAD).all() and (np.sort(few.ids[:, :5], axis=1) == np.arange(5)).all()
    some = Ranking([[2] + [PAD] * 9, [PAD] * 10], [[1.0] + [0] * 9, [0] * 10])
    assert diffused(some, neighbors).ids.tolist() == some.ids.tolist()
    empty = Ranking(np.empty((0, 10)), np.empty((0, 10)))
    assert diffused(empty, neighbors).ids.shape == (0, 10)
    alone = ExactIndex().add(gallery[:1])
    one = diffused(alone.search(gallery[:1], 2), alone.search(gallery[:1], 51))
    assert one.ids.tolist() == [[0, PAD]] and np.allclose(one.scores[0, 0], 1)
    copies = np.repeat(gallery[:1], 20, axis=0)
    same = ExactIndex().add(copies)
    found = diffused(same.search(queries, 20), same.search(copies, 6), k=5)
    assert (np.sort(found.ids, axis=1) == np.arange(20)).all()


def test_bad_input_is_named(monkeypatch):
    queries, gallery = drawn(2, 30)
    index = ExactIndex().add(gallery)
    ranking, neighbors = index.search(queries, 20), index.search(gallery, 21)
    for bad, words in (
        ({"top": 0}, "top must be a whole number of at least 1, got 0"),
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"alpha": 1}, "alpha must lie between 0 and 1, and gamma above 0; got 1 and 3"),
        ({"alpha": 0}, "got 0 and 3"),
        ({"gamma": 0}, "got 0.9 and 0"),
        ({"k": 21}, "21 neighbors besides the image itself need 22 columns, but neighbors has 21"),
        ({"top": 21}, "top = 21 needs as many results per query, the ranking has 20"),
        ({"ids": range(29)}, r"ids must have shape \(30,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            diffused(ranking, neighbors, **{"k": 20} | bad)
    with pytest.raises(KeyError, match="is not in the gallery"):
        diffused(Ranking(ranking.ids + 30, ranking.scores), neighbors, k=20)
    with pytest.raises(KeyError, match="is not in the gallery"):
        diffused(ranking, Ranking(neighbors.ids + 30, neighbors.scores), k=20)
    distant = ExactIndex("euclidean").add(gallery)
    with pytest.raises(ValueError, match="ranking: scores must be cosines"):
        diffused(distant.search(queries, 20), neighbors, k=20)
    with pytest.raises(ValueError, match="neighbors: scores must be cosines"):
        diffused(ranking, distant.search(gallery, 21), k=20)
    monkeypatch.setattr(diffusion, "_STEPS", 2)
    with pytest.raises(ArithmeticError, match="did not converge in 2 steps: alpha 0.9 is too near 1"):
        diffused(ranking, neighbors, k=20)
