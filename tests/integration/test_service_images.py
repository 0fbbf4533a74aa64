"""Single images over HTTP: details, files, classes, undo; and marks, explanations, duplicates, exports, page files."""

import base64
import gzip
import io
import re
import shutil
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import ExifTags, Image

from helpers.features.explain import explain
from helpers.images import samples
from helpers.images.file_details import file_details
from helpers.images.folders import from_folder
from helpers.images.reading import read_image
from helpers.picker.search import Method, QueryImage, Searcher
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.search.persist.sync import sync
from helpers.service import removed_images
from helpers.service.exports import safe_names
from tests.integration.test_service import encoded, ids, serving, upload


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Two classes; the first image has the metadata of a camera, and the name of the last one is no plain text."""
    root = tmp_path_factory.mktemp("own") / "gallery"
    images = samples.photos()
    for name in ("birds", "fruit"):
        (root / name).mkdir(parents=True)
        for row in np.flatnonzero(images.labels == images.class_names.index(name))[:10]:
            shutil.copy(images.paths[row], root / name)
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "Canon EOS 5D"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:31 18:04:09"
    Image.fromarray(read_image(images.paths[0])[:40]).save(root / "birds" / "0 camera.jpg", exif=exif)
    shutil.copy(images.paths[-1], root / "fruit" / 'zürich "☃".jpg')
    return from_folder(root)


@pytest.fixture(scope="module")
def engine(gallery):
    return Engine("hsv-histogram").fit(gallery)


@pytest.fixture
def folder(engine, tmp_path):
    return engine.save(tmp_path / "own.index")


@pytest.fixture(scope="module")
def client(engine, tmp_path_factory):
    """A client of a service that the tests do not change."""
    with serving(engine.save(tmp_path_factory.mktemp("shared") / "own.index")) as client:
        yield client


def keys(client, **parameters):
    return [each["key"] for each in client.get("/v1/images", params=parameters).json()["images"]]


def row_of(gallery, part):
    return next(row for row, key in enumerate(gallery.keys) if part in key)


def test_details_of_a_photograph(client, gallery):
    row = row_of(gallery, "camera")
    found = client.get(f"/v1/images/{row}/details").json()
    width = read_image(gallery.paths[row]).shape[1]
    assert (found["width"], found["height"]) == (40, read_image(gallery.paths[row]).shape[0]) and width == 40
    assert (found["taken"], found["camera"]) == ("2024-05-31T18:04:09", "Canon EOS 5D")
    assert (found["bytes"], found["format"]) == (gallery.paths[row].stat().st_size, "JPEG")
    assert found["key"] == "birds/0 camera.jpg" and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", found["modified"])
    plain = client.get("/v1/images/2/details").json()
    assert (plain["taken"], plain["camera"]) == (None, None)
    assert client.get("/v1/images/99/details").status_code == 404


@pytest.mark.parametrize("date", ["0000:00:00 00:00:00", "2024:13:01 10:00:00", "    :  :     :  :  "])
def test_an_invalid_date_is_unknown(tmp_path, date):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert file_details(tmp_path / "a.jpg").taken is None


def test_sizes_of_some_images(client, gallery):
    row = row_of(gallery, "camera")
    sizes = client.get("/v1/images/sizes", params={"id": [row, 3, 99]}).json()["sizes"]
    shapes = {each: read_image(gallery.paths[each]).shape for each in (row, 3)}
    assert sizes == {str(each): [shape[1], shape[0]] for each, shape in shapes.items()}


def test_the_original_is_a_download(client, gallery):
    row = row_of(gallery, "zürich")
    sent = client.get(f"/v1/images/{row}/original")
    assert sent.content == gallery.paths[row].read_bytes()
    assert sent.headers["content-type"] == "application/octet-stream"
    assert sent.headers["content-disposition"] == "attachment; filename*=utf-8''z%C3%BCrich%20_%E2%98%83_.jpg"
    assert client.get("/v1/images/99/original").status_code == 404


def test_lists_are_sorted(client, gallery):
    sizes = {key: path.stat().st_size for key, path in zip(gallery.keys, gallery.paths, strict=True)}
    assert keys(client) == list(gallery.keys)
    assert keys(client, sort="size") == sorted(gallery.keys, key=sizes.__getitem__)
    assert keys(client, sort="-size", limit=3) == sorted(gallery.keys, key=sizes.__getitem__, reverse=True)[:3]
    names = keys(client, sort="-name")
    assert names == sorted(gallery.keys, key=lambda key: key.split("/")[1].casefold(), reverse=True)
    assert keys(client, sort="-class")[0].startswith("fruit") and keys(client, sort="class")[0].startswith("birds")
    assert all(key.startswith("fruit") for key in keys(client, sort="name", class_name="fruit"))
    assert client.get("/v1/images", params={"sort": "color"}).status_code == 422


def test_sizes_belong_to_the_images_of_another_save(tmp_path):
    """Another save gives the ids to other images, and a sync replaces the image at a path."""
    root = tmp_path / "gallery"
    root.mkdir()

    def paint(name, side):
        Image.effect_noise((side, side), 64).convert("RGB").save(root / name)

    def save():
        return Engine("hsv-histogram").fit(from_folder(root)).save(tmp_path / "own.index", replace=True)

    paint("b.png", 40), paint("c.png", 30)
    with serving(save()) as client, LiveEngine.open(tmp_path / "own.index") as other:
        assert keys(client, sort="size") == ["c.png", "b.png"]
        paint("a.png", 20), paint("c.png", 50)
        sync(other, from_folder(root))
        assert keys(client, sort="size") == ["a.png", "b.png", "c.png"]
        (root / "b.png").unlink()
        save()
        assert keys(client) == ["a.png", "c.png"]
        paint("b.png", 10), paint("c.png", 60)
        save()
        assert keys(client, sort="size") == ["b.png", "a.png", "c.png"]


def test_a_class_is_changed_and_the_change_is_saved(folder, engine):
    with serving(folder) as client:
        before = engine.query(engine.gallery.paths[3], k=1)[0]
        changed = client.patch("/v1/images/3", json={"class_name": "owls"})
        assert changed.status_code == 200
        new = changed.json()["id"]
        assert changed.json() | {"class_name": "owls", "key": engine.gallery.keys[3]} == changed.json()
        assert client.get("/v1/images/3").status_code == 404 and new == len(engine.gallery)
        assert {"name": "owls", "count": 1} in client.get("/v1/info").json()["classes"]
        content = upload(engine.gallery.paths[3].read_bytes())
        best = client.post("/v1/search", files=content, params={"k": 1}).json()["results"][0]
        assert best["id"] == new and best["score"] == pytest.approx(before.score)
        same = client.patch(f"/v1/images/{new}", json={"class_name": "owls"})
        assert (same.status_code, same.json()["id"]) == (200, new)
        none = client.patch(f"/v1/images/{new}", json={"class_name": None}).json()
        assert none["class_name"] is None and client.get("/v1/info").json()["images"] == len(engine.gallery)
        for body in ({}, {"class_name": ""}, {"class_name": "a\nb"}, {"class_name": "a", "name": "b"}):
            assert client.patch(f"/v1/images/{none['id']}", json=body).status_code == 422
        assert client.patch("/v1/images/99", json={"class_name": "owls"}).status_code == 404
    with LiveEngine.open(folder) as live:
        assert live.engine.table.class_name(none["id"]) is None


def test_removed_images_are_restored(folder, engine, gallery):
    upload_pixels = encoded(255 - read_image(gallery.paths[0]))
    with serving(folder) as client:
        added = client.post("/v1/images", files=upload(upload_pixels, "mine.png"), params={"class_name": "new"}).json()
        file = folder / added["key"]
        assert client.delete(f"/v1/images/{added['id']}").status_code == 204 and not file.exists()
        assert client.delete("/v1/images/4").status_code == 204
    # Another process restores them.
    with serving(folder) as client:
        back = client.post(f"/v1/images/{added['id']}/restore")
        assert back.status_code == 200
        assert back.json() | {"name": "mine.png", "class_name": "new", "key": added["key"]} == back.json()
        assert file.exists() and client.get(f"/v1/images/{back.json()['id']}/file").status_code == 200
        found = client.post("/v1/search", files=upload(upload_pixels), params={"k": 1}).json()["results"][0]
        assert found["id"] == back.json()["id"] and found["score"] == pytest.approx(1, abs=1e-6)
        own = client.post("/v1/images/4/restore").json()
        assert (own["key"], own["class_name"]) == (gallery.keys[4], "birds")
        assert client.get("/v1/info").json()["images"] == len(gallery) + 1
        for id in (4, 7, 99):
            again = client.post(f"/v1/images/{id}/restore")
            assert again.status_code == 404 and "cannot be restored" in again.json()["message"]
    assert list((folder / removed_images.FOLDER).iterdir()) == []


def test_removed_uploads_are_deleted_later(folder, gallery):
    with serving(folder) as client:
        added = client.post("/v1/images", files=upload(encoded(255 - read_image(gallery.paths[0])))).json()
        client.delete(f"/v1/images/{added['id']}")
    kept = removed_images.RemovedImages(folder)
    assert len(list((folder / removed_images.FOLDER).iterdir())) == 2
    kept.sweep(now=time.time() + removed_images.SECONDS - 60)
    assert kept.get(added["id"]) is not None
    kept.sweep(now=time.time() + removed_images.SECONDS + 60)
    assert kept.get(added["id"]) is None and list((folder / removed_images.FOLDER).iterdir()) == []


def test_edits_need_the_key(folder):
    with serving(folder, key="secret") as client:
        edits = [("PATCH", "/v1/images/1", {"class_name": "a"}), ("POST", "/v1/images/1/restore", None)]
        for method, path, body in [*edits, ("GET", "/v1/duplicates", None)]:
            assert client.request(method, path, json=body).status_code == 401
        assert (
            client.patch("/v1/images/1", json={"class_name": "a"}, headers={"X-API-Key": "secret"}).status_code == 200
        )
        other = {"X-API-Key": "secret", "Origin": "https://example.org"}
        assert client.patch("/v1/images/2", json={"class_name": "a"}, headers=other).status_code == 403


def test_marks_give_the_order_of_the_picker(client, gallery):
    searcher = Searcher(gallery, ["hsv-histogram"], ["exact:cosine"], None, lambda _: None)
    good, bad = [12, 15], [3]
    query = QueryImage(lambda: read_image(gallery.paths[5]), row=5)
    for name in ("none", "expansion", "k-reciprocal", "geometry"):
        found, _ = searcher.search(Method("hsv-histogram", "exact:cosine", name), [query], [], 12, good, bad)
        parameters = {"k": 12, "good": good, "bad": bad, "rerank": name}
        marked = client.get("/v1/search/id/5", params=parameters)
        assert ids(marked) == [row for row, *_ in found], name
        assert [each["score"] for each in marked.json()["results"]] == pytest.approx([score for _, score, _ in found])
    plain = client.get("/v1/search/id/5", params={"k": 12, "vectors": True})
    assert ids(plain) != ids(client.get("/v1/search/id/5", params={"k": 12, "good": good, "bad": bad}))
    marks = {"k": 12, "good": good, "bad": bad}
    # The vector of a response is that of the query without marks.
    again = client.post("/v1/search/vector", json={"vector": plain.json()["vector"], **marks})
    assert [id for id in ids(again) if id != 5][:11] == ids(client.get("/v1/search/id/5", params=marks))[:11]
    combined = client.post("/v1/search/combined", json={"parts": [{"id": 5}], **marks})
    assert ids(combined) == ids(client.get("/v1/search/id/5", params=marks))
    assert client.get("/v1/search/id/5", params={"good": 99}).status_code == 404
    assert client.get("/v1/search/id/5", params={"good": "x"}).status_code == 422


def test_an_explanation_is_that_of_the_library(client, engine, gallery):
    why = explain(engine.extractor, read_image(gallery.paths[2]), read_image(gallery.paths[6]))
    by_id = client.post("/v1/images/6/why", params={"query_id": 2})
    assert by_id.status_code == 200, by_id.text
    assert by_id.json()["similarity"] == pytest.approx(why.similarity) and by_id.json()["method"] == why.method
    by_upload = client.post("/v1/images/6/why", files=upload(gallery.paths[2].read_bytes()))
    assert by_upload.json() == by_id.json()
    for side, row in (("query", 2), ("result", 6)):
        start, content = by_id.json()[side].split(",")
        assert start == "data:image/jpeg;base64"
        shown = Image.open(io.BytesIO(base64.b64decode(content)))
        height, width = read_image(gallery.paths[row]).shape[:2]
        assert shown.width / shown.height == pytest.approx(width / height, rel=0.02)
    part = {"query_id": 2, "left": 0, "top": 0, "width": 0.5, "height": 0.5}
    assert client.post("/v1/images/6/why", params=part).json()["similarity"] != by_id.json()["similarity"]
    assert client.post("/v1/images/6/why").status_code == 422
    assert client.post("/v1/images/99/why", params={"query_id": 2}).status_code == 404


def test_duplicates_are_found_and_follow_removals(tmp_path, gallery):
    root = tmp_path / "gallery"
    shutil.copytree(gallery.root, root)
    original = gallery.paths[2]
    small = Image.open(original)
    small.resize((small.width // 2, small.height // 2)).save(root / "fruit" / "small.jpg", quality=80)
    shutil.copy(original, root / "fruit" / "z same.jpg")
    shutil.copy(gallery.paths[15], root / "birds" / "another.jpg")
    images = from_folder(root)
    with serving(Engine("hsv-histogram").fit(images).save(tmp_path / "own.index")) as client:
        groups = duplicates(client)
        found = [{each["key"] for each in group["images"]} for group in groups]
        first = {gallery.keys[2], "fruit/small.jpg", "fruit/z same.jpg"}
        assert found[0] == first and {gallery.keys[15], "birds/another.jpg"} in found
        kept = [each["key"] for each in groups[0]["images"] if each["keep"]]
        assert kept == [gallery.keys[2]], "the most pixels, then the first of equal ones"
        how = {each["key"]: each["how"] for each in groups[0]["images"]}
        assert (how["fruit/z same.jpg"], how["fruit/small.jpg"], how[gallery.keys[2]]) == ("bytes", "hash", None)
        others = [each["id"] for each in groups[0]["images"] if not each["keep"]]
        client.delete(f"/v1/images/{others[0]}")
        assert len(client.get("/v1/duplicates").json()["groups"][0]["images"]) == 2, "known without another search"
        client.delete(f"/v1/images/{others[1]}")
        remaining = client.get("/v1/duplicates").json()["groups"]
        assert len(remaining) == len(groups) - 1


def test_a_replaced_image_is_not_the_copy_that_its_path_was(tmp_path, gallery):
    root = tmp_path / "gallery"
    (root / "fruit").mkdir(parents=True)
    for row, name in enumerate(["a.jpg", "b.jpg", "c.jpg"]):
        shutil.copy(gallery.paths[row], root / "fruit" / name)
    shutil.copy(root / "fruit" / "a.jpg", root / "fruit" / "b.jpg")
    folder = Engine("hsv-histogram").fit(from_folder(root)).save(tmp_path / "own.index")
    with serving(folder) as client, LiveEngine.open(folder) as other:
        (group,) = duplicates(client)
        assert [each["key"] for each in group["images"]] == ["fruit/a.jpg", "fruit/b.jpg"]
        shutil.copy(gallery.paths[15], root / "fruit" / "b.jpg")
        sync(other, from_folder(root))
        assert duplicates(client) == []
        # The search by content goes on to follow changes of ids.
        shutil.copy(root / "fruit" / "a.jpg", root / "fruit" / "c.jpg")
        sync(other, from_folder(root))
        (group,) = duplicates(client)
        changed = client.patch(f"/v1/images/{group['images'][0]['id']}", json={"class_name": "owls"}).json()
        (group,) = client.get("/v1/duplicates").json()["groups"]
        assert changed["id"] in [each["id"] for each in group["images"]]


def duplicates(client):
    for _ in range(200):
        found = client.get("/v1/duplicates").json()
        if found["state"] == "done":
            return found["groups"]
        time.sleep(0.05)
    raise AssertionError("the search for duplicates does not end")


def test_an_export_has_the_files(client, gallery):
    rows = [0, 5, row_of(gallery, "zürich")]
    sent = client.get("/v1/images/export", params={"id": [*rows, 5]})
    assert sent.headers["content-disposition"] == 'attachment; filename="gallery.zip"'
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [gallery.keys[0], gallery.keys[5], "fruit/zürich _☃_.jpg"]
        for name, row in zip(archive.namelist(), rows, strict=True):
            assert archive.read(name) == gallery.paths[row].read_bytes()
    assert client.get("/v1/images/export", params={"id": 99}).status_code == 404
    assert client.get("/v1/images/export").status_code == 422
    assert client.get("/v1/images/export", params={"id": [1] * 501}).status_code == 422


def test_an_export_reads_the_gallery_outside_the_event_loop(client, monkeypatch):
    gallery_search, threads = client.app.state.service.gallery_search, []
    summary = gallery_search.summary
    monkeypatch.setattr(
        gallery_search, "summary", lambda: threads.append(threading.current_thread().name) or summary()
    )  # fmt: skip
    assert client.get("/v1/images/export", params={"id": 1}).status_code == 200
    assert threads and all(name.startswith("search") for name in threads)


def test_names_in_an_export_stay_in_its_folder():
    names = ["../../etc/passwd", "/a/b.jpg", "a/b.jpg", "A/B.jpg", "..", "a\\..\\c.png", "x/\ud800.jpg"]
    assert safe_names(names) == [
        "etc/passwd", "a/b.jpg", "a/b (2).jpg", "A/B (3).jpg", "image", "a_.._c.png", safe_names(["x/\ud800.jpg"])[0],
    ]  # fmt: skip
    safe_names(["x/\ud800.jpg"])[0].encode()


@pytest.mark.parametrize("path", ["/static/page.js", "/static/page.css", "/"])
def test_page_files_are_compressed_and_cached(client, path):
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    packed = client.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    refused = client.get(path, headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in plain.headers and "content-encoding" not in refused.headers
    assert packed.headers["content-encoding"] == "gzip" and plain.text == packed.text
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    for sent in (plain, packed):
        assert sent.headers["vary"] == "Accept-Encoding" and sent.headers["cache-control"] == "no-cache"
        known = {"If-None-Match": sent.headers["etag"], "Accept-Encoding": sent.request.headers["accept-encoding"]}
        again = client.get(path, headers=known)
        assert (again.status_code, again.content) == (304, b"")
    assert plain.headers["etag"] != packed.headers["etag"]
    head = client.head(path)
    assert head.status_code == 200 and head.content == b""


def test_the_page_is_small(client):
    """The scripts of the page, as a browser receives them, have fewer than 60 kB; and so has all of the page."""
    from helpers.service.page_routes import FOLDERS

    sizes = {}
    for prefix, folder in FOLDERS:
        for file in folder.glob("*.js"):
            sizes[file.name] = len(gzip.compress(file.read_bytes(), 9))
            sent = client.get(f"/static/{prefix}{file.name}")
            assert int(sent.headers["content-length"]) <= sizes[file.name] + 100, file.name
    assert 10_000 < sum(sizes.values()) < 60_000, sizes


def test_browsers_see_a_page_where_nothing_is(client):
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    shown = client.get("/no/such/page", headers=browser)
    assert shown.status_code == 404 and shown.headers["content-type"].startswith("text/html")
    assert "There is nothing at this address" in shown.text and '<base href="/">' in shown.text
    for path, headers in [("/no", {}), ("/v1/no", browser), ("/static/no.js", browser), ("/static/not_found.html", {})]:
        missing = client.get(path, headers=headers)
        assert missing.status_code == 404 and "code" in missing.json()
