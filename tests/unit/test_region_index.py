"""The stored regions of saved engines: additions, removals, compaction, copies, interruptions, other processes."""

import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.features.extractor import FeatureExtractor
from helpers.features.regions import region_source
from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.search.region_index import FOLDER, NoRegions, RegionIndex, update_regions
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
        assert best(live, regions, "yellow")[0] == "yellow"
        live.remove([live.engine.table.id_of(tmp_path / "more" / "yellow.png")])
    done = update(folder)
    assert done.removed > 0 and done.added == 0
    with LiveEngine.open(folder / FOLDER, ColorFeatures()) as own:
        assert all("yellow" not in str(own.engine.table.path(id)) for id in own.engine.index.ids)


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
    from helpers.search import region_index

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
