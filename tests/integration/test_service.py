"""The service over HTTP: every route and every error."""

import contextlib
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from helpers import paths
from helpers.cli.main import main
from helpers.features.color_shape import ColorHistogram
from helpers.features.registry import open_extractor
from helpers.images import samples, thumbnails
from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet, concatenate
from helpers.images.reading import read_image
from helpers.loopback import reserved_port
from helpers.search.engine import Engine
from helpers.search.gallery import GalleryTable
from helpers.search.persist.live import LiveEngine
from helpers.search.rerank import NAMES
from helpers.service import server, uploads
from helpers.service.application import create_app
from helpers.service.content import UploadedImage
from helpers.service.gallery_edits import GalleryEdits
from helpers.service.gallery_search import GallerySearch
from helpers.service.request_extraction import reduced
from helpers.service.schemas import from_text, to_text
from helpers.service.security import HEADERS
from helpers.service.settings import Settings

CLASSES = {"birds": 12, "fruit": 8, "mammals": 20}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A folder with three classes, and images of no class."""
    root = tmp_path_factory.mktemp("own") / "gallery"
    images = samples.with_distractors()
    for name, count in CLASSES.items():
        (root / name).mkdir(parents=True)
        for row in np.flatnonzero(images.labels == images.class_names.index(name))[:count]:
            shutil.copy(images.paths[row], root / name)
    for row in np.flatnonzero(images.labels < 0)[:10]:
        shutil.copy(images.paths[row], root)
    return from_folder(root)


@pytest.fixture(scope="module")
def engine(gallery):
    return Engine("hsv-histogram").fit(gallery)


@pytest.fixture
def folder(engine, tmp_path):
    return engine.save(tmp_path / "own.index")


@pytest.fixture(scope="module")
def thumbnail_folder(tmp_path_factory):
    """A separate cache for thumbnails."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(folder))
        yield folder / "thumbnails"


@contextlib.contextmanager
def serving(folder, key=None, **settings):
    """A client of a server that runs in a thread of this process."""
    app = create_app(Settings(folder=folder, api_key=key, **settings))
    running = uvicorn.Server(uvicorn.Config(app, port=0, **server.options("warning")))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            client.app, client.port = app, port
            yield client
    finally:
        running.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(engine, thumbnail_folder, tmp_path_factory):
    """A client of a service that the tests do not change."""
    with serving(engine.save(tmp_path_factory.mktemp("shared") / "own.index")) as client:
        yield client


def upload(content, name="image.jpg", kind="image/jpeg"):
    return {"image": (name, content, kind)}


def encoded(pixels, kind="PNG", **options):
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind, **options)
    return written.getvalue()


def ids(result):
    assert result.status_code == 200, result.text
    return [each["id"] for each in result.json()["results"]]


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, *before, pixels=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def tiff(entries):
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4)


def zipped(name="run.js"):
    import zipfile

    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(name, "alert(1)")
    return written.getvalue()


# --- searching


def test_an_upload_finds_what_the_engine_finds(client, engine):
    image = engine.gallery.paths[17]
    result = client.post("/v1/search", files=upload(image.read_bytes()), params={"k": 5})
    expected = engine.query(image, k=5)
    assert ids(result) == [each.id for each in expected]
    body = result.json()
    assert [each["score"] for each in body["results"]] == pytest.approx([each.score for each in expected])
    assert body["results"][0] == {
        "id": 17, "key": engine.gallery.keys[17], "name": image.name, "class_name": engine.gallery.class_name(17),
        "thumbnail": "/v1/images/17/thumbnail", "rank": 1, "score": body["results"][0]["score"],
        "regions": [], "width": None, "height": None,
    }  # fmt: skip
    assert (body["offset"], body["k"], body["more"], body["note"]) == (0, 5, True, "")
    assert body["milliseconds"] > 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_every_format_is_accepted_under_any_name(client, engine, kind):
    image = encoded(read_image(engine.gallery.paths[3]), kind)
    result = client.post("/v1/search", files=upload(image, "x.exe", "text/html"), params={"k": 3})
    assert ids(result) == [each.id for each in engine.query(image, k=3)]


def test_a_progressive_jpeg_is_accepted(client, engine):
    image = encoded(read_image(engine.gallery.paths[3]), "JPEG", progressive=True)
    assert image.count(b"\xff\xda") > 5
    result = client.post("/v1/search", files=upload(image), params={"k": 3})
    assert ids(result) == [each.id for each in engine.query(image, k=3)]


def test_a_crop_is_of_the_upright_image(client, engine):
    pixels = read_image(engine.gallery.paths[3])
    height, width = pixels.shape[:2]
    # Stored rotated, with the Exif orientation of the camera.
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(np.ascontiguousarray(np.rot90(pixels)), exif=exif)
    crop = {"left": 0.25, "top": 0.5, "width": 0.5, "height": 0.25}
    result = client.post("/v1/search", files=upload(turned), params={"k": 4, **crop})
    part = pixels[int(height * 0.5) : round(height * 0.75), int(width * 0.25) : round(width * 0.75)]
    assert ids(result) == [each.id for each in engine.query(part, k=4)]


@pytest.mark.parametrize(
    "crop",
    [
        {"left": 0.5},
        {"left": 0.5, "top": 0, "width": 0.6, "height": 1},
        {"left": 0, "top": 0, "width": 0, "height": 1},
        {"left": "nan", "top": 0, "width": 1, "height": 1},
    ],
)
def test_an_invalid_crop(client, gallery, crop):
    assert client.post("/v1/search", files=upload(gallery.paths[0].read_bytes()), params=crop).status_code == 422


def test_all_pages_by_vector_give_every_image_once_in_order(client, engine, gallery):
    page = client.post(
        "/v1/search", files=upload(gallery.paths[2].read_bytes()), params={"k": 17, "vectors": True}
    ).json()
    found, vector = [each["id"] for each in page["results"]], page["vector"]
    while page["more"]:
        query = {"vector": vector, "k": 17, "offset": len(found)}
        page = client.post("/v1/search/vector", json=query).json()
        assert [each["rank"] for each in page["results"]] == list(
            range(len(found) + 1, len(found) + 1 + len(page["results"]))
        )
        found += [each["id"] for each in page["results"]]
    assert found == [each.id for each in engine.query(gallery.paths[2], k=len(gallery))]
    assert page["note"] == "The gallery has 50 images."


def test_an_image_of_the_gallery_is_not_its_own_result(client, engine):
    result = client.get("/v1/search/id/4", params={"k": 6, "vectors": True})
    assert ids(result) == [each.id for each in engine.query_id(4, k=6)]
    np.testing.assert_array_equal(from_text(result.json()["vector"]), engine.index.vectors([4])[0])


def test_a_threshold_and_excluded_images(client, engine, gallery):
    ranked = engine.query_id(4, k=49)
    threshold = (ranked[6].score + ranked[7].score) / 2
    vector = to_text(engine.index.vectors([4])[0])
    # The image itself is excluded too, so that all kinds of queries have the same results.
    exclude = [4, ranked[2].id, 10**9]
    expected = [each.id for each in ranked[:7] if each.id not in exclude]
    options = {"threshold": threshold, "exclude": exclude}
    image = gallery.paths[4].read_bytes()

    def sent(**more):
        body = {**options, **more}
        yield client.get("/v1/search/id/4", params=body)
        yield client.post("/v1/search", files=upload(image), params=body)
        yield client.post("/v1/search/vector", json={"vector": vector, **body})
        yield client.post("/v1/search/combined", json={"parts": [{"id": 4}], **body})

    for result in sent():
        assert ids(result) == expected
        assert result.json()["more"] is False and "has a score of" in result.json()["note"]
        assert result.json()["vector"] is None
    for offset, last in ((0, False), (4, True)):
        for result in sent(k=4, offset=offset):
            assert ids(result) == expected[offset : offset + 4]
            assert result.json()["more"] is not last
    assert client.get("/v1/search/id/4", params={"threshold": "nan"}).status_code == 422
    assert ids(client.get("/v1/search/id/4", params={"threshold": 2})) == []


@pytest.mark.parametrize("class_name", CLASSES)
def test_the_class_filter_finds_all_images_of_the_class(client, engine, gallery, class_name):
    best = [each.id for each in engine.query_id(0, k=len(gallery)) if each.class_name == class_name]
    for k in (3, len(best), 50):
        result = client.get("/v1/search/id/0", params={"k": k, "class_name": class_name})
        assert ids(result) == best[:k]
        assert result.json()["more"] == (k < len(best))
    assert ids(client.get("/v1/search/id/0", params={"k": 3, "offset": 2, "class_name": class_name})) == best[2:5]
    assert f"of class {class_name}" in client.get(f"/v1/search/id/0?k=50&class_name={class_name}").json()["note"]


def test_an_approximate_index_finds_all_images_of_a_class(gallery, tmp_path):
    rare = Engine("hsv-histogram", "faiss:hnsw?m=4&search=1&construction=8").fit(gallery)
    with serving(rare.save(tmp_path / "own.index")) as client:
        result = client.get("/v1/search/id/0", params={"k": 8, "class_name": "fruit"})
        assert set(ids(result)) == set(np.flatnonzero(gallery.labels == gallery.class_names.index("fruit")))


def test_geometry_reads_only_the_images_that_it_compares(folder, monkeypatch):
    def all_images(_):
        raise AssertionError("an ImageSet of the whole gallery")

    monkeypatch.setattr(GalleryTable, "images", property(all_images))
    with serving(folder) as client:
        assert len(ids(client.get("/v1/search/id/0", params={"k": 5, "rerank": "geometry"}))) == 5


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ("AAAA", "numbers"),
        ("A" * 7, "base64"),
        ("!!!!", "base64"),
        (to_text(np.zeros(5)), "must have 128 numbers"),
        (to_text(np.full(128, np.nan)), "NaN"),
    ],
)
def test_an_invalid_vector(client, vector, message):
    result = client.post("/v1/search/vector", json={"vector": vector})
    assert result.status_code == 422
    assert message in result.json()["message"]


def test_an_empty_index_gives_no_results(engine, folder, gallery):
    with LiveEngine.open(folder) as live:
        live.remove(range(len(gallery)))
    with serving(folder) as client:
        result = client.post("/v1/search", files=upload(gallery.paths[0].read_bytes()))
        assert ids(result) == []
        assert result.json()["note"] == "The gallery has 0 images."
        assert client.get("/v1/info").json()["images"] == 0
        assert client.get("/v1/search/id/3").status_code == 404


# --- the gallery


def test_info_and_lists_of_images(client, gallery):
    info = client.get("/v1/info").json()
    assert info == {
        "name": "gallery", "images": 50, "extractor": "hsv-histogram", "index": "exact:cosine",
        "classes": [{"name": name, "count": count} for name, count in CLASSES.items()],
        "no_class": len(gallery) - sum(CLASSES.values()), "text": False, "regions": None,
        "rerankers": list(NAMES), "max_k": 100, "changes": "open",
        "limits": {"body_bytes": 20 * 2**20, "pixels": 50_000_000},
    }  # fmt: skip
    page = client.get("/v1/images", params={"offset": 10, "limit": 3}).json()
    assert page["total"] == 50 and [each["id"] for each in page["images"]] == [10, 11, 12]
    fruit = client.get("/v1/images", params={"class_name": "fruit"}).json()
    assert fruit["total"] == 8 and {each["class_name"] for each in fruit["images"]} == {"fruit"}
    assert client.get("/v1/images/10").json() == page["images"][0]
    assert str(gallery.root) not in client.get("/v1/images", params={"limit": 100}).text


def test_thumbnails_are_small_and_cached(client, gallery, thumbnail_folder, monkeypatch):
    result = client.get("/v1/images/3/thumbnail", params={"side": 100})
    assert result.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(result.content)).size) == 128
    again = client.get("/v1/images/3/thumbnail?side=100", headers={"If-None-Match": result.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert len(list(thumbnail_folder.rglob("*.jpg"))) >= 1
    # Cached on disk: not rendered again.
    monkeypatch.setattr(thumbnails, "render", None)
    assert client.get("/v1/images/3/thumbnail?side=100").content == result.content
    os.utime(gallery.paths[3], ns=(1, time.time_ns()))
    monkeypatch.undo()
    changed = client.get("/v1/images/3/thumbnail?side=100", headers={"If-None-Match": result.headers["etag"]})
    assert changed.status_code == 200, "the file has changed"


def test_a_full_size_image_contains_no_metadata(folder):
    exif = Image.Exif()
    exif[0x010F] = "Secret Camera"
    with serving(folder) as client:
        image = encoded(np.zeros((3000, 200, 3), np.uint8), "JPEG", exif=exif)
        added = client.post("/v1/images", files=upload(image)).json()
        content = client.get(f"/v1/images/{added['id']}/file").content
        assert Image.open(io.BytesIO(content)).size == (137, 2048)
        assert b"Secret" in image and b"Secret" not in content


@pytest.mark.parametrize("route", ["", "/thumbnail", "/file"])
@pytest.mark.parametrize("id", [50, 2**63 - 1])
def test_an_unknown_id(client, id, route):
    result = client.get(f"/v1/images/{id}{route}")
    assert (result.status_code, list(result.json())) == (404, ["code", "message", "details"])


@pytest.mark.parametrize("id", ["-1", "x", str(2**63), "..%2f..%2fetc%2fpasswd", "%00", "1.5"])
def test_an_invalid_id(client, id):
    assert client.get(f"/v1/images/{id}").status_code in (404, 422)
    assert client.get(f"/v1/images/{id}/file").status_code in (404, 422)


@pytest.mark.parametrize("path", ["/static/../service.py", "/static/..%2fservice.py", "/static/%2e%2e/service.py"])
def test_only_files_of_the_page_are_served(client, path):
    with socket.create_connection(("127.0.0.1", client.port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert raw.makefile("rb").readline().split()[1] == b"404"


def test_links_show_only_what_the_owner_has_indexed(engine, gallery, tmp_path):
    root = tmp_path / "gallery"
    shutil.copytree(gallery.root, root)
    folder, secret, wanted = engine.save(tmp_path / "own.index"), tmp_path / "secret.png", tmp_path / "wanted.png"
    Image.new("RGB", (30, 30), "red").save(secret)
    Image.new("RGB", (30, 30), "blue").save(wanted)
    fine = root / gallery.keys[5]
    (root / "inside.png").symlink_to(fine)
    (root / "link.png").symlink_to(wanted)
    with LiveEngine.open(folder, root=root) as live:
        vector = np.ones((1, 128), np.float32)
        inside, dots = (
            int(live.add_extracted([path], vector, [None]).ids[0])
            for path in (root / "inside.png", root / "birds" / ".." / ".." / "secret.png")
        )
        (link,) = live.add(ImageSet("link", (root / "link.png",), [-1], ())).ids.tolist()
    # Who may write to the gallery's folder, but is not its owner, puts links in place of images.
    fine2 = root / gallery.keys[6]
    fine2.unlink()
    fine2.symlink_to(secret)
    loop = root / gallery.keys[7]
    loop.unlink()
    loop.symlink_to(loop)
    pipe = root / gallery.keys[8]
    pipe.unlink()
    os.mkfifo(pipe)
    (root / gallery.keys[9]).unlink()
    with serving(folder, root=root) as client:
        for id in (5, inside, link):
            assert client.get(f"/v1/images/{id}/file").status_code == 200
        for id in (dots, 6, 7, 8, 9):
            for route in ("file", "thumbnail"):
                result = client.get(f"/v1/images/{id}/{route}")
                assert (result.status_code, f"image {id} " in result.text) == (404, True), (id, route)
                assert str(tmp_path) not in result.text
        wanted.write_bytes(secret.read_bytes())
        assert client.get(f"/v1/images/{link}/file").status_code == 404


def test_images_that_were_added_from_other_folders_are_shown(folder, gallery, tmp_path):
    added = tmp_path / "new" / "reptiles"
    added.mkdir(parents=True)
    for row in (0, 1):
        Image.fromarray(255 - read_image(gallery.paths[row])).save(added / f"{row}.png")
    shutil.copy(added / "0.png", tmp_path / "single.png")
    with LiveEngine.open(folder) as live:
        first, second = live.add(from_folder(tmp_path / "new")).ids.tolist()
        (single,) = live.add(ImageSet("one", (tmp_path / "single.png",), [-1], ())).ids.tolist()
    with serving(folder) as client:
        entries = client.get("/v1/images", params={"offset": 50}).json()["images"]
        assert [(each["id"], each["key"]) for each in entries] == [
            (first, "reptiles/0.png"), (second, "reptiles/1.png"), (single, "single.png"),
        ]  # fmt: skip
        for each in entries:
            small = client.get(each["thumbnail"])
            large = client.get(f"/v1/images/{each['id']}/file")
            assert (small.status_code, large.status_code) == (200, 200)
            pixels = np.asarray(Image.open(io.BytesIO(large.content)))
            source = read_image(gallery.paths[1 if each["id"] == second else 0])
            assert pixels.shape == source.shape and np.abs(pixels - (255.0 - source)).mean() < 3
        (added / "1.png").unlink()
        gone = client.get(f"/v1/images/{second}/file")
        assert (gone.status_code, gone.json()["message"]) == (404, f"The file of image {second} was moved or deleted.")


def test_a_gallery_without_a_root_serves_the_listed_files(engine, gallery, tmp_path):
    other = Path(shutil.copytree(gallery.root / "fruit", tmp_path / "elsewhere" / "fruit"))
    several = concatenate("several", [gallery.subset(range(5)), from_folder(other)])
    assert several.root is None
    with serving(Engine("hsv-histogram").fit(several).save(tmp_path / "own.index")) as client:
        keys = [each["key"] for each in client.get("/v1/images").json()["images"]]
        assert keys == [path.name for path in several.paths]
        assert client.get("/v1/images/12/thumbnail").status_code == 200


# --- changes


def test_two_services_find_added_images_and_no_removed_ones(folder, gallery, thumbnail_folder):
    pixels = 255 - read_image(gallery.paths[0])
    with serving(folder) as one, serving(folder) as other:
        added = one.post("/v1/images", files=upload(encoded(pixels)), params={"class_name": "negatives"})
        assert added.status_code == 201
        entry = added.json()
        assert (entry["id"], entry["class_name"]) == (50, "negatives")
        file = folder / entry["key"]
        assert file.parent == folder / "images" and file.suffix == ".png"
        np.testing.assert_array_equal(read_image(file), pixels)
        for client in (other, one):
            assert ids(client.post("/v1/search", files=upload(encoded(pixels)), params={"k": 1})) == [50]
            assert client.get("/v1/info").json()["classes"][-1] == {"name": "negatives", "count": 1}
        kept = set(thumbnail_folder.rglob("*.jpg"))
        assert one.get("/v1/images/50/thumbnail").status_code == 200
        assert len(set(thumbnail_folder.rglob("*.jpg")) - kept) == 1
        assert one.delete("/v1/images/50").status_code == 204
        assert set(thumbnail_folder.rglob("*.jpg")) == kept, "its thumbnails are deleted"
        assert other.delete("/v1/images/50").status_code == 404
        assert ids(one.post("/v1/search", files=upload(encoded(pixels)), params={"k": 1})) != [50]
        assert not file.exists(), "files that were added over HTTP are deleted"
        assert one.delete("/v1/images/3").status_code == 204
        assert gallery.paths[3].exists(), "the user's own files stay"
    assert list((folder / "images").iterdir()) == []


def test_the_same_upload_is_one_image_and_keeps_its_name(folder, gallery):
    content = encoded(255 - read_image(gallery.paths[0]))
    names = ["C:\\holiday photos\\Z\u00fcrich \u2603.png", "../../etc/other.png", ""]
    with serving(folder) as client:
        results = [client.post("/v1/images", files=upload(content, name or "x")) for name in names]
        assert [result.status_code for result in results] == [201, 200, 200]
        assert {result.json()["id"] for result in results} == {50} and client.get("/v1/info").json()["images"] == 51
        assert {result.json()["name"] for result in results} == {"Z\u00fcrich \u2603.png"}
        assert len(list((folder / "images").iterdir())) == 1
        # After a removal, it is added again, with another name.
        assert client.delete("/v1/images/50").status_code == 204
        again = client.post("/v1/images", files=upload(content, "a/b\\c\u202ed.png"))
        assert (again.status_code, again.json()["id"], again.json()["name"]) == (201, 51, "cd.png")
        assert client.get(again.json()["thumbnail"]).status_code == 200
        # A file of the gallery is an image of its own, and a copy.
        copied = client.post("/v1/images", files=upload(gallery.paths[3].read_bytes()))
        assert copied.status_code == 201
    table = Engine.load(folder).table
    assert table.groups[3] == table.groups[copied.json()["id"]] >= 0
    assert table.display_name(51) == "cd.png" and table.display_name(3) == gallery.paths[3].name


def test_an_upload_that_is_added_again_while_it_is_removed_keeps_its_file(folder, gallery, monkeypatch):
    """Two services: the second adds the image between the removal from the engine and that of the file."""
    content, vector = encoded(255 - read_image(gallery.paths[0])), np.ones(128, np.float32)
    image = UploadedImage(content), content, ".png", vector, None
    with LiveEngine.open(folder) as one, LiveEngine.open(folder) as other:
        first, second = GallerySearch(one), GallerySearch(other)
        edits, others = GalleryEdits(one), GalleryEdits(other)
        entry, new = first.add(*image)
        assert (entry.id, new) == (50, True)
        remove, again = one.remove, []

        def remove_slowly(ids):
            remove(ids)
            again.append(second.add(*image))

        monkeypatch.setattr(one, "remove", remove_slowly)
        edits.remove(50)
        ((entry, new),) = again
        assert (entry.id, new) == (51, True) and second.path(51).read_bytes() == content
        others.remove(51)
        assert list((folder / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("photo.jpg", "photo.jpg"), ("/etc/passwd", "passwd"), ("..\\..\\a b.png", "a b.png"), ("../", None),
        (None, None), ("", None), ("  a\tb\nc\x00.png ", "abc.png"), ("\u202egnp.exe", "gnp.exe"),
        ("\ud800.png", ".png"), ("\u732b \U0001f408.jpg", "\u732b \U0001f408.jpg"), ("x" * 300, "x" * 200),
    ],
)  # fmt: skip
def test_the_name_of_an_upload_is_one_line_without_folders(given, cleaned):
    assert uploads.clean_name(given) == cleaned


def test_a_folder_that_can_not_be_written_allows_no_changes(folder, gallery, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and real(path, mode))
    with serving(folder, key="a key") as client:
        assert client.get("/v1/info").json()["changes"] == "off"
        image = upload(gallery.paths[0].read_bytes())
        for result in (
            client.post("/v1/images", files=image, headers={"X-API-Key": "a key"}),
            client.delete("/v1/images/0", headers={"X-API-Key": "a key"}),
        ):
            assert (result.status_code, "read-only" in result.text) == (403, True)
        assert client.post("/v1/search", files=image).status_code == 200


def with_extra_data():
    """Format and content of images that contain more than pixels, including the bytes EVIL."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "EVIL camera"
    pixels = 255 - read_image(samples.photos().paths[3])
    photo = encoded(pixels, "JPEG", exif=exif, comment=b"<?php EVIL(); ?>")
    gif = encoded(pixels, "GIF")
    yield "JPEG", photo
    yield "JPEG", photo + zipped("EVIL")
    yield "JPEG", photo[:2] + b"\xff\xe2" + struct.pack(">H", 20) + b"ICC_PROFILE\0\1\1EVIL" + photo[2:]
    yield "PNG", png(9, 9, chunk(b"tEXt", b"a\0<script>EVIL</script>"), pixels=bytes(90))
    yield "PNG", encoded(pixels, exif=exif) + b"EVIL"
    yield "GIF", b"GIF89a" + gif[6:] + b"EVIL//"
    yield "WEBP", encoded(pixels, "WEBP", exif=exif)


@pytest.mark.parametrize(("kind", "content"), list(with_extra_data()))
def test_only_the_pixels_of_an_upload_are_stored(folder, kind, content):
    pixels = read_image(content)
    with serving(folder) as client:
        added = client.post("/v1/images", files=upload(content))
        assert added.status_code == 201, added.text
        file = folder / added.json()["key"]
        stored = file.read_bytes()
        assert b"EVIL" in content and b"EVIL" not in stored
        with Image.open(file) as image:
            assert image.format == ("JPEG" if kind == "JPEG" else "PNG") and not image.getexif()
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        again = read_image(file)
        assert again.shape == pixels.shape, "upright"
        if kind != "JPEG":
            np.testing.assert_array_equal(again, pixels)
        assert np.abs(again.astype(int) - pixels).mean() < 1
        for query in (content, stored):
            first = client.post("/v1/search", files=upload(query), params={"k": 1}).json()["results"][0]
            assert first["id"] == added.json()["id"] and first["score"] > 0.99
        assert client.delete(f"/v1/images/{first['id']}").status_code == 204
    assert not file.exists()


@pytest.mark.parametrize("class_name", ["", "a\nb", "\x7f", "x" * 101])
def test_an_invalid_class_name(client, gallery, class_name):
    result = client.post("/v1/images", files=upload(gallery.paths[0].read_bytes()), params={"class_name": class_name})
    assert result.status_code == 422


def test_a_full_disk_adds_nothing_and_reveals_no_path(folder, gallery, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device", "/secret/place")

    with serving(folder) as client:
        monkeypatch.setattr(os, "fsync", full)
        result = client.post("/v1/images", files=upload(gallery.paths[0].read_bytes()))
        monkeypatch.undo()
        assert result.status_code == 500
        assert "secret" not in result.text
        assert client.get("/v1/info").json()["images"] == 50
    assert list((folder / "images").iterdir()) == []


def test_changes_need_the_key_if_there_is_one(folder, gallery):
    image = upload(gallery.paths[0].read_bytes())
    with serving(folder, key="right key") as client:
        assert client.get("/v1/info").json()["changes"] == "key"
        for key in (None, "", "wrong", "right", b"\xff"):
            headers = {} if key is None else {"X-API-Key": key}
            for result in (
                client.post("/v1/images", files=image, headers=headers),
                client.delete("/v1/images/1", headers=headers),
            ):
                assert result.status_code == 401
                assert "X-API-Key" in result.json()["message"]
        for wrong in ("Bearer wrong", "Basic right key", "right key", "Bearer", "Bearer right key, x"):
            assert client.delete("/v1/images/1", headers={"Authorization": wrong}).status_code == 401
        challenge = client.delete("/v1/images/1")
        assert (challenge.headers["www-authenticate"], challenge.json()["code"]) == (
            'Bearer realm="Lookalike"', "key_required",
        )  # fmt: skip
        assert client.delete("/v1/images/2", headers={"Authorization": "bearer right key"}).status_code == 204
        # A proxy that has its own use for Authorization.
        both = {"Authorization": "Basic YTpi", "X-API-Key": "right key"}
        assert client.delete("/v1/images/3", headers=both).status_code == 204
        right = {"X-API-Key": "right key"}
        assert client.post("/v1/images", files=image, headers=right).status_code == 201
        assert client.delete("/v1/images/1", headers=right).status_code == 204
        assert client.post("/v1/search", files=image).status_code == 200


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"hosts": ("images.example",)}])
def test_changes_are_off_if_others_can_reach_the_service_and_there_is_no_key(folder, gallery, settings):
    with serving(folder, **settings) as client:
        assert client.get("/v1/info").json()["changes"] == "off"
        result = client.post("/v1/images", files=upload(gallery.paths[0].read_bytes()))
        assert result.status_code == 403 and "LOOKALIKE_API_KEY" in result.json()["message"]
        assert client.delete("/v1/images/1").status_code == 403
        assert client.get("/v1/info").json()["images"] == 50


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Forwarded-For": "1.2.3.4"},
    ],
    ids=str,
)
def test_pages_of_other_sites_change_nothing(client, gallery, headers):
    assert client.delete("/v1/images/1", headers=headers).status_code == 403
    image = upload(gallery.paths[0].read_bytes())
    assert client.post("/v1/images", files=image, headers=headers).status_code == 403
    assert client.get("/v1/images/1").status_code == 200


def test_the_own_page_may_change_the_gallery(folder):
    with serving(folder) as client:
        own = {"Origin": f"http://127.0.0.1:{client.port}", "Sec-Fetch-Site": "same-origin"}
        assert client.delete("/v1/images/1", headers=own).status_code == 204


def test_unknown_host_names_are_rejected(client, folder):
    for host in ("evil.example", f"evil.example:{client.port}", "127.0.0.1.evil.example", ""):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 403, host
    for host in ("localhost", f"LOCALHOST:{client.port}", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 200, host
    with serving(folder, hosts=("Images.example",)) as named:
        assert named.get("/health", headers={"Host": "images.example"}).status_code == 200
        assert named.get("/health", headers={"Host": "evil.example"}).status_code == 403


# --- hostile uploads


def hostile():
    """Name, content and expected status."""
    photo = samples.photos().paths[0].read_bytes()
    plain = encoded(np.full((40, 40, 3), 200, np.uint8))
    gif = encoded(np.zeros((40, 40, 3), np.uint8), "GIF")
    webp = encoded(np.zeros((40, 40, 3), np.uint8), "WEBP")
    bmp = encoded(np.zeros((40, 40, 3), np.uint8), "BMP")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    passes = encoded(np.full((2000, 3000, 3), 90, np.uint8), "JPEG", progressive=True)
    last = passes[passes.rindex(b"\xff\xda") : -2]
    # 16,384 squared: the largest canvas of a WebP.
    vast = b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff\x3f\0" * 2
    yield "0 bytes", b"", 400
    yield "50 MB", photo + bytes(50_000_000), 413
    yield "50 MB of nothing", bytes(50_000_000), 413
    yield "truncated JPEG", photo[: len(photo) // 2], 400
    yield "truncated PNG", plain[:-30], 400
    yield "truncated GIF", gif[:30], 400
    yield "truncated WebP", webp[:-20], 400
    yield "only a magic number", b"\x89PNG\r\n\x1a\n", 400
    yield "only three bytes", b"\xff\xd8\xff", 400
    yield "only BM", b"BM", 400
    yield "huge header PNG", png(2**31 - 1, 2**31 - 1), 400
    yield "large header PNG", png(60_000, 60_000, pixels=bytes(1000)), 400
    yield "huge header GIF", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], 400
    yield "huge header BMP", bmp[:18] + struct.pack("<ii", 2**30, 2**30) + bmp[26:], 400
    yield "huge header TIFF", tiff([(256, 4, 1, 2**30), (257, 4, 1, 2**30), (273, 4, 1, 8), (262, 3, 1, 1)]), 400
    yield "huge header WebP", vast + webp[12:], 400
    yield (
        "huge header JPEG",
        re.sub(rb"(?s)(\xff[\xc0\xc2].{3}).{4}", lambda head: head[1] + b"\xff" * 4, photo, count=1),
        400,
    )
    yield "zip bomb PNG, pixels", png(30_000, 30_000, pixels=bytes(30_001 * 3000)), 400
    yield "zip bomb PNG, text", png(9, 9, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))), 400
    yield "zip bomb PNG, profile", png(9, 9, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000)))), 400
    yield "zip bomb PNG, Exif", png(9, 9, chunk(b"eXIf", bytes(15_000_000)), pixels=bytes(90)), 400
    yield "TIFF without directory", b"MM\0*\xff\xff\xff\xff", 400
    yield "JPEG of a thousand scans", passes[:-2] + last * 1000 + b"\xff\xd9", 400
    yield "JPEG of a million segments", photo[:2] + b"\xff\xfe\0\2" * 1_000_000 + photo[2:], 400
    yield "JPEG of fill bytes", photo[:2] + b"\xff" * 15_000_000 + photo[2:], 400
    yield "JPEG of Exif segments", photo[:2] + (b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)) * 200 + photo[2:], 400
    yield "GIF of comments", gif[:-1] + (b"!\xfe" + (b"\xff" + b"a" * 255) * 60_000 + b"\0") + b";", 400
    yield "GIF of blocks of one byte", gif[:-1] + (b"!\xfe" + b"\1a" * 9_000_000 + b"\0") + b";", 400
    yield "PNG of a million chunks", png(9, 9, chunk(b"teSt", b"") * 1_000_000, pixels=bytes(90)), 400
    yield "BMP run-length encoded", bmp[:30] + struct.pack("<I", 1) + bmp[34:], 415
    yield "SVG with script", svg, 415
    yield "SVG with a head", b'\xef\xbb\xbf<?xml version="1.0"?>' + svg, 415
    yield "HTML", b"<!DOCTYPE html><script>alert(1)</script>", 415
    yield "PDF", b"%PDF-1.7\n", 415
    yield "ZIP", zipped(), 415
    yield "text", b"no image at all", 415
    yield "HEIC", b"\0\0\0\x18ftypheic" + bytes(100), 415
    yield "PPM, which Pillow reads", b"P6 1 1 255 abc", 415
    yield "EPS, for which Pillow starts Ghostscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415
    yield "random bytes", np.random.default_rng(0).bytes(100_000), 415


@pytest.fixture(scope="module")
def separate_server(engine, tmp_path_factory):
    """URL and process of a server, for measuring its memory."""
    folder = engine.save(tmp_path_factory.mktemp("separate") / "own.index")
    with reserved_port() as port:
        script = f"from helpers.service.server import run; run({str(folder)!r}, port={port}, log_level='warning')"
        # One arena: otherwise memory that threads have freed counts as used.
        variables = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=paths.ROOT, env=variables, stderr=subprocess.PIPE
        )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(200):
                assert process.poll() is None, process.stderr.read().decode()
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{address}/ready").status_code == 200:
                        break
                time.sleep(0.1)
            yield address, process
        finally:
            process.terminate()
            process.communicate(timeout=15)


def peak_memory(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED: only Linux has the peak memory in /proc")
def test_hostile_uploads_are_rejected_fast_with_little_memory(separate_server, gallery):
    address, process = separate_server
    with httpx.Client(base_url=address, timeout=20) as client:
        good = upload(gallery.paths[0].read_bytes())
        assert client.post("/v1/search", files=good).status_code == 200
        before = peak_memory(process)
        for route, (name, content, status) in zip(cycle(("/v1/search", "/v1/images")), hostile(), strict=False):
            start = time.perf_counter()
            result = client.post(route, files=upload(content))
            seconds = time.perf_counter() - start
            assert result.status_code == status, (name, result.text)
            assert seconds < 2, (name, seconds)
            detail = result.json()["message"]
            assert isinstance(detail, str) and "Traceback" not in detail and ".py" not in detail, name
            assert result.headers["content-security-policy"], name
            increase = peak_memory(process) - before
            assert increase < 100e6, (name, increase)
        print(f"peak memory: +{increase / 1e6:.0f} MB")
        assert client.get("/v1/info").json()["images"] == 50
        assert client.post("/v1/search", files=good).status_code == 200


def test_a_body_is_rejected_by_its_content_length(client):
    head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=5) as raw:
        raw.sendall(f"{head}Content-Length: {10**12}\r\n\r\n".encode())
        assert raw.makefile("rb").readline().split()[1] == b"413"


@pytest.mark.parametrize(
    ("kind", "limit"), [("multipart/form-data; boundary=x", 20 * 2**20), ("application/json", 2**21)]
)
def test_a_body_without_content_length_is_counted(client, kind, limit):
    route = "/v1/search" if "multipart" in kind else "/v1/search/vector"
    sent = 0

    def body():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        while sent < 10 * limit:
            sent += 2**16
            yield bytes(2**16)

    with contextlib.suppress(httpx.WriteError):
        result = client.post(route, content=body(), headers={"Content-Type": kind})
        assert result.status_code == 413
    assert client.get("/health").status_code == 200


def test_other_invalid_bodies(client):
    for content, headers, status in [
        (b"", {}, 422),
        (b"x", {"Content-Type": "multipart/form-data"}, 400),
        (b"x", {"Content-Type": "multipart/form-data; boundary=y"}, 400),
        (b"--y--", {"Content-Type": "multipart/form-data; boundary=y"}, 422),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"\xff\xd8\xff", {"Content-Type": "image/jpeg"}, 400),
    ]:
        result = client.post("/v1/search", content=content, headers=headers)
        assert result.status_code == status, (content, result.text)
    deep = b'{"vector": ' + b"[" * 100_000
    for content in (b"{", b"[]", b"\xff", b'{"vector": NaN}', b'{"k": 1e999, "vector": "\\ud800"}', deep):
        result = client.post("/v1/search/vector", content=content, headers={"Content-Type": "application/json"})
        assert result.status_code in (400, 422), result.text
    image = b'--y\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--y--\r\n'
    result = client.post("/v1/search", content=image, headers={"Content-Type": "multipart/form-data; boundary=y"})
    assert result.status_code == 422


def test_a_slow_body_is_rejected(folder):
    with serving(folder, idle_seconds=0.3, body_seconds=0.8) as client:
        address = ("127.0.0.1", client.port)
        head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        start = time.perf_counter()
        with socket.create_connection(address, timeout=5) as idle:
            idle.sendall(head + b"Content-Length: 1000\r\n\r\n--x\r\n")
            assert idle.recv(100).split()[1] == b"408"
            assert 0.2 < time.perf_counter() - start < 3
        start = time.perf_counter()
        with socket.create_connection(address, timeout=5) as drip:
            drip.sendall(head + b"Content-Length: 1000\r\n\r\n--x\r\n")
            with contextlib.suppress(OSError):
                for _ in range(10):
                    drip.sendall(b"a")
                    time.sleep(0.1)
            assert drip.recv(100).split()[1] == b"408"
            assert 0.7 < time.perf_counter() - start < 5
        assert client.get("/health").status_code == 200


# --- load


@pytest.fixture
def release_extractor(monkeypatch):
    """An event; the extractor waits until it is set."""
    go, compute = threading.Event(), ColorHistogram.compute

    def waiting(self, pixels):
        assert go.wait(20)
        return compute(self, pixels)

    monkeypatch.setattr(ColorHistogram, "compute", waiting)
    yield go
    go.set()


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not become true")


def number(client, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.M)[1])


def test_a_full_queue_returns_429_with_retry_after(folder, gallery, release_extractor):
    image = upload(gallery.paths[0].read_bytes())
    with serving(folder, queue=3, batch=1) as client, ThreadPoolExecutor(3) as pool:
        assert client.get("/ready").status_code == 503
        waiting = [pool.submit(httpx.post, f"{client.base_url}/v1/search", files=image, timeout=20) for _ in range(3)]
        wait_until(lambda: number(client, "lookalike_queue") == 3)
        for route in ("/v1/search", "/v1/images"):
            result = client.post(route, files=image)
            assert result.status_code == 429
            assert int(result.headers["retry-after"]) >= 1
        # Requests that need no extractor still work.
        assert client.get("/v1/search/id/1").status_code == 200
        assert client.get("/v1/images/1/thumbnail").status_code == 200
        release_extractor.set()
        assert [each.result().status_code for each in waiting] == [200] * 3
        assert client.post("/v1/search", files=image).status_code == 200
        wait_until(lambda: client.get("/ready").status_code == 200)
        assert number(client, 'lookalike_requests_total{method="POST",route="/v1/search",status="429"}') == 1


@pytest.mark.parametrize(("settings", "fit"), [({"queue": 2}, 4), ({"max_body": 1000}, 16)])
def test_simultaneous_bodies_are_limited_in_number_and_bytes(folder, settings, fit):
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with serving(folder, **settings) as client, contextlib.ExitStack() as stack:
        middleware = client.app.middleware_stack.app
        while not hasattr(middleware, "_bodies"):
            middleware = middleware.app
        for number in range(1, fit + 1):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=5))
            raw.sendall(head + b"Content-Length: 1000\r\n\r\n--x\r\n")
            wait_until(lambda number=number: middleware._bodies == number)
        assert client.post("/v1/search/vector", json={"vector": "AAAA"}).status_code == 429
        assert client.get("/health").status_code == 200
    assert (middleware._bodies, middleware._bytes) == (0, 0)


def test_a_timeout_returns_503(folder, gallery, release_extractor):
    with serving(folder, request_seconds=0.2) as client:
        result = client.post("/v1/search", files=upload(gallery.paths[0].read_bytes()))
        assert result.status_code == 503 and "retry-after" in result.headers
        release_extractor.set()


def test_disconnected_requests_are_not_extracted(folder, gallery, release_extractor):
    image = upload(gallery.paths[0].read_bytes())
    with serving(folder, batch=1) as client:
        for _ in range(4):
            with contextlib.suppress(httpx.ReadTimeout):
                httpx.post(f"{client.base_url}/v1/search", files=image, timeout=0.15)
        wait_until(lambda: number(client, "lookalike_queue") == 0)
        release_extractor.set()
        assert client.post("/v1/search", files=image).status_code == 200
        # At most the first one was already being extracted.
        assert number(client, "lookalike_batch_images_sum") <= 2


def test_simultaneous_requests_share_a_batch(folder, gallery, engine, release_extractor):
    """The first one is alone. While its image is extracted, the others come, and wait for each other."""
    with serving(folder, batch_seconds=0.2, batch=8) as client, ThreadPoolExecutor(8) as pool:
        images = [path.read_bytes() for path in gallery.paths[:8]]
        waiting = [
            pool.submit(httpx.post, f"{client.base_url}/v1/search?k=4", files=upload(each), timeout=20)
            for each in images
        ]
        wait_until(lambda: number(client, "lookalike_queue") == 8)
        release_extractor.set()
        found = [each.result() for each in waiting]
        assert [ids(each) for each in found] == [[a.id for a in engine.query(each, k=4)] for each in images]
        assert number(client, "lookalike_batch_images_count") == 2
        assert number(client, "lookalike_batch_images_sum") == 8


def test_a_large_upload_is_decoded_beside_the_thread_that_extracts(folder, gallery, engine, monkeypatch):
    """A lone small one is decoded in that thread, which saves time; a large one would delay other requests."""
    threads, decode = [], UploadedImage.decode

    def watched(self, info):
        threads.append(threading.current_thread().name.partition("_")[0])
        return decode(self, info)

    monkeypatch.setattr(UploadedImage, "decode", watched)
    pixels = read_image(gallery.paths[5])
    factor = int(2000 / min(pixels.shape[:2])) + 1
    large = encoded(np.kron(pixels, np.ones((factor, factor, 1), np.uint8)))
    with serving(folder) as client:
        for content in (encoded(pixels), large):
            found = client.post("/v1/search", files=upload(content), params={"k": 4})
            assert ids(found) == [each.id for each in engine.query(content, k=4)]
    assert threads == ["extract", "decode"]


def test_one_bad_image_fails_no_other_request(folder, gallery, release_extractor, monkeypatch):
    compute = ColorHistogram.compute

    def fails_for_black(self, pixels):
        found = compute(self, pixels)
        if not pixels.reshape(len(pixels), -1).any(axis=1).all():
            raise RuntimeError("black")
        return found

    monkeypatch.setattr(ColorHistogram, "compute", fails_for_black)
    images = [encoded(np.zeros((9, 9, 3), np.uint8)), *(path.read_bytes() for path in gallery.paths[:3])]
    with serving(folder, batch=8) as client, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(client.post, "/v1/search", files=upload(each)) for each in images]
        wait_until(lambda: number(client, "lookalike_queue") == 4)
        release_extractor.set()
        assert [each.result().status_code for each in waiting] == [500, 200, 200, 200]


def test_pixels_in_memory_are_limited(folder, monkeypatch):
    now, peak, lock, decode = 0, 0, threading.Lock(), UploadedImage.decode

    def watched(self, info):
        nonlocal now, peak
        with lock:
            now += info.pixels
            peak = max(peak, now)
        time.sleep(0.15)
        with lock:
            now -= info.pixels
        return decode(self, info)

    monkeypatch.setattr(UploadedImage, "decode", watched)
    image = upload(encoded(np.zeros((300, 300, 3), np.uint8)))
    with serving(folder, max_pixels=200_000, decoders=4) as client, ThreadPoolExecutor(12) as pool:
        # After a disconnect the thread continues to decode, and its pixels count until it is done.
        for _ in range(6):
            with contextlib.suppress(httpx.ReadTimeout):
                httpx.post(f"{client.base_url}/v1/search", files=image, timeout=0.03)
        jobs = [pool.submit(client.post, "/v1/search", files=image) for _ in range(12)]
        assert {job.result().status_code for job in jobs} == {200}
        wait_until(lambda: client.app.state.service._extraction._pixels._used == 0)
    assert 90_000 < peak <= 200_000


def test_an_error_of_the_extractor_fails_only_the_request(folder, gallery, monkeypatch, caplog):
    def broken(self, pixels):
        raise RuntimeError("internal secret")

    image = upload(gallery.paths[0].read_bytes())
    with serving(folder) as client:
        wait_until(lambda: client.get("/ready").status_code == 200)
        with monkeypatch.context() as patch:
            patch.setattr(ColorHistogram, "compute", broken)
            result = client.post("/v1/search", files=image)
        assert result.status_code == 500
        detail = result.json()["message"]
        assert "secret" not in detail and set(result.headers) >= {name.lower() for name in HEADERS}
        shown = re.search(r"number (\w{12})", detail)[1]
        assert shown in caplog.text and "internal secret" in caplog.text
        assert client.post("/v1/search", files=image).status_code == 200


@pytest.mark.parametrize("rule", ["squash", "pad", "crop"])
def test_reduced_images_have_the_same_vectors(gallery, rule):
    images = [read_image(path) for path in gallery.paths[:6]]
    extractor = ColorHistogram()
    extractor.resize_rule = rule
    early = [reduced(image, extractor) for image in images]
    np.testing.assert_array_equal(extractor.extract_arrays(early), extractor.extract_arrays(images))
    assert all(each.shape == (128, 128, 3) for each in early) == (rule != "crop")
    both = open_extractor("hog+hsv-histogram")
    early = [reduced(image, both) for image in images]
    np.testing.assert_array_equal(both.extract_arrays(early), both.extract_arrays(images))


# --- responses, metrics and settings


def test_every_response_has_the_security_headers(client):
    for method, path, status in [
        ("GET", "/", 200), ("GET", "/docs", 200), ("GET", "/static/icon.svg", 200), ("GET", "/openapi.json", 200),
        ("GET", "/v1/info", 200), ("GET", "/v1/images/1/thumbnail", 200), ("GET", "/health", 200),
        ("GET", "/nothing", 404), ("PUT", "/v1/info", 405), ("GET", "/v1/images/x", 422),
        ("GET", "/v1/info/", 404),
    ]:  # fmt: skip
        result = client.request(method, path)
        assert result.status_code == status, path
        assert {name: result.headers.get(name) for name in HEADERS} == HEADERS, path
        assert "server" not in result.headers
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "default-src 'self'" in policy
    for path in ("/", "/docs"):
        page = client.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page), "no inline scripts or styles"


def test_the_version_is_that_of_the_command_line(client, capsys):
    assert main(["--version"]) == 0
    assert client.get("/version").json() == {"version": capsys.readouterr().out.split()[-1], "api": "v1"}


def test_metrics_count_routes_and_not_urls(client):
    for path in ("/v1/images/1", "/v1/images/2", "/made-up/1", "/made-up/2"):
        client.get(path)
    client.request("MADEUP", "/v1/info")
    result = client.get("/metrics")
    assert result.headers["content-type"].startswith("text/plain; version=0.0.4")
    routes = set(re.findall(r'lookalike_requests_total\{.*?route="(.*?)"', result.text))
    assert "/v1/images/{id}" in routes and not any("/1" in route or "made" in route for route in routes)
    assert "MADEUP" not in result.text
    assert number(client, "lookalike_images") == 50


def test_the_shared_socket_sends_without_delay(monkeypatch):
    """Accepted connections inherit TCP_NODELAY. Without it each response takes 40 ms longer."""
    options = []

    class Workers:
        def __init__(self, config, sockets):
            options.extend(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)

        def run(self):
            pass

    monkeypatch.setattr(server, "Multiprocess", Workers)
    server._run_workers(uvicorn.Config("helpers.service.server:from_environment", port=0, workers=2, log_level="error"))
    assert len(options) == 1 and options[0]


def test_settings_reach_workers_without_the_key(folder, monkeypatch):
    chosen = Settings(folder=folder, api_key="secret", queue=7, hosts=["Me.example"])
    assert "secret" not in chosen.to_json() and "secret" not in repr(chosen)
    assert Settings.from_json(chosen.to_json(), "secret") == chosen
    assert json.loads(chosen.to_json())["queue"] == 7
    monkeypatch.setenv("LOOKALIKE_API_KEY", " secret ")
    with paths.worker_environment(chosen.to_json(), folder, "warning"):
        assert Settings.from_json(paths.serve_settings(), paths.api_key()) == chosen
        assert paths.serve_log_level() == "warning"
        assert paths.metrics_dir() == folder
    assert paths.serve_settings() is None and paths.metrics_dir() is None
    monkeypatch.setenv("LOOKALIKE_API_KEY", "")
    assert paths.api_key() is None
    monkeypatch.setenv("LOOKALIKE_API_KEY", "schlüssel")
    with pytest.raises(ValueError, match="LOOKALIKE_API_KEY"):
        paths.api_key()
    with pytest.raises(RuntimeError, match="lookalike serve"):
        server.from_environment()
    for wrong in ({"queue": 0}, {"max_body": -1}, {"request_seconds": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            Settings(folder=folder, **wrong)
