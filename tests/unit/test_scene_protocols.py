"""Protocols on the scenes: relevant and ignored scenes by a plain loop, and the frozen files."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from helpers.cli import scores
from helpers.evaluation import evaluate, frozen, run
from helpers.evaluation.scene_protocols import known_item, same_class
from helpers.images import scenes
from helpers.search.index import open_index
from tests.unit.test_protocol import same

AREAS = [(0.0, 1.0), (0.0, 0.1), (0.1, 1.0)]


@pytest.fixture(scope="module")
def loaded():
    return scenes.load()


@pytest.mark.parametrize("areas", AREAS)
def test_known_items_are_the_scenes_with_the_photograph(loaded, areas):
    protocol = known_item(loaded, "toy", areas)
    first = len(loaded.photos)
    for photo in range(first):
        with_it = {each.scene + first: each.area_share for each in loaded.objects if each.photo == photo}
        relevant = [scene for scene, area in with_it.items() if areas[0] <= area < areas[1]]
        assert protocol.relevant(photo).tolist() == relevant
        assert protocol.ignored(photo).tolist() == sorted(set(with_it) - set(relevant))


@pytest.mark.parametrize("areas", AREAS)
def test_scenes_with_the_query_itself_are_ignored_in_the_class_task(loaded, areas):
    protocol = same_class(loaded, "toy", areas)
    first = len(loaded.photos)
    for photo in range(first):
        relevant, ignored = [], []
        for scene in range(len(loaded)):
            objects = [each for each in loaded.of(scene) if each.class_name == loaded.photos.class_name(photo)]
            if any(each.photo == photo for each in objects):
                ignored.append(scene + first)
            elif objects:
                largest = max(each.area_share for each in objects)
                (relevant if areas[0] <= largest < areas[1] else ignored).append(scene + first)
        assert protocol.relevant(photo).tolist() == relevant
        assert protocol.ignored(photo).tolist() == ignored


def test_known_items_need_no_query_in_the_gallery(loaded):
    """Re-ranking that compares gallery images with each other is allowed."""
    known_item(loaded).check_disjoint()


def test_areas_in_the_wrong_order_are_refused(loaded):
    for areas in ((0.5, 0.1), (-0.1, 1), (0.2, 0.2), (0, 2)):
        with pytest.raises(ValueError, match="smaller one first"):
            known_item(loaded, areas=areas)


@pytest.mark.parametrize(("name", "make"), [("scenes-known-item", known_item), ("scenes-class", same_class)])
def test_the_frozen_protocols_bind_and_are_those_of_the_scenes(loaded, name, make):
    protocol = frozen(name)
    assert same(protocol, make(loaded))
    bound, images = protocol.bind(loaded.with_photos())
    assert bound.keys == images.keys == loaded.photos.keys + loaded.images.keys
    assert protocol.has_relevant.all() and protocol.n_distractors == 0
    assert len(protocol.queries) == 246 and len(protocol.gallery) == 300


def test_evaluate_finds_the_images_of_the_protocols(loaded):
    options = Namespace(images=None)
    assert scores._images_of(frozen("scenes-class"), options).keys == loaded.with_photos().keys


def test_a_search_by_the_known_objects_scores_one(loaded):
    """Vectors of which photographs a scene shows, one column each, rank the relevant scenes first."""
    n = len(loaded.photos)
    vectors = np.zeros((n + len(loaded), n), np.float32)
    vectors[np.arange(n), np.arange(n)] = 1
    for each in loaded.objects:
        vectors[n + each.scene, each.photo] = 1
    protocol = known_item(loaded)
    best = evaluate(run(protocol, vectors, open_index("exact:cosine")), protocol)
    assert best.mean("mAP") == pytest.approx(1) and best.mean_chance("mAP") < 0.05
    # Without the objects of every second photograph, half of the queries find nothing but ties.
    vectors[n:, ::2] = 0
    worse = evaluate(run(protocol, vectors, open_index("exact:cosine")), protocol)
    assert worse.mean("mAP") < 0.7
    columns = np.eye(len(loaded.photos.class_names), dtype=np.float32)
    by_class = same_class(loaded)
    classes = np.zeros((n + len(loaded), len(columns)), np.float32)
    classes[:n] = columns[loaded.photos.labels]
    classes[n + loaded.rows, loaded.labels] = 1
    found = evaluate(run(by_class, classes, open_index("exact:cosine")), by_class)
    assert found.mean("mAP") == pytest.approx(1) and 0.15 < found.mean_chance("mAP") < 0.4


def test_a_scene_without_an_object_is_a_distractor(loaded):
    none = replace(loaded, objects=tuple(each for each in loaded.objects if each.scene != 7))
    for make in (known_item, same_class):
        protocol = make(none)
        assert protocol.n_distractors == 1
        assert not any(len(loaded.photos) + 7 in protocol.relevant(row) for row in range(len(protocol.queries)))
