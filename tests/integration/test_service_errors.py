"""Errors of the service: one form with a code, for every route, and parameters that a route does not know."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from helpers.images import samples
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.errors import CODES
from helpers.service.settings import Settings

KEY = "the key of the test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    photos = samples.photos()
    engine = Engine("hsv-histogram").fit(photos.subset(range(0, len(photos), 10)))
    return engine.save(tmp_path_factory.mktemp("errors") / "own.index")


@pytest.fixture(scope="module")
def app(folder):
    return create_app(Settings(folder=folder))


@pytest.fixture(scope="module")
def description(app):
    return app.openapi()


@pytest.fixture(scope="module")
def photo():
    return samples.photos().paths[0].read_bytes()


@pytest.fixture
def send(app):
    """Sends one request to the application and returns its response."""

    async def sent(method, path, **options):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    with ThreadPoolExecutor(1) as thread:
        # Playwright's event loop may run in this thread.
        yield lambda method, path, **options: thread.submit(lambda: asyncio.run(sent(method, path, **options))).result()


def operations(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def check_form(result, status, code):
    assert result.status_code == status, result.text
    body = result.json()
    assert list(body) == ["code", "message", "details"]
    assert body["code"] == code and CODES[code][0] == status
    assert body["message"].endswith((".", "?", "…")) or body["details"], body
    return body


# --- parameters


def test_every_route_refuses_unknown_parameters(send, description):
    paths = [path for method, path, _ in operations(description) if method == "GET"]
    assert len(paths) >= 9
    for path in paths:
        body = check_form(send("GET", path.format(id=1), params={"kk": 5}), 422, "unknown_parameter")
        assert body["details"][0]["location"] == ["query", "kk"]


@pytest.mark.parametrize(
    ("method", "path", "options", "message"),
    [
        ("GET", "/v1/search/id/1", {"params": {"ofset": 5}}, "ofset is not known; did you mean offset?"),
        ("GET", "/v1/search/id/1?k=1&k=2", {}, "k is repeated, but takes only one value"),
        ("GET", "/v1/images", {"params": {"k": 5}}, "k is not known; known: class_name, limit, no_class, offset, sort"),
        ("GET", "/health", {"params": {"x": 5}}, "x is not known; known: none"),
        ("POST", "/v1/search", {"upload": {"k": 5}}, "k belongs in the query string of the address"),
        ("POST", "/v1/search", {"upload": {"x": "y"}}, "x is not known; known: image"),
        ("POST", "/v1/images", {"upload": {"class_name": "a"}}, "class_name belongs in the query string"),
        ("POST", "/v1/search?image=1", {"upload": {}}, "image belongs in the form"),
        ("POST", "/v1/search/vector?k=5", {"json": {"vector": "AAAA"}}, "k belongs in the JSON body"),
        ("POST", "/v1/search/vector", {"json": {"vector": "AAAA", "kk": 5}}, "body kk: Extra inputs are not permitted"),
        ("DELETE", "/v1/images/1?force=1", {}, "force is not known"),
    ],
)
def test_unknown_misplaced_and_repeated_parameters(send, photo, method, path, options, message):
    if "upload" in options:
        options = {"files": {"image": ("a.jpg", photo)}, "data": options["upload"]}
    body = check_form(send(method, path, **options), 422, "unknown_parameter")
    assert message in body["message"]
    assert body["details"] and all(each["message"] for each in body["details"])


def test_routes_without_a_body_refuse_one(send, description):
    routes = [(method, path) for method, path, each in operations(description) if "requestBody" not in each]
    assert {("GET", "/v1/search/id/{id}"), ("DELETE", "/v1/images/{id}"), ("GET", "/health")} < set(routes)
    for method, path in routes:
        for options in ({"json": {"k": 5}}, {"content": b"x"}, {"files": {"image": ("a.jpg", b"x")}}):
            body = check_form(send(method, path.format(id=1), **options), 422, "unknown_parameter")
            assert "this path takes none" in body["message"]
            assert body["details"][0]["location"] == ["body"]
    assert send("GET", "/v1/images/1").status_code == 200, "a refused request changes nothing"


def test_a_body_in_chunks_is_refused_unless_it_is_empty(send):
    async def chunks(*contents):
        for each in contents:
            yield each

    check_form(send("GET", "/v1/search/id/1", content=chunks(b"", b"x")), 422, "unknown_parameter")
    assert send("GET", "/v1/search/id/1", content=chunks(b"")).status_code == 200
    assert send("GET", "/v1/search/id/1", headers={"Content-Length": "0"}).status_code == 200


def test_a_file_is_not_sent_twice(send, photo):
    files = [("image", ("a.jpg", photo)), ("image", ("b.jpg", photo))]
    body = check_form(send("POST", "/v1/search", files=files), 422, "unknown_parameter")
    assert "image is repeated" in body["message"]


def test_a_parameter_that_is_a_list_may_be_repeated(send):
    assert send("GET", "/v1/search/id/1?box=0,0,40,40&box=20,20,50,50").status_code == 200


def test_the_page_accepts_any_parameter(send):
    assert send("GET", "/?utm_source=mail").status_code == 200


def test_all_json_bodies_refuse_unknown_fields(description):
    schemas = description["components"]["schemas"]

    def check(schema):
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        if schema.get("type") == "object":
            assert schema.get("additionalProperties") is False, schema["title"]
        for each in (
            *schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("oneOf", ()),
            *([schema["items"]] if "items" in schema else ()),
        ):  # fmt: skip
            check(each)

    bodies = [each["requestBody"]["content"] for *_, each in operations(description) if "requestBody" in each]
    checked = [check(content["application/json"]["schema"]) for content in bodies if "application/json" in content]
    assert len(checked) >= 2


# --- form


def test_each_request_is_one_line_of_the_log_without_secrets(send, caplog):
    with caplog.at_level("INFO", "lookalike.service"):
        send("GET", "/v1/images/3?secret=4", headers={"Authorization": "Bearer secret"})
        send("GET", "/secret")
    lines = [re.sub(r"[0-9.]+ ms", "T ms", each.message) for each in caplog.records if each.name == "lookalike.service"]
    assert lines == ["GET /v1/images/{id} 422 T ms", "GET other 404 T ms"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/static/nothing.js", 404, "not_found"),
        ("GET", "/v1/info/", 404, "not_found"),
        ("PUT", "/v1/info", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
        ("POST", "/static/page.js", 405, "method_not_allowed"),
        ("GET", "/v1/images/999", 404, "image_not_found"),
        ("GET", "/v1/images/x", 422, "invalid_request"),
        ("POST", "/v1/search", 422, "invalid_request"),
    ],
)
def test_every_error_has_the_same_form(send, method, path, status, code):
    check_form(send(method, path), status, code)


def test_the_description_names_the_code_of_every_error(description):
    enum = description["components"]["schemas"]["ErrorOut"]["properties"]["code"]["enum"]
    assert enum == list(CODES)
    for method, path, operation in operations(description):
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            content = response["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorOut"}, (method, path, status)
            for code, example in content["examples"].items():
                assert CODES[code][0] == int(status) and example["value"]["code"] == code
