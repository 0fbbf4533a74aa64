"""Re-ranking by name: against numpy and the modules behind it, on real images, and excluded images."""

import inspect
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.features import keypoints
from helpers.features.keypoints import extract
from helpers.images import samples
from helpers.images.imageset import ImageSet
from helpers.images.known_items import Change
from helpers.images.reading import UnreadableImageWarning, read_image, resize
from helpers.search.engine import Engine
from helpers.search.index import METRIC_NAMES
from helpers.search.rerank import (
    SearchSpace,
    alpha_query_expansion,
    average_query_expansion,
    rerank,
    rerank_each,
    verified,
)
from helpers.search.rerank import query as module
from helpers.search.rerank.diffusion import diffused
from helpers.search.rerank.reciprocal import k_reciprocal
from helpers.search.rerank.registry import NAMES, RERANKERS, SHORTLIST, names_for, reranker

#: Keypoints of an image are kept there, as many tests use the same.
pytestmark = pytest.mark.usefixtures("fresh_cache")

#: A row of the sample that has many keypoints.
TURNED = 52
BY_VECTORS = [name for name in NAMES if not RERANKERS[name].needs_image]
REORDERED = ["k-reciprocal", "diffusion", "geometry"]


class Given:
    """Describes image *i* of a set by row *i* of an array."""

    name = fingerprint = "given"

    def __init__(self, vectors):
        self.vectors, self.dim = np.asarray(vectors, np.float32), np.shape(vectors)[1]

    def extract(self, images, **_):
        return self.vectors


def engine_of(vectors, index="exact:cosine"):
    files = tuple(f"{row}.png" for row in range(len(vectors)))
    return Engine(Given(vectors), index).fit(ImageSet("given", files, np.full(len(vectors), -1), ()))


def reranked(engine, vector, k=10, name="none", exclude=None, image=None):
    return rerank(SearchSpace.of(engine, exclude), vector, k, name, image)


def drawn(n=60, d=8, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1, (n, d)).astype(np.float32)


def length_one(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def sample():
    """More images than the short list: photographs and, of no class, others."""
    images = samples.with_distractors()
    return Engine("hsv-histogram", "exact:cosine").fit(images.subset(range(0, len(images), 3)))


@pytest.fixture(scope="module")
def query(sample):
    """(image, its vector): a photograph of the gallery on its side, in a gray frame."""
    image = Change("rotation", 75)(read_image(sample.gallery.paths[TURNED]), np.random.default_rng(0))
    return image, sample.extractor.extract_arrays([image])[0]


# ---- what holds for all -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
def test_none_is_the_plain_search(metric):
    vectors = drawn()
    engine = engine_of(vectors, f"exact:{metric}")
    for query, exclude in ((vectors[3], None), (-vectors[5], [5, 9])):
        plain = engine.query_vector(query, 12, exclude).ranking
        found = reranked(engine, query, 12, exclude=exclude)
        assert np.array_equal(found.ids, plain.ids) and np.array_equal(found.scores, plain.scores)


@pytest.mark.parametrize("name", NAMES)
def test_of_any_length_the_beginning_is_the_same(sample, query, name):
    """The gallery is larger than the short list; k from 1 to more than there is."""
    image, vector = query
    n = len(sample)
    assert n > SHORTLIST + 30
    whole = reranked(sample, vector, n + 7, name, [30, 32], image)
    assert whole.ids.shape == (1, n + 7) and (whole.ids[0, -9:] == -1).all()
    ids = whole.ids[0, :-9]
    assert sorted(ids.tolist()) == sorted(set(range(n)) - {30, 32})
    assert np.isfinite(whole.scores[0, :-9]).all()
    for k in (1, 10, SHORTLIST, SHORTLIST + 1, 120):
        found = reranked(sample, vector, k, name, [30, 32], image)
        assert np.array_equal(found.ids[0], ids[:k]) and np.allclose(found.scores, whole.scores[:, :k])
    if name in REORDERED:
        plain = sample.query_vector(vector, n, [30, 32]).ranking.ids[0]
        assert sorted(ids[:SHORTLIST]) == sorted(plain[:SHORTLIST])
        assert not np.array_equal(ids[:SHORTLIST], plain[:SHORTLIST])
        assert np.array_equal(ids[SHORTLIST:], plain[SHORTLIST:])


@settings(max_examples=30)
@given(
    st.sampled_from(BY_VECTORS), st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 30)
)
def test_small_galleries_and_copies_of_images(name, n, k, seed, excluded):
    """Whatever is excluded, up to everything, stays away; all else comes, once."""
    rng = np.random.default_rng(seed)
    vectors = drawn(n, 3, seed)[rng.integers(0, n, n)]
    exclude = rng.permutation(n)[:excluded]
    found = reranked(engine_of(vectors), vectors[0], k, name, exclude)
    left = n - min(excluded, n)
    there = found.ids[0][found.ids[0] >= 0]
    assert found.ids.shape == (1, k) and len(there) == min(k, left)
    assert not np.isin(there, exclude).any() and len(np.unique(there)) == len(there)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_excluded_images_have_no_effect(sample, query, name):
    """The results are those of a gallery without them."""
    image, vector = query
    excluded = sample.query_vector(vector, 5).ranking.ids[0]
    kept = np.setdiff1d(np.arange(len(sample)), excluded)
    smaller = Engine(sample.extractor, "exact:cosine").fit(sample.gallery.subset(kept))
    found = reranked(sample, vector, 120, name, excluded, image)
    expected = reranked(smaller, vector, 120, name, None, image)
    assert np.array_equal(found.ids[0], kept[expected.ids[0]])
    assert np.allclose(found.scores, expected.scores)


@pytest.mark.parametrize("name", BY_VECTORS)
def test_ids_need_not_be_all_rows(name):
    """After images were removed, ids have holes."""
    vectors = drawn(70)
    engine = engine_of(vectors)
    engine.remove(range(0, 70, 3))
    kept = np.flatnonzero(np.arange(70) % 3)
    found = reranked(engine, vectors[0], 20, name)
    assert np.array_equal(found.ids[0], kept[reranked(engine_of(vectors[kept]), vectors[0], 20, name).ids[0]])


@pytest.mark.parametrize("spec", ["faiss:flat?storage=int8", "faiss:hnsw", "usearch:cosine?dtype=f16"])
@pytest.mark.parametrize("name", BY_VECTORS)
def test_indexes_that_compress_or_approximate(spec, name):
    """Their own scores are not quite the cosines of the vectors that they give back."""
    vectors = drawn(1100, 32)
    found = reranked(engine_of(vectors, spec), vectors[7], 120, name)
    exact = reranked(engine_of(vectors), vectors[7], 120, name)
    assert found.ids[0, 0] == 7
    assert len(np.intersect1d(found.ids[0, :20], exact.ids[0, :20])) >= 15


@pytest.mark.parametrize("name", BY_VECTORS)
def test_codes_whose_scores_are_no_cosines_are_no_obstacle(name):
    """What a code stands for is not of length one, and FAISS's scores are products with just that."""
    vectors = drawn(1100, 32)
    engine = engine_of(vectors, "faiss:pq?bytes=8&refine=none")
    scores = engine.query_vector(vectors[7], SHORTLIST).ranking
    kept = length_one(engine.index.vectors(scores.ids[0])) @ length_one(vectors[7])
    assert np.abs(scores.scores[0, 0] - kept[0]) > 0.01
    found = reranked(engine, vectors[7], SHORTLIST, name).ids[0]
    assert len(np.intersect1d(found, scores.ids[0])) > SHORTLIST / 2 and 7 in found[:5]


@pytest.mark.parametrize("name", NAMES)
def test_several_queries_get_the_orders_of_each_alone(sample, name):
    rows = [3, 40, 77]
    vectors, images = sample.index.vectors(rows), [read_image(sample.gallery.paths[row]) for row in rows]
    space = SearchSpace.of(sample)
    found = rerank_each(space, vectors, 9, name, (image for image in images))
    for row, (vector, image) in enumerate(zip(vectors, images, strict=True)):
        alone = rerank(space, vector, 9, name, image)
        assert np.array_equal(found.ids[[row]], alone.ids) and np.array_equal(found.scores[[row]], alone.scores)
    assert rerank_each(space, vectors[:0], 9, name).ids.shape == (0, 9)


@pytest.mark.parametrize("name", NAMES)
def test_the_work_is_bounded_by_the_shortlist(sample, query, name):
    """At most the shortlist's results, vectors and images are requested, each once."""
    image, vector = query
    requests = {"search": [], "vectors": [], "images": []}
    space = SearchSpace.of(sample)

    def counted(what, function):
        return lambda *given: (
            requests[what].append(given[-1] if what == "search" else len(given[0])) or function(*given)
        )

    watched = SearchSpace(space.metric, *(counted(what, getattr(space, what)) for what in requests))
    rerank(watched, vector, 10, name, image)
    assert len(requests["search"]) <= 2 and max(requests["search"]) <= SHORTLIST
    assert sum(requests["vectors"]) <= SHORTLIST and sum(requests["images"]) <= 50
    assert (requests["images"] == [50]) == (name == "geometry")


def test_keypoints_are_read_once(sample, query, monkeypatch):
    """The second query over the same images opens no file of them, and extracts its own keypoints once."""
    image, vector = query
    first = reranked(sample, vector, 20, "geometry", image=image)
    extracted = []
    monkeypatch.setattr(keypoints, "read_image", lambda path: extracted.append(path))
    monkeypatch.setattr(module, "extract", lambda image: extracted.append("query") or extract(image))
    assert np.array_equal(reranked(sample, vector, 20, "geometry", image=image).ids, first.ids)
    assert extracted == ["query"]


# ---- one by one ---------------------------------------------------------------------------------------


def test_expansion_against_numpy():
    """The mean of the query and its first two, searched in the whole gallery."""
    vectors, query = drawn(), np.arange(1.0, 9)
    units = length_one(vectors)
    near = units[np.argsort(-units @ length_one(query))[:2]]
    scores = units @ length_one(length_one(query) + near.sum(axis=0))
    found = reranked(engine_of(vectors), query, 25, "expansion")
    assert found.ids[0].tolist() == np.argsort(-scores)[:25].tolist()
    assert found.scores[0] == pytest.approx(np.sort(scores)[::-1][:25], abs=1e-6)


def test_alpha_expansion_against_numpy():
    """The first five, each times the third power of its cosine."""
    vectors, query = drawn(), np.arange(1.0, 9)
    units, own = length_one(vectors), length_one(query)
    near = units[np.argsort(-units @ own)[:5]]
    scores = units @ length_one(own + ((near @ own) ** 3) @ near)
    found = reranked(engine_of(vectors), query, 25, "alpha-expansion")
    assert found.ids[0].tolist() == np.argsort(-scores)[:25].tolist()
    assert found.scores[0] == pytest.approx(np.sort(scores)[::-1][:25], abs=1e-6)


def test_expansion_finds_what_the_first_question_did_not():
    """From 0° the third is at -25°; from the mean of 0°, 20° and 24°, which is about 15°, it is the one at 41°."""
    angles = np.radians([20, 24, -25, 41, 180])
    engine = engine_of(np.column_stack([np.cos(angles), np.sin(angles)]))
    assert reranked(engine, [1.0, 0.0], 3).ids.tolist() == [[0, 1, 2]]
    assert reranked(engine, [1.0, 0.0], 3, "expansion").ids.tolist() == [[0, 1, 3]]


@pytest.mark.parametrize("n", [40, SHORTLIST])
def test_where_the_short_list_is_the_gallery_all_is_as_in_the_modules_behind(n):
    vectors, query = drawn(n), np.arange(1.0, 9)
    engine = engine_of(vectors)
    ranking = engine.index.search(query[None], n)
    expected = k_reciprocal(ranking, query[None], vectors, engine.index.search(vectors, 21))
    found = reranked(engine, query, n, "k-reciprocal")
    assert np.array_equal(found.ids, expected.ids) and np.allclose(found.scores, expected.scores, atol=1e-6)
    expected = diffused(ranking, engine.index.search(vectors, 11))
    found = reranked(engine, query, n, "diffusion")
    assert np.array_equal(found.ids, expected.ids) and np.allclose(found.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("name", ["k-reciprocal", "diffusion"])
def test_a_group_that_hangs_together_comes_before_strays_that_are_nearer(name):
    """One thing, seen from 0° to 60°; 25 images of another are all at 45°, nearer than the last of the first."""
    rng = np.random.default_rng(0)
    angles = np.radians(np.linspace(0, 60, 25))
    vectors = np.zeros((100, 10))
    vectors[:25, 0], vectors[:25, 1] = np.cos(angles), np.sin(angles)
    vectors[25:50, [0, 2]] = np.sqrt(0.5)
    vectors[50:, 3:] = rng.normal(size=(50, 7))
    vectors += rng.normal(scale=0.01, size=vectors.shape)
    engine = engine_of(vectors)
    assert (reranked(engine, np.eye(10)[0], 25).ids < 25).sum() < 20
    assert (reranked(engine, np.eye(10)[0], 25, name).ids < 25).all()


@pytest.mark.parametrize(("change", "tries"), [(Change("crop", 0.6), 3), (Change("rotation", 75), 1)])
def test_keypoints_put_a_copy_first_where_colors_do_not(sample, change, tries):
    """A part of a photograph, or one that was turned on gray, has other colors, and the same keypoints."""
    lost, found = [], []
    for row in range(0, len(sample), 3 // tries):
        image = read_image(sample.gallery.paths[row])
        for seed in range(tries):
            copy = change(image, np.random.default_rng(seed))
            vector = sample.extractor.extract_arrays([copy])[0]
            if row in reranked(sample, vector, 50).ids[0, 1:] and len(extract(copy)) >= 60:
                lost.append(row)
                found.append(reranked(sample, vector, 1, "geometry", image=copy).ids[0, 0])
    assert len(lost) >= 6 and np.mean(np.array(found) == lost) >= 0.9, (lost, found)


def test_an_image_that_is_gone_keeps_its_place(tmp_path):
    """It is counted and named, and the others are compared all the same."""
    chosen = samples.photos().subset(range(0, 200, 10))
    paths = [shutil.copy(path, tmp_path / f"{row:02}{path.suffix}") for row, path in enumerate(chosen.paths)]
    engine = Engine("hsv-histogram").fit(ImageSet("mine", tuple(paths), chosen.labels, chosen.class_names))
    image = read_image(paths[5])
    vector = engine.extractor.extract_arrays([image])[0]
    before = reranked(engine, vector, 20).ids[0].tolist()
    (tmp_path / "05.jpg").unlink()
    with pytest.warns(UnreadableImageWarning, match="1 of 20 images could not be read"):
        found = reranked(engine, vector, 20, "geometry", image=image)
    assert sorted(found.ids[0].tolist()) == sorted(before) and found.scores[0, 0] >= 0


def test_large_images_are_reduced(sample, query, monkeypatch):
    """Keypoints of a scan of 12 megapixels take no longer, and still find it."""
    seen = []
    monkeypatch.setattr(module, "extract", lambda image: seen.append(image.shape) or extract(image))
    image, vector = query
    found = reranked(sample, vector, 3, "geometry", image=resize(image, (1600, 1200)))
    assert seen == [(640, 480, 3)] and found.ids.shape == (1, 3)


# ---- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["expansion", "alpha-expansion", "k-reciprocal", "diffusion"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_distances_are_refused_by_what_is_made_for_cosines(name, metric):
    message = f"{name} needs cosines, but this index has {metric} distances.*none or geometry"
    with pytest.raises(ValueError, match=message):
        reranked(engine_of(drawn(), f"exact:{metric}"), np.ones(8), 5, name)


def test_bad_input_is_named(sample, query):
    image, vector = query
    with pytest.raises(ValueError, match="no re-ranker 'magic'. Choose one of: none, expansion"):
        reranked(sample, vector, 5, "magic")
    with pytest.raises(ValueError, match="Give the query's image"):
        reranked(sample, vector, 5, "geometry")
    with pytest.raises(ValueError, match="an image must be uint8"):
        reranked(sample, vector, 5, "geometry", image=image / 255)
    with pytest.raises(RuntimeError, match="fit"):
        reranked(Engine("hsv-histogram"), vector, 5)
    for name in NAMES:
        with pytest.raises(ValueError, match="k must be"):
            reranked(sample, vector, 0, name, image=image)
        with pytest.raises(ValueError, match="cannot be excluded"):
            reranked(sample, vector, 5, name, [10**6], image)
        with pytest.raises(ValueError, match="100 numbers|must have shape"):
            reranked(sample, np.ones(100), 5, name, image=image)


def test_geometry_does_not_read_the_whole_gallery(sample, query, tmp_path):
    image, vector = query
    loaded = Engine.load(sample.save(tmp_path / "engine"))
    expected = reranked(sample, vector, 5, "geometry", image=image)
    assert np.array_equal(reranked(loaded, vector, 5, "geometry", image=image).ids, expected.ids)
    assert "images" not in vars(loaded.table), "an image set of all rows takes time for each of them"


def test_what_a_list_shows():
    assert NAMES == ("none", "expansion", "alpha-expansion", "k-reciprocal", "diffusion", "geometry")
    assert names_for("cosine") == NAMES
    assert names_for("euclidean") == names_for("manhattan") == ("none", "geometry")
    for one in RERANKERS.values():
        assert one.summary.endswith(".") and len(one.summary.split()) > 4
        assert set(one.metrics) <= set(METRIC_NAMES.values())


def test_the_settings_of_the_registry_are_those_of_the_functions_behind_it():
    behind = {
        "alpha-expansion": alpha_query_expansion, "k-reciprocal": k_reciprocal, "diffusion": diffused,
        "geometry": verified,
    }  # fmt: skip
    for name, function in behind.items():
        parameters = inspect.signature(function).parameters
        for setting, value in reranker(name).settings.items():
            assert setting == "longest" or parameters[setting].default == value, (name, setting)
    top = inspect.signature(average_query_expansion).parameters["top"].default
    assert reranker("expansion").settings == {"top": top, "alpha": 0}
