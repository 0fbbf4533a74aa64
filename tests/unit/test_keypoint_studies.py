"""Measurements of keypoints: kinds on a known transformation, searches by votes under a protocol, and boxes."""

import cv2
import numpy as np
import pytest

from helpers.evaluation import builders
from helpers.features import keypoints
from helpers.features.keypoints import Keypoints, Matches
from helpers.images import reading, samples
from helpers.lessons import keypoint_studies
from helpers.search.ranking import Ranking


@pytest.fixture(scope="module")
def photos():
    """Two photographs of the sample with many keypoints."""
    images = samples.photos()
    return [reading.resize(reading.read_image(images.paths[row]), (200, 260)) for row in (40, 90)]


def at(points):
    """SIFT keypoints at these points, with empty descriptors."""
    n = len(points)
    zeros = np.zeros(n, np.float32)
    return Keypoints(
        "sift", np.array(points, np.float32), zeros, zeros, zeros, np.zeros((n, 128), np.float32), (99, 99)
    )


def test_a_rotated_copy_is_where_its_homography_says(photos):
    copy, matrix = keypoint_studies.rotated_copy(photos[0], 90, 0.5)
    assert copy.shape == (131, 101, 3)
    height, width = photos[0].shape[:2]
    # A turn by 90 degrees counterclockwise: the upper right corner comes to the upper left.
    corners = np.array([[(width - 1, 0), (width - 1, height - 1), (0, 0)]], float)
    expected = [(0, 0), ((height - 1) / 2, 0), (0, (width - 1) / 2)]
    assert cv2.perspectiveTransform(corners, matrix)[0] == pytest.approx(np.array(expected), abs=1e-9)
    back = cv2.warpPerspective(copy, np.linalg.inv(matrix), (width, height))
    assert np.abs(back[9:-9, 9:-9].astype(int) - photos[0][9:-9, 9:-9]).mean() < 12


def test_transfer_errors_are_distances_from_the_mapped_points():
    matches = Matches(np.array([[0, 1], [1, 0]]), np.zeros(2, np.float32))
    shift = np.array([[1, 0, 5], [0, 1, 0], [0, 0, 1]], float)
    errors = keypoint_studies.transfer_errors(at([(0, 0), (10, 20)]), at([(18, 24), (5, 7)]), matches, shift)
    assert errors.tolist() == [7, 5]
    nothing = Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    assert len(keypoint_studies.transfer_errors(at([(0, 0)]), at([(0, 0)]), nothing, shift)) == 0


def test_kinds_are_compared_on_the_same_copies(photos):
    table = keypoint_studies.compare_kinds(photos, ["sift", "orb"], limit=200).set_index("kind")
    assert table["bytes"].to_dict() == {"sift": 512, "orb": 32}
    for kind in ("sift", "orb"):
        found = [keypoints.extract(image, kind, 200) for image in photos]
        assert table.loc[kind, "keypoints"] == np.mean([len(one) for one in found])
    assert (table["correct matches"] > 20).all() and (table["ms to extract"] > 0).all()
    assert (table["low"] <= table["precision"]).all() and (table["precision"] <= table["high"]).all()
    assert (table["precision"] > 0.6).all()


def test_a_wrong_transformation_has_no_correct_matches(photos, monkeypatch):
    shifted = np.array([[1, 0, 40], [0, 1, 0], [0, 0, 1]], float)
    monkeypatch.setattr(keypoint_studies, "rotated_copy", lambda image, degrees, scale: (image, shifted))
    table = keypoint_studies.compare_kinds(photos, ["sift"], limit=200)
    assert table["precision"].item() < 0.1


@pytest.fixture(scope="module")
def case():
    """Four groups of three rotated copies, their keypoints, and leave one out."""
    images = samples.photos().subset(np.arange(0, 48, 4))
    labels = np.arange(12) // 3
    images = type(images)("rotated", images.paths, labels, tuple("abcd"))
    pixels = [
        keypoint_studies.rotated_copy(reading.resize(reading.read_image(images.paths[3 * label]), (160, 200)), turn, 1)
        for label in range(4)
        for turn in (0, 40, 80)
    ]
    return [keypoints.extract(image, "sift", 200) for image, _ in pixels], builders.leave_one_out(images, "rotated")


def test_votes_find_rotated_copies_under_a_protocol(case):
    found, protocol = case
    search = keypoint_studies.search_by_votes(found, protocol)
    assert search.scores.mean("top-1") == 1 and search.query_ms > 0 and search.index_bytes > 0
    assert len(search.ranking) == 12 and not (search.ranking.ids == protocol.queries[:, None]).any()
    relevant, other = keypoint_studies.verified_shares(search.ranking, protocol)
    assert relevant > 0.9 and other < 0.1


def test_verified_shares_count_scores_of_one_or_more(case):
    _, protocol = case
    first = protocol.queries - protocol.queries % 3
    ids = np.column_stack([np.where(first == protocol.queries, first + 1, first), (protocol.queries + 3) % 12])
    scores = np.column_stack([np.where(np.arange(12) < 6, 8.0, 0.4), np.where(np.arange(12) < 3, 1.0, 0.3)])
    assert keypoint_studies.verified_shares(Ranking(ids, scores), protocol) == (0.5, 0.25)


def test_parts_are_searched_apart(case, monkeypatch):
    found, protocol = case
    monkeypatch.setattr(keypoint_studies, "_FACE", (0, 0, 0, 0))
    table = keypoint_studies.compare_face_parts(found, protocol).set_index("keypoints")
    every, none = table.loc["everywhere"], table.loc["on the face"]
    assert every["top-1"] == 1 and every["relevant verified"] > 0.9
    assert none["per image"] == 0 and none["relevant verified"] == 0
    assert (table["top-1 low"] <= table["top-1"]).all() and table["mAP chance"].between(0, 1).all()


def test_a_keypoint_is_on_the_face_or_around_the_head(case):
    inside = keypoint_studies.is_inside(at([(80, 70), (80, 60), (175, 100), (60, 100)]), (75, 65, 175, 190))
    assert inside.tolist() == [True, False, False, False]
    found, protocol = case
    table = keypoint_studies.compare_face_parts(found, protocol).set_index("keypoints")
    counts = table["per image"]
    assert list(table.index) == ["everywhere", "on the face", "around the head"]
    assert counts["on the face"] > 0 and counts["on the face"] + counts["around the head"] < counts["everywhere"]
