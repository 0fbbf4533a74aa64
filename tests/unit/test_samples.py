"""The sample that ships: complete, small, on white, each picture with its caption and origin, none of them twice."""

import csv

from PIL import Image

from helpers import paths
from helpers.pictures import samples
from helpers.pictures.audit import audit
from helpers.pictures.reading import read_picture

FOLDER = paths.data_dir() / "sample"


def test_counts():
    photos, everything, drawings = samples.photos(), samples.with_distractors(), samples.drawings()
    assert len(photos.class_names) == 10 and photos.counts.min() >= 9
    assert 240 <= len(photos) <= 320
    assert 140 <= int((everything.labels == -1).sum()) <= 180
    assert 20 <= len(drawings) <= 40 and drawings.class_names == photos.class_names
    assert len(everything) == len(photos) + int((everything.labels == -1).sum())


def test_files_are_what_the_selection_says():
    with (paths.data_dir() / "sample_selection.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = {"/".join(filter(None, (row["kind"], row["class"], row["name"] + ".jpg"))) for row in rows}
    assert keys == {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.jpg")}


def test_every_picture_has_caption_and_origin():
    with (FOLDER / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    keys = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.jpg")}
    assert set(rows) == keys == set(samples.captions())
    assert all(
        row["caption"].strip() and row["origin"].startswith("/usr/share/tuxpaint/stamps/") for row in rows.values()
    )


def test_licence_and_origins_lie_beside():
    assert "GNU GENERAL PUBLIC LICENSE" in (FOLDER / "LICENSE").read_text()
    assert "tuxpaint-stamps-default" in (FOLDER / "ORIGINS.md").read_text()


def test_pictures_are_small_and_on_white():
    files = sorted(FOLDER.rglob("*.jpg"))
    assert sum(path.stat().st_size for path in files) < 8_000_000
    corners = 0
    for path in files:
        with Image.open(path) as picture:
            assert picture.mode == "RGB" and max(picture.size) <= 256
        pixels = read_picture(path)
        corners += (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] > 240).all(axis=1).sum() >= 2
    assert corners > 0.8 * len(files)


def test_no_picture_is_there_twice():
    assert len(audit(samples.with_distractors())) == 0
