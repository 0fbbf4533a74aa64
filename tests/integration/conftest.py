"""What integration tests share."""

import http.server
import shutil
import threading
from pathlib import Path

import pytest

from helpers.images import download, samples


def two_classes(root: Path, count: int) -> Path:
    """The folder, with the first photographs of the sample in its subfolders a and b, in turns."""
    for number, path in enumerate(samples.photos().paths[:count]):
        (root / "ab"[number % 2]).mkdir(exist_ok=True)
        shutil.copy(path, root / "ab"[number % 2])
    return root


class _FileHandler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``. ``server.faults`` are simulated; ``server.sent`` has the bytes of each request."""

    def do_GET(self):
        server, content = self.server, self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        requested = self.headers.get("Range")
        if requested and "no ranges" not in server.faults:
            start = int(requested.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if "drop once" in server.faults:
            server.faults.remove("drop once")
            body = body[: len(body) // 2]
            self.close_connection = True
        server.sent.append(len(body))
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def file_server(own_cache, monkeypatch):
    """A server for downloads, and an empty cache. No host is known to be unreachable, and there is no mirror."""
    monkeypatch.delenv("LOOKALIKE_MIRROR", raising=False)
    monkeypatch.setattr(download, "_unreachable_hosts", set())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _FileHandler) as running:
        running.files, running.faults, running.sent = {}, set(), []
        running.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()
