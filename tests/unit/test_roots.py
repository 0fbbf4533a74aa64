"""Roots: the folders of an engine's paths, found again after the engine or its images were moved."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet
from helpers.search.engine import Engine
from helpers.search.identity import Outcome
from helpers.search.persist import roots as roots_module
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.relocation import relocate
from helpers.search.persist.roots import GALLERY, OWN, Roots, spread


def paint(path, color):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), color).save(path)
    return path


def files(*paths):
    return ImageSet("some", tuple(paths), [-1] * len(paths), ())


@pytest.fixture
def project(tmp_path, own_cache):
    """A folder with 12 images and an engine of them next to it; two images were added from a third folder."""
    project = tmp_path / "project"
    for number in range(12):
        paint(project / "photos" / f"class{number % 2}" / f"{number:02}.png", (20 * number, 0, 0))
    for number in range(2):
        paint(project / "new" / "owls" / f"{number}.png", (0, 0, 99 + number))
    folder = Engine("rgb-histogram").fit(from_folder(project / "photos")).save(project / "engines" / "my.engine")
    with LiveEngine.open(folder) as live:
        live.add(from_folder(project / "new"))
    return project


def paths_of(folder, **options):
    engine = Engine.load(folder, **options)
    return [engine.table.path(id) for id in engine.index.ids.tolist()], engine.saved.roots


def test_paths_are_relative_to_the_root_that_contains_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, own = tmp_path / "images", tmp_path / "images" / "my.index"
    paths = [
        images / "a" / "x.png", own / "up" / "x.png", tmp_path / "images2" / "x.png", "here.png",
        tmp_path / "images2" / "deep" / "y.png",
    ]  # fmt: skip
    roots = Roots.of(own, images, [str(path) for path in paths])
    assert [roots.encode(path) for path in paths] == [
        ("a/x.png", GALLERY), ("up/x.png", OWN), ("images2/x.png", 2), ("here.png", 2), ("images2/deep/y.png", 2),
    ]  # fmt: skip
    assert [(one.number, one.relative) for one in roots.stored] == [(1, ".."), (2, "../..")]
    for path in paths:
        assert roots.decode(*roots.encode(path)) == str(Path(path).absolute())
    assert Roots(own, []).extended(["/x.png"]).encode("/x.png") == ("x.png", 2)
    with pytest.raises(ValueError, match="none of the folders"):
        Roots(own, []).encode("/far/x.png")


def test_a_folder_that_is_added_is_one_root_and_the_number_of_roots_is_small(tmp_path):
    own = tmp_path / "my.index"
    roots = Roots.of(own, tmp_path / "images", [])
    roots = roots.extended([f"/far/{n}/{n}.png" for n in range(100)], Path("/far"))
    assert [one.path for one in roots.stored] == [str(tmp_path / "images"), "/far"]
    # Without a common folder: the folders, or their parent if they are many.
    assert [one.path for one in roots.extended(["/a/1.png", "/b/c/2.png", "/b/3.png"]).stored[2:]] == ["/a", "/b"]
    assert [one.path for one in roots.extended([f"/s/{n}/x.png" for n in range(20)]).stored[2:]] == ["/s"]
    for number in range(100):
        roots = roots.extended([f"/many/{number}/x.png"])
    assert len(roots.stored) <= 33 and roots.decode(*roots.encode("/many/99/x.png")) == "/many/99/x.png"
    # Nothing is stored twice.
    assert roots.extended(["/many/99/y.png", "/many/1/y.png", "/far/y.png"]).stored == roots.stored


def test_engine_and_images_that_were_moved_together_are_found(project, tmp_path):
    moved = shutil.move(project, tmp_path / "elsewhere")
    folder = Path(moved) / "engines" / "my.engine"
    found, roots = paths_of(folder)
    assert all(path.exists() for path in found) and not roots.missing and len(found) == 14
    # Nothing is added twice.
    with LiveEngine.open(folder) as live:
        added = live.add(from_folder(Path(moved) / "photos"))
        assert set(added.outcomes) == {Outcome.UNCHANGED} and len(live) == 14
        assert set(live.add(from_folder(Path(moved) / "new")).outcomes) == {Outcome.UNCHANGED}


def test_a_copy_of_engine_and_images_uses_its_own_images(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    found, _ = paths_of(tmp_path / "copy" / "engines" / "my.engine")
    assert all(path.is_relative_to(tmp_path / "copy") for path in found)
    found, _ = paths_of(project / "engines" / "my.engine")
    assert all(path.is_relative_to(project) for path in found)


def test_an_engine_that_was_moved_alone_finds_its_images(project, tmp_path):
    folder = shutil.move(project / "engines" / "my.engine", tmp_path / "a" / "b" / "my.engine")
    found, roots = paths_of(folder)
    assert all(path.exists() for path in found) and not roots.missing


@pytest.mark.parametrize("originals", ["there", "gone"])
def test_an_unrelated_folder_of_the_same_name_is_not_taken(project, tmp_path, originals):
    """It has files of the same names at the same place next to the engine, but with other contents."""
    for number in range(12):
        paint(tmp_path / "other" / "photos" / f"class{number % 2}" / f"{number:02}.png", (0, 20 * number, 50))
    folder = shutil.copytree(project / "engines" / "my.engine", tmp_path / "other" / "engines" / "my.engine")
    if originals == "gone":
        shutil.rmtree(project)
    found, roots = paths_of(folder)
    assert all(path.is_relative_to(project) for path in found)
    assert [root.missing for root in roots] == [originals == "gone"] * 2


def test_missing_images_are_noticed_and_a_relocation_is_stored(project, tmp_path):
    folder = project / "engines" / "my.engine"
    with LiveEngine.open(folder) as live:
        moved = shutil.move(project / "photos", tmp_path / "moved")
        found, roots = paths_of(folder)
        assert [(root.path, root.checked, root.found) for root in roots.missing] == [(str(project / "photos"), 5, 0)]
        # For one run.
        found, roots = paths_of(folder, root=moved)
        assert all(path.exists() for path in found) and not roots.missing
        # For all later ones, and for processes that have opened the engine.
        assert relocate(folder, moved) == (12, 12)
        found, roots = paths_of(folder)
        assert all(path.exists() for path in found) and not roots.missing
        assert live.refresh() and live.engine.table.path(0) == Path(moved) / "class0" / "00.png"
        assert set(live.add(from_folder(moved)).outcomes) == {Outcome.UNCHANGED}
    other = shutil.move(project / "new", tmp_path / "newer")
    assert relocate(folder, other, project / "new") == (2, 2)
    assert not paths_of(folder)[1].missing


def test_a_relocation_to_a_folder_of_other_images_is_refused(project, tmp_path):
    folder = project / "engines" / "my.engine"
    shutil.copytree(project / "photos", tmp_path / "moved")
    shutil.rmtree(project / "photos")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds 0 of the 12 images"):
        relocate(folder, tmp_path / "empty")
    for path in sorted((tmp_path / "moved").rglob("*.png"))[:9]:
        paint(path, (1, 2, 3))
    with pytest.raises(ValueError, match="9 of 12 that were compared differ"):
        relocate(folder, tmp_path / "moved")
    with pytest.raises(ValueError, match="the engine holds no images of"):
        relocate(folder, tmp_path / "moved", tmp_path / "nowhere")
    shutil.rmtree(project / "new")
    with pytest.raises(ValueError, match="with --from; it is one of"):
        relocate(folder, tmp_path / "moved")
    assert len(paths_of(folder)[1].missing) == 2


def test_opening_looks_at_few_files(project, monkeypatch):
    folder, looks = project / "engines" / "my.engine", []
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path, **options: looks.append(path) or real(path, **options))
    monkeypatch.setattr(roots_module, "identities", None)
    Engine.load(folder)
    assert len([path for path in looks if path.suffix == ".png"]) == 5 + 2


def test_samples_are_spread():
    assert [spread(count) for count in (0, 1, 2, 5, 101)] == [[], [0], [0, 1], [0, 1, 2, 3, 4], [0, 25, 50, 75, 100]]


def test_a_second_process_learns_of_new_roots(project, tmp_path):
    folder = project / "engines" / "my.engine"
    far = paint(tmp_path / "far" / "x.png", (7, 7, 7))
    with LiveEngine.open(folder) as one, LiveEngine.open(folder) as other:
        (id,) = one.add(files(far)).ids.tolist()
        before = other.engine.table._rows
        assert other.refresh() and other.engine.table.path(id) == far
        assert other.engine.table._rows is before, "the table is not read again"
        near = paint(tmp_path / "far" / "y.png", (7, 7, 8))
        (id,) = other.add(files(near)).ids.tolist()
        assert one.refresh() and one.engine.table.path(id) == near
        one.compact()
    assert [root.path for root in paths_of(folder)[1]] == [
        str(project / "photos"), str(project / "new"), str(tmp_path / "far"),
    ]  # fmt: skip
