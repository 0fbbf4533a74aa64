"""Votes of keypoints: against a slow loop over all descriptors, by hand, and on changed copies of real images."""

import numpy as np
import pytest

from helpers.features.keypoints import KINDS, KeypointGeometry, extract, similarity_inliers
from helpers.images import known_items, reading, samples
from helpers.images.known_items import Change
from helpers.lessons.keypoint_votes import VoteIndex


def distractors():
    every = samples.with_distractors()
    return every.subset(every.labels < 0)


@pytest.fixture(scope="module")
def photos():
    images = samples.photos()
    return [reading.read_image(path) for path in images.paths[::12]]


@pytest.fixture(scope="module")
def frames():
    return [reading.read_image(path) for path in distractors().paths[:3]]


def nothing(kind="sift"):
    return extract(np.zeros((50, 50), np.uint8), kind)


def slow_votes(query, gallery, neighbors):
    """float64 (n,): each query descriptor's votes, by brute force in float64."""
    every = np.concatenate([one.descriptors for one in gallery])
    owners = np.repeat(np.arange(len(gallery)), [len(one) for one in gallery])
    votes = np.zeros(len(gallery))
    for descriptor in query.descriptors:
        if every.dtype == np.uint8:
            distances = np.unpackbits(every ^ descriptor, axis=1).sum(axis=1).astype(float)
        else:
            distances = ((every.astype(float) - descriptor) ** 2).sum(axis=1)
        order = np.argsort(distances, kind="stable")
        beyond = distances[order[neighbors]]
        voted = set()
        for row in order[:neighbors]:
            if owners[row] not in voted:
                voted.add(owners[row])
                votes[owners[row]] += max(0, 1 - distances[row] / beyond) if beyond else 0
    return votes / (1 + votes.sum())


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_votes_against_a_slow_loop(photos, kind):
    gallery = [extract(image, kind, 60) for image in photos[:8]]
    query = extract(photos[9], kind, 40)
    index = VoteIndex(kind, links=32, breadth=500).add(gallery, range(8))
    found = index.search([query], 8, neighbors=5, verify=0)
    expected = slow_votes(query, gallery, 5)
    # Equal distances of bits may come in another order.
    assert np.allclose(found.scores[0], expected[found.ids[0]], atol=1e-5 if kind == "sift" else 0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_changed_copies_are_found(photos, frames, kind):
    gallery = [extract(image, kind) for image in photos]
    index = VoteIndex(kind).add(gallery, range(len(photos)))
    rows = [row for row, one in enumerate(gallery) if len(one) >= 50][:5]
    assert len(rows) >= 4
    changes = [Change("rotation", 45), Change("scale", 0.7), Change("crop", 0.8), Change("jpeg", 25)]
    queries = list(known_items.queries([photos[row] for row in rows], frames, changes))
    found = index.search([extract(image, kind) for _, _, image in queries], 1)
    assert np.mean(found.ids[:, 0] == [rows[row] for row, _, _ in queries]) >= 0.95


def test_verified_images_come_first_with_their_pairs_as_score(photos):
    gallery = [extract(image) for image in photos]
    index = VoteIndex().add(gallery, np.arange(len(photos)) * 10)
    found = index.search([gallery[5]], len(photos))
    assert found.ids[0, 0] == 50 and found.scores[0, 0] > 0.8 * len(gallery[5])
    assert (found.scores[0, 1:] < 20).all() and (found.scores >= 0).all()
    assert sorted(found.ids[0]) == (np.arange(len(photos)) * 10).tolist()
    votes = index.search([gallery[5]], len(photos), verify=0)
    assert (votes.scores < 1).all() and votes.ids[0, 0] == 50


def test_the_same_again_in_any_company(photos):
    gallery = [extract(image) for image in photos]
    index = VoteIndex().add(gallery, range(len(photos)))
    together = index.search(gallery[:6], 5)
    again = VoteIndex().add(gallery, range(len(photos))).search(gallery[:6], 5)
    assert np.array_equal(together.ids, again.ids) and np.array_equal(together.scores, again.scores)
    assert np.array_equal(index.search(gallery[3:4], 5).scores[0], together.scores[3])


def test_images_without_keypoints(photos):
    index = VoteIndex().add([extract(photos[0]), nothing(), extract(photos[1])], [7, 3, 5])
    found = index.search([nothing(), extract(photos[1])], 5)
    assert found.ids[0].tolist() == [3, 5, 7, -1, -1] and (found.scores[0, :3] == 0).all()
    assert found.ids[1, 0] == 5 and found.ids.shape == (2, 5)
    alone = VoteIndex().add([nothing()], [0])
    assert alone.search([extract(photos[0])], 1).ids.tolist() == [[0]]
    assert len(index.search([], 4)) == 0


def test_fewer_descriptors_than_neighbors(photos):
    few = extract(photos[0], limit=3)
    assert VoteIndex().add([few], [4]).search([few], 1).ids.tolist() == [[4]]


def test_added_in_parts_is_as_added_at_once(photos):
    gallery = [extract(image, limit=100) for image in photos]
    parts = VoteIndex(breadth=500).add(gallery[:7], range(7)).add([], []).add(gallery[7:], range(7, len(gallery)))
    whole = VoteIndex(breadth=500).add(gallery, range(len(gallery)))
    one, other = (index.search(gallery[:4], 1) for index in (parts, whole))
    assert np.array_equal(one.ids, other.ids) and len(parts) == len(whole) == len(gallery)
    assert parts.nbytes == whole.nbytes > sum(one.descriptors.nbytes for one in gallery)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda index, one: index.add([one], [0, 1]), "there are 1 images, but the ids have shape"),
        (lambda index, one: index.add([one], [-1]), "must not be negative"),
        (lambda index, one: index.add([one, one], [4, 4]), "each must occur once"),
        (lambda index, one: index.add([one], [9]), "each must occur once"),
        (lambda index, one: index.add([nothing("orb")], [1]), "image 0 has orb keypoints, the index has sift"),
        (lambda index, one: index.search([nothing("orb")], 1), "image 0 has orb keypoints"),
        (lambda index, one: index.search([one], 0), "must be at least 1"),
        (lambda index, one: index.search([one], 1, neighbors=0), "must be at least 1"),
        (lambda index, one: VoteIndex().search([one], 1), "the index is empty"),
        (lambda index, one: VoteIndex("surf"), "no 'surf' keypoints"),
    ],
)
def test_bad_input_is_named(photos, call, message):
    one = extract(photos[0], limit=20)
    index = VoteIndex().add([one], [9])
    with pytest.raises(ValueError, match=message):
        call(index, one)
    assert len(index) == 1


# ---- pairs that agree -----------------------------------------------------------------------------------


def random_geometry(n, seed=0):
    rng = np.random.default_rng(seed)
    return KeypointGeometry(
        rng.uniform(0, 200, (n, 2)).astype(np.float32),
        rng.uniform(3, 20, n).astype(np.float32),
        rng.uniform(0, 360, n).astype(np.float32),
    )


@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_pairs_that_were_turned_and_scaled_together_agree(degrees, scale):
    here = random_geometry(30)
    turn = np.radians(degrees)
    # y runs downwards, so this turns clockwise, as angles are counted.
    matrix = scale * np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    there = KeypointGeometry(here.points @ matrix.T + (40, -7), here.sizes * scale, (here.angles + degrees) % 360)
    assert similarity_inliers(here, there).all()
    mixed = KeypointGeometry(
        *(np.concatenate([column, other]) for column, other in zip(there, random_geometry(30, 1), strict=True))
    )
    agree = similarity_inliers(KeypointGeometry.concatenate([here, random_geometry(30, 2)]), mixed)
    assert agree[:30].all() and agree.sum() <= 33


def test_accidents_do_not_agree():
    counts = [
        similarity_inliers(random_geometry(20, seed), random_geometry(20, seed + 1000)).sum() for seed in range(50)
    ]
    assert np.mean(np.array(counts) > 4) <= 0.1
    assert similarity_inliers(KeypointGeometry.empty(), KeypointGeometry.empty()).shape == (0,)


def test_a_wrong_turn_scale_or_place_counts_out():
    here = random_geometry(12)
    turned = here._replace(angles=np.where(np.arange(12) < 5, here.angles + 90, here.angles))
    larger = here._replace(sizes=np.where(np.arange(12) < 5, 3 * here.sizes, here.sizes))
    moved = here._replace(points=np.where(np.arange(12)[:, None] < 5, 400 - here.points, here.points))
    assert [similarity_inliers(here, there).sum() for there in (here, turned, larger, moved)] == [12, 7, 7, 7]
