"""Keypoints: extraction, matching and verification, against brute force and with known transformations."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.features import keypoints
from helpers.features.keypoints import KINDS, Keypoints, extract, homography, is_plausible, match
from helpers.images import reading, samples


@pytest.fixture(scope="module")
def photo():
    """A photograph of the sample with a few hundred keypoints."""
    images = samples.photos()
    return reading.resize(reading.read_image(images.paths[40]), (240, 320))


def fake(descriptors, kind="sift", points=None):
    """Keypoints with these descriptors; all other values are zero."""
    n = len(descriptors)
    points = np.zeros((n, 2), np.float32) if points is None else np.asarray(points, np.float32)
    zeros = np.zeros(n, np.float32)
    return Keypoints(kind, points, zeros, zeros, zeros, np.asarray(descriptors, KINDS[kind].dtype), (100, 100))


# ---- extraction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_shapes_and_order(self, photo, kind):
        found = extract(photo, kind, limit=200)
        assert 20 <= len(found) <= 200 and found.kind == kind and found.shape == (240, 320)
        assert found.points.shape == (len(found), 2) and found.points.dtype == np.float32
        assert found.descriptors.shape == (len(found), KINDS[kind].width)
        assert found.descriptors.dtype == KINDS[kind].dtype
        assert (np.diff(found.responses) <= 0).all(), "strongest first"
        assert (found.points >= 0).all() and (found.points <= (320, 240)).all()

    def test_the_limit_keeps_the_strongest(self, photo, kind):
        # ORB distributes the limit over its pyramid, so its ten are not among its 300.
        many, few = extract(photo, kind, limit=300), extract(photo, kind, limit=10)
        assert len(few) == 10
        if kind != "orb":
            assert np.array_equal(few.responses, many.responses[:10])
            assert np.array_equal(few.descriptors, many.descriptors[:10])

    @pytest.mark.parametrize("shape", [(60, 80, 3), (60, 80), (1, 1, 3), (5, 400)])
    def test_a_flat_image_has_none(self, kind, shape):
        found = extract(np.full(shape, 127, np.uint8), kind)
        assert len(found) == 0 and found.descriptors.shape == (0, KINDS[kind].width)
        assert found.descriptors.dtype == KINDS[kind].dtype and found.points.shape == (0, 2)

    def test_color_and_gray_give_the_same_keypoints(self, photo, kind):
        gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
        one, other = extract(photo, kind), extract(gray, kind)
        assert np.array_equal(one.descriptors, other.descriptors) and np.array_equal(one.points, other.points)

    def test_a_quarter_turn(self, photo, kind):
        one, turned = extract(photo, kind), extract(cv2.rotate(photo, cv2.ROTATE_90_CLOCKWISE), kind)
        found = homography(one, turned, match(one, turned))
        assert found.count > 0.4 * len(one)
        # (x, y) goes to (height - y, x).
        corners = np.array([[0, 0, 1], [320, 0, 1], [320, 240, 1]]) @ found.matrix.T
        assert np.abs(corners[:, :2] / corners[:, 2:] - [[240, 0], [240, 320], [0, 320]]).max() < 3


#: Query → changed copy: turned by 30°, at 0.7 of its size, sheared, and seen from the side.
WARPS = {
    "turn": np.array([[0.8660, 0.5, 20], [-0.5, 0.8660, 170], [0, 0, 1]]),
    "scale": np.array([[0.7, 0, 5], [0, 0.7, 8], [0, 0, 1]]),
    "shear": np.array([[1, 0.2, 0], [0.1, 0.9, 3], [0, 0, 1]]),
    "side": np.array([[0.9, 0.05, 15], [0.02, 0.95, 5], [3e-4, 2e-4, 1]]),
}


@pytest.mark.parametrize("warp", WARPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_known_warp_is_recovered_within_two_pixels(photo, kind, warp):
    changed = cv2.warpPerspective(photo, WARPS[warp], (420, 400), borderValue=(127, 127, 127))
    one, other = extract(photo, kind), extract(changed, kind)
    found = homography(one, other, match(one, other))
    corners = np.array([[(0, 0), (320, 0), (320, 240), (0, 240)]], float)
    expected, mapped = (cv2.perspectiveTransform(corners, matrix) for matrix in (WARPS[warp], found.matrix))
    assert np.linalg.norm(mapped - expected, axis=2).max() < 2


def test_rootsift_is_the_square_root_of_sift(photo):
    plain, rooted = extract(photo, "sift"), extract(photo, "rootsift")
    expected = np.sqrt(plain.descriptors / plain.descriptors.sum(axis=1, keepdims=True))
    assert np.allclose(rooted.descriptors, expected, atol=1e-6)
    assert np.allclose(np.linalg.norm(rooted.descriptors, axis=1), 1, atol=1e-5)
    assert not np.isnan(keypoints.root(np.zeros((2, 128)))).any()


# ---- matching -------------------------------------------------------------------------------------------


def test_the_ratio_test_by_hand():
    query = fake([[10] + 127 * [0], [0, 50] + 126 * [0]])
    # The first query's neighbors are 1 and 4 away, the second's 3 and 3.5.
    gallery = fake([[11] + 127 * [0], [14] + 127 * [0], [0, 53] + 126 * [0], [0, 46.5] + 126 * [0]])
    found = match(query, gallery, ratio=0.8, mutual=False)
    assert found.pairs.tolist() == [[0, 0]] and found.distances.tolist() == [1]
    assert match(query, gallery, ratio=0.9, mutual=False).pairs.tolist() == [[0, 0], [1, 2]]
    assert match(query, fake([[10] + 127 * [0]]), ratio=0.8).pairs.tolist() == [], "no second nearest neighbor"
    assert match(query, fake([[10] + 127 * [0]]), ratio=None).pairs.tolist() == [[0, 0]]


def test_the_cross_check_by_hand():
    # Both queries are nearest to the one gallery keypoint; it is nearest to the second.
    query, gallery = fake([[5] + 127 * [0], [9] + 127 * [0]]), fake([[10] + 127 * [0]])
    assert match(query, gallery, ratio=None, mutual=False).pairs.tolist() == [[1, 0], [0, 0]], "nearest first"
    assert match(query, gallery, ratio=None, mutual=True).pairs.tolist() == [[1, 0]]


@given(st.integers(0, 10_000), st.sampled_from(["sift", "orb"]), st.booleans(), st.sampled_from([None, 0.8, 0.95]))
@settings(max_examples=40)
def test_against_brute_force(seed, kind, mutual, ratio):
    rng = np.random.default_rng(seed)
    high = 256 if kind == "orb" else 6
    width = KINDS[kind].width
    query, gallery = (fake(rng.integers(0, high, (n, width)), kind) for n in rng.integers(1, 12, 2))
    a, b = query.descriptors, gallery.descriptors
    if kind == "orb":
        apart = np.unpackbits(a[:, None] ^ b[None], axis=2).sum(axis=2).astype(float)
    else:
        apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    found = match(query, gallery, ratio, mutual)
    expected = set()
    for i, row in enumerate(apart):
        j, ranked = row.argmin(), np.sort(row)
        if ratio is not None and not (len(row) > 1 and ranked[0] < ratio * ranked[1]):
            continue
        if mutual and apart[:, j].argmin() != i:
            continue
        expected.add((i, j))
    ties = any((np.sort(line)[:1] == np.sort(line)[1:2]).any() for line in (*apart, *apart.T))
    if not ties:
        assert {tuple(pair) for pair in found.pairs.tolist()} == expected
    assert np.allclose(found.distances, [apart[i, j] for i, j in found.pairs], atol=1e-3)
    assert (np.diff(found.distances) >= 0).all()


def test_no_keypoints_give_no_matches(photo):
    none, some = extract(np.zeros((50, 50), np.uint8)), extract(photo)
    for one, other in ((none, some), (some, none), (none, none)):
        matches = match(one, other)
        assert len(matches) == 0 and matches.pairs.shape == (0, 2)
        assert homography(one, other, matches).matrix is None


# ---- verification ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("outliers", [0, 30, 60])
def test_a_known_homography_is_found_among_outliers(outliers):
    rng = np.random.default_rng(outliers)
    true = np.array([[0.8, -0.5, 40], [0.45, 0.9, -10], [2e-4, 1e-4, 1]])
    points = rng.uniform(0, 100, (40 + outliers, 2))
    mapped = np.column_stack([points, np.ones(len(points))]) @ true.T
    mapped = mapped[:, :2] / mapped[:, 2:]
    mapped[40:] = rng.uniform(-50, 200, (outliers, 2))
    blank = np.zeros((len(points), 128))
    pairs = keypoints.Matches(np.repeat(np.arange(len(points))[:, None], 2, axis=1), np.zeros(len(points)))
    found = homography(fake(blank, points=points), fake(blank, points=mapped), pairs, within=2)
    assert found.inliers[:40].all() and found.inliers[40:].sum() <= 3
    assert np.abs(found.matrix / found.matrix[2, 2] - true).max() < 0.5
    again = homography(fake(blank, points=points), fake(blank, points=mapped), pairs, within=2)
    assert np.array_equal(again.matrix, found.matrix), "the same at every call"


def test_three_matches_give_no_homography():
    blank = fake(np.zeros((3, 128)), points=[(0, 0), (50, 0), (0, 50)])
    found = homography(blank, blank, keypoints.Matches(np.array([[0, 0], [1, 1], [2, 2]]), np.zeros(3)))
    assert found.matrix is None and found.count == 0 and found.inliers.shape == (3,)


def test_degenerate_points_do_not_crash():
    for points in (np.zeros((9, 2)), np.column_stack([np.arange(9), np.arange(9)])):
        line = fake(np.zeros((9, 128)), points=points)
        same = keypoints.Matches(np.repeat(np.arange(9)[:, None], 2, axis=1), np.zeros(9))
        assert homography(line, line, same).inliers.shape == (9,)


@pytest.mark.parametrize(
    ("matrix", "possible"),
    [
        (np.eye(3), True),
        (np.diag([0.2, 0.2, 1]), True),
        (np.diag([0.05, 0.05, 1]), False),  # a twentieth
        (np.diag([20, 20, 1]), False),
        (np.diag([-1, 1, 1]), False),  # mirrored
        (np.diag([-1, -1, 1]), True),  # half a turn
        (np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1]]), False),  # half behind the camera
        (np.array([[1, 2, 0], [1, 2, 0], [0, 0, 1]]), False),  # flat
        (np.full((3, 3), np.nan), False),
    ],
)
def test_plausible_homographies(matrix, possible):
    assert is_plausible(matrix.astype(float), (80, 100)) is possible


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: extract(np.zeros((9, 9), np.uint8), "surf"), "no 'surf' keypoints; known: sift, rootsift, orb"),
        (lambda: extract(np.zeros((9, 9), np.uint8), limit=0), "limit must be at least 1, got 0"),
        (lambda: extract(np.zeros((9, 9))), "must be uint8 .* got float64"),
        (lambda: extract(np.zeros((9, 9, 4), np.uint8)), r"got uint8 \(9, 9, 4\)"),
        (lambda: extract(np.zeros((0, 9), np.uint8)), r"got uint8 \(0, 9\)"),
        (
            lambda: match(fake(np.zeros((2, 32)), "orb"), fake(np.zeros((2, 128)))),
            "orb and sift descriptors",
        ),
        (
            lambda: match(fake(np.zeros((2, 128))), fake(np.zeros((2, 128))), ratio=1.5),
            "ratio must be above 0 and at most 1",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_subset(photo):
    found = extract(photo)
    some = found.subset(found.points[:, 0] < 100)
    assert 0 < len(some) < len(found) and some.shape == found.shape and (some.points[:, 0] < 100).all()
    assert len(homography(some, found, match(some, found)).inliers) > 4
    assert np.array_equal(found.subset(np.array([2, 5])).descriptors, found.descriptors[[2, 5]])
