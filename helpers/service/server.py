"""The server of the service, with one process or several, as `lookalike serve` starts it.

A worker process must import this module before it can report that it is alive, so slow imports are deferred.
"""

import logging
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from helpers import paths
from helpers.service.settings import Settings
from helpers.text import printable

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("lookalike.service")

#: Simultaneous connections per worker.
_MAX_CONNECTIONS = 1000


def run(engine_folder: str | Path, workers: int = 1, log_level: str = "info", **settings: Any) -> None:
    """Serve an engine folder until the process is interrupted.

    Parameters
    ----------
    workers : processes that share the folder's index. Uvicorn replaces a worker that dies.
    log_level : of the service and of uvicorn, such as "info" or "warning".
    settings : see `Settings`. The keys come from ``LOOKALIKE_API_KEY`` and ``LOOKALIKE_READ_KEY``.

    Raises
    ------
    EngineFolderError, IndexFileError, WeightsUnavailable, ValueError : see `create_app`.
    SystemExit : the port is in use.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    folder = Path(engine_folder).absolute()
    chosen = Settings(folder=folder, api_key=paths.api_key(), read_key=paths.read_key(), **settings)
    if not logging.getLogger("lookalike").handlers:
        _log_to_stderr(log_level)
    _print_address(chosen, workers)
    uvicorn_options = {"host": chosen.host, "port": chosen.port, **options(log_level)}
    if workers == 1:
        from helpers.service.application import create_app

        _limit_blas_threads()
        uvicorn.run(create_app(chosen), **uvicorn_options)
        return
    from helpers.search.persist.snapshot import manifest_of

    # A folder that cannot be opened is reported here once, and not by each worker.
    manifest_of(chosen.folder)
    metrics = Path(tempfile.mkdtemp(prefix="lookalike-metrics-"))
    try:
        with paths.worker_environment(chosen.to_json(), metrics, log_level):
            _run_workers(
                uvicorn.Config(f"{__name__}:from_environment", factory=True, workers=workers, **uvicorn_options)
            )
    finally:
        shutil.rmtree(metrics, ignore_errors=True)


def options(log_level: str) -> dict[str, Any]:
    """Options of uvicorn, except the address."""
    return {
        "http": "h11",
        "log_level": log_level,
        "access_log": False,
        "server_header": False,
        # The client's address behind a proxy is not needed, and without a proxy the headers can be forged.
        "proxy_headers": False,
        "timeout_keep_alive": 10,
        "timeout_graceful_shutdown": 10,
        # A worker that hangs is replaced after this many seconds. Starting on a busy computer takes less.
        "timeout_worker_healthcheck": 15,
        "limit_concurrency": _MAX_CONNECTIONS,
    }


def _run_workers(config: uvicorn.Config) -> None:
    """`uvicorn.run` for several processes, with ``TCP_NODELAY`` on the socket that they share."""
    with config.bind_socket() as listening:
        # asyncio sets this on sockets that it creates, but not on this one. Without it, the body of a response waits
        # about 40 ms, until the client acknowledges the headers.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Multiprocess(config, sockets=[listening]).run()


def from_environment() -> "FastAPI":
    """The application of a worker process, with the settings that `run` put into its environment.

    Raises RuntimeError: there are none.
    """
    settings = paths.serve_settings()
    if settings is None:
        raise RuntimeError("LOOKALIKE_SERVE is not set. Start the service with `lookalike serve -e ENGINE`")
    from helpers.service.application import create_app

    _log_to_stderr(paths.serve_log_level())
    _limit_blas_threads()
    return create_app(Settings.from_json(settings, paths.api_key(), paths.read_key()))


def _limit_blas_threads() -> None:
    """Limit matrix products to one thread.

    Searches run in parallel. One that used all cores would wait for those on which a network computes.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")


def _print_address(settings: Settings, workers: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    changes = {
        "open": "this computer can add and remove images",
        "key": "clients with the key can add and remove images",
        "off": "images cannot be added or removed, because the folder is read-only"
        if settings.read_only
        else "images cannot be added or removed; set LOOKALIKE_API_KEY to allow it",
    }[settings.changes]
    if settings.read_key:
        changes = f"only clients with a key can search; {changes}"
    processes = "" if workers == 1 else f" with {workers} workers"
    served = f"{printable(settings.folder)}{processes}"
    print(f"serving {served} at http://{host}:{settings.port}{settings.root_path}/ ({changes})", file=sys.stderr)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("lookalike")
    logger.handlers = [handler]
    logger.setLevel(level.upper() if level != "trace" else "DEBUG")
    logger.propagate = False
    # It logs every malformed upload, with which clients could fill the disk.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
