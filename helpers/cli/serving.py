"""`lookalike serve`: an engine as a web page and an HTTP service."""

import argparse
import socket

from helpers.cli import common, locations
from helpers.cli.common import OK, UNAVAILABLE, USAGE, CommandError, printable


def register(commands: "common.Commands") -> None:
    serve = common.add_command(
        commands,
        "serve",
        _serve,
        "Serve an engine as a web page and an HTTP interface.",
        """
lookalike serve --open
lookalike serve -e photos.engine --port 8080
lookalike serve --workers 2
LOOKALIKE_API_KEY=secret lookalike serve --host 0.0.0.0 --allow-host images.example.org
LOOKALIKE_API_KEY=secret lookalike serve --root-path /photos --allow-host www.example.org
""",
        """
By default, only this computer can reach the service and change the gallery. --host and --allow-host let other computers
reach it; then the gallery can be changed only if the environment variable LOOKALIKE_API_KEY is set. If it is set,
clients must send this key to add and remove images. If LOOKALIKE_READ_KEY is set, searches need that key, too. /docs
documents the HTTP interface. Press Ctrl-C to stop the service.

If other computers can reach the service, put a reverse proxy in front of it, which handles TLS and slow clients.
""",
    )
    locations.add_engine(serve)
    serve.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="default: %(default)s")
    serve.add_argument(
        "--port", type=common.number(int, 1, 65535), default=8000, metavar="N", help="default: %(default)s"
    )
    serve.add_argument(
        "--workers", type=common.positive, default=1, metavar="N", help="number of processes; default: %(default)s"
    )
    serve.add_argument("--open", action="store_true", help="open the page in the browser when the service is ready")
    serve.add_argument("--root", metavar="FOLDER", help="where the images of the engine are now, if they were moved")
    text = "a host name that clients use, for example that of a proxy; can be repeated"
    serve.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=text)
    text = "an origin such as https://www.example.org, whose pages may search with scripts; can be repeated"
    serve.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN", help=text)
    text = "the path of the service behind a proxy, for example /photos; the proxy may remove or keep it"
    serve.add_argument("--root-path", metavar="PATH", default="", help=text)
    serve.add_argument("--log-level", choices=("warning", "info", "debug"), default="info", help="default: %(default)s")


def _serve(options: argparse.Namespace) -> int:
    # Import this first: it reports a missing package before the arguments are checked.
    from helpers.service import server

    folder = locations.engine_folder(options.engine)
    root = None if options.root is None else locations.root_folder(options.root)
    _check_port(options.host, options.port)
    if options.open:
        from helpers.cli.browser import open_when_ready

        open_when_ready(options.host, options.port, options.root_path)
    try:
        server.run(
            folder,
            workers=options.workers,
            log_level=options.log_level,
            root=root,
            host=options.host,
            port=options.port,
            root_path=options.root_path,
            hosts=tuple(options.allow_host),
            origins=tuple(options.allow_origin),
        )
    except SystemExit as stop:
        if stop.code:
            raise CommandError(
                f"the service at {options.host}, port {options.port}, did not start; see the messages above",
                UNAVAILABLE,
            ) from stop
    return OK


def _check_port(host: str, port: int) -> None:
    """CommandError if the port is in use, or if the host is not an address of this computer."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CommandError(
            f"--host {printable(host)} is not an address of this computer: {error.strerror}", USAGE
        ) from error
    with socket.socket(family, kind, protocol) as test:
        # The server sets this option too: connections that were closed recently do not block the port.
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test.bind(address)
        except OSError as error:
            raise CommandError(
                f"port {port} at {printable(host)} is not available: {error.strerror}. Choose another port: "
                f"--port {port + 1}",
                UNAVAILABLE,
            ) from error
