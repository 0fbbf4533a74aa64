"""The stored regions of saved engines: additions, removals, compaction, copies, interruptions, other processes."""

import contextlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from helpers.features.extractor import FeatureExtractor
from helpers.features.regions import region_source
from helpers.images.folders import from_folder
from helpers.search import region_index
from helpers.search.engine import Engine, UnopenedExtractor
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.relocation import relocate
from helpers.search.region_index import FOLDER, NoRegions, RegionIndex, remove_unused, update_regions
from helpers.search.region_search import search_regions

COLORS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "white": (255, 255, 255),
}  # fmt: skip


class ColorFeatures(FeatureExtractor):
    """The mean of each channel."""

    name, dim, size, settings, batch_size = "color-features", 3, 8, {}, 4
    resize_rule = "squash"

    def compute(self, pixels):
        return pixels.mean(axis=(1, 2)) + 1


def paint(path, background, color=None):
    """An image of 100 × 100 pixels; a color fills the left upper quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (100, 100), COLORS[background])
    if color is not None:
        image.paste(COLORS[color], (0, 0, 50, 50))
    image.save(path)
    return path


@pytest.fixture(params=["exact:cosine", "faiss:hnsw"])
def folder(tmp_path, request):
    """An engine of white images with a colored quarter."""
    for name in ("red", "green", "blue"):
        paint(tmp_path / "images" / f"{name}.png", "white", name)
    return Engine(ColorFeatures(), request.param).fit(from_folder(tmp_path / "images")).save(tmp_path / "my.engine")


def update(folder, source="grid"):
    with LiveEngine.open(folder, ColorFeatures()) as live:
        return update_regions(folder, live.engine, region_source(source))


def best(live, regions, color):
    """The name and the box of the best result for a color."""
    query = ColorFeatures().extract_arrays([np.full((9, 9, 3), COLORS[color], np.uint8)])
    found = search_regions(live.engine, regions.of(live.engine), query, 3)
    box = found.matches[0][0].box
    return live.engine.table.path(int(found.ranking.ids[0, 0])).stem, None if box is None else box.tolist()


def test_a_part_of_an_image_is_found(folder):
    with pytest.raises(NoRegions, match="--regions detector"):
        RegionIndex(folder)
    done = update(folder)
    assert (done.found, done.skipped, done.removed) == (3, 0, 0) and done.added > 3
    regions = RegionIndex(folder)
    assert regions.source == "grid"
    with LiveEngine.open(folder, ColorFeatures()) as live:
        assert not len(regions.missing(live.engine))
        name, box = best(live, regions, "blue")
        assert name == "blue" and max(box[:2]) <= 1 and max(box[2:]) <= 50
        stored = regions.of(live.engine).regions_of(live.engine.table.id_of("blue.png"))
        assert len(stored) == done.added / 3 and (stored.scores == 1).all() and set(stored.class_names) == {None}
    again = update(folder)
    assert (again.found, again.added, again.removed) == (0, 0, 0)


def test_additions_removals_and_compaction_are_followed(folder, tmp_path):
    update(folder)
    regions = RegionIndex(folder)
    with LiveEngine.open(folder, ColorFeatures()) as live:
        live.remove([live.engine.table.id_of("red.png")])
        assert best(live, regions, "red")[0] != "red"
        paint(tmp_path / "new" / "new-red.png", "white", "red")
        live.add(from_folder(tmp_path / "new"))
        # The same content as the removed image, so that its regions are known.
        assert not len(regions.missing(live.engine))
        assert best(live, regions, "red")[0] == "new-red"
        paint(tmp_path / "more" / "yellow.png", "white", "yellow")
        live.add(from_folder(tmp_path / "more"))
        assert [live.engine.table.path(id).stem for id in regions.missing(live.engine)] == ["yellow"]
        assert best(live, regions, "yellow") == ("yellow", None)
        assert regions.extract_missing(live.engine) == 1
        assert best(live, regions, "yellow")[1] is not None and not len(regions.missing(live.engine))
        live.compact()
        assert remove_unused(folder) == 0
        assert best(live, regions, "yellow")[0] == "yellow"
        count = len(regions.of(live.engine))
        live.remove([live.engine.table.id_of(tmp_path / "more" / "yellow.png")])
        assert len(regions.of(live.engine)) == count - 29
        assert remove_unused(folder) == 29
        done = update(folder)
        assert (done.removed, done.added) == (0, 0)
        with LiveEngine.open(folder / FOLDER, UnopenedExtractor.of(folder / FOLDER)) as own:
            assert all("yellow" not in str(own.engine.table.path(id)) for id in own.engine.index.ids)
            assert not own.changes
        assert len(regions.of(live.engine)) == count - 29
        assert best(live, regions, "red")[0] == "new-red" and best(live, regions, "blue")[0] == "blue"


def test_copies_share_regions_and_a_changed_copy_keeps_those_of_the_other(folder, tmp_path):
    shutil.copy(tmp_path / "images" / "red.png", tmp_path / "images" / "same.png")
    with LiveEngine.open(folder, ColorFeatures()) as live:
        live.add(from_folder(tmp_path / "images"))
        update_regions(folder, live.engine, region_source("grid"))
        regions = RegionIndex(folder)
        query = ColorFeatures().extract_arrays([np.full((9, 9, 3), COLORS["red"], np.uint8)])
        found = search_regions(live.engine, regions.of(live.engine), query, 2)
        assert {live.engine.table.path(int(id)).stem for id in found.ranking.ids[0]} == {"red", "same"}
        paint(tmp_path / "images" / "red.png", "green", "yellow")
        live.add(from_folder(tmp_path / "images"))
        update_regions(folder, live.engine, region_source("grid"))
        assert best(live, regions, "red")[0] == "same"
        assert best(live, regions, "yellow")[0] == "red"


def test_an_interrupted_update_continues(folder, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(region_index, "region_vectors", stop)
        with pytest.raises(KeyboardInterrupt):
            update(folder)
    regions = RegionIndex(folder)
    with LiveEngine.open(folder, ColorFeatures()) as live:
        assert len(regions.missing(live.engine)) == 3
        assert best(live, regions, "blue")[1] is None
        done = update(folder)
        assert done.found == 0 and done.added > 0
        assert best(live, regions, "blue")[0] == "blue" and not len(regions.missing(live.engine))


def test_another_source_replaces_the_regions(folder):
    update(folder)
    regions = RegionIndex(folder)
    with LiveEngine.open(folder, ColorFeatures()) as live:
        before = len(regions.of(live.engine))
        update(folder, "proposals")
        assert regions.source == "grid"
        assert 0 < len(regions.of(live.engine)) != before
        assert regions.source == "proposals"


def test_an_engine_made_again_with_another_extractor_needs_new_vectors(folder, tmp_path):
    update(folder)

    class Other(ColorFeatures):
        name, dim = "other", 4

        def compute(self, pixels):
            return np.hstack([pixels.mean(axis=(1, 2)), np.ones((len(pixels), 1))])

    regions = RegionIndex(folder)
    with LiveEngine.open(folder, ColorFeatures()) as live:
        assert len(regions.of(live.engine))
    Engine(Other(), "exact:cosine").fit(from_folder(tmp_path / "images")).save(folder, replace=True)
    with LiveEngine.open(folder, Other()) as live:
        assert not len(regions.of(live.engine)) and len(regions.missing(live.engine)) == 3
        done = update_regions(folder, live.engine, region_source("grid"))
        assert done.found == 0 and done.added == len(regions.of(live.engine)) > 0


def test_a_moved_engine_and_images_that_cannot_be_read(folder, tmp_path):
    update(folder)
    moved = shutil.move(folder, tmp_path / "moved.engine")
    with LiveEngine.open(moved, ColorFeatures()) as live:
        assert best(live, RegionIndex(moved), "green")[0] == "green"
        paint(tmp_path / "new" / "gone.png", "white", "yellow")
        live.add(from_folder(tmp_path / "new"))
        (tmp_path / "new" / "gone.png").unlink()
        with pytest.warns(UserWarning, match="gone.png"):
            done = update_regions(moved, live.engine, region_source("grid"))
        assert (done.found, done.skipped, done.added) == (1, 1, 0)


def test_regions_follow_images_that_were_moved(folder, tmp_path):
    update(folder)
    moved = tmp_path / "elsewhere" / "photos"
    moved.parent.mkdir()
    shutil.move(tmp_path / "images", moved)
    relocate(folder, moved)
    paint(tmp_path / "more" / "yellow.png", "white", "yellow")
    with LiveEngine.open(folder, ColorFeatures()) as live:
        regions = RegionIndex(folder)
        live.add(from_folder(tmp_path / "more"))
        assert not len(set(regions.missing(live.engine)) - {3}) and regions.extract_missing(live.engine) == 1
        assert best(live, regions, "green")[0] == "green" and best(live, regions, "yellow")[0] == "yellow"
    # The vectors of the moved images are computed again.
    with LiveEngine.open(folder, ColorFeatures()) as live:
        done = update_regions(folder, live.engine, region_source("proposals"))
        assert (done.found, done.skipped) == (4, 0)


def test_an_interrupted_change_of_the_source_leaves_no_regions_of_the_former_one(folder, monkeypatch):
    update(folder)
    regions = RegionIndex(folder)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with LiveEngine.open(folder, ColorFeatures()) as live:
        assert len(regions.of(live.engine))
        with monkeypatch.context() as patched:
            patched.setattr(region_index, "region_vectors", stop)
            with pytest.raises(KeyboardInterrupt):
                update(folder, "proposals")
        assert not len(regions.of(live.engine)) and len(regions.missing(live.engine)) == 3
        assert regions.source == "proposals" and regions.extract_missing(live.engine) == 0
        assert len(regions.of(live.engine)) and not len(regions.missing(live.engine))


def test_an_update_keeps_the_regions_of_images_that_another_process_added(folder, tmp_path):
    update(folder)
    with LiveEngine.open(folder, ColorFeatures()) as former, LiveEngine.open(folder, ColorFeatures()) as live:
        before = former.engine
        paint(tmp_path / "new" / "yellow.png", "white", "yellow")
        live.add(from_folder(tmp_path / "new"))
        added = update_regions(folder, live.engine, region_source("grid")).added
        assert added == 29 and update_regions(folder, before, region_source("grid")).removed == 0
        assert best(live, RegionIndex(folder), "yellow")[1] is not None


def test_missing_regions_of_engines_of_different_age(folder, tmp_path):
    """Each image is checked once, but none is forgotten."""
    update(folder)
    regions = RegionIndex(folder)

    def missing(engine):
        return [engine.table.path(id).stem for id in regions.missing(engine)]

    with LiveEngine.open(folder, ColorFeatures()) as live:
        engines = [live.engine]
        for name, color in (("new", "yellow"), ("plain", None)):
            paint(tmp_path / name / f"{name}.png", "white", color)
            live.add(from_folder(tmp_path / name))
            engines.append(live.engine)
        assert [missing(engine) for engine in reversed(engines)] == [["new", "plain"], ["new"], []]
        assert missing(live.engine) == ["new", "plain"]
        assert regions.extract_missing(engines[1]) == 1 and missing(live.engine) == ["plain"]
        live.remove(regions.missing(live.engine))
        assert missing(live.engine) == []
        # A removed image leaves its regions, until they are removed, too.
        live.remove([live.engine.table.id_of("red.png")])
        live.add(from_folder(tmp_path / "images"))
        assert missing(live.engine) == []
        live.remove([live.engine.table.id_of("red.png")])
        assert remove_unused(folder) == 29
        live.add(from_folder(tmp_path / "images"))
        # Its boxes are stored, but not their vectors.
        assert missing(live.engine) == ["red"] and regions.extract_missing(live.engine) == 0
        assert missing(live.engine) == []
        assert best(live, regions, "red")[1] is not None
    regions.close()


def test_two_updates_at_a_time_store_each_region_once(folder, tmp_path, monkeypatch):
    update(folder)
    paint(tmp_path / "new" / "yellow.png", "white", "yellow")
    both = threading.Barrier(2)
    compute = region_index.region_vectors

    def wait_for_the_other(*arguments):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return compute(*arguments)

    monkeypatch.setattr(region_index, "region_vectors", wait_for_the_other)
    with LiveEngine.open(folder, ColorFeatures()) as live:
        live.add(from_folder(tmp_path / "new"))
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda _: update_regions(folder, live.engine, region_source("grid")), range(2)))
        assert sorted(one.added for one in done) == [0, 29]
        assert len(RegionIndex(folder).of(live.engine)) == 4 * 29


def test_images_without_regions_are_done(folder, tmp_path):
    """A small image has no regions, and regions whose vector is zero are not stored."""

    class NoBlack(ColorFeatures):
        name = "no-black"

        def compute(self, pixels):
            return pixels.mean(axis=(1, 2))

    update(folder)
    Image.new("RGB", (20, 20), "red").save(tmp_path / "images" / "small.png")
    Image.new("RGB", (90, 90)).save(tmp_path / "images" / "black.png")
    engine = Engine(NoBlack(), "exact:cosine").fit(from_folder(tmp_path / "images"))
    engine.save(folder, replace=True)
    done = update_regions(folder, engine, region_source("grid"))
    assert (done.found, done.skipped, done.added) == (2, 0, 3 * 29)
    regions = RegionIndex(folder)
    assert not len(regions.missing(engine)) and len(regions.of(engine)) == 3 * 29
    assert not any(len(regions.of(engine).regions_of(engine.table.id_of(f"{name}.png"))) for name in ("small", "black"))


def test_an_index_without_cosines_gets_no_regions(folder, tmp_path):
    engine = Engine(ColorFeatures(), "exact:euclidean").fit(from_folder(tmp_path / "images"))
    engine.save(folder, replace=True)
    with pytest.raises(ValueError, match="exact:cosine"):
        update_regions(folder, engine, region_source("grid"))
