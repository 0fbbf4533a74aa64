"""Dates of addition: kept by additions, compaction and saves, and absent for engines of earlier versions."""

import sqlite3

import numpy as np
import pytest
from PIL import Image

from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.search.persist import added_dates
from helpers.search.persist.compaction import compact
from helpers.search.persist.live import LiveEngine

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def clock(monkeypatch):
    """Sets the seconds that the module reads."""

    def set_time(seconds):
        monkeypatch.setattr(added_dates.time, "time", lambda: seconds)

    return set_time


def paint(folder, *numbers):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.new("RGB", (8, 8), (number * 20, 255 - number * 20, 60)).save(folder / f"{number}.png")
    return from_folder(folder)


def dates_of(folder):
    engine = Engine.load(folder)
    ids = engine.index.ids
    return dict(zip((engine.table.path(id).stem for id in ids), added_dates.added_dates(folder, ids), strict=True))


def test_images_keep_the_date_of_their_addition(tmp_path, clock):
    clock(1000)
    folder = Engine("hsv-histogram").fit(paint(tmp_path / "a", 1, 2, 3)).save(tmp_path / "my.engine")
    clock(2000)
    with LiveEngine.open(folder) as live:
        live.add(paint(tmp_path / "b", 4))
    clock(3000)
    with LiveEngine.open(folder) as live:
        live.add(paint(tmp_path / "b", 4, 5))
        live.remove([0])
    expected = {"2": 1000, "3": 1000, "4": 2000, "5": 3000}
    assert dates_of(folder) == expected
    clock(4000)
    compact(folder)
    assert dates_of(folder) == expected
    # A save gives the images other ids.
    engine = Engine.load(folder)
    kept = engine.gallery.subset(np.sort(engine.index.ids)[::-1])
    clock(5000)
    Engine("hsv-histogram").fit(kept).save(folder, replace=True)
    assert dates_of(folder) == expected
    # A changed file is a new image.
    paint(tmp_path / "b", 4)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b" / "4.png")
    with LiveEngine.open(folder) as live:
        live.add(from_folder(tmp_path / "b"))
    assert dates_of(folder) == expected | {"4": 5000}


def test_an_engine_of_an_earlier_version_has_dates_of_later_additions_only(tmp_path, clock):
    folder = Engine("hsv-histogram").fit(paint(tmp_path / "a", 1, 2)).save(tmp_path / "my.engine")
    with sqlite3.connect(folder / "engine.sqlite") as connection:
        connection.execute("drop table added_dates")
    connection.close()
    assert dates_of(folder) == {"1": None, "2": None}
    Engine.load(folder).save(folder)
    assert dates_of(folder) == {"1": None, "2": None}, "a save is no addition"
    clock(2000)
    with LiveEngine.open(folder) as live:
        live.add(paint(tmp_path / "b", 3))
    assert dates_of(folder) == {"1": None, "2": None, "3": 2000}
    clock(3000)
    Engine.load(folder).save(folder)
    assert dates_of(folder) == {"1": None, "2": None, "3": 2000}
