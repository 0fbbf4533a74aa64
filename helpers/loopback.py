"""This computer's loopback interface: which addresses belong to it, and ports for servers."""

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterator


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this computer's loopback interface; a name is not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port of 127.0.0.1 for a server that another process starts; until then, connections are refused.

    On Linux, no process that requests any free port is given this one while the context is open, and a server that
    sets ``SO_REUSEADDR`` can listen at it. Other systems do not allow both: there the port is free, but not reserved.
    """
    with socket.socket() as bound:
        if sys.platform == "linux":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        if sys.platform != "linux":
            bound.close()
        yield port
