"""No re-ranking makes a table of all pairs of images: the peak of memory stays below one byte for each pair."""

import tracemalloc

import numpy as np
import pytest

from helpers.search.index import open_index
from helpers.search.rerank import diffusion, expansion, reciprocal

COUNT, QUERIES, DEPTH = 10_000, 20, 50
WAYS = {
    "average query expansion": lambda ranking, q, g, near: expansion.average_query_expansion(ranking, q, g),
    "alpha query expansion": lambda ranking, q, g, near: expansion.alpha_query_expansion(ranking, q, g),
    "augmentation": expansion.database_augmentation,
    "k-reciprocal": reciprocal.k_reciprocal,
    "diffusion": lambda ranking, q, g, near: diffusion.diffused(ranking, near),
}


@pytest.fixture(scope="module")
def searched():
    random = np.random.default_rng(0)
    # Around many centers, so that neighbors know each other, and without negative numbers, as a network's are.
    centers = random.random((COUNT // 20, 32))
    vectors = centers[random.integers(0, len(centers), COUNT + QUERIES)] + 0.1 * random.random((COUNT + QUERIES, 32))
    queries, gallery = np.split(vectors.astype(np.float32), [QUERIES])
    index = open_index("faiss:flat").add(gallery)
    return index.search(queries, DEPTH), queries, gallery, index.search(gallery, 31)


@pytest.mark.parametrize("way", WAYS)
def test_no_table_of_all_pairs_is_made(way, searched):
    tracemalloc.start()
    found = WAYS[way](*searched)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.ids.shape == (QUERIES, DEPTH)
    assert 1e5 < peak < COUNT**2  # NumPy reports its memory to tracemalloc
