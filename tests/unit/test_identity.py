"""Identity: what becomes of images that an engine knows already, by their path or by their content."""

import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from helpers.features.file_hashes import identities
from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet
from helpers.search.engine import Engine
from helpers.search.gallery import GalleryTable, join_copies
from helpers.search.identity import Outcome
from helpers.search.persist.live import LiveEngine

RED, GREEN, BLUE, GRAY = (250, 0, 0), (0, 250, 0), (0, 0, 250), (99, 99, 99)


def paint(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), color).save(path)
    return path


@pytest.fixture
def images(tmp_path, own_cache):
    for name, color in (("warm/red", RED), ("cold/blue", BLUE), ("cold/green", GREEN)):
        paint(tmp_path / "images" / f"{name}.png", color)
    return from_folder(tmp_path / "images")  # cold/blue, cold/green, warm/red


@pytest.fixture(params=["saved", "in memory"])
def engine(request, images, tmp_path):
    """What has the method ``add``: an engine in memory, or a live one."""
    fitted = Engine("rgb-histogram", "exact:cosine").fit(images)
    if request.param == "in memory":
        yield fitted
        return
    with LiveEngine.open(fitted.save(tmp_path / "my.engine")) as live:
        yield live


def state(engine):
    """Path and class of each image that can be found, by its id."""
    engine = getattr(engine, "engine", engine)
    return {id: (engine.table.path(id), engine.table.class_name(id)) for id in engine.index.ids.tolist()}


def files(*paths):
    return ImageSet("some", tuple(paths), [-1] * len(paths), ())


def test_the_same_path_and_content_is_nothing_to_do(engine, images):
    before = state(engine)
    added = engine.add(images)
    assert added.ids.tolist() == [0, 1, 2] and set(added.outcomes) == {Outcome.UNCHANGED}
    assert added.new_ids.tolist() == [] and state(engine) == before
    # Touched, but not changed; as a relative path; and twice.
    os.utime(images.paths[0])
    relative = os.path.relpath(images.paths[0])
    assert engine.add(files(relative, images.paths[0])).ids.tolist() == [0, 0]
    assert state(engine) == before


def test_the_same_path_with_new_content_is_replaced_in_its_class(engine, images):
    paint(images.paths[0], GRAY)
    added = engine.add(files(images.paths[0]))
    assert added.ids.tolist() == [3] and added.outcomes == (Outcome.CHANGED,)
    assert state(engine) == {
        1: (images.paths[1], "cold"), 2: (images.paths[2], "warm"), 3: (images.paths[0], "cold"),
    }  # fmt: skip
    engine = getattr(engine, "engine", engine)
    np.testing.assert_array_equal(engine.index.vectors([3]), engine.extractor.extract(files(images.paths[0])))
    assert engine.query(images.paths[0], k=1)[0].id == 3


def test_the_same_content_at_a_new_path_is_a_copy_of_the_first(engine, images, tmp_path):
    copies = [tmp_path / "new" / "copy.png", tmp_path / "new" / "gray1.png", tmp_path / "new" / "gray2.png"]
    for path, color in zip(copies, (BLUE, GRAY, GRAY), strict=True):
        paint(path, color)
    added = engine.add(files(*copies))
    assert added.outcomes == (Outcome.COPY, Outcome.NEW, Outcome.COPY) and added.ids.tolist() == [3, 4, 5]
    groups = getattr(engine, "engine", engine).table.groups
    assert groups[[0, 3]].tolist() == [groups[0]] * 2 and groups[4] == groups[5] != groups[0]
    assert groups[[1, 2]].tolist() == [-1, -1]


def test_a_link_is_a_path_of_its_own(engine, images, tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(images.paths[2])
    assert engine.add(files(link)).outcomes == (Outcome.COPY,)
    assert engine.add(files(link)).outcomes == (Outcome.UNCHANGED,)
    link.unlink()
    link.symlink_to(images.paths[1])
    assert engine.add(files(link)).outcomes == (Outcome.CHANGED,)


def test_what_was_removed_can_be_added_again(engine, images):
    engine.remove([1])
    added = engine.add(files(images.paths[1]))
    assert (added.outcomes, added.ids.tolist()) == ((Outcome.NEW,), [3])
    assert state(engine)[3] == (images.paths[1], None)


def test_a_known_image_gets_another_class_only_on_request(engine, images):
    in_class = ImageSet("other", images.paths[:1], [0], ("other",))
    assert engine.add(in_class).outcomes == (Outcome.UNCHANGED,)
    assert engine.add(in_class, classes=True).outcomes == (Outcome.RECLASSIFIED,)
    assert engine.add(in_class, classes=True).outcomes == (Outcome.UNCHANGED,)
    assert state(engine)[3] == (images.paths[0], "other") and 0 not in state(engine)


@pytest.mark.filterwarnings("ignore::helpers.images.reading.UnreadableImageWarning")
def test_an_image_that_can_not_be_read_any_more_is_removed(engine, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images.paths[0].write_bytes(b"no image either")
    added = engine.add(files(broken, images.paths[0], images.paths[1]))
    assert added.outcomes == (Outcome.UNREADABLE, Outcome.DAMAGED, Outcome.UNCHANGED)
    assert added.ids.tolist() == [-1, -1, 1] and sorted(state(engine)) == [1, 2]


def test_a_change_during_the_extraction_is_noticed_by_the_next_addition(images, monkeypatch):
    """The stored content is that of before the extraction."""
    engine = Engine("rgb-histogram").fit(images)
    real = engine.extractor.extract

    def slow(some, **options):
        paint(images.paths[0], GRAY)
        return real(some, **options)

    monkeypatch.setattr(engine.extractor, "extract", slow)
    engine.fit(images)
    monkeypatch.undo()
    assert engine.add(images).outcomes == (Outcome.CHANGED, Outcome.UNCHANGED, Outcome.UNCHANGED)


def test_additions_are_counted_once(engine, images, tmp_path):
    paint(images.paths[0], GRAY)
    new = paint(tmp_path / "new.png", (1, 2, 3))
    added = engine.add(files(new, *images.paths))
    assert Counter(added.outcomes) == {Outcome.NEW: 1, Outcome.CHANGED: 1, Outcome.UNCHANGED: 2}
    assert added.count(Outcome.NEW, Outcome.CHANGED) == 2 and added.new_ids.tolist() == [3, 4]


def test_contents_and_names_are_saved_and_compacted(images, tmp_path):
    folder = (
        Engine("rgb-histogram").fit(images, display_names={1: "grün"}, source=str(images.root)).save(tmp_path / "e")
    )
    new = paint(tmp_path / "new.png", (1, 2, 3))
    with LiveEngine.open(folder) as live:
        vector = live.engine.extractor.extract(files(new))
        live.add_extracted([new], vector, [None], identities([new]), ["my name.png"])
        for _ in range(2):
            table = Engine.load(folder).table
            assert table.contents == identities([*images.paths, new])
            assert [table.display_name(id) for id in range(4)] == ["blue.png", "grün", "red.png", "my name.png"]
            assert table.source == str(images.root)
            live.compact()


def test_groups_join_equal_contents_with_given_groups():
    contents = [b"a", b"b", b"a", None, None, b"c", b"b", b"d"]
    assert join_copies(None, contents).tolist() == [0, 1, 0, -1, -1, -1, 1, -1]
    # Given groups 5 (of rows 3 and 5) and 2 (of rows 0 and 1): a and b become one group.
    assert join_copies(np.array([2, 2, -1, 5, -1, 5, -1, -1]), contents).tolist() == [2, 2, 2, 5, -1, 5, 2, -1]
    assert join_copies(np.array([-1, 7, -1, -1, -1, -1, -1, 9]), contents).tolist() == [10, 7, 10, -1, -1, -1, 7, 9]
    assert join_copies(None, [b"a", b"b", None, None]) is None
    given = np.array([3, -1])
    assert join_copies(given, [None, None]) is given


def test_a_fitted_gallery_keeps_its_groups(tmp_path, own_cache):
    """Evaluation uses the groups of the image set, not those of equal files."""
    paths = [paint(tmp_path / f"{n}.png", RED) for n in range(2)]
    images = ImageSet("two", tuple(paths), [0, 0], ("red",), groups=[3, -1])
    engine = Engine("rgb-histogram").fit(images)
    assert engine.gallery is images and engine.gallery.groups.tolist() == [3, -1]
    assert Engine.load(engine.save(tmp_path / "e")).gallery.groups.tolist() == [3, 3]


def test_ids_of_paths_and_contents_in_tables_that_share_rows():
    table = GalleryTable("t", None, ["/a", "/b"], np.array([-1, -1]), (), contents=[b"1", b"2"])
    assert (table.ids_at("/a"), table.ids_with(b"2"), table.ids_at("/c")) == ((0,), (1,), ())
    longer = table.extended(["/a", "/c"], [None, None], [b"2", None])
    assert (longer.ids_at("/a"), longer.ids_with(b"2"), longer.ids_at("/c")) == ((0, 2), (1, 2), (3,))
    assert (table.ids_at("/a"), table.ids_with(b"2"), table.ids_at("/c")) == ((0,), (1,), ())
    other = table.extended(["/d"], [None], [b"9"], ["name"])
    assert (other.ids_with(b"9"), longer.ids_with(b"9"), other.display_name(2)) == ((2,), (), "name")
