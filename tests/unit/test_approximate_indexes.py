"""Indexes by FAISS, USearch and Annoy: the contract, what each cannot do, exact search as reference, and the file."""

import re
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
import pytest

from helpers.search.backends import faiss_backend as faiss_module
from helpers.search.index import IndexFileError, UnsupportedByIndex, load_index, open_index
from helpers.search.ranking import PAD

FAISS = [
    "faiss:flat",
    "faiss:flat?metric=euclidean",
    "faiss:flat?storage=int8",
    "faiss:ivf",
    "faiss:ivf?lists=4&metric=euclidean&probes=4&storage=float16",
    "faiss:hnsw",
    "faiss:hnsw?metric=euclidean&storage=float16",
    "faiss:hnsw?storage=int8",
    "faiss:pq",
    "faiss:pq?refine=none",
    "faiss:opq",
    "faiss:opq?refine=none",
]
USEARCH = ["usearch:cosine", "usearch:euclidean?dtype=f16", "usearch:cosine?dtype=i8"]
ANNOY = ["annoy:cosine", "annoy:euclidean", "annoy:manhattan"] if find_spec("annoy") else []
SPECS = FAISS + USEARCH + ANNOY
#: Those whose scores are estimates, by which near neighbors may change order.
ROUGH = ("int8", "i8", "refine=none", "f16", "float16")


def removes(spec):
    return not spec.startswith(("faiss:hnsw", "annoy")) and ("pq" not in spec or "refine=none" in spec)


#: FAISS trains on the few vectors of a test; otherwise it compares them one by one.
CASES = [pytest.param(spec, True, id=spec) for spec in SPECS]
CASES += [
    pytest.param(spec, False, id=f"{spec} waiting")
    for spec in ("faiss:flat?storage=int8", "faiss:ivf", "faiss:hnsw?storage=int8", "faiss:opq", "faiss:pq?refine=none")
]

every = pytest.mark.parametrize(("spec", "trained"), CASES, indirect=["trained"])
every_that_removes = pytest.mark.parametrize(
    ("spec", "trained"), [case for case in CASES if removes(case.values[0])], indirect=["trained"]
)
every_that_does_not = pytest.mark.parametrize(
    ("spec", "trained"), [case for case in CASES if not removes(case.values[0])], indirect=["trained"]
)
needs_annoy = pytest.mark.skipif(not ANNOY, reason="NOT TESTED: Annoy is not installed (requirements-compiled.txt)")


@pytest.fixture
def trained(request, monkeypatch):
    """Whether so few vectors as a test has are trained on."""
    if request.param:
        monkeypatch.setattr(faiss_module, "_TRAINABLE", 256)
    return request.param


def clustered(n, dim, seed=0):
    """float32 (n, dim) around 40 centers, as embeddings of 40 classes are."""
    centers = np.random.default_rng(99).standard_normal((40, dim))
    random = np.random.default_rng(seed)
    return (centers[random.integers(0, 40, n)] + 0.6 * random.standard_normal((n, dim))).astype(np.float32)


def recall(found, truth):
    return np.mean([len(set(a) & set(b) - {PAD}) / len(b) for a, b in zip(found.ids, truth.ids, strict=True)])


def same(a, b):
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.scores, b.scores)


# ---- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "metric", "name"),
    [
        ("faiss:flat", "cosine", "faiss:flat"),
        ("faiss:hnsw?metric=l2&m=16", "euclidean", "faiss:hnsw?m=16&metric=euclidean"),
        ("faiss:ivf?metric=cos&lists=8&probes=2", "cosine", "faiss:ivf?lists=8&probes=2"),
        ("faiss:opq?bytes=8&refine=int8&depth=20", "cosine", "faiss:opq?bytes=8&depth=20&refine=int8"),
        ("usearch:l2?dtype=f16&connectivity=8", "euclidean", "usearch:euclidean?connectivity=8&dtype=f16"),
        pytest.param("annoy:angular?trees=5", "cosine", "annoy:cosine?trees=5", marks=needs_annoy),
        pytest.param("annoy:l1?search=500", "manhattan", "annoy:manhattan?search=500", marks=needs_annoy),
    ],
)
def test_a_name_goes_round(spec, metric, name, tmp_path):
    index = open_index(spec)
    assert (index.metric, index.spec, open_index(name).spec) == (metric, name, name)
    loaded = load_index(index.add(clustered(30, 16)).save(tmp_path / "a.index"))
    assert (type(loaded), loaded.spec, loaded.options) == (type(index), name, index.options)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("faiss:cosine", "faiss has no kind 'cosine'; it has: flat, ivf, hnsw, pq, opq"),
        ("faiss:flat?metric=manhattan", "cosine, euclidean"),
        ("faiss:flat?probes=3", "faiss:flat has no option 'probes'; it has: metric, storage"),
        ("faiss:flat?trees=3", "faiss has no option 'trees'"),
        ("faiss:ivf?lists=0", "lists must be a whole number of at least 1, got 0"),
        ("faiss:hnsw?m=1", "m must be at least 2"),
        ("faiss:hnsw?storage=f16", "storage must be one of float32, float16, int8; got 'f16'"),
        ("faiss:pq?refine=exact", "refine must be one of none, float32, float16, int8; got 'exact'"),
        ("faiss:pq?refine=none&depth=4", "refine is none"),
        ("usearch:manhattan", "cosine, euclidean"),
        ("usearch:cosine?dtype=f64", "dtype must be one of f32, f16, i8; got 'f64'"),
        ("usearch:euclidean?dtype=i8", "for cosine only"),
        ("usearch:cosine?connectivity=1", "connectivity must be at least 2"),
        ("usearch:cosine?expansion_add=-1", "expansion_add must be a whole number of at least 1"),
        pytest.param("annoy:dot", "cosine, euclidean, manhattan", marks=needs_annoy),
        pytest.param("annoy:cosine?trees=0", "trees must be a whole number of at least 1", marks=needs_annoy),
        pytest.param("annoy:cosine?search=-2", "search must be a whole number of at least 1", marks=needs_annoy),
    ],
)
def test_a_wrong_name_lists_the_names_that_exist(spec, message):
    with pytest.raises(ValueError) as caught:
        open_index(spec)
    assert message in str(caught.value)


def test_codes_must_divide_the_dimension():
    index = open_index("faiss:pq?bytes=5")
    with pytest.raises(ValueError, match=r"bytes must divide the dimension 16, got 5; it can be \[1, 2, 4, 8, 16\]"):
        index.add(clustered(1200, 16))
    assert len(index) == 0


# ---- against exact search------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    ["faiss:flat", "faiss:ivf", "faiss:hnsw", "faiss:pq", "faiss:opq", "usearch:cosine"]
    + ["faiss:hnsw?storage=float16", "faiss:ivf?storage=int8", "faiss:pq?refine=int8"]
    + ["annoy:cosine"] * bool(ANNOY),
)
def test_defaults_find_what_exact_search_finds(spec):
    gallery, queries = clustered(3000, 64), clustered(100, 64, 1)
    truth = open_index("exact:cosine").add(gallery).search(queries, 10)
    index = open_index(spec).add(gallery)
    found = index.search(queries, 10)
    assert recall(found, truth) >= 0.95
    assert np.abs(found.scores - truth.scores).mean() < 0.005


@pytest.mark.parametrize(
    "spec",
    ["faiss:ivf?metric=euclidean", "faiss:opq?metric=euclidean", "faiss:hnsw?metric=euclidean", "usearch:euclidean"]
    + ["annoy:euclidean", "annoy:manhattan"] * bool(ANNOY),
)
def test_distances_come_negated(spec):
    gallery, queries = clustered(3000, 32), clustered(50, 32, 1)
    metric = "manhattan" if "manhattan" in spec else "euclidean"
    truth = open_index(f"exact:{metric}").add(gallery).search(queries, 10)
    found = open_index(spec).add(gallery).search(queries, 10)
    assert recall(found, truth) >= 0.95
    assert np.abs(found.scores - truth.scores).mean() < 0.01 * np.abs(truth.scores).mean()


def test_flat_is_exact():
    gallery, queries = clustered(3000, 64), clustered(100, 64, 1)
    truth = open_index("exact:cosine").add(gallery).search(queries, 10)
    found = open_index("faiss:flat").add(gallery).search(queries, 10)
    np.testing.assert_allclose(found.scores, truth.scores, atol=1e-5)
    # Where they differ, two scores are as good as equal.
    rows, columns = np.nonzero(found.ids != truth.ids)
    assert len(rows) < 10
    gaps = np.abs(np.diff(truth.scores, axis=1))
    assert all(
        gaps[row, max(0, column - 1) : column + 1].min() < 1e-6 for row, column in zip(rows, columns, strict=True)
    )


@pytest.mark.parametrize(
    ("metric", "ids", "scores"),
    [
        # From (1, 0): the gallery is (2, 0), (0, 3), (3, 4), (-1, 0), (0, 0).
        ("cosine", [0, 2, 1, 4, 3], [1, 0.6, 0, 0, -1]),
        ("euclidean", [0, 4, 3, 1, 2], [-1, -1, -2, -(10**0.5), -(20**0.5)]),
        ("manhattan", [0, 4, 3, 1, 2], [-1, -1, -2, -4, -6]),
    ],
)
def test_known_results(metric, ids, scores):
    specs = {
        "cosine": ["faiss:flat", "faiss:ivf", "faiss:hnsw", "faiss:hnsw?storage=float16", "usearch:cosine"],
        "euclidean": ["faiss:flat?metric=euclidean", "faiss:hnsw?metric=euclidean", "usearch:euclidean"],
        "manhattan": [],
    }[metric] + [f"annoy:{metric}"] * bool(ANNOY)
    for spec in specs:
        index = open_index(spec).add([[2, 0], [0, 3], [3, 4], [-1, 0], [0, 0]])
        ranking = index.search([[1, 0]], 5)
        np.testing.assert_allclose(ranking.scores, [scores], atol=1e-3 if "float16" in spec else 1e-6, err_msg=spec)
        by_id = dict(zip(ranking.ids[0].tolist(), ranking.scores[0], strict=True))
        assert {id: round(score, 2) for id, score in by_id.items()} == dict(zip(ids, np.round(scores, 2), strict=True))


@pytest.mark.parametrize(
    ("spec", "trained"),
    [case for case in CASES if not {"euclidean", "manhattan"} & {*re.split(r"\W", case.values[0])}],
    indirect=["trained"],
)
def test_the_zero_vector_has_cosine_zero_to_everything(spec, trained):
    vectors = clustered(400, 16)
    vectors[7] = 0
    index = open_index(spec).add(vectors)
    ranking = index.search(np.zeros((1, 16)), 5)
    np.testing.assert_allclose(ranking.scores[ranking.ids != PAD], 0, atol=0.02 if is_rough(spec) else 1e-6)
    found = index.search(clustered(3, 16, 1), 400)
    zero = found.ids == 7
    np.testing.assert_allclose(found.scores[zero], 0, atol=0.1 if is_rough(spec) else 2e-3)


def is_rough(spec):
    return any(word in spec for word in ROUGH)


# ---- the contract ------------------------------------------------------------------------------------------------


@every
def test_ids_are_ones_own_and_survive(spec, trained, tmp_path):
    vectors = clustered(400, 16)
    ids = np.random.default_rng(3).permutation(np.arange(400, dtype=np.int64) * 2**50 // 400 + 2**62)
    index = open_index(spec).add(vectors[:300], ids[:300]).add(vectors[300:], ids[300:])
    assert np.array_equal(index.ids, np.sort(ids))
    for each in (index, load_index(index.save(tmp_path / "a.index"), mmap=True)):
        found = each.search(vectors, 10)
        # Compressed to a byte or two, a vector is not always its own nearest.
        assert (found.ids == ids[:, None]).any(axis=1).mean() >= (0.5 if "refine=none" in spec else 0.99)
        assert np.isin(found.ids, [*ids, PAD]).all()


@every
def test_vectors_come_back_by_id(spec, trained, tmp_path):
    vectors, ids = clustered(400, 16), np.random.default_rng(3).permutation(900)[:400]
    index = open_index(spec).add(vectors[:300], ids[:300]).add(vectors[300:], ids[300:])
    for each in (index, load_index(index.save(tmp_path / "a.index")), load_index(tmp_path / "a.index", mmap=True)):
        kept, expected = each.vectors(ids[::-7]), vectors[::-7]
        if each.metric == "cosine":
            kept, expected = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (kept, expected))
        off = np.linalg.norm(kept - expected, axis=1) / np.linalg.norm(expected, axis=1)
        # Two codes of a byte; a byte a number; float16; and float32.
        most = 0.7 if "refine=none" in spec else 0.05 if "i" in spec.partition("=")[2][:1] else 2e-3
        assert off.mean() < most and (off.mean() < 1e-6 or any(rough in spec for rough in (*ROUGH, "pq")))
        with pytest.raises(KeyError, match="id 1000"):
            each.vectors([int(ids[0]), 1000])


@every_that_removes
def test_vectors_of_those_that_stay(spec, trained):
    vectors = clustered(400, 16)
    index = open_index(spec).add(vectors)
    before = index.vectors([9, 399])
    index.remove(np.arange(0, 400, 2)).add(clustered(3, 16, 1), [0, 2, 4])
    np.testing.assert_array_equal(index.vectors([9, 399]), before)
    with pytest.raises(KeyError, match="id 10 has no vector"):
        index.vectors([10])


@every
def test_adding_in_chunks_gives_the_same_ids(spec, trained):
    vectors, queries = clustered(600, 16), clustered(20, 16, 1)
    whole, chunks = open_index(spec).add(vectors), open_index(spec)
    for start in range(0, 600, 70):
        chunks.add(vectors[start : start + 70])
        assert (chunks.search(vectors[start : start + 2], 3).ids != PAD).any()
    assert np.array_equal(whole.ids, chunks.ids)
    assert recall(chunks.search(queries, 10), whole.search(queries, 10)) > (0.3 if "refine=none" in spec else 0.85)


@every_that_removes
def test_what_was_removed_is_not_found(spec, trained, tmp_path):
    vectors = clustered(400, 16)
    index = open_index(spec).add(vectors)
    index.remove(range(0, 400, 2))
    assert len(index) == 200
    for each in (index, load_index(index.save(tmp_path / "a.index"), mmap=True)):
        found = each.search(vectors, 200).ids
        assert set(found.ravel().tolist()) <= {*range(1, 400, 2), PAD}
        assert (found[:, :50] != PAD).mean() > 0.5
        each.remove([1])
        assert 1 not in each.search(vectors, 200).ids
    index.add(vectors[:1], [0])
    assert 0 in index.search(vectors[:1], 10).ids


@every_that_removes
def test_all_removed_and_added_again(spec, trained, tmp_path):
    vectors = clustered(400, 16)
    index = open_index(spec).add(vectors)
    index.remove(index.ids)
    assert (len(index), index.dim) == (0, 16)
    with pytest.raises(ValueError, match="the index is empty"):
        index.search(vectors, 1)
    index = load_index(index.save(tmp_path / "a.index"), mmap=True)
    assert (len(index), index.dim) == (0, 16)
    index.add(vectors[::-1], np.arange(1000, 1400))
    found = index.search(vectors[:5], 10)
    assert np.isin(found.ids, [*range(1000, 1400), PAD]).all()
    if "refine" not in spec:
        assert all(1399 - row in found.ids[row] for row in range(5))


@every_that_does_not
def test_what_can_not_be_removed_is_said_with_the_remedy(spec, trained):
    index = open_index(spec).add(clustered(400, 16))
    before = index.search(clustered(4, 16, 1), 10)
    library = "Annoy" if spec.startswith("annoy") else "FAISS"
    with pytest.raises(UnsupportedByIndex, match=f"cannot remove.*{library}.*clear the index"):
        index.remove([3])
    assert isinstance(UnsupportedByIndex(), NotImplementedError)
    assert len(index) == 400 and same(before, index.search(clustered(4, 16, 1), 10))
    with pytest.raises(KeyError, match="id 400"):
        index.remove([400])
    assert len(index.remove([])) == 400


@every
def test_cleared_it_is_as_new(spec, trained):
    index = open_index(spec).add(clustered(400, 16)).clear()
    assert (len(index), index.dim) == (0, None)
    with pytest.raises(ValueError, match="the index is empty"):
        index.search(clustered(1, 16), 1)
    index.add(clustered(300, 24), np.arange(5, 305))
    assert (index.dim, index.ids[0]) == (24, 5)
    assert (index.search(clustered(2, 24), 3).ids >= 5).all()


@every
def test_an_empty_index_and_one_vector(spec, trained, tmp_path):
    index = open_index(spec).add(np.empty((0, 16)))
    assert (len(index), index.dim) == (0, 16)
    for each in (index, load_index(index.save(tmp_path / "a.index")), load_index(tmp_path / "a.index", mmap=True)):
        with pytest.raises(ValueError, match="the index is empty"):
            each.search(np.ones((1, 16)), 3)
        each.add(clustered(1, 16), [9])
        found = each.search(clustered(1, 16), 3)
        assert found.ids.tolist() == [[9, PAD, PAD]]
        np.testing.assert_allclose(found.scores[0, 0], 1 if each.metric == "cosine" else 0, atol=0.02)
        assert each.search(np.empty((0, 16)), 3).ids.shape == (0, 3)


@every
def test_more_results_than_vectors_are_padding(spec, trained):
    n = 300
    ranking = open_index(spec).add(clustered(n, 16)).search(clustered(3, 16, 1), n + 20)
    assert ranking.ids.shape == (3, n + 20)
    assert (ranking.ids[:, n:] == PAD).all() and np.isneginf(ranking.scores[:, n:]).all()
    held = (ranking.ids[:, :n] != PAD).mean()
    # A search of some lists finds what is in these, and not every vector can be walked to in a graph.
    assert held > (0.3 if "opq" in spec or "ivf" in spec else 0.7)


@every
def test_equal_vectors_all_over(spec, trained):
    vectors = np.tile(clustered(1, 16), (500, 1))
    index = open_index(spec).add(vectors)
    ranking = index.search(vectors[:2], 10)
    assert (ranking.ids != PAD).all()
    np.testing.assert_allclose(ranking.scores, 1 if index.metric == "cosine" else 0, atol=0.05)
    deep = index.search(vectors[:2], 500)
    held = deep.ids != PAD
    assert held.sum() >= 20 and np.isneginf(deep.scores[~held]).all()
    np.testing.assert_allclose(deep.scores[held], 1 if index.metric == "cosine" else 0, atol=0.05)


@every
def test_ids_twice_are_refused_and_nothing_is_added(spec, trained):
    index = open_index(spec).add(clustered(30, 16))
    for ids, message in (([50, 50], "unique: id 50"), ([3, 50], "id 3 already in the index")):
        with pytest.raises(ValueError, match=message):
            index.add(clustered(2, 16, 1), ids)
    assert index.ids.tolist() == list(range(30)) and (index.search(clustered(5, 16, 1), 30).ids < 30).all()


@every
def test_another_dimension_is_refused(spec, trained):
    index = open_index(spec).add(clustered(30, 16))
    for refuse in (index.add, lambda vectors: index.search(vectors, 1)):
        with pytest.raises(ValueError, match="got vectors of 17 numbers, but the index holds 16"):
            refuse(clustered(2, 17))


@every
def test_any_layout_and_type_of_numbers_will_do(spec, trained):
    vectors, queries = clustered(400, 16), clustered(10, 16, 1)
    plain = open_index(spec).add(vectors)
    wide = np.zeros((800, 32))
    wide[::2, ::2] = vectors
    strided = open_index(spec).add(wide[::2, ::2])
    turned = strided.search(np.asfortranarray(queries.astype(np.float64)), 10)
    assert recall(turned, plain.search(queries, 10)) > 0.95
    frozen = queries.copy()
    frozen.setflags(write=False)
    assert same(plain.search(frozen, 10), plain.search(queries, 10))


@every
def test_the_index_keeps_its_own_copy(spec, trained):
    vectors = clustered(300, 16)
    given = vectors.copy()
    index = open_index(spec).add(given)
    given[:] = 1
    assert recall(index.search(vectors, 5), open_index(spec).add(vectors).search(vectors, 5)) > 0.95
    assert (given == 1).all()


@every
def test_size_is_counted(spec, trained, tmp_path):
    index = open_index(spec).add(clustered(2000, 64))
    index.search(clustered(1, 64), 1)
    size, path = index.nbytes, index.save(tmp_path / "a.index")
    # USearch allocates in pieces of megabytes.
    assert 0.9 * path.stat().st_size < size < 1.2 * path.stat().st_size + (2**25 if "usearch" in spec else 2**14)
    assert 0.9 * path.stat().st_size < load_index(path, mmap=True).nbytes < 1.2 * path.stat().st_size + 2**19


@pytest.mark.parametrize(
    ("spec", "number"),
    [
        ("faiss:flat?metric=euclidean", 1e20),
        ("faiss:hnsw?metric=euclidean&storage=float16", 1e5),
        ("faiss:pq?metric=euclidean", 1e5),
        ("usearch:euclidean", 1e20),
        ("usearch:euclidean?dtype=f16", 1e5),
        pytest.param("annoy:euclidean", 1e20, marks=needs_annoy),
    ],
)
def test_what_would_become_infinite_is_refused(spec, number):
    index = open_index(spec).add(clustered(20, 16))
    for refuse in (index.add, lambda vectors: index.search(vectors, 1)):
        with pytest.raises(ValueError, match="too large for .*: scale the vectors"):
            refuse(np.full((1, 16), number))
    assert len(index) == 20


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("spec", ["faiss:flat", "faiss:hnsw", "usearch:cosine", *ANNOY[:1]])
def test_the_cosine_does_not_depend_on_length(spec, scale):
    vectors, queries = clustered(100, 16), clustered(5, 16, 1)
    usual = open_index(spec).add(vectors).search(queries, 5)
    scaled = open_index(spec).add(vectors * np.float64(scale)).search(queries * np.float64(scale), 5)
    assert np.array_equal(usual.ids, scaled.ids)
    np.testing.assert_allclose(usual.scores, scaled.scores, atol=1e-6)


# ---- training ----------------------------------------------------------------------------------------------------


def layers(index):
    return {type(layer).__name__: layer for layer in faiss_module._layers(index._index)}


def test_few_vectors_are_compared_one_by_one_until_they_can_be_trained():
    vectors = clustered(2000, 16)
    index, exact = open_index("faiss:ivf?lists=150"), open_index("exact:cosine")
    for start in range(0, 2000, 100):
        index.add(vectors[start : start + 100])
        exact.add(vectors[start : start + 100])
        assert ("IndexIVFFlat" in layers(index)) == (len(index) >= 1500)
        if len(index) < 1500:
            np.testing.assert_allclose(index.search(vectors, 5).scores, exact.search(vectors, 5).scores, atol=1e-5)
    assert layers(index)["IndexIVFFlat"].nlist == 150
    assert index.search(vectors, 1).ids[:, 0].tolist() == list(range(2000))


@pytest.mark.parametrize(("n", "lists"), [(1000, 25), (3000, 76), (40_000, 800)])
def test_lists_follow_from_the_number_of_vectors(n, lists):
    assert f"IVF{lists}," in open_index("faiss:ivf")._recipe(n, 8)


def test_training_takes_a_bounded_sample(monkeypatch):
    seen = []
    real = faiss.IndexIVFFlat.train
    monkeypatch.setattr(faiss.IndexIVFFlat, "train", lambda self, x: seen.append(len(x)) or real(self, x))
    open_index("faiss:ivf?lists=8").add(clustered(30_000, 4))
    assert seen == [4000]


def test_training_says_nothing(capfd):
    for kind in ("ivf", "pq", "opq"):
        open_index(f"faiss:{kind}").add(clustered(1100, 16))
    assert capfd.readouterr() == ("", "")


# ---- tuning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "worse", "better"),
    [
        ("faiss:ivf?lists=60", {"probes": 1}, {"probes": 60}),
        ("faiss:hnsw?m=4&construction=8", {"search": 1}, {"search": 400}),
        ("faiss:pq?bytes=4", {"depth": 1}, {"depth": 50}),
        ("faiss:opq?bytes=4&lists=60", {"probes": 1, "depth": 1}, {"probes": 60, "depth": 50}),
        ("usearch:cosine?connectivity=4&expansion_add=8", {"expansion_search": 1}, {"expansion_search": 400}),
        pytest.param("annoy:cosine?trees=3", {"search": 20}, {"search": 5000}, marks=needs_annoy),
    ],
)
def test_search_time_options_change_at_once_and_are_saved(spec, worse, better, tmp_path):
    gallery, queries = np.random.default_rng(0).standard_normal((2000, 32)), clustered(40, 32, 1)
    truth = open_index("exact:cosine").add(gallery).search(queries, 10)
    index = open_index(spec).add(gallery)
    assert set(worse) <= set(index.search_options)
    low = recall(index.tune(**worse).search(queries, 10), truth)
    high = recall(index.tune(**better).search(queries, 10), truth)
    assert low + 0.1 < high and high > 0.8
    assert index.options.items() >= better.items() and open_index(index.spec).options == index.options
    for mmap in (False, True):
        loaded = load_index(index.save(tmp_path / "a.index"), mmap)
        assert same(loaded.search(queries, 10), index.search(queries, 10))
        assert recall(loaded.tune(**worse).search(queries, 10), truth) == low
    # From the start, too; and None is the default.
    assert abs(recall(open_index(index.tune(**worse).spec).add(gallery).search(queries, 10), truth) - low) < 0.15
    assert open_index(spec).options == index.tune(**dict.fromkeys(worse)).options


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("faiss:hnsw", {"m": 3}, "faiss:hnsw cannot change 'm' once it is open; it can change: search"),
        ("faiss:flat", {"probes": 3}, "it can change: nothing"),
        ("exact:cosine", {"chunk": 3}, "it can change: nothing"),
        ("faiss:opq", {"probes": 3, "depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ("usearch:cosine", {"expansion_search": "many"}, "expansion_search must be a whole number"),
        ("usearch:cosine", {"dtype": "f16"}, "cannot change 'dtype'"),
    ],
)
def test_what_can_not_be_tuned_is_refused_and_changes_nothing(spec, options, message):
    index = open_index(spec).add(clustered(30, 16))
    with pytest.raises(ValueError, match=message):
        index.tune(**options)
    assert index.spec == spec


# ---- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["faiss:flat", "faiss:ivf", "faiss:hnsw", "usearch:cosine", "exact:cosine", *ANNOY[:1]]
)
def test_searching_while_another_thread_adds(spec):
    vectors = clustered(3000, 16)
    index = open_index(spec).add(vectors[:300])
    faults, searches, adding = [], [], threading.Event()
    adding.set()

    def search():
        try:
            while adding.is_set():
                held = len(index)
                found = index.search(vectors[:20], 5)
                searches.append(held)
                if (found.ids[:, 0] != np.arange(20)).any() or (found.ids >= len(index)).any():
                    faults.append(found.ids)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(300, 3000, 300):
        index.add(vectors[start : start + 300])
        time.sleep(0.002)
    adding.clear()
    for thread in threads:
        thread.join(30)
    assert not faults
    assert len(index) == 3000 and len(set(searches)) > 2, "searches ran between the adds"


def test_many_searches_run_together():
    """Each waits inside for the other, so one at a time would never end."""
    index = open_index("exact:cosine").add(clustered(10, 4))
    meeting = threading.Barrier(2, timeout=20)
    real = index._search
    index._search = lambda queries, k: meeting.wait() and None or real(queries, k)
    threads = [threading.Thread(target=index.search, args=(clustered(1, 4), 1)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not meeting.broken and not any(thread.is_alive() for thread in threads)


# ---- files -------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_loaded_is_what_was_saved_and_goes_on(spec, mmap, trained, tmp_path):
    vectors, queries = clustered(400, 16), clustered(5, 16, 1)
    index = open_index(spec).add(vectors, np.random.default_rng(0).permutation(1000)[:400])
    path = index.save(tmp_path / "new folder" / "a.index")
    loaded = load_index(path, mmap=mmap)
    assert (type(loaded), loaded.spec, loaded.dim) == (type(index), index.spec, 16)
    assert np.array_equal(loaded.ids, index.ids)
    assert same(loaded.search(queries, 10), index.search(queries, 10))
    # Saved again over the file that it looks into.
    loaded.save(path)
    assert same(load_index(path, mmap=mmap).search(queries, 10), index.search(queries, 10))
    for each in (index, loaded):
        each.add(clustered(60, 16, 5))
    assert np.array_equal(loaded.ids, index.ids)
    assert recall(loaded.search(queries, 10), index.search(queries, 10)) > 0.95
    if removes(spec):
        loaded.remove(loaded.ids[:50])
        assert len(load_index(loaded.save(path), mmap)) == 410


SAVED = ["faiss:flat", "faiss:ivf", "faiss:opq", "usearch:cosine", *ANNOY[:1]]


@pytest.fixture(params=SAVED)
def saved(request, tmp_path):
    return open_index(request.param).add(clustered(300, 8)).save(tmp_path / "gallery.index")


def test_a_file_cut_at_any_length_is_refused(saved):
    content = saved.read_bytes()
    for length in [*range(0, 900, 50), *range(900, len(content), len(content) // 40), len(content) - 1]:
        saved.write_bytes(content[:length])
        for mmap in (False, True):
            with pytest.raises(IndexFileError, match="gallery.index"):
                load_index(saved, mmap)


def test_a_damaged_part_never_reaches_the_library(saved):
    content = saved.read_bytes()
    body = content.rindex(bytes(8), 0, 2000)
    for position in [*range(body + 64, body + 264, 3), *range(body + 264, len(content) - 64, len(content) // 60)]:
        broken = bytearray(content)
        broken[position] ^= 0xFF
        saved.write_bytes(broken)
        with pytest.raises(IndexFileError, match=r"gallery.index is truncated or damaged"):
            load_index(saved)
    saved.write_bytes(content)
    assert len(load_index(saved)) == 300


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TESTED: only Linux has a disk that is always full")
@pytest.mark.parametrize("spec", SAVED)
def test_a_full_disk_leaves_the_old_file(spec, tmp_path, monkeypatch):
    path = open_index(spec).add(clustered(300, 8)).save(tmp_path / "gallery.index")
    before, real = path.read_bytes(), Path.open
    bigger = open_index(spec).add(clustered(600, 8))
    bigger.search(clustered(1, 8), 1)

    def opened(path, mode="r", **more):
        """A new file that is really the device which has no room."""
        if "x" not in mode:
            return real(path, mode, **more)
        path.touch()
        return real(Path("/dev/full"), "wb", buffering=0)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(IndexFileError, match="No space left.*Free some space"):
        bigger.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["gallery.index"]


@needs_annoy
def test_annoy_leaves_no_files_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    index = open_index("annoy:angular").add(clustered(100, 8))
    index.search(clustered(1, 8), 3)
    (tmp_path / "kept").mkdir()
    path = index.save(tmp_path / "kept" / "a.index")
    load_index(path, mmap=True).search(clustered(1, 8), 3)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(IndexFileError, match=r"nowhere.*Free some space there, or set TMPDIR"):
        load_index(path)


@needs_annoy
def test_annoy_takes_more_after_its_trees_were_made():
    vectors = clustered(500, 16)
    index = open_index("annoy:angular")
    for start in range(0, 500, 100):
        index.add(vectors[start : start + 100])
        assert index.search(vectors[: start + 100], 1).ids[:, 0].tolist() == list(range(start + 100))
    whole = open_index("annoy:angular").add(vectors)
    assert same(whole.search(vectors, 5), index.search(vectors, 5)), "the same trees as if made at once"


@needs_annoy
def test_annoy_counts_each_tree_once(monkeypatch):
    """As if its threads ended at the same time: the last root of the file is not the one that was written last."""
    from helpers.search.backends import annoy_backend

    counts = []

    class Forest(annoy_backend.Forest):
        def save(self, path):
            super().save(path)
            if not counts:
                nodes = np.fromfile(path, np.uint8).reshape(-1, 4 * 16 + 12)
                self.unload()
                nodes[[-1, -2]] = nodes[[-2, -1]]
                nodes.tofile(path)
                self.load(path)
            counts.append(self.get_n_trees())

    vectors = clustered(500, 16)
    usual = open_index("annoy:angular").add(vectors).search(vectors, 5)
    monkeypatch.setattr(annoy_backend, "Forest", Forest)
    assert same(open_index("annoy:angular").add(vectors).search(vectors, 5), usual)
    assert counts == [31, 30]
