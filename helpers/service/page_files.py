"""The files of the page: read once, sent compressed if the client accepts that, and cached by their contents."""

import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response

#: Types by suffix: the system's own list may have others, or none.
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}


class PageFile:
    """A file, also compressed, unless that would gain nothing."""

    def __init__(self, content: bytes, media_type: str):
        self.content, self._media_type = content, media_type
        self._hash = hashlib.sha256(content).hexdigest()[:32]
        compressed = gzip.compress(content, 9, mtime=0)
        self._compressed = compressed if len(compressed) < 0.9 * len(content) else None

    def response(self, headers: Headers) -> Response:
        """The response to a request with these headers: the file, or 304 if the client has it."""
        compressed = self._compressed if accepts_gzip(headers) else None
        # Two forms of one file have two tags.
        tag = f'"{self._hash}{"" if compressed is None else "-gzip"}"'
        sent = {"ETag": tag, "Cache-Control": "no-cache"}
        if self._compressed is not None:
            sent["Vary"] = "Accept-Encoding"
        if tag in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=sent)
        if compressed is not None:
            sent["Content-Encoding"] = "gzip"
        return Response(compressed or self.content, headers=sent, media_type=self._media_type)


def read_files(folders: Iterable[tuple[str, Path]]) -> dict[str, PageFile]:
    """Path below ``/static/`` → file. folders : pairs of a prefix, such as ``web/``, and a folder."""
    files = {}
    for prefix, folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix in _TYPES:
                files[prefix + path.name] = PageFile(path.read_bytes(), _TYPES[path.suffix])
    return files


def accepts_gzip(headers: Headers) -> bool:
    """Whether the client of a request accepts gzip."""
    for each in headers.get("accept-encoding", "").split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        if name in ("gzip", "*"):
            quality = next((one.removeprefix("q=") for one in parameters if one.startswith("q=")), "1")
            return quality.strip("0.") != ""
    return False
