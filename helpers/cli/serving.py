"""`lookalike serve`: an engine as a web page and service."""

import argparse
import socket

from helpers.cli import locations
from helpers.cli.common import (
    OK,
    UNAVAILABLE,
    USAGE,
    CommandError,
    add_command,
    positive,
    quiet_libraries,
    shown,
)


def register(commands) -> None:
    """Add this family's command to a parser's."""
    serve = add_command(
        commands,
        "serve",
        _serve,
        "Serve an engine: a page for people, and an interface for programs.",
        """
lookalike serve
lookalike serve photos.index --port 8080
lookalike serve photos.index --workers 2
LOOKALIKE_API_KEY=secret lookalike serve photos.index --host 0.0.0.0 --allow-host images.example.org
""",
        f"""
Without ENGINE it is {locations.DEFAULT}, or else the only one in the current folder. Only this computer can reach the
page unless --host says otherwise. Then images can be added and removed by those alone who have the key that stands in
LOOKALIKE_API_KEY, or by nobody, if there is none. What programs can ask is described at /docs. Ctrl-C ends it.
""",
    )
    serve.add_argument("engine", metavar="ENGINE", nargs="?")
    serve.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="default: %(default)s")
    serve.add_argument("--port", type=_port, default=8000, metavar="N", help="default: %(default)s")
    serve.add_argument("--workers", type=positive, default=1, metavar="N", help="processes; default: %(default)s")
    serve.add_argument("--root", metavar="FOLDER", help="where the engine's images are now, if they were moved")
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that the service is called by, such as behind a proxy; may be given several times",
    )
    serve.add_argument(
        "--log-level", choices=("warning", "info", "debug"), default="info", help="how much is logged; default: info"
    )


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 1 to 65535, got {number}")
    return number


def _serve(options: argparse.Namespace) -> int:
    # First, so that a missing package is reported before anything else is asked for.
    from helpers.service import server

    quiet_libraries()
    folder = locations.engine_folder(options.engine)
    root = None if options.root is None else locations.root_folder(options.root)
    _check_free(options.host, options.port)
    try:
        server.run(
            folder,
            workers=options.workers,
            log_level=options.log_level,
            root=root,
            host=options.host,
            port=options.port,
            hosts=tuple(options.allow_host),
        )
    except SystemExit as stop:
        if stop.code:
            raise CommandError(
                f"the service at {options.host}, port {options.port}, did not start; the reason stands above",
                UNAVAILABLE,
            ) from stop
    return OK


def _check_free(host: str, port: int) -> None:
    """Before a network is loaded.

    Raises
    ------
    CommandError : nobody can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CommandError(f"--host {shown(host)} is no address of this computer: {error.strerror}", USAGE) from error
    with socket.socket(family, kind, protocol) as test:
        # As the server does: what a closed connection still holds is no obstacle.
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test.bind(address)
        except OSError as error:
            raise CommandError(
                f"port {port} at {shown(host)} can't be had: {error.strerror}. Choose another: --port {port + 1}",
                UNAVAILABLE,
            ) from error
