"""Search by parts of images, against brute force over all assignments."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.features.regions import Regions
from helpers.search.index import open_index
from helpers.search.ranking import PAD
from helpers.search.region_search import GalleryRegions, search_regions
from helpers.vectors import l2_normalize

DIM = 5


def made(counts, seed=0):
    """An engine of images with ids 0, 3, 6, …, their vectors by id, and their regions: counts[i] of the i-th."""
    rng = np.random.default_rng(seed)
    ids = 3 * np.arange(len(counts))
    whole = rng.normal(size=(len(counts), DIM)).astype(np.float32)
    vectors = [rng.normal(size=(count, DIM)).astype(np.float32) for count in counts]
    regions = [
        Regions(rng.uniform(1, 9, (n, 4)).astype(np.float32), ("Dog",) * n, np.ones(n, np.float32)) for n in counts
    ]
    engine = SimpleNamespace(index=open_index("exact:cosine").add(whole, ids))
    return (
        engine,
        GalleryRegions.of_vectors(ids, regions, vectors),
        {id: one for id, *one in zip(ids, whole, vectors, strict=True)},
    )


def brute_force(parts, whole, vectors):
    """The score of an image: the best of all assignments of the parts to different parts of the image."""
    cosines = l2_normalize(np.atleast_2d(parts)) @ l2_normalize(np.vstack([whole, vectors])).T
    if len(cosines) == 1:
        return cosines.max()
    if len(cosines) > cosines.shape[1]:
        return 0.0
    products = [
        np.prod(np.maximum([cosines[row, column] for row, column in enumerate(columns)], 0))
        for columns in itertools.permutations(range(cosines.shape[1]), len(cosines))
    ]
    return max(products) ** (1 / len(cosines))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    parts=st.integers(1, 3), k=st.integers(1, 10), seed=st.integers(0, 1000),
)  # fmt: skip
def test_results_equal_brute_force(counts, parts, k, seed):
    engine, regions, images = made(counts, seed)
    queries = np.random.default_rng(seed + 1).normal(size=(parts, DIM)).astype(np.float32)
    excluded, permitted = [0], [id for id in images if id != 0]
    expected = sorted((-brute_force(queries, *images[id]), id) for id in permitted)[:k]
    found = search_regions(engine, regions, queries, k, excluded=excluded)
    ids = found.ranking.ids[0][found.ranking.ids[0] != PAD]
    assert len(ids) == len(expected) == len(found.matches)
    scores = found.ranking.scores[0, : len(ids)]
    np.testing.assert_allclose(scores, [-score for score, _ in expected], atol=1e-5)
    for id, score, matches in zip(ids, scores, found.matches, strict=True):
        assert brute_force(queries, *images[id]) == pytest.approx(score, abs=1e-5)
        boxes = [None if match.box is None else tuple(match.box) for match in matches if match]
        assert len(boxes) == len(set(boxes)) == min(parts, 1 + len(images[id][1]))
        assert set(boxes) <= {None, *map(tuple, regions.regions_of(id).boxes)}


def test_the_match_is_the_part_with_the_best_cosine():
    engine, regions, images = made([3, 2])
    found = search_regions(engine, regions, images[3][1][1][None])
    assert found.ranking.ids[0, 0] == 3
    ((match,), *_) = found.matches
    np.testing.assert_array_equal(match.box, regions.regions_of(3).boxes[1])
    assert (match.class_name, match.score) == ("Dog", pytest.approx(1))
    ((match,), *_) = search_regions(engine, regions, images[3][0][None]).matches
    assert match.box is None and match.score == pytest.approx(1)


def test_a_search_finds_as_many_images_as_there_are():
    """The many regions of one image do not hide the others."""
    engine, regions, images = made([300, 1, 1, 0])
    query = images[0][1][0]
    assert sorted(search_regions(engine, regions, query[None], 4).ranking.ids[0]) == [0, 3, 6, 9]
    found = search_regions(engine, regions, query[None], 4, allowed=[3, 9])
    assert sorted(found.ranking.ids[0].tolist()) == [PAD, PAD, 3, 9]


def test_images_with_equal_content_share_regions():
    engine, _, images = made([0, 0])
    vector = images[0][0] + 1
    index = open_index("exact:cosine").add(vector[None])
    box = np.array([[1, 2, 3, 4], [1, 2, 3, 4]])
    shared = GalleryRegions(index, np.array([3, 0]), np.array([0, 0]), box, (None, None), np.ones(2))
    found = search_regions(engine, shared, vector[None])
    assert found.ranking.ids[0, :2].tolist() == [0, 3]
    np.testing.assert_allclose(found.ranking.scores[0, :2], 1, atol=1e-6)
    found = search_regions(engine, shared, vector[None], excluded=[0])
    assert found.ranking.ids[0, 0] == 3 and found.ranking.scores[0, 0] == pytest.approx(1)


def test_bad_queries_are_refused():
    engine, regions, _ = made([1])
    with pytest.raises(ValueError, match="at least one part"):
        search_regions(engine, regions, np.empty((0, DIM)))
    with pytest.raises(ValueError, match="k must"):
        search_regions(engine, regions, np.ones((1, DIM)), 0)
    with pytest.raises(ValueError, match="cosine"):
        search_regions(SimpleNamespace(index=open_index("exact:euclidean")), regions, np.ones((1, DIM)))
