"""The files of the page: read once, sent compressed if the client accepts that, and cached by their contents."""

import gzip
import hashlib
import mimetypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response

#: Types by suffix: the system's own list may have others, or none.
_TYPES = {
    ".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".json": "application/json",
    ".svg": "image/svg+xml",
}  # fmt: skip


@dataclass(frozen=True)
class PageFile:
    """A file in both forms. tag : of the content. compressed : None if that would gain nothing."""

    content: bytes
    media_type: str
    tag: str
    compressed: bytes | None

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "PageFile":
        """A file from its bytes."""
        compressed = gzip.compress(content, 9, mtime=0)
        small = compressed if len(compressed) < 0.9 * len(content) else None
        return cls(content, media_type, hashlib.sha256(content).hexdigest()[:32], small)

    def response(self, headers: Headers) -> Response:
        """The response to a request with these headers: the file, or 304 if the client has it."""
        use = self.compressed is not None and accepts_gzip(headers)
        # Two forms of one file have two tags.
        tag = f'"{self.tag}{"-gzip" if use else ""}"'
        sent = {"ETag": tag, "Cache-Control": "no-cache"}
        if self.compressed is not None:
            sent["Vary"] = "Accept-Encoding"
        if tag in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=sent)
        if use and self.compressed is not None:
            return Response(self.compressed, headers={**sent, "Content-Encoding": "gzip"}, media_type=self.media_type)
        return Response(self.content, headers=sent, media_type=self.media_type)


def read_files(folders: Iterable[tuple[str, Path]]) -> dict[str, PageFile]:
    """Path below ``/static/`` → file. folders : pairs of a prefix, such as ``web/``, and a folder."""
    files = {}
    for prefix, folder in folders:
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                files[prefix + path.name] = PageFile.of(path.read_bytes(), kind)
    return files


def accepts_gzip(headers: Headers) -> bool:
    """Whether the client of a request accepts gzip."""
    for each in headers.get("accept-encoding", "").split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        if name in ("gzip", "*"):
            quality = next((one.removeprefix("q=") for one in parameters if one.startswith("q=")), "1")
            return quality.strip("0.") != ""
    return False
