"""An overlay: a base that stays as it is, and answers as if it had been changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.search.index import UnsupportedByIndex, load_index, open_index
from helpers.search.overlay import Overlay
from helpers.search.ranking import PAD


def vectors_of(n, dim=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def same(found, expected):
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


@settings(max_examples=60)
@given(
    metric=st.sampled_from(["cosine", "euclidean", "manhattan"]),
    base=st.integers(1, 12),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=12),
    k=st.integers(1, 30),
)
def test_it_answers_like_an_index_that_was_changed_itself(metric, base, steps, k):
    plain = open_index(f"exact:{metric}").add(vectors_of(base))
    overlay = Overlay(open_index(f"exact:{metric}").add(vectors_of(base)))
    for step, (add, number) in enumerate(steps):
        if add:
            new = vectors_of(1 + number % 3, seed=step + 1)
            plain.add(new)
            overlay.add(new)
        elif len(plain):
            gone = plain.ids[[number % len(plain)]]
            plain.remove(gone)
            overlay.remove(gone)
        np.testing.assert_array_equal(overlay.ids, plain.ids)
    if not len(plain):
        with pytest.raises(ValueError, match="empty"):
            overlay.search(vectors_of(1), k)
        return
    queries = vectors_of(3, seed=99)
    same(overlay.search(queries, k), plain.search(queries, k))
    np.testing.assert_allclose(overlay.vectors(plain.ids[::-1]), plain.vectors(plain.ids[::-1]))
    folded = overlay.folded()
    assert (folded.spec, len(folded)) == (plain.spec, len(plain))
    same(folded.search(queries, k), plain.search(queries, k))


def test_the_base_stays_as_it_was(tmp_path):
    path = open_index("faiss:hnsw").add(vectors_of(50)).save(tmp_path / "base.index")
    base = load_index(path, mmap=True)
    before = path.read_bytes()
    overlay = Overlay(base)
    overlay.add(vectors_of(5, seed=1))
    overlay.remove([3, 51])
    assert len(base) == 50 and 3 in base.ids
    assert len(overlay) == 53
    assert path.read_bytes() == before


@pytest.mark.parametrize("spec", ["annoy:cosine", "faiss:hnsw", "usearch:cosine", "faiss:ivf"])
def test_folding_into_what_can_and_what_can_not_remove(spec):
    vectors = vectors_of(60)
    overlay = Overlay(open_index(spec).add(vectors[:50]))
    overlay.add(vectors[50:])
    overlay.remove([0, 7, 55])
    folded = overlay.folded()
    stay = np.setdiff1d(np.arange(60), [0, 7, 55])
    np.testing.assert_array_equal(folded.ids, stay)
    assert folded.spec == spec
    # Each is still its own nearest.
    np.testing.assert_array_equal(folded.search(vectors[stay], 1).ids[:, 0], stay)


def test_what_was_removed_takes_no_answers_place():
    overlay = Overlay(open_index("exact:euclidean").add(np.arange(10, dtype=np.float32)[:, None]))
    overlay.remove([0, 1, 2, 3])
    assert overlay.search([[0.0]], 3).ids.tolist() == [[4, 5, 6]]
    assert overlay.search([[0.0]], 8).ids.tolist() == [[4, 5, 6, 7, 8, 9, PAD, PAD]]


def test_a_base_that_holds_by_now_what_was_added_here_gives_it_once():
    base = open_index("exact:euclidean").add([[0.0], [1.0]])
    overlay = Overlay(base)
    overlay.add([[2.0]])
    base.add([[2.0]])  # as another process does in a server
    assert overlay.search([[2.0]], 3).ids.tolist() == [[2, 1, 0]]


def test_it_is_neither_saved_nor_loaded(tmp_path):
    with pytest.raises(UnsupportedByIndex, match="folded"):
        Overlay(open_index("exact:cosine").add(vectors_of(3))).save(tmp_path / "x.index")
