"""Open-set search: detection and identification, false alarms, and a threshold for other people."""

from pathlib import Path

import numpy as np
import pytest

from helpers.evaluation.builders import query_gallery
from helpers.evaluation.runner import run
from helpers.images.imageset import ImageSet
from helpers.lessons import open_set
from helpers.search.index import open_index
from helpers.search.ranking import Ranking


def images(labels):
    labels = np.asarray(labels)
    names = tuple(f"person {i}" for i in range(labels.max() + 1))
    return ImageSet("people", tuple(Path(f"{i}.jpg") for i in range(len(labels))), labels, names)


def cosine():
    return open_index("exact:cosine")


@pytest.fixture
def search():
    """Gallery 0 (a), 1 (b). Queries: 2 (a), 3 (a), 4 (b), 5 and 6 (no class), 7 (c, not in the gallery)."""
    protocol = query_gallery(images([0, 1, 0, 0, 1, -1, -1, 2]), range(2, 8), [0, 1], "p")
    ids = [[0, 1], [1, 0], [1, 0], [0, 1], [1, -1], [0, 1]]
    scores = [[0.9, 0.1], [0.8, 0.7], [0.6, 0.5], [0.65, 0.2], [0.3, -np.inf], [0.4, 0.1]]
    return Ranking(np.array(ids), np.array(scores)), protocol


def test_worked_by_hand(search):
    mates, others = open_set.search_scores(*search)
    assert mates.tolist() == [0.9, -np.inf, 0.6]  # the first result of the second query is wrong
    assert others.tolist() == [0.65, 0.3, 0.4]
    curve = open_set.open_set_curve(*search)
    # At 0.5: two of three are detected and identified, one of three unknown people causes a false alarm.
    assert curve.at(0.5) == pytest.approx((1 / 3, 1 / 3))
    assert curve.at(0.66) == pytest.approx((0, 2 / 3))
    assert curve.threshold_at(1 / 3) == 0.6


def test_measure_by_hand(search):
    found = open_set.measure(*search, threshold=0.62)
    assert found.threshold == 0.62
    assert (found.detected, found.false_alarms) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.closed_set == pytest.approx(2 / 3)
    assert (found.n_people, found.n_mates, found.n_unknown) == (2, 3, 3)


def test_invalid_arguments_are_refused(search):
    ranking, protocol = search
    with pytest.raises(ValueError, match="6 queries, but the ranking has 1 rows"):
        open_set.search_scores(Ranking(ranking.ids[:1], ranking.scores[:1]), protocol)


def test_the_protocol():
    labels = np.array([0] * 4 + [1] * 3 + [-1] * 5)
    protocol = open_set.open_set_protocol(images(labels), "p", per_person=2, seed=0)
    assert np.bincount(labels[protocol.gallery]).tolist() == [2, 2]
    assert sorted([*protocol.gallery, *protocol.queries]) == list(range(12))
    assert protocol.has_relevant.sum() == 3 and (~protocol.has_relevant).sum() == 5
    galleries = {tuple(open_set.open_set_protocol(images(labels), "p", 2, seed).gallery) for seed in range(8)}
    assert len(galleries) > 1
    with pytest.raises(ValueError, match="person 1 has too few"):
        open_set.open_set_protocol(images(labels), "p", per_person=3)
    with pytest.raises(ValueError, match="per_person must be at least 1, got 0"):
        open_set.open_set_protocol(images(labels), "p", per_person=0)
    with pytest.raises(ValueError, match="no image has a class"):
        open_set.open_set_protocol(images(np.full(4, -1)), "p")
    with pytest.raises(ValueError, match="no query of an unknown person"):
        open_set.open_set_protocol(images(labels[:7]), "p")


def test_halves_have_no_common_person():
    labels = np.repeat(np.arange(10), 4).tolist() + [-1] * 21
    a, b = open_set.split_by_person(labels)
    assert sorted([*a, *b]) == list(range(61))
    known = [set(np.asarray(labels)[rows]) - {-1} for rows in (a, b)]
    assert known[0].isdisjoint(known[1]) and len(known[0]) == len(known[1]) == 5
    assert ((a >= 40).sum(), (b >= 40).sum()) == (10, 11)
    assert not np.array_equal(a, open_set.split_by_person(labels, seed=1)[0])


def gathering(spread, people=20, each=5, unknown=100, dim=32, seed=0):
    """Known people as clusters, and unknown ones, each somewhere else."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), each).tolist() + [-1] * unknown
    centers = rng.normal(size=(people, dim))
    known = np.repeat(centers, each, axis=0) + spread * rng.normal(size=(people * each, dim))
    return images(labels), np.concatenate([known, rng.normal(size=(unknown, dim))]).astype(np.float32)


@pytest.mark.parametrize("name", ["exact:cosine", "exact:euclidean"])
def test_clear_clusters_are_found_and_unknown_people_are_not(name):
    images, vectors = gathering(0.15, unknown=400)
    found = open_set.calibrate_and_test(images, vectors, lambda: open_index(name), false_alarms=0.02)
    assert found.detected == found.closed_set == 1
    assert found.false_alarms <= 0.06
    assert (found.n_people, found.n_mates, found.n_unknown) == (10, 40, 200)


def test_a_threshold_costs_detections():
    images, vectors = gathering(1.2)
    loose, strict = (open_set.calibrate_and_test(images, vectors, cosine, rate) for rate in (0.4, 0.02))
    assert strict.threshold > loose.threshold
    assert strict.detected < loose.detected <= loose.closed_set == strict.closed_set < 1
    assert strict.false_alarms < loose.false_alarms


def test_the_threshold_does_not_depend_on_the_test_people():
    images, vectors = gathering(0.8)
    first = open_set.calibrate_and_test(images, vectors, cosine, 0.1)
    changed = vectors.copy()
    changed[open_set.split_by_person(images.labels)[1]] = 1
    second = open_set.calibrate_and_test(images, changed, cosine, 0.1)
    assert second.threshold == first.threshold and second.false_alarms == 1 > first.false_alarms


def test_the_curve_of_a_run_agrees_with_its_measure():
    images, vectors = gathering(0.8)
    protocol = open_set.open_set_protocol(images, "p")
    ranking = run(protocol, vectors, cosine(), k=3)
    curve = open_set.open_set_curve(ranking, protocol)
    threshold = curve.threshold_at(0.05)
    predicted = np.where(ranking.scores[:, 0] >= threshold, protocol.labels[ranking.ids[:, 0]], -1)
    labels = protocol.labels[protocol.queries]
    found = open_set.measure(ranking, protocol, threshold)
    assert found.detected == pytest.approx(np.mean(predicted[labels >= 0] == labels[labels >= 0]))
    assert found.false_alarms == pytest.approx(np.mean(predicted[labels < 0] >= 0)) and found.false_alarms <= 0.05


def test_too_few_unknown_people_for_so_low_a_rate():
    images, vectors = gathering(0.3)
    with pytest.raises(ValueError, match="between 1/50"):
        open_set.calibrate_and_test(images, vectors, cosine, 0.01)
    with pytest.raises(ValueError, match="200 images, but 3 vectors"):
        open_set.calibrate_and_test(images, vectors[:3], cosine)
