"""Batches of queries, and images that are the body of a request."""

import httpx
import numpy as np
import pytest

from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.schemas import from_text, to_text
from helpers.service.settings import Settings
from tests.integration.conftest import two_classes


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine("hsv-histogram").fit(from_folder(two_classes(tmp_path_factory.mktemp("photos"), 30)))


@pytest.fixture
def client(engine, serve_app, tmp_path, own_cache):
    app = create_app(Settings(engine.save(tmp_path / "own.engine")))
    with httpx.Client(base_url=serve_app(app), timeout=20) as client:
        client.app = app
        yield client


@pytest.fixture(scope="module")
def photos():
    return [path.read_bytes() for path in samples.photos().paths[40:44]]


def ranking(found):
    return [(each["id"], each["score"]) for each in found["results"]]


def searched(client, photo, **parameters):
    result = client.post("/v1/search", files={"image": ("a.jpg", photo)}, params=parameters)
    assert result.status_code == 200, result.text
    return result.json()


# --- images as bodies


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "image/png", "IMAGE/JPEG; charset=binary", "image/x-unknown", "application/octet-stream"]
)
def test_a_body_that_is_an_image_equals_a_file_of_a_form(client, photos, kind):
    found = client.post("/v1/search?k=5", content=photos[0], headers={"Content-Type": kind})
    assert found.status_code == 200, found.text
    assert ranking(found.json()) == ranking(searched(client, photos[0], k=5))


def test_a_body_without_a_length_is_accepted(client, photos):
    chunks = (photos[0][start : start + 1000] for start in range(0, len(photos[0]), 1000))
    found = client.post("/v1/search?k=5", content=chunks, headers={"Content-Type": "image/jpeg"})
    assert ranking(found.json()) == ranking(searched(client, photos[0], k=5))


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json", "image"])
def test_other_bodies_are_refused_with_the_types_that_are_known(client, photos, kind):
    # The default of curl --data-binary is a form.
    result = client.post("/v1/search", content=photos[0], headers={"Content-Type": kind} if kind else {})
    assert (result.status_code, result.json()["code"]) == (415, "unsupported_content_type"), result.text
    assert "multipart/form-data, image/* or application/octet-stream" in result.json()["message"]


def test_a_route_with_a_json_body_refuses_others(client):
    result = client.post("/v1/search/vector", content=b'{"vector": "AAAA"}', headers={"Content-Type": "text/plain"})
    assert (result.status_code, result.json()["code"]) == (415, "unsupported_content_type")
    assert result.json()["message"].endswith("It must be application/json.")


def test_a_large_image_is_accepted_as_a_body_and_a_larger_one_is_not(engine, serve_app, tmp_path):
    content = samples.photos().paths[0].read_bytes()
    # A JSON body of this size is refused.
    content += bytes(3 * 2**20)
    app = create_app(Settings(engine.save(tmp_path / "own.engine"), max_body=4 * 2**20))
    with httpx.Client(base_url=serve_app(app), timeout=20) as client:
        for extra, status in ((b"", 200), (bytes(2**20), 413)):
            result = client.post("/v1/search", content=content + extra, headers={"Content-Type": "image/jpeg"})
            assert result.status_code == status, result.text


def test_an_image_is_added_as_a_body_with_its_name(client, photos):
    headers = {"Content-Type": "image/jpeg"}
    added = client.post("/v1/images?class_name=a&name=beach.jpg", content=photos[0], headers=headers)
    assert added.status_code == 201
    assert (added.json()["name"], added.json()["class_name"]) == ("beach.jpg", "a")
    assert client.post("/v1/images", files={"image": ("other.jpg", photos[0])}).json()["id"] == added.json()["id"]
    regions = client.post("/v1/regions?source=grid", content=photos[0], headers=headers)
    assert len(regions.json()["regions"]) > 1
    why = client.post("/v1/images/3/why", content=photos[0], headers=headers)
    assert why.status_code == 200 and why.json()["similarity"] < 1


# --- batches


def test_a_batch_gives_what_its_queries_give(client, engine):
    vectors = [to_text(vector) for vector in engine.index.vectors([3, 4])]
    for settings in (
        {"k": 5}, {"k": 4, "offset": 3}, {"class_name": "b"}, {"threshold": 0.5}, {"exclude": [1, 2]},
        {"good": [3, 5]}, {"bad": [4], "k": 3},
        {"rerank": "expansion"}, {"rerank": "geometry", "k": 3},
    ):  # fmt: skip
        queries = [{"id": 7}, {"id": 0}]
        if settings.get("rerank") != "geometry":
            queries += [{"vector": each} for each in vectors]
        found = client.post("/v1/search/batch", json={"queries": queries, **settings}).json()["items"]
        assert len(found) == len(queries)
        for query, item in zip(queries, found, strict=True):
            if "id" in query:
                alone = client.get(f"/v1/search/id/{query['id']}", params=settings)
            else:
                alone = client.post("/v1/search/vector", json=query | settings)
            assert item["error"] is None
            assert ranking(item["search"]) == ranking(alone.json()), (query, settings)
            assert item["search"]["note"] == alone.json()["note"]


def test_a_batch_of_uploads_gives_what_its_images_give(client, photos):
    for settings in ({"k": 5}, {"k": 5, "class_name": "a", "rerank": "geometry"}, {"k": 3, "vectors": True}):
        files = [("image", ("a.jpg", each)) for each in photos]
        found = client.post("/v1/search/batch/upload", files=files, params=settings).json()["items"]
        for photo, item in zip(photos, found, strict=True):
            alone = searched(client, photo, **settings)
            assert [id for id, _ in ranking(item["search"])] == [id for id, _ in ranking(alone)]
            if "vectors" in settings:
                np.testing.assert_allclose(from_text(item["search"]["vector"]), from_text(alone["vector"]), atol=1e-6)


def test_the_images_of_a_batch_are_extracted_together(client, photos, monkeypatch):
    batches, sizes = client.app.state.service._extraction._batches, []
    extract = batches._extract
    monkeypatch.setattr(batches, "_extract", lambda images: sizes.append(len(images)) or extract(images))
    files = [("image", ("a.jpg", each)) for each in photos]
    assert client.post("/v1/search/batch/upload", files=files).status_code == 200
    assert sum(sizes) == 4 and max(sizes) > 1


def test_an_error_of_one_query_leaves_the_others(client, photos):
    queries = [{"id": 1}, {"id": 999}, {"vector": "AAAA"}]
    items = client.post("/v1/search/batch", json={"queries": queries, "k": 2}).json()["items"]
    assert [each["error"] and each["error"]["code"] for each in items] == [None, "image_not_found", "invalid_request"]
    assert [each["search"] is None for each in items] == [False, True, True]
    files = [("image", ("a.jpg", photos[0])), ("image", ("b.jpg", photos[1][:500])), ("image", ("c.txt", b"text"))]
    items = client.post("/v1/search/batch/upload", files=files, params={"k": 2}).json()["items"]
    assert [each["error"] and each["error"]["code"] for each in items] == [None, "image_damaged", "unsupported_image"]


def test_a_batch_whose_queries_all_fail_for_one_reason_fails(client):
    for body, code in (
        ({"queries": [{"id": 999}, {"id": 998}]}, "image_not_found"),
        ({"queries": [{"id": 1}, {"id": 2}], "class_name": "c"}, "class_not_found"),
    ):
        result = client.post("/v1/search/batch", json=body)
        assert (result.status_code, result.json()["code"]) == (404, code)


@pytest.mark.parametrize(
    "queries",
    [[], [{}], [{"id": 1, "vector": "AAAA"}], [{"id": -1}], [{"id": "1"}], [{"id": 1, "k": 3}], [{"id": 1}] * 101],
)
def test_a_wrong_batch_is_refused(client, queries):
    assert client.post("/v1/search/batch", json={"queries": queries}).status_code == 422


def test_a_batch_of_too_many_images_is_refused(client, photos):
    files = [("image", ("a.jpg", photos[0]))] * 33
    assert client.post("/v1/search/batch/upload", files=files).status_code == 422
