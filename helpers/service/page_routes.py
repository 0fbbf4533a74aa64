"""The web page: its files, and what browsers see if there is nothing at an address."""

from collections.abc import Callable, Coroutine
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from helpers.service import errors
from helpers.service.page_files import PageFile, read_files
from helpers.service.root_path import base_element
from helpers.service.search_service import SearchService
from helpers.service.settings import Settings
from helpers.visualization import web_modules

#: The page and its files.
PAGE = Path(__file__).parent / "page"
#: Folders of files that are sent, and the start of their paths below ``/static/``.
FOLDERS = (("", PAGE), ("web/", web_modules.FOLDER))
#: Files that are sent at another address only.
_HIDDEN = ("index.html", "docs.html", "not_found.html")


def page(service: SearchService) -> APIRouter:
    """The page and its files."""
    router = APIRouter(include_in_schema=False)
    files = read_files(FOLDERS)

    # There are a few proxies at most, but a client may invent others.
    @lru_cache(maxsize=16)
    def with_base(name: str, base: str) -> PageFile:
        text = files[name].content.decode().replace("<head>", f"<head>{base}", 1)
        return PageFile(text.encode(), "text/html")

    def html(name: str, request: Request) -> Response:
        return with_base(name, base_element(request.headers)).response(request.headers)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return html("index.html", request)

    @router.api_route("/docs", methods=["GET", "HEAD"])
    async def documentation(request: Request) -> Response:
        return html("docs.html", request)

    @router.api_route("/static/{path:path}", methods=["GET", "HEAD"])
    async def static(request: Request, path: str) -> Response:
        if path not in files or path in _HIDDEN:
            raise errors.ApiError(404, "The page has no such file.")
        return files[path].response(request.headers)

    return router


def http_error(settings: Settings) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    """The handler of `HTTPException`: a page for browsers at an address with nothing, else the usual response."""
    html = (PAGE / "not_found.html").read_text(encoding="utf-8")

    async def handle(request: Request, error: HTTPException) -> Response:
        path = request.url.path.removeprefix(settings.root_path)
        accepts = "text/html" in request.headers.get("accept", "")
        if error.status_code != 404 or not accepts or path.startswith(("/v1/", "/static/")):
            return errors.error_response(error)
        base = base_element(request.headers) or f'<base href="{settings.root_path}/">'
        return HTMLResponse(html.replace("<head>", f"<head>{base}", 1), 404)

    return handle
