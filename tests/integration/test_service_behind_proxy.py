"""The service under a path of a reverse proxy that keeps the path, or removes it."""

import io
import re
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from PIL import Image

from helpers.images import samples
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.root_path import OWN_PARTS, normalized
from helpers.service.settings import Settings

KEY = "a key for this test"
#: Published path, the service's root path, and whether the proxy keeps the path.
SETUPS = {
    "removed, unknown to the service": ("/user/ann@b/proxy/8000", "", False),
    "removed": ("/photos", "/photos", False),
    "kept": ("/photos", "/photos/", True),
    "kept, several parts": ("/a/b.c", "a/b.c", True),
}


@pytest.fixture
def folder(tmp_path, own_cache):
    return Engine("hsv-histogram").fit(samples.photos().subset(range(12))).save(tmp_path / "own.engine")


@pytest.fixture(params=SETUPS.values(), ids=SETUPS)
def published(request, folder, serve_app, reverse_proxy):
    """A client of the published service, and the root path of the service."""
    path, root_path, keeps_path = request.param
    service = serve_app(create_app(Settings(folder, root_path=root_path, api_key=KEY)))
    with httpx.Client(base_url=reverse_proxy(service, path, keeps_path), timeout=20) as client:
        yield client, normalized(root_path)


def upload(content=None):
    if content is None:
        written = io.BytesIO()
        Image.fromarray(np.full((30, 40, 3), (20, 200, 90), np.uint8)).save(written, "PNG")
        content = written.getvalue()
    return {"image": ("green.png", content, "image/png")}


def addresses(text: str) -> set[str]:
    """Addresses in HTML, and modules that JavaScript imports."""
    return set(re.findall(r'(?:href|src)="([^"#]+)"', text)) | set(re.findall(r'from "([^"]+)"', text))


def test_every_address_of_the_page_and_of_its_files_leads_to_a_file(published):
    client, _ = published
    todo, seen = [f"{client.base_url}", f"{client.base_url}docs"], {}
    while todo:
        address = todo.pop()
        if address not in seen:
            result = client.get(address)
            assert result.status_code == 200, address
            seen[address] = result
            # Swagger UI's own code loads no other files.
            code = result.headers["content-type"].startswith(("text/html", "text/javascript"))
            if code and "/swagger/" not in address:
                todo += [urljoin(address, each) for each in addresses(result.text)]
    names = {address.removeprefix(str(client.base_url)) for address in seen}
    assert {
        "",
        "docs",
        "openapi.json",
        "static/icon.svg",
        "static/page.css",
        "static/page.js",
        "static/grid.js",
    } <= names
    assert all(address.startswith(str(client.base_url)) for address in seen)


def test_searches_images_and_changes_work(published):
    client, root_path = published
    first = samples.photos().paths[0]
    found = client.post("/v1/search", files=upload(first.read_bytes()), params={"k": 3}).json()["results"]
    assert [each["id"] for each in found][0] == 0
    assert found[0]["thumbnail"] == f"{root_path}/v1/images/0/thumbnail"
    for route in ("thumbnail", "file"):
        result = client.get(f"/v1/images/0/{route}")
        assert (result.status_code, result.headers["content-type"]) == (200, "image/jpeg")
    assert client.post("/v1/images", files=upload()).status_code == 401
    key = {"X-API-Key": KEY}
    added = client.post("/v1/images", files=upload(), headers=key)
    assert added.status_code == 201, added.text
    id = added.json()["id"]
    assert added.json()["thumbnail"] == f"{root_path}/v1/images/{id}/thumbnail"
    assert client.get(f"/v1/images/{id}").json()["thumbnail"] == f"{root_path}/v1/images/{id}/thumbnail"
    assert client.delete(f"/v1/images/{id}").status_code == 401
    assert client.delete(f"/v1/images/{id}", headers=key).status_code == 204
    assert client.get(f"/v1/images/{id}").status_code == 404


def test_the_address_without_a_slash_leads_to_the_page(published):
    client, _ = published
    address = str(client.base_url).rstrip("/")
    result = httpx.get(address, follow_redirects=True)
    assert "<title>Lookalike</title>" in result.text
    base = re.search('<base href="([^"]+)">', result.text)
    assert urljoin(str(result.url), base[1] if base else ".") == f"{address}/"


@pytest.mark.parametrize("prefix", ["//evil.example", "https://evil.example/", '/a"><script>', "photos", "/", ""])
def test_a_forwarded_prefix_that_is_no_path_is_ignored(folder, serve_app, prefix):
    text = httpx.get(serve_app(create_app(Settings(folder))), headers={"X-Forwarded-Prefix": prefix}).text
    assert "<base" not in text and "evil" not in text and '"><script>' not in text


def test_the_description_names_the_root_path(published):
    client, root_path = published
    description = client.get("/openapi.json").json()
    assert description.get("servers", []) == ([{"url": root_path}] if root_path else [])
    assert "/v1/search" in description["paths"]


def test_links_to_thumbnails_open_if_the_service_knows_its_path(folder, serve_app, reverse_proxy):
    url = reverse_proxy(serve_app(create_app(Settings(folder, root_path="/photos"))), "/photos", False)
    for image in httpx.get(f"{url}/v1/images").json()["images"]:
        assert httpx.get(urljoin(url, image["thumbnail"])).status_code == 200


def test_without_a_proxy_both_forms_of_an_address_work(folder, serve_app):
    url = serve_app(create_app(Settings(folder, root_path="/photos")))
    for path in ("/", "/photos/", "/v1/info", "/photos/v1/info", "/photos/static/page.js"):
        assert httpx.get(url + path).status_code == 200, path
    for path in ("/photosv1/info", "/photos/photos/", "/Photos/v1/info"):
        assert httpx.get(url + path).status_code == 404, path


@pytest.mark.parametrize("path", ["/v1/images", "/photos/v1/images"])
def test_both_forms_of_an_address_are_checked_before_the_body_is_read(folder, serve_app, path):
    url = serve_app(create_app(Settings(folder, root_path="/photos", api_key=KEY)))
    assert httpx.post(url + path, content=b"no form").status_code == 401
    foreign = {"Origin": "https://evil.example", "X-API-Key": KEY}
    assert httpx.post(url + path, content=b"no form", headers=foreign).status_code == 403


HUB = {"Host": "hub.example:8443", "Origin": "https://hub.example:8443", "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize("keeps_host", [True, False])
def test_a_page_behind_a_named_proxy_may_change_the_gallery_with_the_key(folder, serve_app, reverse_proxy, keeps_host):
    service = serve_app(create_app(Settings(folder, hosts=("Hub.example",), api_key=KEY)))
    url = reverse_proxy(service, "/photos", False, keeps_host)
    key = {"X-API-Key": KEY}
    assert httpx.post(f"{url}/v1/images", files=upload(), headers=HUB | key).status_code == 201
    # nginx's $host has no port. The image is there already.
    assert (
        httpx.post(f"{url}/v1/images", files=upload(), headers=HUB | key | {"Host": "hub.example"}).status_code == 200
    )
    assert httpx.post(f"{url}/v1/images", files=upload(), headers=HUB).status_code == 401
    for foreign in (
        {"Origin": "https://evil.example"},
        {"Origin": "https://hub.example.evil.example"},
        {"Origin": "https://evil.example@x"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        result = httpx.post(f"{url}/v1/images", files=upload(), headers=HUB | key | foreign)
        assert result.status_code == 403, foreign
        assert "--allow-host" in result.json()["message"]


def test_an_unknown_host_name_is_named_with_the_remedy(folder, serve_app, reverse_proxy):
    service = serve_app(create_app(Settings(folder)))
    url = reverse_proxy(service, "/user/ann/proxy/8000", False)
    result = httpx.get(f"{url}/", headers=HUB)
    assert result.status_code == 403
    assert result.json()["message"].endswith("lookalike serve --allow-host hub.example")
    # A name that no shell should see is not repeated.
    result = httpx.get(service, headers={"Host": "a;reboot"})
    assert result.json()["message"].endswith("lookalike serve --allow-host NAME")


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Prefix"])
def test_without_a_key_requests_through_a_proxy_change_nothing(folder, serve_app, header):
    service = serve_app(create_app(Settings(folder)))
    result = httpx.post(f"{service}/v1/images", files=upload(), headers={header: "x"})
    assert result.status_code == 403 and "LOOKALIKE_API_KEY" in result.json()["message"]
    assert httpx.post(f"{service}/v1/images", files=upload()).status_code == 201


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("/", ""),
        ("photos", "/photos"),
        ("/photos/", "/photos"),
        ("//photos", "/photos"),
        ("/a/b-c", "/a/b-c"),
    ],
)
def test_root_paths_begin_with_a_slash_and_end_without(text, path):
    assert normalized(text) == path


@pytest.mark.parametrize(
    "text", ["https://a.example/photos", "/a//b", "/a/../b", "/a b", "/a%20b", "/a?b", "/a#b", "/fotos-ä", "/a\nb"]
)
def test_other_root_paths_are_refused(text):
    with pytest.raises(ValueError, match="must be a path like /photos"):
        normalized(text)


def test_a_root_path_is_no_path_of_the_service(folder):
    app = create_app(Settings(folder))
    found = [*app.openapi()["paths"], *(route.path for route in app.routes if hasattr(route, "path"))]
    assert {path.split("/")[1] for path in found} - {""} == OWN_PARTS - {"docs"}, "docs describes the others"
    for part in OWN_PARTS:
        with pytest.raises(ValueError, match="a path of the service"):
            Settings(folder, root_path=f"/{part}/x")
