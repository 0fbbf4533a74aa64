"""Servers on this computer are reached although the environment names a proxy for all requests."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests

from helpers import paths
from helpers.images import samples
from helpers.loopback import reserved_port
from helpers.search.backends.milvus_backend import MilvusIndex
from helpers.search.engine import Engine
from helpers.search.index import open_index
from helpers.service.service_process import ServiceProcess

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@pytest.fixture(autouse=True)
def proxy(monkeypatch):
    """A proxy for everything, at a port where nothing listens."""
    with reserved_port() as port:
        address = f"http://127.0.0.1:{port}"
        for variable in PROXIES:
            monkeypatch.setenv(variable, address)
            monkeypatch.setenv(variable.upper(), address)
        for variable in ("no_proxy", "no_grpc_proxy"):
            for name in (variable, variable.upper()):
                # Set first, so that the value of before returns after the test.
                monkeypatch.setenv(name, "")
                monkeypatch.delenv(name)
        yield


def test_milvus_lite_is_reached(tmp_path):
    with contextlib.closing(open_index(f"milvus:{tmp_path}/a.db")) as index:
        assert index.add([[1, 0], [0, 1]]).search([[0, 2]], 1).ids.tolist() == [[1]]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_milvus_server_on_this_computer_is_reached(host, tmp_path):
    with contextlib.closing(open_index(f"milvus:{tmp_path}/a.db")) as index:
        index.add([[1, 0], [0, 1]])
        port = index._client._config.address.rpartition(":")[2]
        with contextlib.closing(open_index(f"milvus://{host}:{port}/gallery")) as other:
            assert other.search([[0, 2]], 1).ids.tolist() == [[1]]


def test_a_milvus_server_elsewhere_is_reached_through_the_proxy(monkeypatch):
    given = []
    monkeypatch.setattr(
        "helpers.search.backends.milvus_backend.MilvusClient", lambda *_, **options: given.append(options) or 1 / 0
    )
    for host in ("vectors.example", "192.0.2.7", "127.0.0.1", "[::1]"):
        with pytest.raises(ZeroDivisionError):
            MilvusIndex(f"//{host}:19530/gallery")
    direct = {"grpc.enable_http_proxy": 0}
    assert [options["grpc_options"] for options in given] == [{}, {}, direct, direct]


def test_elasticsearch_on_this_computer_is_reached():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"error": {"type": "index_not_found_exception"}, "status": 404}).encode()
            self.send_response(404)
            for name, value in {"X-Elastic-Product": "Elasticsearch", "Content-Type": "application/json"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert len(open_index(f"elasticsearch://127.0.0.1:{server.server_port}/gallery")) == 0
        server.shutdown()


def test_a_service_and_its_clients_need_no_setting(tmp_path):
    Engine("hsv-histogram").fit(samples.photos().subset(range(3))).save(tmp_path / "own.engine")
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("http://127.0.0.1:1", timeout=5)
    with ServiceProcess(tmp_path / "own.engine") as service:
        assert requests.get(f"{service.url}/v1/info", timeout=20).json()["images"] == 3
        assert paths.child_environment()["NO_PROXY"] == "127.0.0.1,::1,localhost"
