"""The path under which a reverse proxy publishes the service, such as ``/photos``.

Some proxies remove it from the requests that they pass on, others keep it. The service accepts both.
"""

import re
from collections.abc import Mapping

from starlette.types import Scope

#: First parts of the paths of the service. A root path that begins with one could not be told from them.
OWN_PARTS = {"docs", "health", "metrics", "openapi.json", "ready", "static", "v1", "version"}


def normalized(text: str) -> str:
    """``/photos`` for ``photos/``; "" for ``/``.

    Raises ValueError: it is not a path, has characters that a URL encodes, or begins like a path of the service.
    """
    path = text.strip("/")
    if not path:
        return ""
    parts = path.split("/")
    if not all(re.fullmatch(r"[\w.~@+-]+", part, re.ASCII) and part.strip(".") for part in parts):
        raise ValueError(
            f"the root path must be a path like /photos, without host and special characters; got {text!r}"
        )
    if parts[0] in OWN_PARTS:
        raise ValueError(f"the root path must not begin with /{parts[0]}, which is a path of the service")
    return f"/{path}"


def base_element(headers: Mapping[str, str]) -> str:
    """``<base href="/photos/">`` if the proxy says under which path it publishes the page, else "".

    jupyter-server-proxy and Traefik show the page at ``/photos`` too, where its relative addresses would be wrong
    without this element. The headers of a request cannot tell that address from ``/photos/``.
    """
    prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
    return f'<base href="{prefix}/">' if re.fullmatch(r"(/[\w.~%@+-]+)+", prefix, re.ASCII) else ""


def with_root_path(scope: Scope, root_path: str) -> Scope:
    """The ASGI scope of a request with its root path, and a path that begins with it."""
    path = scope["path"]
    if path != root_path and not path.startswith(f"{root_path}/"):
        path = root_path + path
    return {**scope, "path": path, "root_path": root_path}
