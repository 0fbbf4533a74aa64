"""Middleware that checks every request before it reaches the application, and adds security headers to every response.

The middleware reads the headers, and counts the body while it arrives. So no memory or computing time is spent on a
request that is rejected for its host or origin (`helpers.service.access`), its size, its pace, or because there are too
many requests.
"""

import asyncio
import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helpers.service import access
from helpers.service.errors import ApiError, error_response, internal_error, too_many_requests
from helpers.service.metrics import Metrics
from helpers.service.root_path import with_root_path
from helpers.service.sent_files import content_type, is_file
from helpers.service.settings import Settings

log = logging.getLogger("lookalike.service")

#: Bytes of a JSON body. Parsed JSON takes much more memory than its text.
_MAX_JSON = 2 * 2**20

#: All bodies in memory together, in multiples of the largest allowed body.
_MAX_BODIES = 16

_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")

#: Sent with every response. The page loads only its own files, cannot be framed, and types are not guessed.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityMiddleware:
    """ASGI middleware; see above."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self.app, self._settings, self._metrics = app, settings, metrics
        self._bodies = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = with_root_path(scope, self._settings.root_path)
        start, status = time.perf_counter(), 0

        async def send_secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._checked(scope, receive, send_secured)
        except ApiError as error:
            if not status:
                await error_response(error)(scope, receive, send_secured)
        except Exception as error:
            response = internal_error(error)
            # If the response has begun, only the connection can be closed.
            if status:
                raise
            await response(scope, receive, send_secured)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            # Clients can invent methods, and each would be a line of the metrics.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - start
            self._metrics.requests.labels(route, method, str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            # The route without ids, parameters and headers: they may be private.
            log.info("%s %s %d %.1f ms", method, route, status or 499, 1000 * seconds)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        access.check_host(headers, self._settings)
        path = scope["path"].removeprefix(scope["root_path"])
        if not path:
            # Relative addresses of the page need the slash at the end.
            await RedirectResponse(f"{scope['path']}/", headers={"Cache-Control": "no-cache"})(scope, receive, send)
            return
        access.check_read(headers, path, self._settings)
        if changes_the_index(scope["method"], path):
            access.check_change(headers, self._settings)
        kind = content_type(headers)
        upload = kind == "multipart/form-data" or is_file(kind)
        limit = self._settings.max_body if upload else min(_MAX_JSON, self._settings.max_body)
        length = headers.get("content-length", "0")
        announced = int(length) if length.isdecimal() and "transfer-encoding" not in headers else limit
        if announced > limit:
            raise _too_large(limit)
        if not announced:
            await self.app(scope, receive, send)
            return
        if self._bodies >= 2 * self._settings.queue or self._bytes + announced > _MAX_BODIES * self._settings.max_body:
            raise too_many_requests()
        self._bodies, self._bytes = self._bodies + 1, self._bytes + announced
        try:
            await self.app(scope, self._limited(receive, limit), send)
        finally:
            self._bodies, self._bytes = self._bodies - 1, self._bytes - announced

    def _limited(self, receive: Receive, limit: int) -> Receive:
        """``receive`` with a limit on the size of the body and on the time that it takes to arrive."""
        deadline = time.monotonic() + self._settings.body_seconds
        size, complete = 0, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            seconds = min(self._settings.idle_seconds, deadline - time.monotonic())
            try:
                async with asyncio.timeout(max(0, seconds)):
                    message = await receive()
            except TimeoutError as error:
                raise ApiError(408, "The request arrived too slowly.", {"Connection": "close"}) from error
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > limit:
                    raise _too_large(limit)
                complete = not message.get("more_body", False)
            return message

        return limited


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request is too large. Send at most {limit:,} bytes.")


def changes_the_index(method: str, path: str) -> bool:
    """Whether a request adds, changes, removes or restores an image."""
    path = path.rstrip("/")
    if method == "POST":
        return path == "/v1/images" or (path.startswith("/v1/images/") and path.endswith("/restore"))
    return method in ("DELETE", "PATCH") and path.startswith("/v1/images/")
