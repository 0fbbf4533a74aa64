"""The gallery table: path, class and group by id, extended without a pass over what was there."""

import threading
from pathlib import Path

import numpy as np
import pytest

from helpers.images.imageset import ImageSet
from helpers.search.gallery import GalleryTable


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / "warm" / "red.png", tmp_path / "cold" / "blue.png", Path("elsewhere.png")]
    return ImageSet("three", tuple(paths), [1, 0, -1], ("cold", "warm"), [4, -1, 4], tmp_path)


def test_a_table_holds_what_the_set_holds(images, tmp_path):
    table = GalleryTable.of(images)
    assert table.images is images and len(table) == 3
    assert [table.path(id) for id in range(3)] == list(images.paths)
    assert [table.label(id) for id in range(3)] == [1, 0, -1] == table.labels.tolist()
    assert [table.class_name(id) for id in range(3)] == ["warm", "cold", None]
    assert (table.class_label("warm"), table.class_label("hot")) == (1, None)
    assert [table.id_of(name) for name in ("cold/blue.png", tmp_path / "cold" / "blue.png", "elsewhere.png")] == [
        1,
        1,
        2,
    ]
    assert table.id_of("blue.png") is None
    for wrong in (-1, 3):
        with pytest.raises(IndexError, match="three has no row -?[13], it has 3"):
            table.path(wrong)
    with pytest.raises(ValueError, match="read-only"):
        table.labels[0] = 0


def test_an_extended_table_keeps_rows_classes_and_keys(images, tmp_path):
    table = GalleryTable.of(images)
    longer = table.extended([tmp_path / "x" / "new.png", "/far.png", "y.png"], ["new", None, "warm"])
    assert longer.images.keys == (*images.keys, "x/new.png", "/far.png", "y.png")
    assert longer.labels.tolist() == [1, 0, -1, 2, -1, 1] and longer.class_names == ("cold", "warm", "new")
    assert longer.groups.tolist() == [4, -1, 4, -1, -1, -1]
    assert longer.id_of("x/new.png") == 3
    # The shorter one stays as it was, and a second extension of it shares nothing with the first.
    assert len(table) == 3 and table.class_names == ("cold", "warm") and table.class_label("new") is None
    assert table.images is images and table.id_of("x/new.png") is None
    other = table.extended(["z.png"], ["other"])
    assert (other.path(3), other.class_name(3)) == (Path("z.png"), "other")
    assert (longer.path(3), longer.class_name(3)) == (tmp_path / "x" / "new.png", "new")
    assert len(table.extended([], [])) == 3


def test_many_extensions_copy_little():
    table, buffers = GalleryTable("many", None, ["0"], np.array([-1]), ()), [None]
    for number in range(1, 3000):
        table = table.extended([str(number)], [f"class {number % 7}"])
        if table._rows.labels is not buffers[-1]:
            buffers.append(table._rows.labels)
    assert len(table) == 3000 and len(buffers) < 25 and len(buffers[-1]) < 4500
    assert table.path(2999) == Path("2999") and table.class_name(2999) == "class 3"
    assert len(table.images) == 3000


def test_readers_see_whole_rows_while_another_thread_extends():
    table, errors, stop = GalleryTable("busy", None, ["0"], np.array([-1]), ()), [], threading.Event()

    def read():
        while not stop.is_set():
            now = table
            last = len(now) - 1
            if last and (now.path(last) != Path(str(last)) or now.class_name(last) != f"class {last % 50}"):
                errors.append(last)
            if len(now.labels) != len(now):
                errors.append("labels")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 2000):
        table = table.extended([str(number)], [f"class {number % 50}"])
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
