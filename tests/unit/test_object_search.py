"""Measurements of search by regions: scenes with made-up vectors, whose right results are known."""

import numpy as np
import pytest

from helpers.features import regions
from helpers.features.registry import open_extractor
from helpers.images import scenes
from helpers.lessons import object_figures, object_search
from helpers.lessons.object_search import SceneVectors
from helpers.search.region_search import RegionMatch, _assigned


@pytest.fixture(scope="module")
def few():
    return object_search.select(scenes.load(), range(0, 120, 2))


@pytest.fixture(scope="module")
def vectors(few):
    """A random vector for each photograph. Whole scenes are random; known regions are the photographs' vectors."""
    rng = np.random.default_rng(0)

    def units(count):
        found = rng.standard_normal((count, 24))
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    photos, whole = units(len(few.photos)), units(len(few))
    known = [photos[[each.photo for each in few.of(scene)]] for scene in range(len(few))]
    return {
        "whole image": SceneVectors(photos, whole, [whole[:0]] * len(few)),
        "known": SceneVectors(photos, whole, known),
    }


def test_selected_scenes_keep_their_objects(few):
    all_scenes = scenes.load()
    assert len(few) == 60 and few.images.paths[3] == all_scenes.images.paths[6]
    assert [each.box for each in few.of(3)] == [each.box for each in all_scenes.of(6)]
    assert few.masks(3).shape == all_scenes.masks(6).shape and len(few.backgrounds) == 60
    for pair in few.pairs:
        assert {pair.first, pair.second} <= {each.photo for each in few.of(pair.scene)}


def test_known_regions_are_found_in_each_band(few, vectors):
    bands = object_search.by_size(few, vectors, ((0.02, 0.1), (0.1, 0.61)))
    table = object_search.size_table(bands)
    assert len(table) == 2 * 2 * 2 and set(table["task"]) == {"known item", "class"}
    items = table[table["task"] == "known item"].set_index(["area low", "method"])
    assert (items.xs("known", level="method")["mAP"] == 1).all()
    assert (items.xs("whole image", level="method")["mAP"] < 0.3).all() and (items["chance"] < 0.2).all()
    expected = {each.photo for each in few.objects if each.area_share < 0.1}
    assert items["queries"].iloc[0] == len(expected)
    differences = object_search.difference_table(bands).set_index(["task", "area low"])
    assert (differences.loc["known item", "low"] > 0.5).all() and (differences.loc["known item", "p"] < 0.01).all()
    figure = object_figures.size_curves(table)
    assert [panel.get_title() for panel in figure.axes] == ["known item", "class"]


def test_pairs_are_found_by_known_regions(few, vectors):
    table = object_search.pair_table(few, vectors).set_index("method")
    assert table.loc["known", "first"] == 1 and table.loc["known", "median rank"] == 1
    assert table.loc["whole image", "first"] < 0.5 and (table["pairs"] == len(few.pairs)).all()
    assert table.loc["known", "low"] < 1 == round(table.loc["known", "high"], 6)


def test_the_score_of_a_pair_is_that_of_the_search():
    rng = np.random.default_rng(1)
    for count in (1, 2, 5):
        cosines = rng.uniform(0.1, 1, (2, count))
        expected, _ = _assigned(cosines, [RegionMatch(None, None, 0.0)] * count)
        if count > 1:
            assert object_search.pair_scores(*cosines) == pytest.approx(expected)
    # A single part counts for both.
    assert object_search.pair_scores(np.array([0.5]), np.array([0.32])) == pytest.approx(0.4)


def test_backgrounds_are_found_by_whole_scenes(few):
    names = sorted(set(few.backgrounds))
    whole = np.eye(len(names), dtype=np.float32)[[names.index(name) for name in few.backgrounds]]
    right = SceneVectors(whole, whole, [whole[:0]] * len(few))
    # A region of the first background in every scene.
    wrong = SceneVectors(whole, whole, [whole[[names.index(few.backgrounds[0])]]] * len(few))
    scores = object_search.background_scores(few, {"right": right, "wrong": wrong})
    assert scores["right"].mean("mAP") == 1 > scores["wrong"].mean("mAP") + 0.02


def test_costs_count_vectors_and_bytes(few):
    extractor = open_extractor("hsv-histogram")
    images, source = few.images.subset(range(2)), regions.region_source("grid")
    table = object_search.costs(images, extractor, [source], 1)
    count = 1 + sum(len(each) for each in source.find(images)) / 2
    assert table["method"].tolist() == ["whole image", "grid"] and table["vectors"].tolist() == [1, count]
    assert table["bytes"].tolist() == [4 * extractor.dim, count * 4 * extractor.dim]
    assert table["ms"].iloc[1] > table["ms"].iloc[0] > 0 and table["time / whole"].iloc[0] == 1
