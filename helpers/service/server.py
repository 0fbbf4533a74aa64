"""Server: the service in one process or several, as `lookalike serve` starts it.

Workers import this module before they can say that they live, so what takes long to import is imported later.
"""

import logging
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.supervisors import Multiprocess

from helpers import paths
from helpers.service.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("lookalike.service")

#: Connections at a time, of each worker.
_CONNECTIONS = 1000


def run(engine_folder: str | Path, workers: int = 1, log_level: str = "info", **settings) -> None:
    """Serve an engine folder until it is interrupted.

    Parameters
    ----------
    workers : processes that share the folder's index. One that dies is replaced.
    log_level : of uvicorn, such as "info", "warning".
    settings : see `Settings`; the key for changes is ``LOOKALIKE_API_KEY``.

    Raises
    ------
    EngineFolderError, IndexFileError, WeightsUnavailable, ValueError : see `create_app`.
    SystemExit : the port is taken.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    chosen = Settings(folder=Path(engine_folder).absolute(), api_key=paths.api_key(), **settings)
    if not logging.getLogger("lookalike").handlers:
        _log_to_stderr(log_level)
    _say(chosen, workers)
    how = {"host": chosen.host, "port": chosen.port, **options(log_level)}
    if workers == 1:
        from helpers.service.application import create_app

        _one_thread_a_search()
        uvicorn.run(create_app(chosen), **how)
        return
    from helpers.search.persist.snapshot import manifest_of

    # What can't be opened is said once, here, and not by each worker.
    manifest_of(chosen.folder)
    together = Path(tempfile.mkdtemp(prefix="lookalike-metrics-"))
    try:
        with paths.worker_environment(chosen.to_json(), together):
            _run_workers(uvicorn.Config(f"{__name__}:from_environment", factory=True, workers=workers, **how))
    finally:
        shutil.rmtree(together, ignore_errors=True)


def options(log_level: str) -> dict:
    """How uvicorn is to serve, wherever that is."""
    return {
        "http": "h11",
        "log_level": log_level,
        "access_log": False,
        "server_header": False,
        # Whom a proxy stands for is of no use here, and could be forged where there is none.
        "proxy_headers": False,
        "timeout_keep_alive": 10,
        "timeout_graceful_shutdown": 10,
        # A worker that hangs is replaced after so long; one that starts on a busy computer must not be taken for one.
        "timeout_worker_healthcheck": 15,
        "limit_concurrency": _CONNECTIONS,
    }


def _run_workers(config: uvicorn.Config) -> None:
    """`uvicorn.run` for several processes, with ``TCP_NODELAY`` on the socket that they share."""
    with config.bind_socket() as listening:
        # asyncio sets it on the sockets that it creates, but not on this one. Without it, the body of a response waits
        # about 40 ms until the client acknowledges the headers.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Multiprocess(config, sockets=[listening]).run()


def from_environment() -> "FastAPI":
    """The application of a worker process, by the settings that `run` left for it.

    Raises
    ------
    RuntimeError : none were left.
    """
    told = paths.serve_settings()
    if told is None:
        raise RuntimeError("LOOKALIKE_SERVE is not set: start the service by `lookalike serve FOLDER`")
    from helpers.service.application import create_app

    _log_to_stderr("info")
    _one_thread_a_search()
    return create_app(Settings.from_json(told, paths.api_key()))


def _one_thread_a_search() -> None:
    """Searches run side by side; one that spreads over all cores waits for cores on which a network computes."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")


def _say(settings: Settings, workers: int) -> None:
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    changes = {
        "open": "images can be added and removed from this computer",
        "key": "images can be added and removed with the key",
        "off": "images can't be added or removed; set LOOKALIKE_API_KEY to allow it",
    }[settings.changes]
    processes = "" if workers == 1 else f" by {workers} workers"
    print(f"serving {settings.folder}{processes} at http://{name}:{settings.port}/ ({changes})", file=sys.stderr)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("lookalike")
    logger.handlers = [handler]
    logger.setLevel(level.upper() if level != "trace" else "DEBUG")
    logger.propagate = False
    # Else every malformed upload is a line of the log, and who sends them fills the disk.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
