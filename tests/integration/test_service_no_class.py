"""The filter for images without a class, in all kinds of searches and in the list of images."""

import shutil

import httpx
import pytest

from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.schemas import to_text
from helpers.service.settings import Settings
from tests.integration.conftest import two_classes

#: The gallery has five images without a class.
WITHOUT = 5


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    root = two_classes(tmp_path_factory.mktemp("photos"), 10)
    for path in samples.photos().paths[10 : 10 + WITHOUT]:
        shutil.copy(path, root)
    return Engine("hsv-histogram").fit(from_folder(root))


@pytest.fixture(scope="module")
def without(engine):
    """The ids of the images without a class."""
    found = {row for row, label in enumerate(engine.gallery.labels) if label < 0}
    assert len(found) == WITHOUT
    return found


@pytest.fixture
def client(engine, serve_app, tmp_path, own_cache):
    with httpx.Client(
        base_url=serve_app(create_app(Settings(engine.save(tmp_path / "own.engine")))), timeout=20
    ) as own:
        yield own


def requests(engine):
    """Method, address and body of each kind of search, without its options."""
    vector, photo = to_text(engine.index.vectors([3])[0]), samples.photos().paths[40].read_bytes()
    return [
        ("GET", "/v1/search/id/3", {}),
        ("POST", "/v1/search", {"files": {"image": ("a.jpg", photo)}}),
        ("POST", "/v1/search/batch/upload", {"files": {"image": ("a.jpg", photo)}}),
        ("POST", "/v1/search/vector", {"json": {"vector": vector}}),
        ("POST", "/v1/search/combined", {"json": {"parts": [{"vector": vector}]}}),
        ("POST", "/v1/search/batch", {"json": {"queries": [{"vector": vector}]}}),
    ]


def send(client, request, **options):
    """The response to a search with options, which are in its JSON body or in the address."""
    method, path, body = request
    if "json" in body:
        return client.request(method, path, json=body["json"] | options)
    return client.request(method, path, params=options, **body)


def test_every_search_finds_only_images_without_a_class(client, engine, without):
    for request in requests(engine):
        found = send(client, request, no_class=True, k=50)
        assert found.status_code == 200, found.text
        search = found.json()["items"][0]["search"] if "/batch" in request[1] else found.json()
        query = {3} if request[1].endswith("/3") else set()
        assert {each["id"] for each in search["results"]} == without - query, request[1]
        assert {each["class_name"] for each in search["results"]} == {None}
        assert search["note"].endswith("images without a class.") and search["more"] is False
        everything = send(client, request, no_class=False, k=50).json()
        everything = everything["items"][0]["search"] if "/batch" in request[1] else everything
        assert {each["class_name"] for each in everything["results"]} == {None, "a", "b"}


def test_a_class_and_no_class_exclude_each_other(client, engine):
    for request in requests(engine):
        found = send(client, request, no_class=True, class_name="a")
        assert (found.status_code, found.json()["code"]) == (422, "invalid_request"), request[1]
        assert "class_name and no_class" in found.json()["message"]
        assert send(client, request, no_class=False, class_name="a").status_code == 200
    assert client.get("/v1/images", params={"no_class": True, "class_name": "a"}).status_code == 422


def test_the_list_has_pages_of_images_without_a_class(client, without):
    first = client.get("/v1/images", params={"no_class": True, "limit": 3}).json()
    second = client.get("/v1/images", params={"no_class": True, "limit": 3, "offset": 3, "sort": "id"}).json()
    assert first["total"] == second["total"] == WITHOUT
    assert [each["id"] for each in first["images"] + second["images"]] == sorted(without)


def test_the_number_of_images_without_a_class_follows_changes(client, without):
    assert client.get("/v1/info").json()["no_class"] == WITHOUT
    changed = client.patch(f"/v1/images/{min(without)}", json={"class_name": "a"})
    assert changed.status_code == 200
    assert client.get("/v1/info").json()["no_class"] == WITHOUT - 1
    assert client.get("/v1/images?no_class=true").json()["total"] == WITHOUT - 1
    removed = client.patch(f"/v1/images/{changed.json()['id']}", json={"class_name": None})
    found = client.get("/v1/search/id/0?no_class=true&k=50").json()["results"]
    assert removed.json()["id"] in {each["id"] for each in found} and len(found) <= WITHOUT
