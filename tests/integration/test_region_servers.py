"""The regions of engines whose vectors are in a server or in a file of Milvus: a collection of their own."""

from contextlib import closing

import pytest

from helpers.features.regions import region_source
from helpers.images.folders import from_folder
from helpers.search.engine import Engine, UnopenedExtractor
from helpers.search.index import open_index
from helpers.search.persist.live import LiveEngine
from helpers.search.region_index import FOLDER, RegionIndex, update_regions
from tests.integration.test_elastic import FakeServer
from tests.unit.test_region_index import ColorFeatures, best, paint


@pytest.fixture
def server():
    with closing(FakeServer()) as server:
        yield server


def make(tmp_path, spec):
    for name in ("red", "green", "blue"):
        paint(tmp_path / "images" / f"{name}.png", "white", name)
    images = from_folder(tmp_path / "images")
    return Engine(ColorFeatures(), spec).fit(images).save(tmp_path / "my.engine")


def check(folder, tmp_path):
    """Find regions, add, remove and compact; returns the number of the regions."""
    regions = RegionIndex(folder)
    with LiveEngine.open(folder, ColorFeatures()) as live:
        assert best(live, regions, "blue")[0] == "blue" and best(live, regions, "blue")[1] is not None
        live.remove([live.engine.table.id_of("red.png")])
        assert best(live, regions, "red")[0] != "red"
        paint(tmp_path / "more" / "yellow.png", "white", "yellow")
        live.add(from_folder(tmp_path / "more"))
        assert regions.extract_missing(live.engine) == 1
        with LiveEngine.open(folder / FOLDER, UnopenedExtractor.of(folder / FOLDER)) as own:
            assert own.compact() > 0
        live.compact()
        name, box = best(live, regions, "yellow")
        assert name == "yellow" and box is not None
        assert best(live, regions, "red")[0] != "red"
        count = len(regions.of(live.engine))
    regions.close()
    return count


def update(folder):
    with LiveEngine.open(folder, ColorFeatures()) as live:
        return update_regions(folder, live.engine, region_source("grid"))


def test_regions_on_a_server_are_in_a_collection_beside_the_images(server, tmp_path):
    folder = make(tmp_path, f"elasticsearch:{server.location}")
    update(folder)
    assert sorted(server.indexes) == ["images", "images_regions"]
    assert len(server.indexes["images"]["documents"]) == 3
    names = [document["name"] for document in server.indexes["images_regions"]["documents"].values()]
    assert "red.png#xywh=0,0,50,50" in names or "red.png#xywh=0,0,62,62" in names
    count = check(folder, tmp_path)
    update(folder)
    with LiveEngine.open(folder / FOLDER, UnopenedExtractor.of(folder / FOLDER)) as own:
        own.compact()
    assert len(server.indexes["images_regions"]["documents"]) == count
    assert len(server.indexes["images"]["documents"]) == 3


def test_vectors_of_others_on_a_server_are_kept(server, tmp_path):
    folder = make(tmp_path, f"elasticsearch:{server.location}")
    open_index(f"elasticsearch:{server.location}_regions").add([[1.0, 2, 3]])
    with pytest.raises(ValueError, match="images_regions holds 1 vectors"):
        update(folder)
    assert len(server.indexes["images_regions"]["documents"]) == 1


def test_regions_are_stored_again_after_an_interrupted_first_time(server, tmp_path, monkeypatch):
    folder = make(tmp_path, f"elasticsearch:{server.location}")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            update(folder)
    sent = len(server.indexes["images_regions"]["documents"])
    assert sent > 0 and update(folder).added == sent


def test_regions_of_a_milvus_file_are_in_a_file_beside_it(tmp_path):
    folder = make(tmp_path, f"milvus:{tmp_path}/vectors.db")
    update(folder)
    assert (tmp_path / "vectors_regions.db").exists()
    check(folder, tmp_path)
    with closing(open_index(f"milvus:{tmp_path}/vectors.db")) as index:
        assert len(index) == 3


@pytest.mark.parametrize(
    ("spec", "beside"),
    [
        (
            "elasticsearch://{}/images?candidates=50&search=approximate",
            "//{}/images_regions?candidates=50&search=approximate",
        ),
        ("elasticsearch://{}/images/", "//{}/images_regions"),
    ],
)
def test_the_collection_of_the_regions_has_the_same_settings(server, spec, beside):
    address = server.location[2:].partition("/")[0]
    index = open_index(spec.format(address))
    assert index.sibling("_regions") == "elasticsearch:" + beside.format(address)
    assert open_index(index.sibling("_regions")).options == index.options
