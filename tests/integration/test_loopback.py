import errno
import socket
import sys

import pytest

from helpers.loopback import reserved_port


def test_a_server_can_listen_at_a_reserved_port():
    with reserved_port() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        # This sets SO_REUSEADDR except on Windows, as servers do.
        with (
            socket.create_server(("127.0.0.1", port)) as server,
            socket.create_connection(("127.0.0.1", port), timeout=5),
        ):
            server.accept()[0].close()


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: only Linux reserves the port")
def test_a_reserved_port_is_not_free():
    with reserved_port() as port, socket.socket() as other:
        with pytest.raises(OSError) as caught:
            other.bind(("127.0.0.1", port))
        assert caught.value.errno == errno.EADDRINUSE


def test_reserved_ports_differ():
    with reserved_port() as first, reserved_port() as second:
        assert first != second
