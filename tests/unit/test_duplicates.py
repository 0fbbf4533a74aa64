"""Duplicates: planted copies are found after various changes, and different images are not reported."""

import runpy
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from helpers import paths
from helpers.images import caltech101, crops, imagenet, perceptual_hashes, samples
from helpers.images.duplicates import audit, recall, split_siblings
from helpers.images.folders import from_folder
from helpers.images.imageset import concatenate


@pytest.fixture(scope="module")
def originals():
    return samples.photos().sample(6, seed=1)


def with_copy(originals, folder, change, name="copy.jpg", row=4, **options):
    """The originals and a changed copy of one of them."""
    with Image.open(originals.paths[row]) as image:
        change(image.convert("RGB")).save(folder / name, **options)
    return concatenate("with a copy", [originals, from_folder(folder)])


CHANGES = {
    "saved again": (lambda p: p, "hash", {"quality": 40}),
    "half the size": (lambda p: p.resize((p.width // 2, p.height // 2)), "hash", {}),
    "brighter": (lambda p: ImageEnhance.Brightness(p).enhance(1.15), "hash", {}),
    "gray": (lambda p: p.convert("L").convert("RGB"), "hash", {}),
    "mirrored": (lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "mirror", {}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_copies_are_found(originals, tmp_path, what):
    change, how, options = CHANGES[what]
    images = with_copy(originals, tmp_path, change, **options)
    found = audit(images).pairs
    assert [(pair.first, pair.second, pair.how) for pair in found] == [(4, len(images) - 1, how)]


def test_a_copy_is_listed_for_the_first_search_that_finds_it(originals, tmp_path):
    (tmp_path / "copy.jpg").write_bytes(originals.paths[4].read_bytes())
    found = audit(concatenate("x", [originals, from_folder(tmp_path)]))
    assert [(pair.how, pair.correlation) for pair in found.pairs] == [("bytes", 1.0)]


def test_every_duplicate_is_listed_once(originals, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(originals.paths[4].read_bytes())
    images, n = concatenate("x", [originals, from_folder(tmp_path)]), len(originals)
    pairs = {(pair.first, pair.second, pair.how, pair.compared) for pair in audit(images).pairs}
    assert pairs == {(4, n, "bytes", 4), (4, n + 1, "bytes", 4)}
    assert audit(images).leaks == ()
    # The image on the lowest side represents the group, and duplicates on the other side are leaks.
    for sides, first, leaking in (
        (np.arange(n + 2) > n, 4, [n + 1]),
        (np.arange(n + 2) <= n, n + 1, [4, n]),
        (np.array(["train", "test"])[np.arange(n + 2) // n], n, [4]),
        (np.zeros(n + 2), 4, []),
    ):
        found = audit(images, sides=sides)
        assert {pair.first for pair in found.pairs} == {first} and len(found) == 2
        assert [pair.second for pair in found.leaks] == leaking


def test_copies_of_a_placeholder_are_one_group(originals, tmp_path):
    """Identical files and files with equal pixels: their number of pairs would grow quadratically."""
    content = originals.paths[4].read_bytes()
    for number in range(30):
        (tmp_path / f"{number:02}.jpg").write_bytes(content)
        (tmp_path / f"{number:02} other bytes.jpg").write_bytes(content + bytes([number]))
    images = concatenate("x", [originals, from_folder(tmp_path)])
    found = audit(images, np.ones((len(images), 4), np.float32))
    assert len(found) == len(found.table()) == 60 and {pair.first for pair in found.pairs} == {4}
    assert sum(pair.how == "bytes" for pair in found.pairs) == 30
    assert np.array_equal(np.flatnonzero(found.groups() == 0), [4, *range(len(originals), len(images))])


def scenes(folder, count, names=("0", "1")):
    """``count`` shifted and brightened frames of each scene in test, and of its middle in train, with unit vectors.

    Cosines are 1 for frames of one scene on one side, 0.9 across the sides, and 0 for different scenes.
    """
    for name in names:
        texture = np.random.default_rng(int(name)).integers(0, 200, (24, 32, 3), np.uint8)
        scene = Image.fromarray(texture).resize((320, 240), Image.Resampling.BICUBIC)
        for side, whole in (("train", scene.crop((40, 30, 280, 210))), ("test", scene)):
            (folder / side / name).mkdir(parents=True)
            for i in range(count):
                frame = whole.crop((4 * i, 3 * i, whole.width - 20 + 4 * i, whole.height - 15 + 3 * i))
                ImageEnhance.Brightness(frame).enhance(1 + 0.04 * i).save(folder / side / name / f"{i}.png")
    images = from_folder(folder)
    sides, of = np.array([key.split("/")[:2] for key in images.keys]).T
    angles = np.where(sides == "train", 0, np.arccos(0.9))
    vectors = np.zeros((len(images), 2 * len(names)), np.float32)
    vectors[np.arange(len(images)), 2 * of.astype(int)] = np.cos(angles)
    vectors[np.arange(len(images)), 2 * of.astype(int) + 1] = np.sin(angles)
    return images, vectors, sides, of.astype(int)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("split", [True, False])
def test_crops_among_similar_images_are_found(tmp_path, count, split):
    """With four frames of each scene on each side, the three nearest neighbors of an image are on its own side."""
    images, vectors, sides, scene_of = scenes(tmp_path, count)
    assert len(audit(images, sides=sides).leaks) == 0
    found = audit(images, 7 * vectors, sides if split else None)
    assert found.groups().tolist() == scene_of.tolist()
    assert len(found.leaks) == (2 * count if split else 0)


def test_neighbors_are_searched_on_each_side(tmp_path):
    """Many similar images on one side, which are not copies, do not hide a crop on the other side."""
    images, vectors, sides, scene_of = scenes(tmp_path, 1)
    decoys = replace(from_folder(samples.photos().root / "distractors").subset(range(4)), root=None)
    both = concatenate("with decoys", [images, decoys])
    train = vectors[(sides == "train") & (scene_of == 0)]
    vectors = np.concatenate([vectors, np.repeat(train, len(decoys), axis=0)])
    sides = [*sides, *["train"] * len(decoys)]
    assert {(pair.how, scene_of[pair.second]) for pair in audit(both, vectors, sides).leaks} == {
        ("crop", 0),
        ("crop", 1),
    }


def test_blocks_do_not_change_what_is_found(tmp_path, monkeypatch):
    images, vectors, sides, scene_of = scenes(tmp_path, 3)
    monkeypatch.setattr(crops, "_BLOCK", (5, 3))
    monkeypatch.setattr(crops, "_NEAREST", 4)
    monkeypatch.setattr(crops, "_PAIRS", 2)
    monkeypatch.setattr(crops, "_KEPT", 1)
    monkeypatch.setattr(perceptual_hashes, "_CHUNK", 3)
    assert audit(images, vectors, sides).groups().tolist() == scene_of.tolist()
    assert audit(images, vectors).groups().tolist() == scene_of.tolist()


def test_memory_does_not_grow_with_the_number_of_files_of_equal_size(tmp_path):
    content = np.random.default_rng(0).bytes(2**21)
    for number in range(12):
        (tmp_path / f"{number:02}.bmp").write_bytes(content + bytes([number % 11]))
    images = from_folder(tmp_path)
    tracemalloc.start()
    with pytest.warns(UserWarning, match="12 of 12"):
        found = audit(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 11)] and peak < 2 * 2**21


def test_a_crop_is_found_with_vectors(originals, tmp_path, resnet50):
    """Two thirds of the width and height of a busy photograph, which hashes do not find."""
    row = int(np.argmax([path.stat().st_size for path in originals.paths]))

    def crop(image):
        w, h = image.size
        return image.crop((w // 6, h // 6, w - w // 6, h - h // 6))

    images = with_copy(originals, tmp_path, crop, "crop.png", row)
    assert len(audit(images)) == 0
    found = audit(images, resnet50.extract(images, progress=False))
    assert [(pair.first, pair.second, pair.how) for pair in found.pairs] == [(row, len(images) - 1, "crop")]


def test_different_images_of_one_class_are_not_reported(resnet50):
    images = samples.photos()
    assert len(audit(images, resnet50.extract(images, progress=False))) == 0


def test_different_flat_images_are_not_duplicates(tmp_path):
    for level in (255, 254, 250):
        Image.new("RGB", (40 + level, 60), (level,) * 3).save(tmp_path / f"{level}.png")
    assert len(audit(from_folder(tmp_path))) == 0


def test_flat_images_with_equal_bytes_are_duplicates(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (40, 60), "white").save(tmp_path / f"{name}.png")
    Image.new("RGB", (41, 60), "white").save(tmp_path / "c.png")
    assert [(p.first, p.second, p.how) for p in audit(from_folder(tmp_path)).pairs] == [(0, 1, "bytes")]


@pytest.mark.parametrize("vectors", [None, np.zeros((0, 8), np.float32)])
def test_no_images(originals, vectors):
    found = audit(originals.subset([]), vectors)
    assert len(found) == 0 and found.groups().shape == (0,) and len(found.table()) == 0


def test_one_image(originals):
    found = audit(originals.subset([0]), np.ones((1, 1), np.float32))
    assert len(found) == 0 and found.groups().tolist() == [-1]


def test_an_unreadable_image_is_not_a_crop(originals):
    vectors = np.ones((len(originals), 4), np.float32) / 2
    vectors[3] = np.nan
    assert len(audit(originals, vectors)) == 0


def test_groups_contain_all_copies(originals, tmp_path):
    for i, quality in enumerate((30, 50)):
        with Image.open(originals.paths[4]) as image:
            image.convert("RGB").save(tmp_path / f"{i}.jpg", quality=quality)
    images = concatenate("x", [originals, from_folder(tmp_path)])
    groups = audit(images).groups()
    n = len(originals)
    assert groups[4] == groups[n] == groups[n + 1] >= 0
    assert (np.delete(groups, [4, n, n + 1]) == -1).all()
    already = replace(images, groups=np.where(np.isin(np.arange(len(images)), [0, 4]), 7, -1))
    merged = audit(already).groups()
    assert merged[0] == merged[4] == merged[n]


def test_table(originals, tmp_path):
    images = with_copy(originals, tmp_path, lambda p: p, quality=40)
    found = audit(images)
    table = found.table()
    assert table.loc[0, "second"].endswith("copy.jpg") and not table.loc[0, "same class"]
    assert "1 pairs" in str(found)


def test_unreadable_files_are_skipped_with_one_warning(originals, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"oh")
    images = concatenate("x", [originals, from_folder(tmp_path)])
    with pytest.warns(UserWarning, match=rf"1 of {len(images)}(.|\n)*broken\.jpg"):
        assert len(audit(images)) == 0
    # Identical files are read once, but all unreadable ones are listed.
    (tmp_path / "also broken.jpg").write_bytes(b"oh")
    images = concatenate("x", [originals, from_folder(tmp_path)])
    with pytest.warns(UserWarning, match=rf"2 of {len(images)}(.|\n)*also broken\.jpg(.|\n)*/broken\.jpg"):
        assert [pair.how for pair in audit(images).pairs] == ["bytes"]


def test_one_vector_per_image_is_required(originals):
    with pytest.raises(ValueError, match="one vector for each"):
        audit(originals, np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="one side for each"):
        audit(originals, sides=[0, 1])


def test_siblings_on_both_sides(originals):
    birds = originals.subset(originals.labels == 0)
    grouped = replace(birds, groups=np.array([1, 1, 2, 2, -1, -1]))
    assert split_siblings(grouped, [0, 1, 0, 0, 1, 0]).tolist() == [1]
    assert split_siblings(birds, [0, 1, 0, 0, 1, 0]).tolist() == []


def test_the_recall_table_has_the_measured_values(originals, tmp_path):
    script = runpy.run_path(str(paths.data_dir() / "make_audit_recall.py"))
    with_crops, without = recall(("bytes", "hash", "mirror", "crop")), recall(("bytes", "hash", "mirror"))
    assert with_crops["change"].tolist() == without["change"].tolist() == list(script["CHANGES"])
    assert (with_crops["recall"] >= without["recall"]).all()
    few = originals.subset(range(0, len(originals), 6))
    for change, level in (("mirrored", "found"), ("half the size", "found"), ("rotated by 90°", "not found")):
        copies = script["changed"](few, *script["CHANGES"][change], tmp_path)
        value, false_alarms = script["found"](concatenate(change, [few, copies]), None)
        assert without.loc[without["change"] == change, "level"].item() == level and false_alarms == 0
        assert value == (1 if level == "found" else 0)


@pytest.mark.filterwarnings("ignore")
class TestOnRealDataSets:
    @pytest.mark.slow
    def test_faces_of_caltech101_and_their_crops(self, mirror, resnet50):
        images = caltech101.load()
        images = images.where(lambda key: key.startswith(("Faces", "Leopards")))
        found = audit(images, resnet50.extract(images, progress=False))
        twins = {(images.keys[p.first], images.keys[p.second]) for p in found.pairs if p.how == "crop"}
        for number in ("0011", "0314", "0342"):
            assert (f"Faces/image_{number}.jpg", f"Faces_easy/image_{number}.jpg") in twins
        assert ("mirror", "Leopards/image_0044.jpg") in {(p.how, images.keys[p.first]) for p in found.pairs}

    def test_splits_of_imagenette_share_no_image(self, mirror):
        images = imagenet.imagenette()
        found = audit(images, sides=[key.split("/")[0] for key in images.keys])
        assert len(set(found.sides)) == 2 and found.leaks == ()
