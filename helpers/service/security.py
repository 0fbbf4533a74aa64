"""Guard: what every request passes before the application sees it, and every answer before the client does.

It looks at the head and counts the body while it streams in, so that nothing is held or computed for a request that
will be refused: by name and origin (`helpers.service.access`), by size, by pace, and when too many are sent at once.
"""

import asyncio
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helpers.service import access
from helpers.service.errors import ApiError, TooManyRequests, problem, unexpected
from helpers.service.metrics import Metrics
from helpers.service.settings import Settings

#: Bytes of a body that is no upload: JSON takes much more room in memory than in a request.
_MOST_JSON = 2 * 2**20

#: Bodies of the largest size that may be in memory at a time.
_BODIES = 16

#: On every answer. The page is made of its own files alone; nobody may frame it, or guess types.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityMiddleware:
    """An ASGI application around another one."""

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
        start, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self._guarded(scope, receive, told)
        except ApiError as refused:
            if not status:
                await problem(refused.status_code, refused.detail, refused.headers)(scope, receive, told)
        except Exception as error:
            result = unexpected(error)
            # An answer that has begun can't be taken back: it breaks off.
            if status:
                raise
            await result(scope, receive, told)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.requests.labels(route, _known_method(scope["method"]), str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = access.by_name(scope["headers"])
        access.check_host(headers, self._settings)
        if changes_the_index(scope["method"], scope["path"]):
            access.check_change(headers, self._settings)
        upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
        most = self._settings.max_body if upload else min(_MOST_JSON, self._settings.max_body)
        length = headers.get("content-length", "0")
        announced = int(length) if length.isdecimal() and "transfer-encoding" not in headers else most
        if announced > most:
            raise _too_large(most)
        if not announced:
            await self.app(scope, receive, send)
            return
        if self._bodies >= 2 * self._settings.queue or self._bytes + announced > _BODIES * self._settings.max_body:
            raise TooManyRequests
        self._bodies, self._bytes = self._bodies + 1, self._bytes + announced
        try:
            await self.app(scope, self._measured(receive, most), send)
        finally:
            self._bodies, self._bytes = self._bodies - 1, self._bytes - announced

    def _measured(self, receive: Receive, most: int) -> Receive:
        """The same body, as long as it is neither too large nor too slow."""
        deadline = time.monotonic() + self._settings.body_seconds
        size, complete = 0, False

        async def measured() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            patience = min(self._settings.idle_seconds, deadline - time.monotonic())
            try:
                async with asyncio.timeout(max(0, patience)):
                    message = await receive()
            except TimeoutError as error:
                raise ApiError(408, "The request came in too slowly.", {"Connection": "close"}) from error
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > most:
                    raise _too_large(most)
                complete = not message.get("more_body", False)
            return message

        return measured


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The request is larger than the {most:,} bytes that are taken.")


def changes_the_index(method: str, path: str) -> bool:
    """Whether a request, if it is one at all, adds or removes something."""
    path = path.rstrip("/")
    return (method == "POST" and path == "/api/images") or (method == "DELETE" and path.startswith("/api/images/"))


def _known_method(method: str) -> str:
    """Anybody can make up methods, and each would be a line of the metrics."""
    return method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
