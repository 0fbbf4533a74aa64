"""Indexes: the contract that all keep, exact search against a loop and scikit-learn, and the file."""

import errno
import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from helpers.search.backends import exact
from helpers.search.backends.exact import ExactIndex
from helpers.search.backends.sklearn_backend import SklearnIndex
from helpers.search.index import BACKENDS, IndexFileError, load_index, open_index, storage
from helpers.search.ranking import PAD

METRICS = ("cosine", "euclidean", "manhattan")
SPECS = [f"{scheme}:{metric}" for scheme in ("exact", "sklearn") for metric in METRICS]
SPECS += ["sklearn:euclidean?algorithm=ball_tree", "sklearn:manhattan?algorithm=kd_tree"]

every = pytest.mark.parametrize("spec", SPECS)


def random_vectors(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def by_definition(metric, queries, gallery):
    """float64 (q, n): scores, one pair at a time."""
    queries, gallery = np.asarray(queries, np.float64), np.asarray(gallery, np.float64)
    scores = np.empty((len(queries), len(gallery)))
    for (i, q), (j, g) in itertools.product(enumerate(queries), enumerate(gallery)):
        if metric == "cosine":
            lengths = np.linalg.norm(q) * np.linalg.norm(g)
            scores[i, j] = q @ g / lengths if lengths else 0
        else:
            scores[i, j] = -np.linalg.norm(q - g, 2 if metric == "euclidean" else 1)
    return scores


def same(a, b):
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.scores, b.scores)


# ---- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind", "metric", "name"),
    [
        ("exact:cosine", ExactIndex, "cosine", "exact:cosine"),
        ("exact:l2", ExactIndex, "euclidean", "exact:euclidean"),
        ("exact:euclidean?chunk=4096", ExactIndex, "euclidean", "exact:euclidean?chunk=4096"),
        ("sklearn:l1?algorithm=kd_tree", SklearnIndex, "manhattan", "sklearn:manhattan?algorithm=kd_tree"),
    ],
)
def test_a_name_opens_an_index_and_the_index_knows_its_name(spec, kind, metric, name):
    index = open_index(spec)
    assert type(index) is kind
    assert (index.metric, index.spec, len(index), index.dim) == (metric, name, 0, None)
    assert type(open_index(index.spec)) is kind


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fais:cosine", "exact, sklearn"),
        ("", "exact, sklearn"),
        ("exact:hamming", "cosine, euclidean, manhattan"),
        ("exact", "cosine, euclidean, manhattan"),
        ("exact:cosine?chunks=3", "no option 'chunks'; it has: chunk"),
        ("exact:cosine?chunk=many", "option chunk cannot be 'many'"),
        ("exact:cosine?chunk=0", "chunk must be at least 1"),
        ("exact:cosine?chunk", "name=value"),
        ("exact:cosine?chunk=1&chunk=2", "given twice"),
        ("sklearn:euclidean?algorithm=trees", "brute, ball_tree, kd_tree, auto"),
        ("sklearn:cosine?algorithm=kd_tree", "for cosine the algorithm must be one of brute, auto"),
    ],
)
def test_a_wrong_name_lists_the_names_that_exist(spec, message):
    with pytest.raises(ValueError) as caught:
        open_index(spec)
    assert message in str(caught.value)


def test_a_new_backend_is_one_line(monkeypatch):
    monkeypatch.setitem(BACKENDS, "other", "helpers.search.backends.exact:ExactIndex")
    assert isinstance(open_index("other:cosine"), ExactIndex)


# ---- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "ids", "scores"),
    [
        # From (1, 0): the gallery is (2, 0), (0, 3), (3, 4), (-1, 0).
        ("cosine", [0, 2, 1, 3], [1, 0.6, 0, -1]),
        ("euclidean", [0, 3, 1, 2], [-1, -2, -(10**0.5), -(20**0.5)]),
        ("manhattan", [0, 3, 1, 2], [-1, -2, -4, -6]),
    ],
)
@pytest.mark.parametrize("scheme", ["exact", "sklearn"])
def test_known_results(scheme, spec, ids, scores):
    index = open_index(f"{scheme}:{spec}").add([[2, 0], [0, 3], [3, 4], [-1, 0]])
    ranking = index.search([[1, 0]], 4)
    assert ranking.ids.tolist() == [ids]
    np.testing.assert_allclose(ranking.scores, [scores], atol=1e-7)


@every
def test_ids_are_ones_own_or_go_on_from_the_highest(spec):
    index = open_index(spec).add(random_vectors(3, 4))
    assert index.ids.tolist() == [0, 1, 2]
    index.add(random_vectors(2, 4, 1), [40, 7])
    index.add(random_vectors(1, 4, 2))
    assert index.ids.tolist() == [0, 1, 2, 7, 40, 41]
    for seed, ids in ((0, [0, 1, 2]), (1, [40, 7]), (2, [41])):
        vectors = random_vectors(len(ids), 4, seed)
        assert index.search(vectors, 1).ids[:, 0].tolist() == ids
    index.add(random_vectors(1, 4, 4), [20])
    index.remove([41])
    assert index.add(random_vectors(1, 4, 3)).ids[-1] == 42, "an id that was used must not come back by itself"


@every
def test_what_was_removed_is_not_found(spec):
    vectors = random_vectors(30, 5)
    index = open_index(spec).add(vectors)
    index.search(vectors, 3)
    index.remove(range(0, 30, 2))
    assert len(index) == 15
    assert set(index.search(vectors, 15).ids.ravel().tolist()) == set(range(1, 30, 2))
    rest = open_index(spec).add(vectors[1::2], np.arange(1, 30, 2))
    assert same(index.search(vectors, 15), rest.search(vectors, 15))
    index.add(vectors[:1], [0])
    assert index.search(vectors[:1], 1).ids.tolist() == [[0]]


@every
def test_removing_what_is_not_there_removes_nothing(spec):
    index = open_index(spec).add(random_vectors(4, 3))
    with pytest.raises(KeyError, match="ids 8, 9"):
        index.remove([1, 9, 8])
    assert index.ids.tolist() == [0, 1, 2, 3]


@every
def test_vectors_come_back_by_id(spec, tmp_path):
    vectors, ids = random_vectors(30, 5), np.random.default_rng(1).permutation(90)[:30]
    index = open_index(spec).add(vectors[:20], ids[:20]).add(vectors[20:], ids[20:])
    for each in (index, load_index(index.save(tmp_path / "a.index")), load_index(tmp_path / "a.index", mmap=True)):
        kept, expected = each.vectors(ids[::-3]), vectors[::-3]
        if each.metric == "cosine":
            kept, expected = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (kept, expected))
        np.testing.assert_allclose(kept, expected, atol=1e-6)
        assert kept.dtype == np.float32
        kept[:] = 0
        assert each.vectors(ids[:1]).any(), "it handed out its own memory"
        assert each.vectors([]).shape == (0, 5)
        with pytest.raises(KeyError, match="id 1000"):
            each.vectors([int(ids[0]), 1000])


@every
def test_emptied_and_cleared(spec):
    index = open_index(spec).add(random_vectors(4, 3))
    index.remove(index.ids)
    assert (len(index), index.dim) == (0, 3)
    with pytest.raises(ValueError, match="empty"):
        index.search(random_vectors(1, 3), 1)
    index.clear().add(random_vectors(2, 9))
    assert (index.ids.tolist(), index.dim) == ([0, 1], 9)


@every
def test_the_index_keeps_its_own_copy(spec):
    vectors = random_vectors(5, 3)
    index = open_index(spec).add(vectors)
    before = index.search(random_vectors(2, 3, 1), 5)
    vectors[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        index.ids[0] = 3
    assert same(before, index.search(random_vectors(2, 3, 1), 5))


@every
def test_order_and_batches_of_adding_change_nothing(spec):
    vectors, queries = random_vectors(40, 6), random_vectors(5, 6, 1)
    whole = open_index(spec).add(vectors).search(queries, 40)
    shuffled, pieces = open_index(spec), np.array_split(np.random.default_rng(2).permutation(40), 7)
    for piece in pieces:
        shuffled.add(vectors[piece], piece)
        shuffled.search(queries, 1)
    assert same(whole, shuffled.search(queries, 40))


@every
def test_more_results_than_vectors_are_padding(spec):
    ranking = open_index(spec).add(random_vectors(3, 4)).search(random_vectors(2, 4, 1), 5)
    assert ranking.ids.shape == (2, 5)
    assert (np.sort(ranking.ids[:, :3]) == [0, 1, 2]).all()
    assert (ranking.ids[:, 3:] == PAD).all()
    assert np.isneginf(ranking.scores[:, 3:]).all()


@every
def test_no_queries_no_rows(spec):
    assert open_index(spec).add(random_vectors(3, 4)).search(np.empty((0, 4)), 2).ids.shape == (0, 2)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None, float("nan")])
def test_k_must_be_a_whole_positive_number(k):
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        open_index("exact:cosine").add(random_vectors(3, 4)).search(random_vectors(1, 4), k)


def test_an_empty_index_can_not_be_searched():
    with pytest.raises(ValueError, match="the index is empty"):
        open_index("exact:cosine").search(random_vectors(1, 4), 1)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((2, 5)), "got vectors of 5 numbers, but the index holds 4: use its extractor"),
        (np.zeros(4), r"v\[None\]"),
        (np.zeros((1, 2, 4)), "must have shape"),
        (np.zeros((2, 0)), "the index holds 4"),
        ([[0, 0, 0, 0], [0, 0, np.nan, 0]], r"row 1 holds NaN \(1 of 2 rows do\)"),
        ([[0, 0, -np.inf, 0]], "row 0 holds infinity"),
        ([[0, 0, 1e300, 0]], "too large for float32"),
        ([["a", "b", "c", "d"]], "must be numbers"),
        ([[1j, 0, 0, 0]], "must be numbers"),
        ([[1, 2, 3, 4], [1]], "must be numbers"),
    ],
)
def test_invalid_vectors_are_refused_by_add_and_search(vectors, message):
    index = open_index("exact:cosine").add(random_vectors(3, 4))
    for refuse in (index.add, lambda v: index.search(v, 1)):
        with pytest.raises(ValueError, match=message):
            refuse(vectors)
    assert index.ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([5, 5], "unique: id 5"),
        ([7, 1], "id 1 already in the index"),
        ([-3, 9], "must not be negative, got -3"),
        ([9], "one per vector"),
        ([0.5, 9.5], "whole numbers"),
        ([[8, 9]], "shape"),
    ],
)
def test_wrong_ids_are_refused_and_nothing_is_added(ids, message):
    index = open_index("exact:cosine").add(random_vectors(3, 4))
    with pytest.raises(ValueError, match=message):
        index.add(random_vectors(2, 4), ids)
    assert index.ids.tolist() == [0, 1, 2]


def test_size_is_counted():
    index = open_index("exact:euclidean").add(random_vectors(100, 16))
    assert 100 * 16 * 4 <= index.nbytes <= 2 * 100 * 16 * 4
    assert "100 vectors of 16 numbers" in repr(index)


# ---- scores ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    dim=st.integers(1, 40),
    queries=st.integers(1, 5),
    k=st.integers(1, 70),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 2**31),
)
def test_the_two_backends_and_the_definition_agree(metric, n, dim, queries, k, scale, seed):
    gallery, probes = scale * random_vectors(n, dim, seed), scale * random_vectors(queries, dim, seed + 1)
    ours = open_index(f"exact:{metric}?chunk=7").add(gallery).search(probes, k)
    theirs = open_index(f"sklearn:{metric}").add(gallery).search(probes, k)
    truth = by_definition(metric, probes, gallery)
    size = 1 if metric == "cosine" else np.abs(truth).max()
    found = min(k, n)
    for ranking in (ours, theirs):
        expected = np.take_along_axis(truth, ranking.ids[:, :found], axis=1)
        np.testing.assert_allclose(ranking.scores[:, :found], expected, atol=2e-7 * size)
        # The k-th best is as good as it should be, so none was missed.
        np.testing.assert_allclose(expected, -np.sort(-truth, axis=1)[:, :found], atol=2e-7 * size)
    gaps = np.diff(-np.sort(-truth, axis=1), axis=1)
    if not gaps.size or (np.abs(gaps) > 1e-6 * size).all():
        assert np.array_equal(ours.ids, theirs.ids)


@pytest.mark.parametrize("metric", METRICS)
def test_raw_scikit_learn_finds_the_same(metric):
    gallery, queries = random_vectors(500, 32), random_vectors(50, 32, 1)
    distances, rows = NearestNeighbors(metric=metric, algorithm="brute").fit(gallery).kneighbors(queries, 10)
    ranking = open_index(f"exact:{metric}").add(gallery).search(queries, 10)
    assert np.array_equal(ranking.ids, rows)
    np.testing.assert_allclose(ranking.scores, (1 - distances) if metric == "cosine" else -distances, atol=1e-5)


@pytest.mark.parametrize("scheme", ["exact", "sklearn"])
def test_the_zero_vector_has_cosine_zero_to_everything(scheme):
    index = open_index(f"{scheme}:cosine").add([[1, 0], [0, 0], [-1, 0]])
    ranking = index.search([[2, 0], [0, 0]], 3)
    assert ranking.ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    np.testing.assert_allclose(ranking.scores, [[1, 0, -1], [0, 0, 0]], atol=1e-12)


def test_an_image_is_its_own_nearest_with_full_marks():
    vectors = 100 + random_vectors(300, 64)  # far from the origin, where |a|² - 2ab + |b|² leaves noise
    for metric, best in zip(METRICS, (1, 0, 0), strict=True):
        ranking = open_index(f"exact:{metric}").add(vectors).search(vectors, 1)
        assert ranking.ids[:, 0].tolist() == list(range(300))
        np.testing.assert_allclose(ranking.scores[:, 0], best, atol=1e-15)


def test_close_vectors_far_from_the_origin_keep_their_order():
    # Distances 1 … 5 at 10,000 from the origin: their squares vanish beside 1e8 in float32.
    gallery = np.full((200, 8), 1e4, np.float32)
    gallery[:, 0] += np.random.default_rng(0).permutation(200)
    order = np.argsort(gallery[:, 0])[:5]
    ranking = open_index("exact:euclidean").add(gallery).search(np.full((1, 8), 1e4), 5)
    assert ranking.ids.tolist() == [order.tolist()]
    assert ranking.scores.tolist() == [[0, -1, -2, -3, -4]]


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e15, 1e30])
@pytest.mark.parametrize("metric", METRICS)
def test_very_small_and_very_large_numbers(metric, scale):
    gallery, queries = random_vectors(300, 8), random_vectors(4, 8, 1)
    usual = open_index(f"exact:{metric}").add(gallery).search(queries, 5)
    scaled = open_index(f"exact:{metric}").add(gallery.astype(np.float64) * scale).search(queries * scale, 5)
    assert np.array_equal(usual.ids, scaled.ids)
    np.testing.assert_allclose(scaled.scores, usual.scores * (1 if metric == "cosine" else scale), rtol=1e-5)


# ---- ties, and the same results however the work is divided -------------------------------------------------------


@every
def test_equal_vectors_stand_by_id(spec):
    """100 copies of one vector lie between others, all over the chunks; the lowest ids come first."""
    vectors = random_vectors(300, 33)
    copies = np.sort(np.random.default_rng(1).permutation(300)[:100])
    vectors[copies] = vectors[copies[0]]
    index = open_index(spec).add(vectors)
    for k in (1, 5, 99):
        ranking = index.search(vectors[copies[:3]], k)
        assert (ranking.ids == copies[:k]).all()
        assert len(np.unique(ranking.scores)) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_ties_at_the_cut_that_are_not_the_nearest(metric):
    """The tie is for ranks 3 to 12, and only two of the ten fit."""
    gallery = np.array([[1, 0.0]] * 2 + [[1, 1.0]] * 10 + [[-1, 3.0]] * 100)[::-1]
    for chunk in (1, 4, 7, 1000):
        ranking = open_index(f"exact:{metric}?chunk={chunk}").add(gallery).search([[1, 0]], 4)
        assert ranking.ids.tolist() == [[110, 111, 100, 101]]


@pytest.mark.parametrize("metric", METRICS)
def test_results_do_not_depend_on_chunks_batches_or_depth(metric):
    gallery = random_vectors(700, 48)
    gallery[::7] = gallery[3]
    gallery[5::9] = gallery[5] * np.float32(1 + 1e-6)  # as close to a tie as float32 allows
    queries = np.concatenate([gallery[:20], random_vectors(20, 48, 1)])
    whole = open_index(f"exact:{metric}").add(gallery).search(queries, 700)
    for chunk, k in itertools.product((1, 5, 64, 699), (1, 8, 40, 700)):
        index = open_index(f"exact:{metric}?chunk={chunk}").add(gallery)
        assert same(index.search(queries, k), whole.head(k)), (chunk, k)
    one_by_one = open_index(f"exact:{metric}").add(gallery)
    for row in range(len(queries)):
        found = one_by_one.search(queries[[row]], 8)
        assert np.array_equal(found.scores[0], whole.scores[row, :8])
        assert np.array_equal(found.ids[0], whole.ids[row, :8])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(20, 200),
    dim=st.integers(1, 20),
    chunk=st.integers(1, 50),
    k=st.integers(1, 4),
    offset=st.sampled_from([0.0, 1e3]),
    scale=st.sampled_from([1e-22, 1.0, 1e12]),
    seed=st.integers(0, 2**31),
)
def test_ruling_out_never_protocol_out_an_result(metric, n, dim, chunk, k, offset, scale, seed):
    """Few distinct values, so that nearly everything ties: the shortcut against scoring everything."""
    gallery = (np.round(random_vectors(n, dim, seed)) + np.float32(offset)) * np.float32(scale)
    index = open_index(f"exact:{metric}?chunk={chunk}").add(gallery)
    index._scorer.few = 2  # the shortcut whatever k is
    assert same(index.search(gallery[:5], k), index.search(gallery[:5], n).head(k))
    index._scorer.few = 0
    assert same(index.search(gallery[:5], k), index.search(gallery[:5], n).head(k))


def test_products_that_vanish_in_float32_rule_nothing_out():
    for seed, scale in itertools.product(range(5), np.geomspace(1e-24, 1e-18, 13)):
        gallery = random_vectors(400, 4, seed) * np.float32(scale)
        index = open_index("exact:euclidean?chunk=50").add(gallery)
        assert same(index.search(gallery[:20], 5), index.search(gallery[:20], 400).head(5)), scale


def test_threads_change_nothing(monkeypatch):
    gallery, queries = random_vectors(2000, 64), random_vectors(30, 64, 1)
    found = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(exact.os, "cpu_count", lambda cores=cores: cores)
        found.append(open_index("exact:manhattan").add(gallery).search(queries, 20))
    assert same(found[0], found[1]) and same(found[0], found[2])


# ---- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "dim", "limit"), [("cosine", 16, 24e6), ("euclidean", 16, 24e6), ("manhattan", 3, 90e6)]
)
def test_memory_does_not_grow_with_queries_times_gallery(metric, dim, limit):
    """All scores at once would be 120 MB in float32, and 240 MB as they are."""
    gallery, queries = random_vectors(30_000, dim), random_vectors(1000, dim, 1)
    index = open_index(f"exact:{metric}?chunk=1024").add(gallery)
    tracemalloc.start()
    index.search(queries, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1e5 < peak < limit  # NumPy reports its memory to tracemalloc


# ---- files -------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_loaded_is_what_was_saved(spec, mmap, tmp_path):
    vectors, queries = random_vectors(50, 7), random_vectors(4, 7, 1)
    index = open_index(spec).add(vectors, np.random.default_rng(0).permutation(1000)[:50]).remove([])
    path = index.save(tmp_path / "new folder" / "a.index")
    loaded = load_index(path, mmap=mmap)
    assert (type(loaded), loaded.spec, loaded.dim) == (type(index), index.spec, 7)
    assert np.array_equal(loaded.ids, index.ids)
    assert same(loaded.search(queries, 50), index.search(queries, 50))
    # It goes on like the first one.
    first = index.ids[0]
    for each in (index, loaded):
        each.add(np.empty((0, 7))).remove([first])
        each.add(random_vectors(2, 7, 5))
    assert np.array_equal(loaded.ids, index.ids)
    assert same(loaded.search(queries, 50), index.search(queries, 50))


def test_an_empty_index_can_be_saved(tmp_path):
    for index in (
        open_index("exact:cosine"),
        open_index("exact:cosine").add(np.empty((0, 3))),
        open_index("exact:cosine").add(random_vectors(2, 3)).remove([0, 1]),
        open_index("exact:cosine").add(random_vectors(2, 3)).clear(),
    ):
        loaded = load_index(index.save(tmp_path / "a.index"))
        assert (len(loaded), loaded.dim) == (0, index.dim)
        assert loaded.add(random_vectors(1, 3)).ids.tolist() == index.add(random_vectors(1, 3)).ids.tolist()


def test_the_file_holds_no_pickle_and_says_what_it_is(tmp_path):
    index = open_index("exact:euclidean?chunk=9").add(random_vectors(4, 3))
    content = index.save(tmp_path / "a.index").read_bytes()
    start = content.index(b"{")
    header = json.JSONDecoder().raw_decode(content[start:].decode("latin-1"))[0]
    assert {"spec": "exact:euclidean?chunk=9", "dim": 3, "count": 4}.items() <= header.items()
    assert random_vectors(4, 3).tobytes() in content


def test_a_class_opens_only_its_own(tmp_path):
    path = open_index("sklearn:cosine").add(random_vectors(4, 3)).save(tmp_path / "a.index")
    assert isinstance(SklearnIndex.load(path), SklearnIndex)
    with pytest.raises(IndexFileError, match="sklearn:cosine"):
        ExactIndex.load(path)


@pytest.fixture
def saved(tmp_path):
    return open_index("exact:cosine").add(random_vectors(20, 5)).save(tmp_path / "gallery.index")


def test_a_file_cut_at_any_length_is_refused(saved):
    content = saved.read_bytes()
    for length in [*range(0, 700, 7), *range(700, len(content), 97), len(content) - 1]:
        saved.write_bytes(content[:length])
        for mmap in (False, True):
            with pytest.raises(IndexFileError, match="gallery.index"):
                load_index(saved, mmap)
    saved.write_bytes(content + b"\0")
    with pytest.raises(IndexFileError, match="too long"):
        load_index(saved)
    saved.write_bytes(content)
    assert len(load_index(saved)) == 20


def test_any_flipped_byte_is_noticed(saved):
    content = saved.read_bytes()
    body = len(content) - len(content) % 64
    for position in [*range(0, 600), *range(600, body, 31), len(content) - 1]:
        broken = bytearray(content)
        broken[position] ^= 0x20
        saved.write_bytes(broken)
        try:
            loaded = load_index(saved)
        except IndexFileError as error:
            assert "gallery.index" in str(error)
        else:
            # Only between the header and the arrays lies something that means nothing.
            assert content[position] == 0 and same(loaded.search(np.eye(5), 20), reference(content, saved))


def reference(content, path):
    path.write_bytes(content)
    return load_index(path).search(np.eye(5), 20)


def test_another_version_is_refused(saved, monkeypatch):
    monkeypatch.setattr(storage, "FORMAT_VERSION", 99)
    with pytest.raises(IndexFileError, match="format version 1; this library reads 99"):
        load_index(saved)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(500), b"IxFI" + bytes(5000)])
def test_another_kind_of_file_is_refused(content, tmp_path):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)  # the last one is how a file of FAISS begins
    for mmap in (False, True):
        with pytest.raises(IndexFileError, match="holiday.jpg"):
            load_index(path, mmap)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.index"):
        load_index(tmp_path / "nowhere.index")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IndexFileError, match="folder"):
        load_index(tmp_path / "folder")


def test_a_backend_that_is_gone_is_an_error_that_names_the_file(saved, monkeypatch):
    monkeypatch.delitem(BACKENDS, "exact")
    with pytest.raises(IndexFileError, match="gallery.index.*there is no index 'exact'"):
        load_index(saved)


class FullDisk:
    """A file on a disk that takes some bytes and then no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, part):
        if len(part) > self.room:
            self.file.write(bytes(part)[: self.room])
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(part)
        return self.file.write(part)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.fixture
def full_disk(monkeypatch):
    """``full_disk(room)``: from now on each file that is opened for writing takes that many bytes."""
    real = Path.open

    def fill(room):
        def opened(path, mode="r", *args, **kwargs):
            file = real(path, mode, *args, **kwargs)
            return FullDisk(file, room) if set(mode) & set("wxa") else file

        monkeypatch.setattr(Path, "open", opened)

    return fill


@pytest.mark.parametrize("room", [0, 100, 700])
def test_a_full_disk_leaves_the_old_file(saved, full_disk, room):
    before = saved.read_bytes()
    full_disk(room)
    with pytest.raises(IndexFileError, match="No space left.*Free some space"):
        open_index("exact:cosine").add(random_vectors(500, 5)).save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["gallery.index"], "nothing half-written stays"


def test_a_save_that_is_interrupted_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_index("exact:cosine").add(random_vectors(500, 5)).save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["gallery.index"]


def test_a_place_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IndexFileError, match="a.index cannot be written"):
        open_index("exact:cosine").save(tmp_path / "file" / "a.index")
