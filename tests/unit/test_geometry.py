"""Geometric verification as re-ranking: real photographs, known copies, and what must not change."""

import numpy as np
import pytest

from helpers.features.keypoints import extract, extract_each
from helpers.images import reading, samples
from helpers.images.known_items import Change
from helpers.search.ranking import Ranking
from helpers.search.rerank.geometry import verified


@pytest.fixture(scope="module")
def photos():
    every = samples.photos()
    return [reading.read_image(every.paths[row]) for row in range(0, 240, 20)]


@pytest.fixture(scope="module")
def gallery(photos):
    return extract_each(photos)


def turned(photo):
    return extract(Change("rotation", 40)(photo, np.random.default_rng(0)))


def orders(n, queries):
    """Results 0 … n - 1, the relevant one last, scores descending."""
    ids = np.array([[id for id in range(n) if id != relevant] + [relevant] for relevant in queries])
    return Ranking(ids, np.tile(-np.arange(n, dtype=float), (len(queries), 1)))


def test_the_original_comes_first_and_the_rest_keeps_its_order(photos, gallery):
    queries = [row for row, one in enumerate(gallery) if len(one) >= 60]
    assert len(queries) >= 6
    ranking = orders(len(photos), queries)
    found = verified(ranking, [turned(photos[row]) for row in queries], gallery)
    assert (found.ids[:, 0] == queries).all() and (found.scores[:, 0] > 10).all()
    for row in range(len(queries)):
        assert found.ids[row, 1:].tolist() == ranking.ids[row, :-1].tolist()
    assert (found.scores[:, 1:] < 1).all() and (found.scores > 0).all()


def test_below_the_depth_nothing_moves(photos, gallery):
    ranking = orders(len(photos), [4])
    shallow = verified(ranking, [turned(photos[4])], gallery, depth=len(photos) - 1)
    assert np.array_equal(shallow.ids, ranking.ids)
    # Keypoints of later results are not requested.
    some = {id: gallery[id] for id in ranking.ids[0, :5].tolist()}
    assert np.array_equal(verified(ranking, [turned(photos[4])], some, depth=5).ids, ranking.ids)


def test_more_agreement_comes_first(photos, gallery):
    """The image itself before its half, whatever the former order."""
    relevant = int(np.argmax([len(one) for one in gallery]))
    half = extract(np.ascontiguousarray(photos[relevant][:, : photos[relevant].shape[1] // 2]))
    found = verified(Ranking([[1, 7]], [[0.9, 0.8]]), [turned(photos[relevant])], {1: half, 7: gallery[relevant]})
    assert found.ids.tolist() == [[7, 1]] and found.scores[0, 1] > 1


def test_nothing_to_compare_changes_nothing(gallery):
    flat = extract(np.zeros((50, 50), np.uint8))
    ranking = Ranking([[3, 1, -1], [2, -1, -1]], [[0.5, 0.25, -np.inf], [0.1, -np.inf, -np.inf]])
    found = verified(ranking, [flat, gallery[5]], {3: gallery[3], 1: flat, 2: flat})
    assert np.array_equal(found.ids, ranking.ids)
    assert np.isneginf(found.scores[ranking.ids == -1]).all()
    assert len(verified(Ranking(np.empty((0, 4)), np.empty((0, 4))), [], gallery)) == 0


def test_the_same_again(photos, gallery):
    ranking = orders(len(photos), [2, 5, 6])
    queries = [turned(photos[row]) for row in (2, 5, 6)]
    one, other = (verified(ranking, queries, gallery) for _ in range(2))
    assert np.array_equal(one.ids, other.ids) and np.array_equal(one.scores, other.scores)
    assert np.array_equal(
        verified(ranking.__class__(ranking.ids[1:2], ranking.scores[1:2]), queries[1:2], gallery).scores[0],
        one.scores[1],
    )


def test_bad_input_is_named(gallery):
    ranking = Ranking([[3, 1]], [[0.5, 0.25]])
    with pytest.raises(ValueError, match="got 2 queries, 1 rows, depth 50"):
        verified(ranking, gallery[:2], gallery)
    with pytest.raises(ValueError, match="depth 0"):
        verified(ranking, gallery[:1], gallery, depth=0)
    with pytest.raises(KeyError, match="image 1 was found"):
        verified(ranking, gallery[:1], {3: gallery[3]})
    with pytest.raises(ValueError, match="can't be compared"):
        verified(ranking, [extract(np.zeros((40, 40), np.uint8), "orb")], gallery)
