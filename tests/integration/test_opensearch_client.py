"""What the index of OpenSearch does when a server responds otherwise than the real one of test_opensearch.py."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.loopback import reserved_port
from helpers.search.backends import remote
from helpers.search.backends.remote import RetryPolicy, ServerRefused, ServerUnavailable
from helpers.search.index import open_index

INFO = {"version": {"distribution": "opensearch", "number": "2.19.1"}}
MISSING = {"error": {"type": "index_not_found_exception", "reason": "no such index [x]"}, "status": 404}


class Handler(BaseHTTPRequestHandler):
    """Responds to each path with a status and a body of ``server.responses``; a body of None is no response."""

    def do_GET(self):
        self.server.headers.append(self.headers)
        status, body = self.server.responses[self.path]
        if body is None:
            self.server.closing.wait(10)
            return
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "RetryPolicy", lambda: RetryPolicy(attempts=3, first=0.01, longest=0.02))


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.responses = {"/": (200, INFO), "/x/_mapping": (404, MISSING)}
        server.headers, server.closing = [], threading.Event()
        server.spec = f"opensearch://127.0.0.1:{server.server_port}/x"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("opensearch:images", "write opensearch://host:9200/name"),
        ("opensearch://host/Images", "lower-case"),
        ("opensearch://host/x?metric=manhattan", "cosine, euclidean"),
        ("opensearch://host/x?search=fuzzy", "opensearch: search must be exact or approximate"),
        ("opensearch://host/x?candidates=5", "search=approximate"),
        ("opensearch://host/x?replicas=-1", "negative"),
        ("opensearch://me:hush@host/x", "sign_in"),
    ],
)
def test_a_wrong_spec_is_refused_before_any_request(spec, message):
    with pytest.raises(ValueError, match=message):
        open_index(spec)


def test_a_server_without_the_index(server):
    index = open_index(server.spec + "?replicas=0&shards=30")
    assert (len(index), index.dim, index.spec) == (0, None, server.spec + "?replicas=0&shards=30")


def test_a_password_is_shown_to_the_server_only(server, monkeypatch):
    monkeypatch.setattr(remote, "_KEYS", {})
    remote.sign_in(f"127.0.0.1:{server.server_port}", "me:hush:hush")
    index = open_index(server.spec)
    sent = "Basic " + base64.b64encode(b"me:hush:hush").decode()
    assert {headers["Authorization"] for headers in server.headers} == {sent}
    assert "hush" not in index.spec + repr(index)


@pytest.mark.parametrize(
    ("path", "response", "message"),
    [
        ("/", {"version": {"number": "9.5.3"}}, "does not respond like OpenSearch.*9.5.3 of another product"),
        ("/", b"<html>hello</html>", "does not respond like OpenSearch.*Is that its address"),
        ("/", [], "does not respond like OpenSearch"),
        ("/x/_mapping", {}, "does not respond like OpenSearch"),
        ("/x/_mapping", b'{"x": ', "does not respond like OpenSearch"),
    ],
)
def test_another_kind_of_server_is_named(server, path, response, message):
    server.responses[path] = 200, response
    with pytest.raises(ServerRefused, match=f"127.0.0.1:{server.server_port} {message}"):
        open_index(server.spec)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (429, ServerUnavailable, "in 3 attempts: 429 circuit_breaking_exception: too large. Start it with"),
        (503, ServerUnavailable, "in 3 attempts: 503 circuit_breaking"),
        (403, ServerRefused, "refused: 403 circuit_breaking_exception: too large."),
    ],
)
def test_a_refusal_says_why(server, status, error, message, capfd):
    server.responses["/"] = status, {"error": {"type": "circuit_breaking_exception", "reason": "too large"}}
    with pytest.raises(error, match=message):
        open_index(server.spec)
    assert len(server.headers) == (1 if error is ServerRefused else 3)
    assert capfd.readouterr() == ("", "")


def test_a_slow_server_is_given_up_after_the_timeout(server):
    server.responses["/"] = 200, None
    with pytest.raises(ServerUnavailable, match="no response within 0.1 s"):
        open_index(server.spec + "?timeout=0.1")


def test_a_server_that_is_away_is_named_with_the_remedy():
    with reserved_port() as port, pytest.raises(ServerUnavailable) as caught:
        open_index(f"opensearch://127.0.0.1:{port}/x")
    assert re.search(f"127.0.0.1:{port} failed in 3 attempts.*docker compose up opensearch", str(caught.value))
