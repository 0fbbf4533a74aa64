"""Duplicates: planted copies are found after various changes, and different images are not reported."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from helpers.images import caltech101, imagenet, samples
from helpers.images.duplicates import audit, split_siblings
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


def test_all_pairs_of_several_copies_are_listed(originals, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(originals.paths[4].read_bytes())
    found = audit(concatenate("x", [originals, from_folder(tmp_path)]))
    n = len(originals)
    assert [(pair.first, pair.second, pair.how) for pair in found.pairs] == [
        (4, n, "bytes"), (4, n + 1, "bytes"), (n, n + 1, "bytes"),
    ]  # fmt: skip
    # Two copies on one side are two pairs across.
    assert len(found.across(np.arange(n + 2) > n)) == 2


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


def test_across_and_table(originals, tmp_path):
    images = with_copy(originals, tmp_path, lambda p: p, quality=40)
    found = audit(images)
    sides = np.arange(len(images)) == len(images) - 1
    assert len(found.across(sides)) == 1 and found.across(np.zeros(len(images))) == ()
    table = found.table()
    assert table.loc[0, "second"].endswith("copy.jpg") and not table.loc[0, "same class"]
    assert "1 pairs" in str(found)


def test_unreadable_files_are_skipped_with_one_warning(originals, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"oh")
    images = concatenate("x", [originals, from_folder(tmp_path)])
    with pytest.warns(UserWarning, match=rf"1 of {len(images)}(.|\n)*broken\.jpg"):
        assert len(audit(images)) == 0


def test_one_vector_per_image_is_required(originals):
    with pytest.raises(ValueError, match="one vector for each"):
        audit(originals, np.zeros((3, 4), np.float32))


def test_siblings_on_both_sides(originals):
    birds = originals.subset(originals.labels == 0)
    grouped = replace(birds, groups=np.array([1, 1, 2, 2, -1, -1]))
    assert split_siblings(grouped, [0, 1, 0, 0, 1, 0]).tolist() == [1]
    assert split_siblings(birds, [0, 1, 0, 0, 1, 0]).tolist() == []


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
        assert audit(images).across([key.split("/")[0] for key in images.keys]) == ()
