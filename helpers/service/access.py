"""Access: who may ask this service, and who may change what it searches.

A browser on this computer is the danger to a service that only this computer can reach: any page it shows may send
requests here. Two things tell such requests: `Origin` and `Sec-Fetch-Site`, which no page can forge, and `Host`, which
names the page's own server where a name was made to point here (DNS rebinding).
"""

import hmac
from urllib.parse import urlsplit

from helpers.service.errors import ApiError
from helpers.service.settings import Settings

_OWN_NAMES = {"localhost", "127.0.0.1", "::1"}

#: Set by proxies: then the other end of the connection is not who asks.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

KEY_HEADER = "X-API-Key"


def check_host(headers: dict[str, str], settings: Settings) -> None:
    """Whether it was called by a name that it has; which matters where changes are open, or names were given.

    headers : by lower-case name.

    Raises
    ------
    Refused : 403, it was not.
    """
    if not settings.on_loopback and not settings.hosts:
        return
    given = _name(headers.get("host", ""))
    if given not in _OWN_NAMES | {settings.host.lower(), *settings.hosts}:
        raise ApiError(
            403, "This service is not called by that name. If it should be, give the name when it is started."
        )


def check_change(headers: dict[str, str], settings: Settings) -> None:
    """Whether the request may change the index.

    Raises
    ------
    Refused : 401, the key is missing or wrong; 403, changes are off, or another site's page asks.
    """
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise _other_site()
    origin = headers.get("origin")
    if origin is not None and _authority(origin) != headers.get("host", "").lower():
        raise _other_site()
    if settings.changes == "off":
        raise ApiError(
            403,
            "Changes are off: others than this computer can reach the service, and it has no key. "
            "Set LOOKALIKE_API_KEY where it is started.",
        )
    if settings.changes == "key":
        given = headers.get(KEY_HEADER.lower(), "")
        # In constant time: how long it takes says nothing about how much of a guess is right.
        if not hmac.compare_digest(given.encode("utf-8", "replace"), settings.api_key.encode()):
            raise ApiError(
                401,
                f"Changes need the key of this service, in the header {KEY_HEADER}.",
                {"WWW-Authenticate": "ApiKey"},
            )
    elif any(name in headers for name in _FORWARDED):
        raise ApiError(
            403,
            "Changes are open to this computer alone, and this request came by a proxy. "
            "Set LOOKALIKE_API_KEY where the service is started.",
        )


def by_name(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as ASGI has them, by name; of several of one name the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _other_site() -> ApiError:
    return ApiError(403, "The page of another site may not change what this service searches.")


def _authority(origin: str) -> str | None:
    """``name:port`` of an origin as a Host header has it; None for what is none, such as "null"."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") and parts.netloc else None


def _name(host: str) -> str:
    """``name`` of ``name:port``; brackets of an IPv6 address go, too."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
