"""DeltaIndex: a base that stays as it is, searched as if it had been changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.search.index import IdSet, IdsPerQuery, load_index, open_index
from helpers.search.persist.delta import DeltaIndex
from helpers.search.ranking import PAD

NOTHING = np.empty((0, 8), np.float32)


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
    filtered=st.one_of(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30), min_size=17)),
)
def test_it_results_like_an_index_that_was_changed_itself(metric, base, steps, k, filtered):
    plain = open_index(f"exact:{metric}").add(vectors_of(base))
    delta = DeltaIndex(open_index(f"exact:{metric}").add(vectors_of(base)))
    for step, (add, number) in enumerate(steps):
        if add:
            new = vectors_of(1 + number % 3, seed=step + 1)
            before = len(plain.ids) and plain.ids[-1]
            plain.add(new)
            delta = delta.changed(new, np.arange(plain._next_id - len(new), plain._next_id))
            assert plain.ids[-1] > before
        elif len(plain):
            removed = plain.ids[[number % len(plain)]]
            plain.remove(removed)
            delta = delta.changed(NOTHING, (), removed)
        np.testing.assert_array_equal(delta.ids, plain.ids)
        assert len(delta) == len(plain)
    if not len(plain):
        with pytest.raises(ValueError, match="empty"):
            delta.search(vectors_of(1), k)
        return
    queries, chosen = vectors_of(3, seed=99), np.array(sorted(filtered), np.int64)
    same(delta.search(queries, k), plain.search(queries, k))
    for filters in (
        {"excluded": IdSet(chosen)},
        {"allowed": chosen},
        {"allowed": chosen[::2], "excluded": chosen[::3]},
        {"excluded": IdsPerQuery.of([chosen, chosen[:1], chosen[:0]])},
    ):
        same(delta.search(queries, k, **filters), plain.search(queries, k, **filters))
        if not isinstance(filters.get("excluded"), IdsPerQuery):
            assert delta.count(**filters) == plain.count(**filters)
    assert delta.contains(np.arange(60)).tolist() == plain.contains(np.arange(60)).tolist()
    np.testing.assert_allclose(delta.vectors(plain.ids[::-1]), plain.vectors(plain.ids[::-1]))
    compacted = delta.compacted()
    assert (compacted.spec, len(compacted)) == (plain.spec, len(plain))
    same(compacted.search(queries, k), plain.search(queries, k))


def test_the_base_and_earlier_deltas_stay_as_they_were(tmp_path):
    path = open_index("faiss:hnsw").add(vectors_of(50)).save(tmp_path / "base.index")
    base = load_index(path, mmap=True)
    before = path.read_bytes()
    first = DeltaIndex(base).changed(vectors_of(5, seed=1), range(50, 55))
    second = first.changed(vectors_of(3, seed=2), range(55, 58), [3, 51])
    other = first.changed(vectors_of(3, seed=3), range(55, 58))
    assert (len(base), len(first), len(second), len(other)) == (50, 55, 56, 58)
    assert 3 in base.ids and 3 in first.ids and 3 not in second.ids
    for delta, seed in ((second, 2), (other, 3)):
        # Made from the same delta: neither wrote into the other's memory.
        np.testing.assert_allclose(
            delta.search(vectors_of(3, seed=seed), 1).ids[:, 0], [55, 56, 57], err_msg=f"seed {seed}"
        )
    assert first.search(vectors_of(5, seed=1), 1).ids[:, 0].tolist() == [50, 51, 52, 53, 54]
    assert path.read_bytes() == before


def test_many_small_changes_copy_little():
    """2,000 additions copy what was added before only when the memory is full, and it grows by half each time."""
    delta, buffers = DeltaIndex(open_index("exact:cosine").add(vectors_of(10))), [None]
    for id in range(10, 2010):
        delta = delta.changed(vectors_of(1, seed=id), [id])
        if delta._added._buffer is not buffers[-1]:
            buffers.append(delta._added._buffer)
    assert len(delta) == 2010 and len(buffers) < 25
    assert len(buffers[-1]) < 1.5 * 2000


@pytest.mark.parametrize("spec", ["annoy:cosine", "faiss:hnsw", "usearch:cosine", "faiss:ivf"])
def test_compacting_into_what_can_and_what_can_not_remove(spec):
    if spec.startswith("annoy"):
        pytest.importorskip("annoy", reason="NOT TESTED: Annoy is not installed (requirements-compiled.txt)")
    vectors = vectors_of(60)
    delta = DeltaIndex(open_index(spec).add(vectors[:50])).changed(vectors[50:], range(50, 60), [0, 7, 55])
    compacted = delta.compacted()
    stay = np.setdiff1d(np.arange(60), [0, 7, 55])
    np.testing.assert_array_equal(compacted.ids, stay)
    assert compacted.spec == spec
    # Each is still its own nearest.
    np.testing.assert_array_equal(compacted.search(vectors[stay], 1).ids[:, 0], stay)


def test_what_was_removed_takes_no_results_place():
    delta = DeltaIndex(open_index("exact:euclidean").add(np.arange(10, dtype=np.float32)[:, None]))
    delta = delta.changed(np.empty((0, 1)), (), [0, 1, 2, 3])
    assert delta.search([[0.0]], 3).ids.tolist() == [[4, 5, 6]]
    assert delta.search([[0.0]], 8).ids.tolist() == [[4, 5, 6, 7, 8, 9, PAD, PAD]]


def test_a_server_that_contains_by_now_what_was_added_here_gives_it_once():
    base = open_index("exact:euclidean").add([[0.0], [1.0]])
    base.remote = True
    delta = DeltaIndex(base).changed([[2.0]], [2])
    base.add([[2.0]])  # as another process does in a server
    assert delta.search([[2.0]], 3).ids.tolist() == [[2, 1, 0]]
    assert delta.compacted().ids.tolist() == [0, 1, 2]


def test_over_a_compacted_base_only_the_later_changes_stay():
    vectors = vectors_of(20)
    delta = DeltaIndex(open_index("exact:cosine").add(vectors[:10])).changed(vectors[10:15], range(10, 15), [1, 11])
    # The base was compacted here; 12, 13, 2 and 15 to 19 are changed later.
    compacted = open_index("exact:cosine").add(vectors[[0, *range(2, 11), 12, 13, 14]], [0, *range(2, 11), 12, 13, 14])
    delta = delta.changed(vectors[15:], range(15, 20)).changed(NOTHING, (), [2, 12, 16])
    rebased = delta.rebased(compacted, first=15)
    assert rebased.changes == 8 and rebased.ids.tolist() == delta.ids.tolist()
    same(rebased.search(vectors, 20), delta.search(vectors, 20))
    assert DeltaIndex(compacted).rebased(compacted, 15) is compacted


def test_what_is_wrong_changes_nothing():
    delta = DeltaIndex(open_index("exact:cosine").add(vectors_of(3)))
    for change, error, message in (
        ((vectors_of(1), [2]), ValueError, "id 2 already in the index"),
        ((vectors_of(1, dim=3), [3]), ValueError, "3 numbers, but the index holds 8"),
        ((vectors_of(1), [3], [9]), KeyError, "id 9 cannot be removed"),
        ((NOTHING, (), [-1]), KeyError, "id -1"),
    ):
        with pytest.raises(error, match=message):
            delta.changed(*change)
    with pytest.raises(KeyError, match="id 7"):
        delta.vectors([0, 7])
    with pytest.raises(ValueError, match="2 sets of ids for 1 queries"):
        delta.search(vectors_of(1), 3, excluded=IdsPerQuery.of([[0], [1]]))
    assert delta.ids.tolist() == [0, 1, 2] and delta.changes == 0
