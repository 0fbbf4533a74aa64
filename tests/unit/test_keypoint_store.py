"""Keypoints on disk: equal to extracted ones, for each combination of settings, and after interruptions."""

import cv2
import numpy as np
import pytest

from helpers.features import keypoints
from helpers.features.keypoints import KeypointStore, extract, extract_each, extract_set
from helpers.features.store import VectorStoreError, pixels_hash
from helpers.features.visual_words import VisualWords
from helpers.features.vocabulary import KeypointConfig
from helpers.images import folders, samples
from helpers.images.reading import UnreadableImageWarning, read_image

pytestmark = pytest.mark.usefixtures("own_cache")

COLUMNS = ("points", "sizes", "angles", "responses", "descriptors")


@pytest.fixture(scope="module")
def photos():
    return samples.photos().subset(range(0, 240, 60))


def equal(one, other):
    return one.kind == other.kind and one.shape == other.shape and all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and np.array_equal(getattr(one, name), getattr(other, name))
        for name in COLUMNS
    )  # fmt: skip


def refuse(*_):
    raise AssertionError("extracted although the keypoints are on disk")


@pytest.mark.parametrize("kind", keypoints.KINDS)
def test_stored_keypoints_equal_extracted_ones(photos, kind, monkeypatch):
    alone = [extract(read_image(path), kind, 100) for path in photos.paths]
    assert all(map(equal, extract_set(photos, kind, 100, progress=False), alone))
    monkeypatch.setattr(keypoints, "extract", refuse)
    again = extract_set(photos, kind, 100, progress=False)
    assert all(map(equal, again, alone))
    assert sum(map(len, again)) > 0 and again[0].points.flags.writeable


def test_sift_and_rootsift_share_a_file(photos, own_cache, monkeypatch):
    rooted = [extract(read_image(path), "rootsift") for path in photos.paths]
    extract_set(photos, "sift", progress=False)
    monkeypatch.setattr(keypoints, "extract", refuse)
    assert all(map(equal, extract_set(photos, "rootsift", progress=False), rooted))
    assert len(list((own_cache / "keypoints").glob("*.sqlite"))) == 1


def test_settings_have_their_own_keypoints(photos):
    extract_set(photos, "orb", 100, progress=False)
    for settings in ({"limit": 50}, {"longest": 64}):
        found = extract_set(photos, "orb", **({"limit": 100} | settings), progress=False)
        pixels = [read_image(path) for path in photos.paths]
        longest = settings.get("longest", 10_000)
        fresh = [extract(keypoints.shrink(image, longest), "orb", settings.get("limit", 100)) for image in pixels]
        assert all(map(equal, found, fresh)), settings
    assert 0 < max(len(one) for one in extract_set(photos, "orb", 20, progress=False)) <= 20


def test_a_file_with_new_content_is_extracted_again(photos, tmp_path):
    path = tmp_path / "a" / "one.png"
    path.parent.mkdir()
    for row in (0, 1):
        image = read_image(photos.paths[row])
        cv2.imwrite(str(path), image[:, :, ::-1])
        images = folders.from_folder(tmp_path)
        assert equal(extract_set(images, progress=False)[0], extract(image))


def test_an_interrupted_call_continues(photos, monkeypatch):
    monkeypatch.setattr(keypoints, "_BATCH", 1)
    original, done = extract, []

    def interrupted(image, *settings):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(image)
        return original(image, *settings)

    monkeypatch.setattr(keypoints, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_set(photos, progress=False)
    done = []
    monkeypatch.setattr(keypoints, "extract", lambda *given: done.append(given) or original(*given))
    found = extract_set(photos, progress=False)
    assert len(done) == len(photos) - 2
    assert all(map(equal, found, [original(read_image(path)) for path in photos.paths]))


def test_unreadable_images_are_never_stored(photos, tmp_path, own_cache):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "whole.jpg").write_bytes(photos.paths[0].read_bytes())
    images = folders.from_folder(folder.parent)
    for _ in range(2):
        with pytest.warns(UnreadableImageWarning, match="1 of 2 images"):
            found = extract_set(images, progress=False)
        assert [len(one) > 0 for one in found] == [False, True]


def test_arrays_are_stored_by_their_pixels(photos, monkeypatch):
    images = [read_image(path) for path in photos.paths]
    alone = extract_each(images, "rootsift")
    first = extract_each([*images, images[0]], "rootsift", cache=True)
    assert all(map(equal, first, [*alone, alone[0]]))
    changed = images[0].copy()
    changed[:40] = 0
    assert not equal(extract_each([changed], "rootsift", cache=True)[0], alone[0])
    monkeypatch.setattr(keypoints, "extract", refuse)
    assert all(map(equal, extract_each(images[::-1], "rootsift", cache=True), alone[::-1]))


def test_hashes_depend_on_shape_type_and_values():
    one = np.arange(12, dtype=np.uint8)
    others = [one.reshape(3, 4), one.reshape(4, 3), one.view(np.int8), one[::-1], one]
    assert len({pixels_hash(each) for each in others}) == 5
    assert pixels_hash(one.reshape(3, 4).T) == pixels_hash(np.ascontiguousarray(one.reshape(3, 4).T))


def test_keypoints_of_another_kind_are_refused(photos):
    found = extract(read_image(photos.paths[0]), "orb")
    with KeypointStore("sift", 500, {}) as store, pytest.raises(ValueError, match="holds sift keypoints, got orb"):
        store.put({b"a": found})


def test_a_damaged_file_is_named(photos, own_cache):
    extract_set(photos, progress=False)
    (path,) = (own_cache / "keypoints").glob("*.sqlite")
    path.write_bytes(b"damaged" * 1000)
    with pytest.raises(VectorStoreError, match="its keypoints will be computed again"):
        extract_set(photos, progress=False)


def test_encodings_share_the_keypoints(photos, monkeypatch):
    """SIFT runs once for all encodings, and vectors equal those of arrays."""
    config = VisualWords("bow").vocabulary.config
    expected = {
        name: VisualWords(name).extract_arrays([read_image(p) for p in photos.paths]) for name in ("bow", "vlad")
    }
    first = VisualWords("bow").extract(photos, progress=False)
    assert np.allclose(first, expected["bow"], atol=1e-6)
    monkeypatch.setattr(keypoints, "extract", refuse)
    assert np.allclose(VisualWords("vlad").extract(photos, progress=False), expected["vlad"], atol=1e-6)
    assert len(list(config.keypoints(photos, progress=False))) == len(photos)
    other = KeypointConfig(size=config.size // 2)
    with pytest.raises(AssertionError, match="on disk"):
        list(other.keypoints(photos, progress=False))


def test_stored_keypoints_do_not_count_for_the_rate(photos):
    fresh = VisualWords("bow")
    fresh.extract(photos, progress=False)
    assert fresh.computed == len(photos) and fresh.seconds > 0
    second = VisualWords("vlad")
    second.extract(photos, progress=False)
    assert second.computed == 0 and second.seconds == 0
