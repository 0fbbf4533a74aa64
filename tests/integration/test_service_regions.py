"""Searches by parts of images over HTTP, with a small detector that finds bright rectangles at three places."""

import shutil
import time

import numpy as np
import pytest
from PIL import Image

from helpers.features.region_vectors import crop
from helpers.features.regions import region_source
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.reading import read_image
from helpers.networks import detector_weights, detectors
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.search.region_index import RegionIndex, update_regions
from helpers.search.region_search import search_regions
from tests.integration.test_service import encoded, serving, upload
from tests.unit.test_detector_files import columns, save

#: Where the detector finds objects in an image of 256 × 256 pixels; the class is the color.
LEFT, RIGHT, TOP = (32, 80, 64, 96), (160, 96, 80, 64), (0, 0, 256, 48)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
IMAGES = {
    "red_left": {LEFT: RED}, "red_right": {RIGHT: RED}, "blue_top": {TOP: BLUE}, "green_left": {LEFT: GREEN},
    "red_and_blue": {LEFT: RED, RIGHT: BLUE}, "green_and_blue": {LEFT: GREEN, RIGHT: BLUE}, "black": {},
}  # fmt: skip


def painted(rectangles):
    """A black image with colored rectangles."""
    pixels = np.zeros((256, 256, 3), np.uint8)
    for (x, y, width, height), color in rectangles.items():
        pixels[y : y + height, x : x + width] = color
    return pixels


def make_engine(folder):
    """An engine of `IMAGES`, with the regions of the detector."""
    (folder / "images").mkdir()
    for name, rectangles in IMAGES.items():
        Image.fromarray(painted(rectangles)).save(folder / "images" / f"{name}.png")
    engine = Engine("hsv-histogram").fit(from_folder(folder / "images")).save(folder / "my.engine")
    files = save(folder, columns)
    with LiveEngine.open(engine) as live:
        source = region_source("detector", detectors.from_file(*files))
        update_regions(engine, live.engine, source, files=tuple(map(str, files)))
    return engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_engine(tmp_path_factory.mktemp("regions"))


@pytest.fixture(scope="module")
def client(folder):
    with serving(folder) as client:
        yield client


def text(*boxes):
    return [",".join(map(str, box)) for box in boxes]


def search(client, pixels, *boxes, **options):
    """The response to a search by parts of an image."""
    result = client.post("/v1/search", files=upload(encoded(pixels)), params={"box": text(*boxes), **options})
    assert result.status_code == 200, result.text
    return result.json()


def id_of(client, name):
    return next(one["id"] for one in client.get("/v1/images").json()["images"] if one["name"] == f"{name}.png")


def box_of(region):
    return None if region["box"] is None else tuple(region["box"].values())


def test_objects_of_an_upload_and_of_a_gallery_image(client):
    assert client.get("/v1/info").json()["regions"] == "detector"
    found = client.post("/v1/regions", files=upload(encoded(painted(IMAGES["red_and_blue"])))).json()
    stored = client.get(f"/v1/images/{id_of(client, 'red_and_blue')}/regions").json()
    assert (found["stored"], stored["stored"]) == (False, True)
    for each in (found, stored):
        assert (each["source"], each["width"], each["height"]) == ("detector", 256, 256)
        boxes = {one["class_name"]: box_of(one) for one in each["regions"]}
        assert boxes == {"red": pytest.approx(LEFT, abs=0.2), "blue": pytest.approx(RIGHT, abs=0.2)}
        assert all(0.9 < one["score"] <= 1 for one in each["regions"])
    grid = client.get(f"/v1/images/{id_of(client, 'black')}/regions", params={"source": "grid"}).json()
    assert len(grid["regions"]) == 29 and not grid["stored"] and grid["regions"][0]["class_name"] is None
    assert client.get("/v1/images/0/regions", params={"source": "?"}).status_code == 422
    assert client.get("/v1/images/999/regions").status_code == 404


def test_a_box_finds_the_object_in_other_places(client, folder):
    query = painted(IMAGES["red_and_blue"])
    found = search(client, query, LEFT, k=3)
    assert found["regions"] == "detector"
    assert {one["name"] for one in found["results"]} == {"red_left.png", "red_right.png", "red_and_blue.png"}
    other = next(one for one in found["results"] if one["name"] == "red_right.png")
    assert other["regions"] == [
        {"part": 1, "box": dict(zip(("x", "y", "width", "height"), RIGHT, strict=True)), "class_name": "red",
         "score": pytest.approx(1)}
    ]  # fmt: skip
    assert (other["width"], other["height"], other["score"]) == (256, 256, pytest.approx(1))
    with LiveEngine.open(folder) as live:
        vectors = live.engine.extractor.extract_arrays([crop(query, LEFT)])
        expected = search_regions(live.engine, RegionIndex(folder).of(live.engine), vectors, 6)
    found = search(client, query, LEFT, k=6)["results"]
    assert [one["id"] for one in found] == expected.ranking.ids[0].tolist()
    assert [one["score"] for one in found] == pytest.approx(expected.ranking.scores[0].tolist())


def test_boxes_are_of_the_upright_image(client):
    pixels = painted({(100, 20, 60, 40): GREEN})[:128]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(np.ascontiguousarray(np.rot90(pixels)), exif=exif)
    sent = {"files": upload(turned), "params": {"box": text((100, 20, 60, 40)), "k": 2, "vectors": True}}
    found = client.post("/v1/search", **sent).json()["results"]
    assert {one["name"] for one in found} == {"green_left.png", "green_and_blue.png"}
    assert found[0]["score"] == pytest.approx(1)
    # A crop in fractions is one more part, the first one.
    sent["params"] |= {"left": 0, "top": 0.5, "width": 0.25, "height": 0.5}
    assert len(client.post("/v1/search", **sent).json()["vector"]) == 2


def test_two_boxes_find_the_image_with_both_objects(client):
    query = painted({RIGHT: RED, TOP: BLUE})
    found = search(client, query, RIGHT, TOP, k=3, vectors=True)
    best = found["results"][0]
    assert best["name"] == "red_and_blue.png" and best["score"] == pytest.approx(1)
    assert [(one["part"], box_of(one), one["class_name"]) for one in best["regions"]] == [
        (1, LEFT, "red"), (2, RIGHT, "blue"),
    ]  # fmt: skip
    # The next page needs only the vectors.
    body = {"vector": found["vector"], "k": 2, "offset": 1}
    page = client.post("/v1/search/vector", json=body).json()
    assert page["results"] == found["results"][1:]
    result = client.post("/v1/search/vector", json=body | {"vector": [*found["vector"], "AAAAAA=="]})
    assert result.status_code == 422 and "same length" in result.text
    result = client.post("/v1/search/vector", json=body | {"rerank": "geometry"})
    assert result.status_code == 422 and "one part" in result.text


def test_boxes_of_a_gallery_image(client):
    own = id_of(client, "red_and_blue")
    found = client.get(f"/v1/search/id/{own}", params={"box": text(RIGHT), "k": 7}).json()["results"]
    assert own not in [one["id"] for one in found] and len(found) == 6
    assert {one["name"] for one in found[:2]} == {"blue_top.png", "green_and_blue.png"}
    # The whole image, too, is compared with regions.
    found = client.get(f"/v1/search/id/{own}", params={"k": 1}).json()
    assert len(found["results"][0]["regions"]) == 1 and found["regions"] == "detector"


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1,2,3", "four finite numbers"),
        ("1,2,3,nan", "four finite numbers"),
        ("a,b,c,d", "must be four numbers: x,y,width,height"),
        ("10,10,0,50", "positive width and height"),
        ("200,200,100,20", "partly outside of the image, which has 256 × 256 pixels"),
        ("300,10,20,20", "is outside of the image"),
        ("100,100,250,250", "Are these the corners?"),
        ("10,10,5,5", "too small"),
    ],
)
def test_a_bad_box(client, box, message):
    sent = upload(encoded(painted({})))
    for result in (
        client.post("/v1/search", files=sent, params={"box": box}),
        client.get("/v1/search/id/0", params={"box": [*text(LEFT), box]}),
    ):
        assert result.status_code == 422 and message in result.json()["message"]


def test_too_many_boxes(client):
    assert client.get("/v1/search/id/0", params={"box": text(*[LEFT] * 8)}).status_code == 422


def test_added_images_get_regions_and_removed_ones_vanish(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "my.engine")
    with serving(tmp_path / "my.engine") as client:
        sent = upload(encoded(painted({RIGHT: GREEN, TOP: RED})), "new.png")
        added = client.post("/v1/images", files=sent).json()["id"]
        deadline = time.monotonic() + 20
        while not client.get(f"/v1/images/{added}/regions").json()["stored"]:
            assert time.monotonic() < deadline, "the regions were not stored"
            time.sleep(0.02)
        query = painted({LEFT: GREEN, RIGHT: RED})
        best = search(client, query, LEFT, RIGHT, k=1)["results"][0]
        assert best["id"] == added and [box_of(one) for one in best["regions"]] == [RIGHT, TOP]
        assert client.delete(f"/v1/images/{added}").status_code == 204
        assert added not in [one["id"] for one in search(client, query, LEFT, RIGHT, k=9)["results"]]
        assert client.get(f"/v1/images/{added}/regions").status_code == 404


def test_without_regions_a_box_is_compared_with_whole_images(folder, tmp_path, monkeypatch):
    images = from_folder(folder.parent / "images")
    engine = Engine("hsv-histogram").fit(images)
    query = read_image(images.paths[images.keys.index("red_and_blue.png")])
    vectors = engine.extractor.extract_arrays([crop(query, box) for box in (LEFT, RIGHT)])
    scores = np.sort(engine.index.vectors(range(len(images))) @ vectors.T, axis=0)[::-1]
    with serving(engine.save(tmp_path / "plain.engine")) as client:
        assert client.get("/v1/info").json()["regions"] is None
        found = search(client, query, LEFT, k=7)
        assert found["regions"] is None and {tuple(one["regions"]) for one in found["results"]} == {()}
        assert [one["score"] for one in found["results"]] == pytest.approx(scores[:, 0].tolist(), abs=1e-5)
        both = search(client, query, LEFT, RIGHT, k=7)["results"]
        means = (engine.index.vectors([one["id"] for one in both]) @ vectors.T).mean(axis=1)
        assert [one["score"] for one in both] == pytest.approx(means.tolist(), abs=1e-5)
        # A request does not download the detector.
        monkeypatch.setattr(detector_weights, "available", lambda: False)
        result = client.post("/v1/regions", files=upload(encoded(query)))
        assert result.status_code == 422 and "detector is not available" in result.text
        assert client.post("/v1/regions?source=grid", files=upload(encoded(query))).status_code == 200


def test_the_pretrained_detector_has_its_own_input_for_a_query(detector, tmp_path):
    """The regions of the gallery are found with a smaller one."""
    photos = samples.photos()
    photos = photos.subset([row for row, path in enumerate(photos.paths) if path.stem in ("dog", "firetruck")])
    folder = Engine("hsv-histogram").fit(photos).save(tmp_path / "my.engine")
    with LiveEngine.open(folder) as live:
        update_regions(folder, live.engine, region_source("detector"))
    (expected,) = region_source("detector", detector).find(photos.paths[:1])
    with serving(folder) as client:
        found = client.post("/v1/regions", files=upload(photos.paths[0].read_bytes())).json()
        stored = client.get("/v1/images/0/regions").json()
    scores = [one["score"] for one in found["regions"]]
    assert scores == pytest.approx(expected.scores.tolist(), abs=1e-4) and not found["stored"]
    assert [box_of(one) for one in found["regions"]] == [pytest.approx(box, abs=0.1) for box in expected.boxes.tolist()]
    assert stored["stored"] and [one["score"] for one in stored["regions"]] != pytest.approx(scores, abs=1e-4)
