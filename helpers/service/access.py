"""Access control: which requests the service accepts, and which of them may change the index.

Any page in a browser on this computer can send requests to a service on this computer, even if no other computer can
reach it. Such requests are recognized by the headers ``Origin`` and ``Sec-Fetch-Site``, which no page can forge, and by
``Host``, which differs if another host name was made to resolve to this computer (DNS rebinding).
"""

import hmac
from urllib.parse import urlsplit

from helpers.service.errors import ApiError
from helpers.service.settings import Settings

_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}

#: Headers that proxies set. With one of them, the client is not the other end of the connection.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

KEY_HEADER = "X-API-Key"


def check_host(headers: dict[str, str], settings: Settings) -> None:
    """Check the ``Host`` header of a service on loopback, or of one with allowed host names.

    headers : by lower-case name.

    Raises
    ------
    ApiError : 403, the host name is not allowed.
    """
    if not settings.on_loopback and not settings.hosts:
        return
    if _host_name(headers.get("host", "")) not in _LOCAL_NAMES | {settings.host.lower(), *settings.hosts}:
        raise ApiError(403, "This host name is not allowed. Start the service with --allow-host to allow it.")


def check_change(headers: dict[str, str], settings: Settings) -> None:
    """Check whether the request may change the index.

    Raises
    ------
    ApiError : 401, the key is missing or wrong; 403, changes are off, or the request comes from another site.
    """
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") or (
        origin is not None and _authority(origin) != headers.get("host", "").lower()
    ):
        raise ApiError(403, "Pages of other sites cannot change the gallery.")
    if settings.read_only:
        raise ApiError(403, "The gallery cannot be changed, because the folder of its engine is read-only.")
    if settings.api_key:
        given = headers.get(KEY_HEADER.lower(), "")
        # Takes the same time for every wrong key, so that the time reveals nothing about the right one.
        if not hmac.compare_digest(given.encode("utf-8", "replace"), settings.api_key.encode()):
            raise ApiError(
                401,
                f"Changes require the key of this service in the header {KEY_HEADER}.",
                {"WWW-Authenticate": "ApiKey"},
            )
    elif settings.changes == "off":
        raise ApiError(
            403,
            "Changes are off, because other computers can reach the service and it has no key. "
            "Start it with LOOKALIKE_API_KEY to allow changes.",
        )
    elif any(name in headers for name in _FORWARDED):
        raise ApiError(
            403,
            "Without a key, only this computer can change the gallery, and this request came through a proxy. "
            "Start the service with LOOKALIKE_API_KEY to allow changes.",
        )


def by_name(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """ASGI headers as a dict with lower-case names; the last one of a name counts."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _authority(origin: str) -> str | None:
    """``name:port`` of an origin, as in a ``Host`` header; None if the origin is invalid or "null"."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") and parts.netloc else None


def _host_name(host: str) -> str:
    """``name`` of ``name:port``; an IPv6 address loses its brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
