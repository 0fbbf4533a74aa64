"""The key for reading, sessions of browsers, and pages of other sites that may use the service (CORS)."""

import httpx
import pytest

from helpers import paths
from helpers.images import samples
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.settings import Settings

KEY, READ_KEY = "the key for changes", "the key for reading"
SITE = "https://www.example.org"


@pytest.fixture(scope="module")
def engine():
    return Engine("hsv-histogram").fit(samples.photos().subset(range(20)))


@pytest.fixture
def serving(engine, serve_app, tmp_path, own_cache):
    """A client of a service with these settings."""
    clients = []

    def serve(**settings):
        app = create_app(Settings(engine.save(tmp_path / f"{len(clients)}.engine"), **settings))
        clients.append(httpx.Client(base_url=serve_app(app), timeout=20))
        return clients[-1]

    yield serve
    for client in clients:
        client.close()


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


# --- the key for reading


def test_reading_needs_the_key_and_the_state_of_the_service_does_not(serving):
    client = serving(read_key=READ_KEY, api_key=KEY)
    for path in (
        "/v1/info",
        "/v1/images",
        "/v1/search/id/1",
        "/v1/images/1/thumbnail",
        "/v1/images/1/file",
        "/metrics",
    ):
        for headers, code in (
            ({}, "key_required"),
            (bearer("wrong"), "key_wrong"),
            ({"Authorization": "Bearer"}, "key_required"),
        ):
            result = client.get(path, headers=headers)
            assert (result.status_code, result.json()["code"]) == (401, code), path
            assert result.headers["www-authenticate"] == 'Bearer realm="Lookalike"'
        for headers in (bearer(READ_KEY), bearer(KEY), {"X-API-Key": READ_KEY}):
            assert client.get(path, headers=headers).status_code == 200, path
    for path in ("/", "/static/page.js", "/docs", "/openapi.json", "/health", "/version"):
        assert client.get(path).status_code == 200, path
    # Nothing at an address tells whether there is something.
    assert client.get("/v1/nothing").status_code == 401


def test_the_key_for_reading_does_not_allow_changes(serving):
    client = serving(read_key=READ_KEY, api_key=KEY)
    assert client.delete("/v1/images/1", headers=bearer(READ_KEY)).status_code == 401
    assert client.delete("/v1/images/1", headers=bearer(KEY)).status_code == 204
    # Without a key for changes, the usual rule holds for clients that may read.
    client = serving(read_key=READ_KEY)
    assert client.delete("/v1/images/1").status_code == 401
    assert client.delete("/v1/images/1", headers=bearer(READ_KEY)).status_code == 204


def test_a_browser_reads_with_the_cookie_of_its_session(serving):
    client = serving(read_key=READ_KEY, api_key=KEY)
    assert client.post("/v1/session", headers=bearer("wrong")).status_code == 401
    assert not client.cookies
    begun = client.post("/v1/session", headers=bearer(READ_KEY))
    assert begun.status_code == 204
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert READ_KEY not in cookie and "Max-Age" not in cookie
    assert client.get("/v1/images/1/thumbnail").status_code == 200
    # A cookie comes with requests that the user does not know of. It does not change anything.
    assert client.delete("/v1/images/1").status_code == 401
    assert client.delete("/v1/images/1", headers={"X-API-Key": KEY}).status_code == 204
    for value in ("", "wrong", READ_KEY, '"'):
        headers = {"Cookie": f"lookalike_session={value}"}
        assert httpx.get(f"{client.base_url}/v1/info", headers=headers).status_code == 401, value
    encrypted = client.post("/v1/session", headers=bearer(READ_KEY) | {"X-Forwarded-Proto": "https"})
    assert "Secure" in encrypted.headers["set-cookie"]


def test_the_cookie_of_another_key_is_not_accepted(serving):
    first, second = serving(read_key="first key"), serving(read_key="second key")
    first.post("/v1/session", headers=bearer("first key"))
    value = first.cookies["lookalike_session"]
    assert first.get("/v1/info").status_code == 200
    assert second.get("/v1/info", headers={"Cookie": f"lookalike_session={value}"}).status_code == 401


def test_the_cookie_is_for_the_path_of_the_service(serving):
    client = serving(read_key=READ_KEY, root_path="/photos")
    begun = client.post("/photos/v1/session", headers=bearer(READ_KEY))
    assert "Path=/photos/;" in begun.headers["set-cookie"]
    assert client.get("/photos/v1/info").status_code == 200


def test_without_a_key_for_reading_there_are_no_sessions(serving):
    assert serving(api_key=KEY).post("/v1/session", headers=bearer(KEY)).status_code == 404


def test_the_keys_come_from_the_environment_and_not_from_the_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKALIKE_READ_KEY", " secret ")
    chosen = Settings(tmp_path, read_key=paths.read_key(), origins=(SITE,))
    assert chosen.read_key == "secret" and "secret" not in chosen.to_json() and "secret" not in repr(chosen)
    assert Settings.from_json(chosen.to_json(), None, "secret") == chosen
    monkeypatch.setenv("LOOKALIKE_READ_KEY", "schlüssel")
    with pytest.raises(ValueError, match="LOOKALIKE_READ_KEY"):
        paths.read_key()


# --- pages of other sites


def test_scripts_of_an_allowed_site_read_and_those_of_others_do_not(serving):
    client = serving(origins=(f"{SITE}/", "http://127.0.0.1:5000"))
    for origin, allowed in ((SITE, SITE), ("http://127.0.0.1:5000", "http://127.0.0.1:5000"), ("https://x.org", None)):
        # Errors too.
        for path in ("/v1/search/id/1", "/v1/images/999"):
            result = client.get(path, headers={"Origin": origin})
            assert result.headers.get("access-control-allow-origin") == allowed
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}
        preflight = client.options("/v1/search/batch", headers={"Origin": origin} | wanted)
        assert preflight.headers.get("access-control-allow-origin") == allowed
        assert preflight.is_success == (allowed is not None)
    # No cookies: a session is for the page of the service.
    assert "access-control-allow-credentials" not in preflight.headers


def test_a_refused_preflight_has_the_form_of_all_errors(serving):
    client = serving(origins=(SITE,))
    for origin, method, refused in (("https://x.org", "POST", "origin"), (SITE, "PUT", "method")):
        headers = {"Origin": origin, "Access-Control-Request-Method": method}
        result = client.options("/v1/search/batch", headers=headers)
        assert (result.status_code, result.headers["content-type"]) == (403, "application/json")
        body = result.json()
        assert (list(body), body["code"]) == (["code", "message", "details"], "other_site")
        assert body["message"].endswith(f"does not allow its {refused}.")
        assert "Origin" in result.headers["vary"]
        assert result.headers.get("access-control-allow-origin") == (SITE if origin == SITE else None)


def test_by_default_no_script_of_another_site_reads(serving):
    result = serving().get("/v1/info", headers={"Origin": SITE})
    assert "access-control-allow-origin" not in result.headers


def test_a_script_of_an_allowed_site_changes_the_gallery_only_with_the_key(serving):
    headers = {"Origin": SITE, "Sec-Fetch-Site": "cross-site"}
    client = serving(origins=(SITE,))
    assert client.delete("/v1/images/1", headers=headers).json()["code"] == "other_site"
    client = serving(origins=(SITE,), api_key=KEY)
    assert client.delete("/v1/images/1", headers=headers).json()["code"] == "key_required"
    assert client.delete("/v1/images/1", headers=headers | bearer(KEY)).status_code == 204
    other = {"Origin": "https://x.org", "Sec-Fetch-Site": "cross-site"}
    assert client.delete("/v1/images/2", headers=other | bearer(KEY)).json()["code"] == "other_site"
    # With *, all pages read, and none changes anything.
    client = serving(origins=("*",), api_key=KEY)
    assert client.get("/v1/info", headers=headers).headers["access-control-allow-origin"] == "*"
    assert client.delete("/v1/images/1", headers=headers | bearer(KEY)).json()["code"] == "other_site"


@pytest.mark.parametrize(
    "origin", ["www.example.org", "https://www.example.org/path", "ftp://a", "https://", "https://a@b"]
)
def test_an_origin_must_be_one(tmp_path, origin):
    with pytest.raises(ValueError, match="an origin is like https://www.example.org"):
        Settings(tmp_path, origins=(origin,))
