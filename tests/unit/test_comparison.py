"""The comparison of methods on the same queries: tasks, scores, costs, and the queries where methods differ."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from helpers.evaluation import comparison, comparison_record, comparison_tasks
from helpers.evaluation.comparison import Method, combinations, compare, copy_vectors, method_names
from helpers.evaluation.comparison_costs import extraction_rate, median_milliseconds
from helpers.evaluation.comparison_data import TooFewImages, prepare
from helpers.evaluation.comparison_search import Searcher
from helpers.evaluation.comparison_tasks import CHANGES, class_task, known_item_task, sample_rows
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet, numbered
from helpers.images.layout import Layout, read_layout
from helpers.images.reading import UnreadableImage, read_image
from helpers.search.backends.remote import RemoteIndex
from helpers.search.index import BACKENDS, open_index

NAMES = ("hsv-histogram", "hog")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of eight images of each of three classes, a class with one image, and a copy of a bird."""
    images, folder = samples.photos(), tmp_path_factory.mktemp("images") / "photos"
    for name, count in (("birds", 8), ("fruit", 8), ("vehicles", 8), ("coins", 1)):
        (folder / name).mkdir(parents=True)
        for row in np.flatnonzero(images.labels == images.class_names.index(name))[:count]:
            shutil.copy(images.paths[row], folder / name)
    first = min((folder / "birds").iterdir())
    shutil.copy(first, first.with_name("copy.jpg"))
    return folder


@pytest.fixture(scope="module")
def extractors():
    return {name: open_extractor(name) for name in NAMES}


@pytest.fixture
def prepared(photos, extractors, own_cache):
    layout = read_layout(from_folder(photos)).for_evaluation()
    return prepare(layout, "photos", extractors, False, 100, 100, 0)


# ---- tasks -----------------------------------------------------------------------------------------------


def test_images_alone_in_their_class_are_no_queries_and_copies_are_ignored(prepared):
    task = prepared.task
    assert (task.kind, task.eligible, task.alone, prepared.found, prepared.unreadable) == ("classes", 25, 1, 26, 0)
    assert len(prepared.duplicates) == 1 and task.clusters is None
    protocol = task.protocol
    keys = np.array(protocol.keys)
    for row, query in enumerate(protocol.queries):
        ignored = {*keys[protocol.ignored(row)]} - {keys[query]}
        pair = {key for key in keys if key.startswith("birds/")} & {"birds/copy.jpg", min(keys)}
        assert ignored == (pair - {keys[query]} if keys[query] in pair else set())
        # Eight of each class, the copy is one of nine birds: without the query and its copy, seven or eight.
        assert protocol.n_relevant[row] == (8 if keys[query] in set(keys[:9]) - pair else 7)
    assert not any(keys[query].startswith("coins/") for query in protocol.queries)


def test_queries_are_drawn_with_the_seed(photos):
    layout = read_layout(from_folder(photos)).for_evaluation()
    first, again, other = (class_task(layout, "photos", 6, seed) for seed in (1, 1, 2))
    assert first.protocol.queries.tolist() == again.protocol.queries.tolist() != other.protocol.queries.tolist()
    assert len(first.protocol.queries) == 6 and first.eligible == 25


def test_a_known_item_has_one_relevant_image_and_its_copies_are_ignored():
    images = samples.with_distractors().subset(np.arange(5))
    images = ImageSet("five", images.paths, [-1] * 5, (), groups=[-1, 3, 3, -1, -1], root=images.root)
    task = known_item_task(images, "five", 12, seed=4)
    protocol = task.protocol
    assert len(protocol.queries) == len(set(zip(task.originals.tolist(), task.changes, strict=True))) == 12
    # Five images in the first two rounds, and two in the third.
    assert sorted(np.bincount(task.originals).tolist()) == [2, 2, 2, 3, 3] and task.n_units == 5
    for row, original in enumerate(task.originals.tolist()):
        assert protocol.relevant(row).tolist() == [original]
        assert protocol.ignored(row).tolist() == {1: [2], 2: [1]}.get(original, [])
    assert task.clusters is task.originals
    assert len(known_item_task(images, "five", 1000).protocol.queries) == 5 * len(CHANGES)


def test_a_changed_copy_depends_on_its_image_and_the_seed_only():
    images = samples.with_distractors()
    few, many = (known_item_task(images.subset(np.arange(count)), "some", 200, seed=7) for count in (3, 6))
    copies = [
        {
            (task.images.keys[task.originals[row]], task.changes[row]): task.pixels(row)
            for row in range(len(task.changes))
        }
        for task in (few, many)
    ]
    assert copies[0].keys() <= copies[1].keys() and len(copies[0]) == 24
    for key, copy in copies[0].items():
        np.testing.assert_array_equal(copy, copies[1][key])
        assert copy.shape[0] and max(copy.shape) <= 1.3 * comparison_tasks.LONGEST
    path = images.paths[0]
    assert any(copy.shape == read_image(path).shape and (copy != read_image(path)).any() for copy in copies[0].values())


def test_drawn_images_have_two_of_each_class_first():
    codes = np.array([0] * 50 + [1] * 3 + [2] * 2 + [3])
    for seed in range(5):
        rows = sample_rows(codes, 10, seed)
        assert len(rows) == 10 and (np.diff(rows) > 0).all()
        counts = np.bincount(codes[rows], minlength=4)
        assert counts[0] >= 2 and counts[1] >= 2 and counts[2] == 2 and counts[3] == 1
    assert sample_rows(codes, 56).tolist() == list(range(56))
    assert sample_rows(codes, 10, 1).tolist() != sample_rows(codes, 10, 2).tolist()


def test_too_few_images_or_queries(photos, extractors, own_cache):
    images = from_folder(photos)
    with pytest.raises(TooFewImages, match="photos has 9 images; a comparison needs at least 10"):
        prepare(Layout(images.subset(np.arange(9))), "photos", extractors, False, 10, 100, 0)
    names = list(images.keys)
    names[names.index("birds/copy.jpg")] = names[0]
    names[2] = names[1]
    class_names, labels = numbered(names)
    alone = ImageSet("alone", images.paths, labels, class_names, root=images.root)
    with pytest.raises(TooFewImages, match="2 images whose class has another image; a comparison needs at least 5"):
        # Of two pairs, one is an image and its copy.
        prepare(Layout(alone), "alone", extractors, False, 10, 100, 0)


def test_unreadable_images_are_left_out(photos, extractors, own_cache, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "birds" / "broken.jpg").write_bytes(b"no image")
    layout = read_layout(from_folder(folder)).for_evaluation()
    with pytest.warns(match="broken"):
        found = prepare(layout, "photos", extractors, False, 100, 100, 0)
    assert found.unreadable == 1 and not any("broken" in key for key in found.task.protocol.keys)
    assert {len(each) for each in found.vectors.values()} == {26}


# ---- scores ----------------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn(prepared, extractors):
    found = compare(prepared.task, extractors, prepared.vectors, methods_of("exact:cosine", "faiss:flat"))
    protocol = prepared.task.protocol
    assert len(found.results) == 4
    for one in found.results.values():
        vectors = prepared.vectors[one.method.extractor].astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for row, query in enumerate(protocol.queries):
            kept = np.setdiff1d(protocol.gallery, protocol.ignored(row))
            similar, right = vectors[kept] @ vectors[query], protocol.labels[kept] == protocol.labels[query]
            # The two copies of a bird are equally similar; the lower id comes first.
            best = np.lexsort((kept, -np.round(similar, 7)))
            position = np.argsort(best)
            assert one.scores.values["mAP"][row] == pytest.approx(average_precision_score(right, -position))
            assert one.scores.values["top-1"][row] == right[best[0]]
            assert one.scores.values["top-5"][row] == right[best[:5]].any()
            assert one.first[row].tolist() == kept[best[:10]].tolist()
            assert one.right[row].tolist() == right[best[:10]].tolist()
    values = [one.scores.mean("mAP") for one in found.results.values()]
    assert values == sorted(values, reverse=True)
    first, second = list(found.results)[:2]
    gain = found.results[first].scores.mean("mAP") - found.results[second].scores.mean("mAP")
    assert found.differences[first, second].difference == pytest.approx(gain)


def methods_of(*backends, rerankers=("none",)):
    return combinations(NAMES, backends, rerankers)[0]


def test_rerankers_get_the_gallery_without_the_query_and_its_copies(prepared, extractors):
    methods = combinations(["hsv-histogram"], ["exact:cosine"], ["none", "k-reciprocal"])[0]
    found = compare(prepared.task, extractors, prepared.vectors, methods)
    plain, ranked = found.results["no re-ranking"], found.results["k-reciprocal"]
    assert (plain.first != ranked.first).any()
    for one in (plain, ranked):
        for row in range(25):
            assert not np.isin(one.first[row], prepared.task.protocol.ignored(row)).any()
        assert one.query_milliseconds.timed == 25 and one.query_milliseconds.value > 0
        assert one.bytes_per_image >= 4 * one.dim == 4 * 128


def test_a_ranking_begins_with_what_the_backend_finds_and_ends_by_exact_similarity():
    count, rng = 3000, np.random.default_rng(0)
    vectors = rng.normal(size=(count, 32)).astype(np.float32)
    images = ImageSet("none", [f"{i}.jpg" for i in range(count)], rng.integers(5, size=count), tuple("abcde"))
    task = class_task(Layout(images), "none", 8)
    # A graph of few links, searched with few candidates, misses some of the nearest vectors.
    found = Searcher(task, vectors, "faiss:hnsw?m=8&search=16").ranking("none", "")
    index = open_index("faiss:hnsw?m=8&search=16").add(vectors)
    exact = Searcher(task, vectors, "exact:cosine").ranking("none", "")
    ignored = task.protocol.ignored_ids
    page = index.search(vectors[task.protocol.queries], 100, excluded=ignored)
    assert found.k == exact.k == count - 1
    assert found.ids[:, :100].tolist() == page.ids.tolist() != exact.ids[:, :100].tolist()
    for row in range(8):
        rest = found.ids[row, 100:]
        assert rest.tolist() == exact.ids[row][np.isin(exact.ids[row], rest)].tolist()
        assert sorted(found.ids[row].tolist()) == sorted(exact.ids[row].tolist())


def test_known_items_are_found_by_a_perfect_extractor(photos, extractors, own_cache):
    layout = Layout(from_folder(photos))
    found = prepare(layout, "photos", extractors, True, 40, 100, 3)
    result = compare(found.task, extractors, found.vectors, methods_of("exact:cosine"))
    # 26 images, of which 14 have two copies.
    assert found.task.n_units == 26 and len(found.task.protocol.queries) == 40
    rows = {name: one.scores for name, one in result.results.items()}
    for name, scores in rows.items():
        assert scores.mean_ceiling("mAP") == 1 and scores.mean_chance("top-1") == pytest.approx(1 / 26, rel=0.1)
        by_change = result.recall_by_change()
        counts = {str(change): found.task.changes.count(change) for change in CHANGES}
        weighted = sum(counts[change] * values[name] for change, values in by_change.items()) / 40
        assert weighted == pytest.approx(scores.mean("top-1"))
    # A second extraction reads the copies from the cache.
    for extractor in extractors.values():
        extractor.compute = lambda pixels: pytest.fail("extracted again")
    try:
        again = copy_vectors(found.task, extractors)
    finally:
        for extractor in extractors.values():
            del extractor.compute
    np.testing.assert_array_equal(again["hog"], found.vectors["hog"][26:])


# ---- methods ---------------------------------------------------------------------------------------------


def test_combinations_leave_out_what_is_not_possible():
    methods, messages = combinations(["hog"], ["exact:cosine", "exact:euclidean"], ["none", "diffusion"])
    assert methods == [
        Method("hog", "exact:cosine", "none"), Method("hog", "exact:cosine", "diffusion"),
        Method("hog", "exact:euclidean", "none"),
    ]  # fmt: skip
    assert len(messages) == 1 and messages[0].startswith("diffusion with exact:euclidean is left out: ")
    with pytest.raises(ValueError, match="no re-ranker 'best'"):
        combinations(["hog"], ["exact:cosine"], ["best"])


def test_names_have_what_differs():
    def names(*methods):
        return method_names([Method(*method) for method in methods])

    assert names(("a", "x", "none"), ("b", "x", "none")) == ["a", "b"]
    assert names(("a", "x", "none"), ("a", "y", "none")) == ["x", "y"]
    assert names(("a", "x", "none"), ("a", "x", "r")) == ["no re-ranking", "r"]
    assert names(("a", "x", "none"), ("b", "y", "r")) == ["a in x", "b in y with r"]
    assert names(("a", "x", "none"), ("b", "x", "r")) == ["a", "b with r"]


def test_the_number_of_methods_is_bounded(prepared, extractors):
    for count in (1, comparison.MOST_METHODS + 1):
        with pytest.raises(ValueError, match=f"needs 2 to 24 methods, got {count}"):
            compare(prepared.task, extractors, prepared.vectors, [Method("hog", "exact:cosine", "none")] * count)


def test_remote_backends_are_those_of_the_command():
    from importlib import import_module

    from helpers.cli.comparing import REMOTE

    def is_remote(place):
        module, _, name = place.partition(":")
        return issubclass(getattr(import_module(module), name), RemoteIndex)

    local = {"exact", "sklearn", "annoy", "faiss", "usearch"}
    assert set(REMOTE) == set(BACKENDS) - local
    assert not any(is_remote(BACKENDS[name]) for name in ("exact", "sklearn", "faiss", "usearch"))
    assert is_remote(BACKENDS["elasticsearch"]) and is_remote(BACKENDS["opensearch"])


# ---- costs, disagreements and the record ------------------------------------------------------------------


def test_the_rate_counts_images_without_the_cache(prepared, extractors, monkeypatch):
    done = []
    extractor = extractors["hog"]
    monkeypatch.setattr(
        extractor, "embed", lambda batch, embed=extractor.embed: done.append(len(batch)) or embed(batch)
    )
    rate = extraction_rate(extractor, prepared.task.images.paths, most=20)
    assert rate.timed == 20 and rate.value > 0 and sum(done) >= 40  # the first batch is not timed
    with pytest.raises(UnreadableImage, match="none of 1 images"):
        extraction_rate(extractor, [prepared.task.images.paths[0].with_name("missing.jpg")])


def test_the_median_time_ignores_the_first_search():
    calls = []
    assert median_milliseconds(calls.append, [5, 6, 7]).timed == 3 and calls == [5, 5, 6, 7]
    assert median_milliseconds(calls.append, [5, 6, 7], seconds=-1).timed == 1


def test_disagreements_are_the_largest_differences_in_both_directions(prepared, extractors):
    found = compare(prepared.task, extractors, prepared.vectors, methods_of("exact:cosine"))
    first, second = found.results
    gains = found.results[first].scores.values["mAP"] - found.results[second].scores.values["mAP"]
    rows = found.disagreements(first, second, 4)
    expected = {*np.argsort(-gains)[:2].tolist(), *np.argsort(gains)[:2].tolist()}
    assert set(rows.tolist()) == expected and (np.diff(np.abs(gains[rows])) <= 0).all()
    assert len(found.disagreements(first, first)) == 0
    assert set(found.disagreements(second, first, 4).tolist()) == expected
    assert found.rival == second


def test_the_record_is_json_with_full_numbers(prepared, extractors):
    found = compare(prepared.task, extractors, prepared.vectors, methods_of("exact:cosine"))
    content = comparison_record.record(found, {"command": "lookalike compare"})
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    for one in content["methods"]:
        scores = found.results[one["name"]].scores
        assert one["metrics"]["mAP"]["value"] == scores.mean("mAP") == pytest.approx(np.mean(one["average_precision"]))
    assert content["methods"][0]["minus_best"] is None
    gap = content["methods"][1]["minus_best"]
    assert gap["low"] <= gap["difference"] <= min(0, gap["high"])
    assert comparison_record._plain({"a": [np.float64("nan"), np.float32(0.5), np.int64(2), True]}) == {
        "a": [None, 0.5, 2.0, True]
    }
