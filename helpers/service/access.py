"""Access control: which requests the service accepts, and which of them may read or change the index.

Any page in a browser on this computer can send requests to a service on this computer, even if no other computer can
reach it. Such requests are recognized by the headers ``Origin`` and ``Sec-Fetch-Site``, which no page can forge, and by
``Host``, which differs if another host name was made to resolve to this computer (DNS rebinding).
"""

import hmac
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from helpers.loopback import is_loopback
from helpers.service.errors import ApiError
from helpers.service.settings import Settings

#: Headers that proxies set. With one of them, the client is not the other end of the connection.
_FORWARDED = re.compile(r"forwarded|x-forwarded-.*|x-real-ip|via")

KEY_HEADER = "X-API-Key"

#: The cookie of a browser that knows the key for reading.
COOKIE = "lookalike_session"


def given_key(headers: Headers) -> str:
    """The key of a request, or "". Behind a proxy that uses ``Authorization`` itself, it is in ``X-API-Key``."""
    if key := headers.get(KEY_HEADER, ""):
        return key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def check_host(headers: Headers, settings: Settings) -> None:
    """Check the ``Host`` header of a service on loopback, or of one with allowed host names.

    Raises ApiError: 403, the host name is not allowed.
    """
    if not settings.on_loopback and not settings.hosts:
        return
    name = _host_name(headers.get("host", ""))
    if not is_loopback(name) and name not in (settings.host.lower(), *settings.hosts):
        shown = name if re.fullmatch(r"[\w.:-]{1,255}", name, re.ASCII) else "NAME"
        raise ApiError(
            403,
            f"This host name is not allowed. To allow it, start the service with: lookalike serve --allow-host {shown}",
            code="host_not_allowed",
        )


def needs_read_key(path: str) -> bool:
    """Whether a path shows something of the gallery. The page itself and the state of the service do not."""
    return path.startswith("/v1/") or path == "/metrics"


def check_read(headers: Headers, path: str, settings: Settings) -> None:
    """Check whether the request may read a path, if the service has a key for reading.

    A browser that has sent the key to ``/v1/session`` may send its cookie instead, because it loads the images of a
    page without a header for the key.

    Raises ApiError: 401, the key is missing or wrong.
    """
    if settings.read_key is None or not needs_read_key(path):
        return
    given = given_key(headers)
    if _same(given, settings.read_key) or (settings.api_key and _same(given, settings.api_key)):
        return
    if _same(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), session(settings.read_key)):
        return
    raise _key_error(given, "Requests require the key of this service")


def session(read_key: str) -> str:
    """The value of the cookie of a browser that knows the key for reading. It does not contain the key."""
    return hmac.digest(read_key.encode(), b"lookalike session", "sha256").hex()


def check_change(headers: Headers, settings: Settings) -> None:
    """Check whether the request may change the index.

    Raises ApiError: 401, the key is missing or wrong; 403, changes are off, or the request comes from another site.
    """
    # Pages of other sites need the key, which a page that forges requests does not have.
    is_allowed = settings.api_key is not None and headers.get("origin", "").lower() in settings.origins
    is_other = headers.get("sec-fetch-site", "none") not in ("same-origin", "none") or not _is_own(headers, settings)
    if is_other and not is_allowed:
        raise ApiError(
            403,
            "Pages of other sites cannot change the gallery. If this is the service's own page behind a proxy, start "
            "the service with --allow-host and the host name in the address of the page.",
            code="other_site",
        )
    if settings.read_only:
        raise ApiError(403, "The gallery cannot be changed, because the folder of its engine is read-only.")
    if settings.api_key:
        given = given_key(headers)
        if not _same(given, settings.api_key):
            raise _key_error(given, "Changes require the key of this service")
    elif settings.changes == "off":
        raise ApiError(
            403,
            "Changes are off, because other computers can reach the service and it has no key. "
            "Start it with LOOKALIKE_API_KEY to allow changes.",
        )
    elif any(map(_FORWARDED.fullmatch, headers)):
        raise ApiError(
            403,
            "Without a key, only this computer can change the gallery, and this request came through a proxy. "
            "Start the service with LOOKALIKE_API_KEY to allow changes.",
        )


def _same(given: str, key: str) -> bool:
    # Takes the same time for every wrong key, so that the time reveals nothing about the right one.
    return hmac.compare_digest(given.encode("utf-8", "replace"), key.encode())


def _key_error(given: str, reason: str) -> ApiError:
    return ApiError(
        401,
        f"{reason}. Send it in a header: Authorization: Bearer KEY, or {KEY_HEADER}: KEY.",
        {"WWW-Authenticate": 'Bearer realm="Lookalike"'},
        code="key_wrong" if given else "key_required",
    )


def _is_own(headers: Headers, settings: Settings) -> bool:
    """Whether the page that sent a request, if it was a page, is one of this service."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return False
    # A proxy may send its own name or no port in the header Host.
    return parts.netloc.lower() == headers.get("host", "").lower() or parts.hostname in settings.hosts


def _host_name(host: str) -> str:
    """``name`` of ``name:port``; an IPv6 address loses its brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
