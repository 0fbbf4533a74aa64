"""Protocols: queries, gallery, relevant and ignored images, and their files."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import paths
from helpers.evaluation import protocol as module
from helpers.evaluation import protocol_files
from helpers.evaluation.builders import (
    disjoint_split,
    fewer_queries,
    learnable,
    leave_one_out,
    one_per_class_gallery,
    query_gallery,
)
from helpers.evaluation.protocol import Protocol, ProtocolMismatch
from helpers.evaluation.protocol_files import ProtocolFileError, frozen, frozen_names
from helpers.evaluation.runner import excluding, run
from helpers.images.imageset import ImageSet, concatenate
from helpers.search.index import open_index
from helpers.search.ranking import Ranking, rank


def image_set(labels, groups=None, name="toy", class_names=None) -> ImageSet:
    labels = np.asarray(labels, dtype=np.int64)
    class_names = class_names or tuple(f"class{i}" for i in range(labels.max(initial=-1) + 1))
    root = Path("/nowhere")
    return ImageSet(name, tuple(root / f"{i:04d}.jpg" for i in range(len(labels))), labels, class_names, groups, root)


def valid(**changes) -> Protocol:
    fields = {
        "name": "toy",
        "dataset": "toy",
        "description": "",
        "keys": ("a", "b", "c", "d"),
        "labels": [0, 0, 1, -1],
        "class_names": ("cat", "dog"),
        "queries": [0, 1],
        "gallery": [0, 1, 2, 3],
    }
    return Protocol(**(fields | changes))


@st.composite
def protocols(draw):
    n = draw(st.integers(1, 9))
    ids = st.integers(0, n - 1)
    queries = draw(st.lists(ids, min_size=1, unique=True))
    return Protocol(
        name="drawn",
        dataset="drawn",
        description=draw(st.text(max_size=8)),
        keys=draw(st.lists(st.text(min_size=1, max_size=5), min_size=n, max_size=n, unique=True)),
        labels=draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)),
        class_names=("x", "y", "z"),
        queries=queries,
        gallery=draw(st.lists(ids, min_size=1, unique=True)),
        groups=draw(st.none() | st.lists(st.integers(-1, 2), min_size=n, max_size=n)),
        excluded=draw(st.dictionaries(st.sampled_from(queries), st.lists(ids, max_size=3), max_size=2)),
        listed=draw(st.none() | st.dictionaries(st.sampled_from(queries), st.lists(ids, max_size=4), max_size=3)),
    )


# ---- relevance -------------------------------------------------------------------------------------


def test_relevance_worked_by_hand():
    # 0 1 2 3: cats (1 and 2 are copies of one original), 4 5: dogs, 6: of no class, 7: a class of one.
    toy = replace(
        leave_one_out(image_set([0, 0, 0, 0, 1, 1, -1, 2], groups=[-1, 5, 5, -1, -1, -1, -1, -1]), "toy"),
        excluded={0: [3, 6]},
    )
    assert toy.queries.tolist() == [0, 1, 2, 3, 4, 5]
    assert toy.ignored(0).tolist() == [0, 3, 6]  # itself and what is listed for it
    assert toy.ignored(1).tolist() == [1, 2]  # itself and its copy
    assert toy.ignored(3).tolist() == [3]  # exclusion is one way
    assert toy.relevant(0).tolist() == [1, 2]
    assert toy.relevant(1).tolist() == [0, 3]
    assert toy.relevant(3).tolist() == [0, 1, 2]
    assert toy.n_relevant.tolist() == [2, 2, 2, 3, 1, 1]
    assert toy.n_candidates.tolist() == [5, 6, 6, 7, 7, 7]
    assert toy.n_distractors == 2  # 6, and 7, whose class has no query
    assert toy.has_relevant.all()


def test_a_query_of_no_class_and_one_whose_copies_are_all_excluded_have_no_relevant_image():
    toy = replace(leave_one_out(image_set([0, 0, -1, 1, 1], groups=[7, 7, -1, -1, -1]), "toy"), queries=[0, 2, 3])
    assert toy.n_relevant.tolist() == [0, 0, 1]
    assert toy.has_relevant.tolist() == [False, False, True]
    assert toy.relevant(1).tolist() == []


@given(protocols())
@settings(max_examples=150, deadline=None)
def test_relevance_is_its_definition(drawn):
    everyone, used = range(len(drawn)), set()
    for row, query in enumerate(drawn.queries.tolist()):
        ignored = {query} | set(drawn.excluded.get(query, ()))
        if drawn.groups is not None and drawn.groups[query] >= 0:
            ignored |= {i for i in everyone if drawn.groups[i] == drawn.groups[query]}
        gallery = set(drawn.gallery.tolist())
        same = {i for i in gallery if drawn.labels[i] == drawn.labels[query] >= 0}
        if drawn.listed is not None:
            same = gallery & set(drawn.listed.get(query, ()))
        used |= same - ignored
        assert drawn.ignored(row).tolist() == sorted(ignored & gallery)
        assert drawn.relevant(row).tolist() == sorted(same - ignored)
        assert drawn.n_relevant[row] == len(same - ignored)
        assert drawn.n_candidates[row] == len(gallery - ignored)
        ids = np.array([[-1, *everyone]])
        expected = [False] + [i in ignored & gallery for i in everyone]
        assert drawn.ignored_mask(np.array([row]), ids)[0].tolist() == expected
        results = np.array([[-1, *sorted(gallery - ignored)]])
        expected = [i in same for i in results[0]]
        assert drawn.relevance(np.array([row]), results)[0].tolist() == expected
    if drawn.listed is not None:
        assert drawn.n_distractors == len(set(drawn.gallery.tolist()) - used)
        return
    classes = {int(label) for label in drawn.labels[drawn.queries] if label >= 0}
    assert drawn.n_distractors == sum(int(drawn.labels[i]) not in classes for i in drawn.gallery)


def test_listed_images_are_relevant_whatever_their_class():
    toy = valid(labels=[0, 0, -1, -1], listed={0: [2, 3]}, excluded={0: [3]})
    # Query 1 is not listed, and image 3 is ignored for query 0.
    assert [toy.relevant(row).tolist() for row in (0, 1)] == [[2], []]
    assert toy.n_relevant.tolist() == [1, 0] and toy.has_relevant.tolist() == [True, False] and toy.n_distractors == 3
    with pytest.raises(ValueError, match="listed lists 2, which is not the id of a query"):
        valid(listed={2: [1]})
    with pytest.raises(ValueError, match="listed\\[0\\] must hold ids"):
        valid(listed={0: [4]})


def test_a_protocol_with_disjoint_queries_and_gallery_passes():
    query_gallery(image_set([0, 0, 0, 1, 1, -1]), [0, 3], [1, 2, 4, 5], "disjoint").check_disjoint()
    # Copies of each other may both be queries, or both gallery images, but not one of each.
    query_gallery(image_set([0] * 5, groups=[4, 4, 7, 7, -1]), [0, 1], [2, 3, 4], "disjoint").check_disjoint()


@pytest.mark.parametrize(
    "mixed, count",
    [
        (leave_one_out(image_set([0, 0, 1, 1]), "toy"), 4),
        (query_gallery(image_set([0, 0, 0, 0]), [0, 1], [1, 2, 3], "toy"), 1),
        (query_gallery(image_set([0, 0, 0, 0], groups=[-1, 5, 5, -1]), [0, 1], [2, 3], "toy"), 1),
        (query_gallery(image_set([0, 0, 0, 0]), [0, 1], [2, 3], "toy", excluded={1: [3]}), 1),
    ],
    ids=["leave one out", "the query itself", "a copy of it", "a sibling"],
)
def test_queries_in_the_gallery_are_not_disjoint(mixed, count):
    with pytest.raises(ValueError, match=rf"toy: {count} of {len(mixed.queries)} queries.*disjoint"):
        mixed.check_disjoint()


def test_rows_outside_are_refused():
    for row in (-1, 2):
        with pytest.raises(IndexError, match="query rows are 0 … 1"):
            valid().relevant(row)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "file name"),
        ({"name": "a/b"}, "file name"),
        ({"keys": (), "labels": []}, "no image"),
        ({"keys": ("a", "b", "a", "d")}, "keys must be unique, 'a'"),
        ({"keys": ("a", "b", "", "d")}, "non-empty strings, got ''"),
        ({"class_names": ("cat", "cat")}, "class_names must be unique, 'cat'"),
        ({"labels": [0, 0, 1]}, r"labels must have shape \(4,\), got \(3,\)"),
        ({"labels": [0, 0, 2, -1]}, "labels must lie in -1 … 1"),
        ({"labels": [0, 0, 1, -2]}, "labels must lie in -1 … 1"),
        ({"labels": [0.0, 0.5, 1, 1]}, "labels must be integers"),
        ({"groups": [0, 1]}, r"groups must have shape \(4,\)"),
        ({"queries": []}, "queries must be a list of at least one id"),
        ({"queries": [0, 4]}, "queries must hold ids 0 … 3 .* got 4"),
        ({"queries": [0, -1]}, "queries must hold ids 0 … 3 .* got -1"),
        ({"queries": [1, 1]}, "queries must be unique, 1 occurs"),
        ({"queries": [True, False]}, "queries must be integers, got bool"),
        ({"gallery": [0, 9]}, "gallery must hold ids"),
        ({"gallery": [2, 2]}, "gallery must be unique, 2"),
        ({"excluded": {3: (0,)}}, "excluded lists 3, which is not the id of a query"),
        ({"excluded": {0: (7,)}}, r"excluded\[0\] must hold ids 0 … 3"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        valid(**changes)


def test_arrays_are_frozen():
    for array in (valid().labels, valid().queries, valid().gallery, valid().n_relevant, valid().in_gallery):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_ten_thousand_times_ten_thousand_needs_no_square_matrix():
    n = 10_000
    images = image_set(np.arange(n) % 100, groups=np.arange(n) // 2)
    tracemalloc.start()
    large = leave_one_out(images, "large")
    # 100 of each class; the two of a group are neighbors, so of different classes: only the query drops out.
    assert (large.n_relevant == 99).all()
    assert (large.n_candidates == n - 2).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n / 4  # bytes: a fourth of a square of the smallest type there is


# ---- constructors ----------------------------------------------------------------------------------


def test_leave_one_out_queries_have_a_class_of_two_images():
    toy = leave_one_out(image_set([0, 1, 1, -1]), "toy")
    assert toy.queries.tolist() == [1, 2]
    assert toy.gallery.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no class has two images"):
        leave_one_out(image_set([0, 1, -1]), "toy")


def test_query_gallery_takes_rows_or_masks():
    images = image_set([0, 0, 1, 1])
    rows = query_gallery(images, [0, 2], [1, 3], "toy")
    masks = query_gallery(images, np.array([True, False, True, False]), np.array([False, True, False, True]), "toy")
    for made in (rows, masks):
        assert made.queries.tolist() == [0, 2]
        assert made.gallery.tolist() == [1, 3]
        assert [made.relevant(row).tolist() for row in (0, 1)] == [[1], [3]]
    with pytest.raises(ValueError, match=r"mask must have shape \(4,\)"):
        query_gallery(images, np.array([True]), [1], "toy")


def test_exclusions_of_images_that_are_no_queries_are_dropped():
    toy = query_gallery(image_set([0, 0, 0]), [0], [1, 2], "toy", excluded={0: [1], 1: [0]})
    assert toy.excluded == {0: (1,)}
    assert toy.relevant(0).tolist() == [2]


def test_fewer_queries_keep_the_gallery_and_what_is_ignored():
    whole = query_gallery(image_set([0] * 9), range(7), range(2, 9), "toy", excluded={0: [7], 1: [8], 3: [7, 8]})
    few = fewer_queries(whole, 2)
    assert (few.name, few.queries.tolist(), few.excluded) == ("toy-3-queries", [0, 3, 6], {0: (7,), 3: (7, 8)})
    for row, query in enumerate(few.queries):
        np.testing.assert_array_equal(few.relevant(row), whole.relevant(whole.queries.tolist().index(query)))
    assert fewer_queries(whole, 100).queries.tolist() == whole.queries.tolist()
    assert [len(fewer_queries(whole, count).queries) for count in (1, 3, 4, 7)] == [1, 4, 7, 7]
    assert fewer_queries(valid(listed={0: [2], 1: [3]}), 1).listed == {0: (2,)}
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        fewer_queries(whole, 0)


def test_one_per_class_gallery_is_drawn_by_the_seed():
    images = image_set(np.repeat([0, 1, 2, -1], 20))
    toy = one_per_class_gallery(images, "toy", seed=1)
    assert images.labels[toy.gallery].tolist() == [0, 1, 2]
    assert set(toy.queries) == set(range(60)) - set(toy.gallery)
    assert (toy.n_relevant == 1).all()
    assert one_per_class_gallery(images, "toy", seed=1).gallery.tolist() == toy.gallery.tolist()
    assert one_per_class_gallery(images, "toy", seed=2).gallery.tolist() != toy.gallery.tolist()
    with pytest.raises(ValueError, match="there is no query"):
        one_per_class_gallery(image_set([0, 1]), "toy")


# ---- files -----------------------------------------------------------------------------------------


def same(a: Protocol, b: Protocol) -> bool:
    plain = ("name", "dataset", "description", "keys", "class_names", "excluded", "listed")
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("labels", "queries", "gallery"))
    groups = (a.groups is None) == (b.groups is None) and (a.groups is None or np.array_equal(a.groups, b.groups))
    return arrays and groups and all(getattr(a, name) == getattr(b, name) for name in plain)


@given(drawn=protocols())
@settings(max_examples=100, deadline=None)
def test_a_file_gives_back_what_was_saved(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("protocols") / "drawn.json"
    assert same(protocol_files.load(protocol_files.save(drawn, path)), drawn)


def test_only_files_with_listed_images_have_the_new_format(tmp_path):
    for listed, number in ((None, 2), ({}, 3), ({0: (2,)}, 3)):
        path = protocol_files.save(valid(listed=listed), tmp_path / "toy.json")
        assert json.loads(path.read_text())["format"] == number
        assert protocol_files.load(path).listed == listed


def test_queries_keep_their_order(tmp_path):
    toy = valid(queries=[3, 1, 2], gallery=[2, 0, 1])
    loaded = protocol_files.load(protocol_files.save(toy, tmp_path / "toy.json"))
    assert loaded.queries.tolist() == [3, 1, 2]
    assert loaded.gallery.tolist() == [2, 0, 1]


def test_six_thousand_images_stay_small_and_one_a_line(tmp_path):
    images = image_set(np.arange(6000) % 10, name="cifar10")
    images = ImageSet(
        "cifar10",
        tuple(images.root / f"train/aeroplane/aeroplane_{i:05d}.png" for i in range(6000)),
        images.labels,
        images.class_names,
        root=images.root,
    )
    rows = np.random.default_rng(0).permutation(6000)
    protocol = query_gallery(images, rows[:1000], rows[1000:], "cifar10")
    path = protocol_files.save(protocol, tmp_path / "cifar10.json")
    assert path.stat().st_size < 500_000
    lines = path.read_text().splitlines()
    assert sum("aeroplane_" in line for line in lines) == 6000
    assert max(map(len, lines)) < 200


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_named_with_the_remedy(tmp_path, share):
    path = protocol_files.save(valid(), tmp_path / "toy.json")
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(ProtocolFileError, match=r"toy\.json.*(Restore|write it again)"):
        protocol_files.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=1), "has format 1; this version reads formats 2 and 3"),
        (lambda content: content.pop("format"), "KeyError: 'format'"),
        (lambda content: content.pop("gallery"), "KeyError: 'gallery'"),
        (lambda content: content.update(gallery=["3-1"]), "runs backwards"),
        (lambda content: content.update(queries=[9]), "queries must hold ids"),
        (lambda content: content.update(excluded=[]), r"excluded must be an object of queries and their ids, got \[\]"),
        (lambda content: content.update(format=3, listed=[[0, 1]]), "listed must be an object"),
        (lambda content: content.update(images=[["a", 0, 1]]), "each image must be a list of 2"),
        (lambda content: content.update(images=3), "not a complete and valid protocol"),
    ],
)
def test_a_file_with_other_content_is_named(tmp_path, change, message):
    path = protocol_files.save(valid(), tmp_path / "toy.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ProtocolFileError, match=message) as raised:
        protocol_files.load(path)
    assert str(path) in str(raised.value)


def test_a_binary_file_and_no_file(tmp_path):
    (tmp_path / "image.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ProtocolFileError, match="not a complete and valid protocol"):
        protocol_files.load(tmp_path / "image.json")
    with pytest.raises(FileNotFoundError, match=r"nothing\.json does not exist"):
        protocol_files.load(tmp_path / "nothing.json")


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = protocol_files.save(valid(), tmp_path / "toy.json")
    before = path.read_text()

    def full_disk(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        protocol_files.save(valid(description="new"), path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["toy.json"]


def test_frozen_protocols_load_and_are_scorable():
    assert frozen_names()
    for name in frozen_names():
        loaded = frozen(name)
        assert loaded.name == name
        assert loaded.has_relevant.any()
        assert (paths.protocols_dir() / f"{name}.json").stat().st_size < 500_000
    with pytest.raises(FileNotFoundError, match=f"no frozen protocol 'nothing'.*{frozen_names()[0]}"):
        frozen("nothing")


# ---- bind ------------------------------------------------------------------------------------------


def test_bind_finds_the_images_in_a_larger_set_in_another_order():
    full = image_set([0, 1, 1, 0, 2, -1], class_names=("cat", "dog", "eel"))
    toy = leave_one_out(full.subset([0, 3, 1, 2]), "toy")
    bound, found = toy.bind(full.subset([5, 4, 3, 2, 1, 0]))
    assert found.keys == toy.keys == ("0000.jpg", "0003.jpg", "0001.jpg", "0002.jpg")
    assert found.labels.tolist() == toy.labels.tolist() == [0, 0, 1, 1]
    assert bound.keys == toy.keys


def test_bind_compares_classes_by_name_not_by_number():
    toy = leave_one_out(image_set([0, 0, 1, 1], class_names=("cat", "dog")), "toy")
    _, found = toy.bind(image_set([1, 1, 2, 2], class_names=("ant", "cat", "dog")))
    assert [found.class_name(row) for row in range(4)] == ["cat", "cat", "dog", "dog"]
    assert found.labels.tolist() == toy.labels.tolist()
    with pytest.raises(ProtocolMismatch, match="classes of 4 of 4 .*'0000.jpg' is cat in the protocol, dog in"):
        toy.bind(image_set([0, 0, 1, 1], class_names=("dog", "cat")))
    with pytest.raises(ProtocolMismatch, match="of no class in the images"):
        toy.bind(image_set([0, 0, 1, -1], class_names=("cat", "dog")))


def test_bind_a_distractor_stays_one_unless_its_class_has_queries():
    toy = leave_one_out(image_set([0, 0, -1], class_names=("cat",)), "toy")
    _, found = toy.bind(image_set([0, 0, 1], class_names=("cat", "eel")))
    assert found.labels.tolist() == [0, 0, -1]
    with pytest.raises(ProtocolMismatch, match="'0002.jpg' is of no class in the protocol, cat in the images"):
        toy.bind(image_set([0, 0, 0], class_names=("cat",)))


def test_bind_counts_and_names_what_is_missing():
    full = image_set([0] * 6)
    toy = leave_one_out(full, "toy")
    with pytest.raises(ProtocolMismatch, match=r"lacks 4 of the protocol's 6 .*0001\.jpg, 0002\.jpg, 0003\.jpg, …"):
        toy.bind(full.subset([0, 5]))
    with pytest.raises(ProtocolMismatch, match=r"contains '0002\.jpg' twice"):
        toy.bind(full.subset([0, 1, 2, 2, 3, 4, 5]))


def in_format(images: ImageSet, suffix: str) -> ImageSet:
    return replace(images, paths=tuple(path.with_suffix(suffix) for path in images.paths))


def test_bind_finds_images_of_another_format_and_takes_their_keys():
    full = image_set([0, 1, 1, 0, -1], class_names=("cat", "dog"))
    toy = leave_one_out(full.subset([0, 3, 1, 2]), "toy")
    bound, found = toy.bind(in_format(full, ".png"))
    assert bound.keys == found.keys == ("0000.png", "0003.png", "0001.png", "0002.png")
    assert bound.queries.tolist() == toy.queries.tolist() and bound.name == "toy"
    # The protocol of the other format tests with the same images, so no network may be trained on them.
    half = query_gallery(full, [0, 1], [2, 3], "half")
    bound, found = half.bind(in_format(full, ".png"))
    assert learnable(bound, found).keys == ("0002.png", "0003.png")


def test_bind_prefers_the_exact_name_and_refuses_two_of_other_formats():
    full = image_set([0, 0])
    toy = leave_one_out(full, "toy")
    both = concatenate("both", [in_format(full, ".png"), full])
    assert toy.bind(both)[0] is toy and toy.bind(both)[1].keys == full.keys
    both = concatenate("both", [in_format(full, ".png"), in_format(full, ".bmp")])
    with pytest.raises(ProtocolMismatch, match="contains '0000' twice"):
        toy.bind(both)
    # a.jpg and a.png are two images of this protocol, and neither stands for the other.
    twins = leave_one_out(concatenate("twins", [full, in_format(full, ".png")]), "twins")
    with pytest.raises(ProtocolMismatch, match=r"lacks 2 .*0000\.png"):
        twins.bind(full)


def test_a_network_is_not_trained_on_images_that_may_be_queries_under_another_name():
    full = image_set([0, 0, 1, 1], class_names=("cat", "dog"))
    half = query_gallery(full, [0, 2], [1, 3], "half")
    with pytest.raises(ValueError, match=r"lacks 2 of the images that half tests with; bind"):
        learnable(half, in_format(full, ".png"))


def test_bind_hands_over_the_groups_of_the_protocol():
    toy = leave_one_out(image_set([0, 0, 0], groups=[4, 4, -1]), "toy")
    assert toy.bind(image_set([0, 0, 0], groups=[-1, 1, 1]))[1].groups.tolist() == [4, 4, -1]
    without = leave_one_out(image_set([0, 0, 0]), "toy")
    assert without.bind(image_set([0, 0, 0], groups=[-1, 1, 1]))[1].groups.tolist() == [-1, 1, 1]


# ---- run -------------------------------------------------------------------------------------------


def by_hand(toy: Protocol, vectors: np.ndarray, k: int | None) -> list[list[int]]:
    """The slow way: sort all candidates of each query by decreasing cosine, then by id."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    results = []
    for row, query in enumerate(toy.queries):
        candidates = sorted(set(toy.gallery.tolist()) - set(toy.ignored(row).tolist()))
        ranking = rank(np.array([candidates]), (unit[candidates] @ unit[query])[None])
        results.append(ranking.ids[0].tolist()[:k])
    return results


@pytest.mark.parametrize("k", [1, 3, 25, None])
@pytest.mark.parametrize("chunk", [1, 130, 2_000_000])
def test_run_agrees_with_the_slow_way(k, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, 24)
    groups = rng.integers(-1, 6, 24)
    queries, gallery = rng.permutation(24)[:15], rng.permutation(24)[:20]
    toy = query_gallery(image_set(labels, groups), queries, gallery, "toy", excluded={int(queries[0]): gallery[:4]})
    vectors = rng.normal(size=(24, 5)).astype(np.float32)
    ranking = run(toy, vectors, open_index("exact:cosine"), k)
    assert ranking.k == (toy.n_candidates.max() if k is None else k)
    assert [row[row >= 0].tolist() for row in ranking.ids] == by_hand(toy, vectors, k)


def test_run_refuses_invalid_vectors():
    toy = leave_one_out(image_set([0, 0, 1, 1]), "toy")
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match=r"vectors must have shape \(4, d\).*got \(3, 4\)"):
        run(toy, vectors[:3], open_index("exact:cosine"))
    for bad in (np.nan, np.inf):
        broken = vectors.copy()
        broken[2, 1] = bad
        with pytest.raises(
            ValueError, match=r"1 of 4 vectors contain NaN or infinity, the first is row 2 \(0002.jpg\)"
        ):
            run(toy, broken, open_index("exact:cosine"))
    with pytest.raises(ValueError, match="must be empty, it has 4"):
        run(toy, vectors, open_index("exact:cosine").add(vectors))
    with pytest.raises(ValueError, match="k must be at least 1"):
        run(toy, vectors, open_index("exact:cosine"), k=0)


def test_excluding_closes_the_gaps_and_pads():
    toy = query_gallery(image_set([0, 0, 0, 0], groups=[1, 1, -1, -1]), [0, 3], [0, 1, 2, 3], "toy")
    found = Ranking([[0, 1, 2, 3], [3, 2, 1, 0]], [[4.0, 3, 2, 1], [4.0, 3, 2, 1]])
    assert excluding(found, toy).ids.tolist() == [[2, 3, -1, -1], [2, 1, 0, -1]]
    assert excluding(found, toy, 1).ids.tolist() == [[2], [2]]
    wide = excluding(found, toy, 6)
    assert wide.ids.tolist() == [[2, 3, -1, -1, -1, -1], [2, 1, 0, -1, -1, -1]]
    assert wide.scores[1].tolist() == [3, 2, 1, -np.inf, -np.inf, -np.inf]
    with pytest.raises(ValueError, match="2 queries, but the ranking has 1 rows"):
        excluding(Ranking(found.ids[:1], found.scores[:1]), toy)
    with pytest.raises(ValueError, match="id 9 in the ranking, but ids end at 3"):
        excluding(Ranking([[9], [1]], [[1.0], [1.0]]), toy)


# ---- disjoint split --------------------------------------------------------------------------------


def test_one_image_in_three_of_each_class_is_a_query():
    toy = disjoint_split(image_set([0, 1, 0, 0, 1, -1, 0, 2]), "toy")
    assert toy.queries.tolist() == [0, 1, 6, 7]
    assert toy.gallery.tolist() == [2, 3, 4, 5]
    assert toy.n_relevant.tolist() == [2, 1, 2, 0]
    assert "One in 3 images" in toy.description
    assert disjoint_split(image_set([0] * 4), "toy").queries.tolist() == [0, 3]


def test_an_image_with_a_copy_is_no_query():
    toy = disjoint_split(image_set([0] * 6, groups=[5, -1, 5, 8, -1, -1]), "toy")
    # 0 and 2 are copies of each other; 3 is alone in its group. Every third one of 1, 3, 4, 5 is a query.
    assert toy.queries.tolist() == [1, 5]
    toy.check_disjoint()


def test_a_split_without_queries_is_refused():
    with pytest.raises(ValueError, match="every image with a class has a copy, so there is no query"):
        disjoint_split(image_set([0, 0, -1], groups=[3, 3, -1]), "toy")
    with pytest.raises(ValueError, match="no image has a class, so there is no query"):
        disjoint_split(image_set([-1, -1], class_names=("cat",)), "toy")
