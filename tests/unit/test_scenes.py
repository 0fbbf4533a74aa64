"""The scenes that ship: unchanged and small, with tight boxes, visible objects, origins, and pairs that occur once."""

import csv
import hashlib
import runpy
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from helpers import paths
from helpers.images import samples, scenes
from helpers.images.imageset import NO_CLASS
from helpers.images.reading import read_image

FOLDER = paths.data_dir() / "scenes"


@pytest.fixture(scope="module")
def loaded():
    return scenes.load()


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(paths.data_dir())  # as for a script that is started
    return runpy.run_path(str(paths.data_dir() / "make_scenes.py"))


# ---- the files ---------------------------------------------------------------------------------------


def test_files_have_the_listed_sums_and_are_small():
    listed = dict(reversed(line.split("  ")) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    found = [path for suffix in ("jpg", "png", "csv") for path in FOLDER.rglob(f"*.{suffix}")]
    files = {path.relative_to(FOLDER).as_posix(): path for path in found}
    assert listed == {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items()}
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000


def test_license_and_origins_are_in_the_folder():
    assert "GNU GENERAL PUBLIC LICENSE" in (FOLDER / "LICENSE").read_text(encoding="utf-8")
    origins = (FOLDER / "ORIGINS.md").read_text(encoding="utf-8")
    with (paths.data_dir() / "scene_backgrounds.csv").open(newline="", encoding="utf-8") as file:
        backgrounds = list(csv.DictReader(file))
    # Licenses that permit a derived work under version 3 of the GPL.
    assert {row["license"] for row in backgrounds} == {"GPL-2+", "LGPL-3", "Apache-2.0"}
    for row in backgrounds:
        assert f"| `{row['name']}` |" in origins and row["author"] in origins and f"`{row['package']}`" in origins
    assert set(scenes.load().backgrounds) == {row["name"] for row in backgrounds}


# ---- the objects -------------------------------------------------------------------------------------


def test_numbers_of_scenes_and_objects(loaded):
    counts = Counter(np.bincount(loaded.rows, minlength=len(loaded)).tolist())
    assert len(loaded) == 300 and counts == {1: 75, 2: 105, 3: 60, 4: 36, 5: 24}
    assert set(loaded.images.labels) == {NO_CLASS} and loaded.images.class_names == loaded.photos.class_names
    # Every photograph of the sample is in a scene, and none twice in the same.
    pasted = Counter((each.scene, each.photo) for each in loaded.objects)
    assert {photo for _, photo in pasted} == set(range(len(loaded.photos))) and set(pasted.values()) == {1}
    assert loaded.photos.paths == samples.photos().paths
    for each in loaded.objects:
        assert loaded.photos.class_name(each.photo) == each.class_name


def test_boxes_are_inside_the_images_and_have_the_listed_areas(loaded):
    sizes = [read_image(path).shape[:2] for path in loaded.images.paths]
    assert set(sizes) == {(240, 320), (320, 240)}
    for each in loaded.objects:
        height, width = sizes[each.scene]
        box = each.box
        assert 0 <= box.x < box.x + box.width <= width and 0 <= box.y < box.y + box.height <= height
        assert each.area_share == pytest.approx(box.width * box.height / (height * width), abs=6e-5)
        assert 0.02 <= each.area_share <= 0.6 and 0.6 <= each.visible_share <= 1
    areas = np.histogram([each.area_share for each in loaded.objects], [0, 0.05, 0.1, 0.25, 0.6])[0]
    assert areas.min() >= 90, areas  # each size has enough objects to be measured


def test_partly_hidden_objects_are_listed_before_an_adjacent_one(loaded):
    hidden, adjacent = 0, 0
    for scene in range(len(loaded)):
        objects = loaded.of(scene)
        assert all(each.scene == scene for each in objects)
        for i, each in enumerate(objects):
            if each.visible_share < 1:
                hidden += 1
                # Boxes that touch are enough, because a hidden edge is outside of the box.
                adjacent += any(
                    each.box.x <= other.box.x + other.box.width
                    and other.box.x <= each.box.x + each.box.width
                    and each.box.y <= other.box.y + other.box.height
                    and other.box.y <= each.box.y + each.box.height
                    for other in objects[i + 1 :]
                )
    # A hidden part may be separate from the visible ones, or the box in front may be reduced by a third object.
    assert hidden > 150 and adjacent >= 0.98 * hidden, (hidden, adjacent)


def test_colors_change_at_the_edges_of_boxes(loaded):
    """On a dark lake, the colors change at each side of the box, and not farther out."""
    steps, beyond = [], []
    for scene, name in enumerate(loaded.backgrounds):
        if name != "darkest_hour" or len(loaded.of(scene)) > 1:
            continue
        box = loaded.of(scene)[0].box
        pixels = read_image(loaded.images.paths[scene]).astype(int)
        # Each turn brings another side to the top.
        for turns, (first, size, across) in enumerate(
            [
                (box.y, slice(box.x, box.x + box.width), pixels.shape[0]),
                (pixels.shape[1] - box.x - box.width, slice(box.y, box.y + box.height), pixels.shape[1]),
            ]
        ):
            lines = np.rot90(pixels, turns)[:, size]
            if 12 <= first < across - 12:
                steps.append(np.abs(lines[first + 3] - lines[first - 3]).max())
                beyond.append(np.abs(lines[first - 6] - lines[first - 12]).max())
    assert len(steps) >= 4 and min(steps) > 40 > max(beyond), (steps, beyond)


def test_masks_have_the_boxes_and_do_not_overlap(loaded):
    for scene in range(0, len(loaded), 10):
        masks = loaded.masks(scene)
        assert masks.shape == (len(loaded.of(scene)), *read_image(loaded.images.paths[scene]).shape[:2])
        assert masks.dtype == bool and masks.sum(axis=0).max() == 1
        for mask, each in zip(masks, loaded.of(scene), strict=True):
            rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
            size = (columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
            assert (columns[0], rows[0], *size) == each.box


# ---- pairs -------------------------------------------------------------------------------------------


def test_pairs_are_large_and_occur_once(loaded):
    together = Counter(
        pair
        for scene in range(len(loaded))
        for pair in combinations(sorted(each.photo for each in loaded.of(scene)), 2)
    )
    assert len(loaded.pairs) == len({(pair.first, pair.second) for pair in loaded.pairs}) == 100
    for pair in loaded.pairs:
        objects = {each.photo: each for each in loaded.of(pair.scene)}
        assert objects[pair.first].class_name != objects[pair.second].class_name
        assert min(objects[pair.first].area_share, objects[pair.second].area_share) >= 0.1
        assert together[tuple(sorted(pair[:2]))] == 1


# ---- the script --------------------------------------------------------------------------------------


def disk(script, color, name, size=(60, 60), class_name="coins"):
    """A cut-out disk on transparent white."""
    image = Image.new("RGBA", size, (255, 255, 255, 0))
    ImageDraw.Draw(image).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=(*color, 255))
    return script["CutOut"](class_name, f"photos/{class_name}/{name}.jpg", script["without_margins"](image))


def test_a_scene_depends_on_the_seed_only_and_its_boxes_are_tight(script):
    gray = Image.new("RGB", (800, 600), (60, 60, 60))
    cut_outs = [disk(script, (250, 0, 0), "red"), disk(script, (0, 0, 250), "blue")]
    one, other = (script["compose"](gray, cut_outs, np.random.default_rng(3)) for _ in range(2))
    assert one[0].tobytes() == other[0].tobytes() and one[1] == other[1]
    assert script["compose"](gray, cut_outs, np.random.default_rng(4))[1] != one[1]
    pixels = np.asarray(one[0]).astype(int)
    for each in one[1]:
        strong, weak = (0, 2) if each.cut_out.key.endswith("red.jpg") else (2, 0)
        # From an alpha of one half, the object's color prevails.
        shown = pixels[..., strong] - pixels[..., weak] > 100
        rows, columns = np.nonzero(shown.any(axis=1))[0], np.nonzero(shown.any(axis=0))[0]
        x, y, width, height = each.box
        found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.subtract(found, (x, y, x + width, y + height))).max() <= 1
        # The transparent white of the stamp leaves no halo on a dark background.
        assert pixels[..., 1].max() <= 70


def test_hidden_pixels_do_not_count(script):
    left, right = np.zeros((2, 10, 20), bool)
    left[2:8, 0:10], right[0:10, 6:20] = True, True
    back, front = script["visible"]([None, None], [left, right])
    assert back.box == (0, 2, 6, 6) and back.visible_share == 0.6 and back.area_share == 36 / 200
    assert front.box == (6, 0, 14, 10) and front.visible_share == 1
    gone = script["visible"]([None, None], [left, np.ones((10, 20), bool)])[0]
    assert gone.visible_share == 0 and gone.box == (0, 0, 0, 0)


def test_photographs_of_a_class_are_used_in_turn(script):
    cut_outs = [disk(script, (9, 9, 9), str(i), class_name=name) for name in ("coins", "fish") for i in range(5)]
    scenes_ = list(script["drawn"](cut_outs))
    assert Counter(map(len, scenes_)) == {1: 75, 2: 105, 3: 60, 4: 36, 5: 24}
    assert all(len({each.key for each in scene}) == len(scene) for scene in scenes_)
    for name in ("coins", "fish"):
        used = Counter(each.key for scene in scenes_ for each in scene if each.class_name == name)
        assert len(used) == 5 and max(used.values()) - min(used.values()) <= 1


@pytest.mark.parametrize("content", [None, b"other"])
def test_wrong_packages_change_nothing(script, tmp_path, content):
    # Protects the real folder from a mistake in the script.
    script["make"].__globals__["SCENES"] = tmp_path / "scenes"
    (tmp_path / "scenes" / "images").mkdir(parents=True)
    if content is not None:
        for row in script["selection"]():
            stamp = tmp_path / script["STAMPS"] / row["stamp"]
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_bytes(content)
    with pytest.raises(SystemExit, match=r"tuxpaint-stamps-default 2022.*Nothing was changed"):
        script["main"]([tmp_path] * 4)
    assert (tmp_path / "scenes" / "images").is_dir()
