"""Query expansion and database augmentation: by hand, against a slow loop, and what must not change."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.evaluation import builders, runner
from helpers.images import samples
from helpers.search.backends.exact import ExactIndex
from helpers.search.ranking import PAD, Ranking
from helpers.search.rerank import expansion
from helpers.search.rerank.expansion import (
    alpha_query_expansion,
    augmented,
    average_query_expansion,
    database_augmentation,
    expanded_queries,
    rescored,
)


def at(*degrees):
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def drawn(q=7, n=40, d=12, seed=0):
    """Queries and gallery that lean to one side, of different lengths."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0.3, 1, (q + n, d)) * rng.uniform(0.1, 10, (q + n, 1))
    return vectors[:q].astype(np.float32), vectors[q:].astype(np.float32)


def length_one(vector):
    vector = np.asarray(vector, np.float64)
    return vector / np.linalg.norm(vector) if vector.any() else vector


def slow_mixture(vector, others, alpha):
    """The vector and others, each times cosine^alpha, one after the other."""
    own = length_one(vector)
    mixed = own.copy()
    for other in map(length_one, others):
        mixed += max(0.0, own @ other) ** alpha * other
    return length_one(mixed)


def test_the_expanded_query_by_hand():
    """The mean of 0° and 40° is 20°; times cosine^1 the further one pulls less."""
    ranking = Ranking([[1, 0]], [[0.8, 0.1]])
    queries, gallery = at(0), at(90, 40)
    assert np.allclose(expanded_queries(ranking, queries, gallery, 1, 0), at(20), atol=1e-6)
    weight = np.cos(np.radians(40))
    expected = length_one([1 + weight * np.cos(np.radians(40)), weight * np.sin(np.radians(40))])
    assert np.allclose(expanded_queries(ranking, queries, gallery, 1, 1), expected, atol=1e-6)
    assert expanded_queries(ranking, queries, gallery).dtype == np.float32


def test_what_points_away_adds_nothing_but_to_the_mean():
    ranking = Ranking([[0]], [[-0.5]])
    assert np.allclose(expanded_queries(ranking, at(0), at(120), 1, 2), at(0), atol=1e-6)
    assert np.allclose(expanded_queries(ranking, at(0), at(120), 1, 0), at(60), atol=1e-6)


def test_what_lies_beside_the_first_result_moves_up():
    """From 0°, -30° is nearer than 35°; 25°, found first, turns the question round."""
    queries, gallery, ids = at(0), at(-30, 25, 35), [5, 3, 9]
    before = ExactIndex().add(gallery, ids).search(queries, 3)
    assert before.ids.tolist() == [[3, 5, 9]]
    after = average_query_expansion(before, queries, gallery, 1, ids)
    assert after.ids.tolist() == [[3, 9, 5]]
    assert np.allclose(after.scores, np.cos(np.radians([[12.5, 22.5, 42.5]])), atol=1e-6)


@pytest.mark.parametrize("top, alpha", [(1, 0), (3, 0), (5, 3), (10, 0.5), (100, 2)])
def test_expansion_against_a_slow_loop(top, alpha):
    queries, gallery = drawn()
    ids = np.random.default_rng(1).permutation(1000)[: len(gallery)]
    before = ExactIndex().add(gallery, ids).search(queries, 15)
    after = alpha_query_expansion(before, queries, gallery, top, alpha, ids)
    vector_of = dict(zip(ids.tolist(), gallery, strict=True))
    for row, query in enumerate(queries):
        mixed = slow_mixture(query, [vector_of[id] for id in before.ids[row, :top].tolist()], alpha)
        expected = {id: mixed @ length_one(vector_of[id]) for id in before.ids[row].tolist()}
        assert after.ids[row].tolist() == sorted(expected, key=expected.get, reverse=True)
        assert np.allclose(after.scores[row], sorted(expected.values(), reverse=True), atol=1e-6)
    assert after.scores.dtype == np.float64
    if alpha == 0:
        assert np.array_equal(average_query_expansion(before, queries, gallery, top, ids).ids, after.ids)


@pytest.mark.parametrize("top, alpha", [(1, 0), (4, 0), (6, 3)])
def test_augmentation_against_a_slow_loop(top, alpha):
    queries, gallery = drawn()
    ids = np.random.default_rng(1).permutation(1000)[: len(gallery)]
    index = ExactIndex().add(gallery, ids)
    neighbors = index.search(gallery, 8)
    row_of = {id: row for row, id in enumerate(ids.tolist())}
    mixed = augmented(gallery, neighbors, top, alpha, ids)
    for row, vector in enumerate(gallery):
        others = [row_of[id] for id in neighbors.ids[row].tolist() if id != ids[row]][:top]
        assert np.allclose(mixed[row], slow_mixture(vector, gallery[others], alpha), atol=1e-6)
    before = index.search(queries, 15)
    after = database_augmentation(before, queries, gallery, neighbors, top, alpha, ids)
    # As if the mixed vectors had been searched among, but for what was not found the first time.
    again = ExactIndex().add(mixed, ids).search(queries, len(gallery))
    for row in range(len(queries)):
        kept = [id for id in again.ids[row].tolist() if id in set(before.ids[row].tolist())]
        assert after.ids[row].tolist() == kept


def test_the_image_itself_is_dropped_wherever_it_stands():
    """Four copies of one image: by id, the last ones don't find themselves first, or at all."""
    gallery = at(10, 10, 10, 10, 90)
    neighbors = ExactIndex().add(gallery).search(gallery, 3)
    assert neighbors.ids[3].tolist() == [0, 1, 2]
    assert np.allclose(augmented(gallery, neighbors, 2, 0)[:4], at(10, 10, 10, 10), atol=1e-6)
    pair = at(0, 40)
    neighbors = ExactIndex().add(pair).search(pair, 2)
    assert np.allclose(augmented(pair, neighbors, 1, 0), at(20, 20), atol=1e-6)
    # Not even where there are too few others.
    assert np.allclose(augmented(pair, neighbors, 2, 0), at(20, 20), atol=1e-6)


def test_searching_again_with_the_expanded_query_gives_the_same_scores():
    queries, gallery = drawn()
    index = ExactIndex().add(gallery)
    before = index.search(queries, len(gallery))
    again = index.search(expanded_queries(before, queries, gallery, 4, 2), len(gallery))
    after = alpha_query_expansion(before, queries, gallery, 4, 2)
    assert np.array_equal(again.ids, after.ids) and np.allclose(again.scores, after.scores, atol=1e-7)


def test_rescored_gives_the_index_s_own_cosines():
    queries, gallery = drawn()
    found = ExactIndex().add(gallery).search(queries, 10)
    mixed_up = Ranking(found.ids[:, ::-1], np.tile(-np.arange(10.0), (len(queries), 1)))
    again = rescored(mixed_up, queries, gallery)
    assert np.array_equal(again.ids, found.ids) and np.allclose(again.scores, found.scores, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0, 1, 3.5]))
def test_rows_keep_their_ids_and_padding(seed, k, top, alpha):
    rng = np.random.default_rng(seed)
    # Few different numbers: equal vectors and zero vectors occur.
    queries, gallery = rng.integers(-1, 2, (3, 2)), rng.integers(-1, 2, (8, 2))
    index = ExactIndex().add(gallery)
    before, neighbors = index.search(queries, k), index.search(gallery, 13)
    for after in (
        alpha_query_expansion(before, queries, gallery, top, alpha),
        database_augmentation(before, queries, gallery, neighbors, top, alpha),
    ):
        assert np.array_equal(np.sort(after.ids, axis=1), np.sort(before.ids, axis=1))
        assert np.array_equal(after.ids == PAD, before.ids == PAD)
        assert (np.abs(after.scores[after.ids != PAD]) <= 1).all()


def test_equal_images_stand_by_id_and_others_do_not_move_them():
    """Equal to the last bit, however the work is cut up: 200 copies, and dimensions that BLAS cuts unevenly."""
    rng = np.random.default_rng(0)
    gallery = np.repeat(rng.normal(size=(20, 67)), 10, axis=0).astype(np.float32)
    queries = rng.normal(size=(33, 67)).astype(np.float32)
    after = alpha_query_expansion(ExactIndex().add(gallery).search(queries, 200), queries, gallery)
    copies = after.ids.reshape(33, 20, 10)
    assert (copies // 10 == copies[:, :, :1] // 10).all() and (np.diff(copies, axis=2) == 1).all()
    one = average_query_expansion(Ranking([[2, 0, 1]], [[3.0, 2, 1]]), at(5), at(7, 7, 7))
    assert one.ids.tolist() == [[0, 1, 2]] and np.ptp(one.scores) == 0


def test_however_it_is_cut_up_it_is_the_same(monkeypatch):
    queries, gallery = drawn(40)
    index = ExactIndex().add(gallery)
    before, neighbors = index.search(queries, 20), index.search(gallery, 6)
    whole = alpha_query_expansion(before, queries, gallery), database_augmentation(before, queries, gallery, neighbors)
    monkeypatch.setattr(expansion, "STEP_BYTES", 700)
    monkeypatch.setattr(expansion, "_QUERIES", 3)
    parts = alpha_query_expansion(before, queries, gallery), database_augmentation(before, queries, gallery, neighbors)
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.scores, other.scores)


def test_little_or_nothing_to_work_with():
    gallery = np.vstack([at(0, 30), np.zeros((1, 2))]).astype(np.float32)
    # A zero vector adds nothing, and its score is 0.
    ranking = Ranking([[0, 2, 1], [1, PAD, PAD], [PAD, PAD, PAD]], [[0.9, 0.8, 0.7], [0.5, 0, 0], [0, 0, 0]])
    queries = np.vstack([at(10, 20), np.zeros((1, 2))])
    after = average_query_expansion(ranking, queries, gallery, 2)
    assert after.ids.tolist() == [[0, 1, 2], [1, PAD, PAD], [PAD, PAD, PAD]] and after.scores[0, 2] == 0
    assert np.isneginf(after.scores[after.ids == PAD]).all()
    assert np.allclose(expanded_queries(ranking, queries, gallery, 2, 0), np.vstack([at(5, 25), [[0, 0]]]), atol=1e-6)
    # A zero query becomes what was found.
    zero = np.zeros((1, 2), np.float32)
    assert np.allclose(expanded_queries(Ranking([[1]], [[0.0]]), zero, gallery, 1, 0), at(30), atol=1e-6)
    assert (expanded_queries(Ranking([[1]], [[0.0]]), zero, gallery, 1, 3) == 0).all()
    empty = Ranking(np.empty((0, 4)), np.empty((0, 4)))
    assert alpha_query_expansion(empty, np.empty((0, 2)), gallery).ids.shape == (0, 4)
    assert expanded_queries(empty, np.empty((0, 2)), gallery).shape == (0, 2)
    # One image has no others.
    alone = ExactIndex().add(gallery[:1]).search(gallery[:1], 3)
    assert np.allclose(augmented(gallery[:1], alone, 2), at(0), atol=1e-6)


def test_expansion_of_what_was_left_after_exclusion_brings_nothing_back():
    """Under leave one out the query stands in the gallery; dropped before, it has no part in the expansion."""
    images = samples.photos().subset(range(0, 246, 6))
    vectors = np.random.default_rng(0).normal(size=(len(images), 8)).astype(np.float32)
    protocol = replace(builders.leave_one_out(images, "small"), excluded={0: [3, 4]})
    before = runner.run(protocol, vectors, ExactIndex())
    after = alpha_query_expansion(before, vectors[protocol.queries], vectors)
    assert not protocol.ignored_mask(np.arange(len(after)), after.ids).any()
    others = vectors.copy()
    others[0] = 99
    changed = alpha_query_expansion(
        Ranking(before.ids[:1], before.scores[:1]), vectors[protocol.queries[:1]], others
    )  # fmt: skip
    assert np.array_equal(changed.scores, after.scores[:1])


def test_bad_input_is_named():
    queries, gallery = drawn(2, 5, 3)
    index = ExactIndex().add(gallery)
    ranking, neighbors = index.search(queries, 3), index.search(gallery, 4)
    with pytest.raises(ValueError, match="got 1 queries, 2 rows"):
        alpha_query_expansion(ranking, queries[:1], gallery)
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(5, 3\)"):
        average_query_expansion(ranking, queries[:, :2], gallery)
    with pytest.raises(ValueError, match="the gallery is empty"):
        average_query_expansion(Ranking([[PAD], [PAD]], [[0.0], [0]]), queries, gallery[:0])
    with pytest.raises(ValueError, match="top must be a whole number of at least 1, got 0"):
        average_query_expansion(ranking, queries, gallery, 0)
    with pytest.raises(ValueError, match="alpha must not be negative, got -1"):
        alpha_query_expansion(ranking, queries, gallery, alpha=-1)
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        alpha_query_expansion(ranking, np.vstack([queries[:1], np.full((1, 3), np.nan)]), gallery)
    with pytest.raises(KeyError, match="image 7 was found, but is not in the gallery of 5 rows"):
        average_query_expansion(Ranking([[7, 1], [1, 2]], [[1.0, 0], [1, 0]]), queries, gallery)
    with pytest.raises(KeyError, match="is not in the gallery"):
        rescored(ranking, queries, gallery, ids=[10, 11, 12, 13, 14])
    with pytest.raises(ValueError, match=r"ids must have shape \(5,\)"):
        rescored(ranking, queries, gallery, ids=[0, 1])
    with pytest.raises(ValueError, match="unique: id 1 given twice"):
        rescored(ranking, queries, gallery, ids=[0, 1, 2, 1, 3])
    with pytest.raises(ValueError, match="negative, got -1"):
        rescored(ranking, queries, gallery, ids=[0, 1, 2, -1, 3])
    with pytest.raises(ValueError, match="got 2 rows for 5"):
        augmented(gallery, ranking, 2)
    with pytest.raises(ValueError, match="4 neighbors besides the image itself need 5 columns, but neighbors has 4"):
        augmented(gallery, neighbors, 4)
    with pytest.raises(KeyError, match="is not in the gallery"):
        augmented(gallery, neighbors, 3, ids=[10, 11, 12, 13, 14])
    with pytest.raises(ValueError, match=r"shape \(n, d\), got \(3,\)"):
        augmented(gallery[0], neighbors)
    with pytest.raises(ValueError, match="got 1 queries"):
        database_augmentation(ranking, queries[:1], gallery, neighbors, 2)
