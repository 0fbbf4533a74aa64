"""A service in a separate process, for notebooks, tests and benchmarks."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self

import psutil
import requests

from helpers import paths
from helpers.loopback import reserved_port

#: How long the service may take to start, and its processes to exit.
_START_SECONDS, _EXIT_SECONDS = 180, 20


class ServiceNotReady(RuntimeError):
    """A service did not start; the message contains the end of its output."""


class ServiceProcess:
    """`lookalike serve` on a free port of this computer; a ``with`` block starts and stops it.

    HTTP clients of this process reach it without the proxy of the environment.

    Parameters
    ----------
    folder : of an engine.
    workers : processes that share it.
    key : required for changes; with None, every client on this computer can change the index.

    Attributes
    ----------
    url : ``http://127.0.0.1:port``.

    Raises
    ------
    ServiceNotReady : the process ended, or was not ready in time.
    """

    def __init__(self, folder: str | Path, workers: int = 1, key: str | None = None):
        self.folder, self._count = Path(folder), workers
        self._reservation = contextlib.ExitStack()
        port = self._reservation.enter_context(reserved_port())
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable, "-m", "helpers.cli", "serve", "-e", str(self.folder.absolute()), "--port", str(port),
            "--workers", str(workers), "--log-level", "warning",
        ]  # fmt: skip
        self._environment = paths.child_environment() | {"LOOKALIKE_API_KEY": key or "", "LOOKALIKE_READ_KEY": ""}
        paths.bypass_proxies_on_loopback()
        self._process: subprocess.Popen | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start or restart the service, and wait until it is ready."""
        if self._log is not None:
            self._log.close()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not self._ready():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ServiceNotReady(f"the service of {self.folder} is not ready. Its output: {self.output()}")
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise
        return self

    def output(self) -> str:
        """The end of its log."""
        if self._log is None or self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:].strip()

    @property
    def workers(self) -> list[int]:
        """Ids of the processes that handle requests."""
        if self._process is None or self._process.poll() is not None:
            return []
        if self._count == 1:
            return [self._process.pid]
        children = psutil.Process(self._process.pid).children()
        # Another child process is the resource tracker of multiprocessing.
        return [child.pid for child in children if "spawn_main" in " ".join(_command_line(child))]

    def kill_worker(self) -> int:
        """Kill one of the workers, as ``kill -9`` does, and return its id."""
        worker = self.workers[0]
        os.kill(worker, signal.SIGKILL)
        return worker

    def kill(self) -> None:
        """Kill all processes at once, and wait until their port is free.

        Raises TimeoutError: a process did not exit.
        """
        if self._process is not None and self._process.poll() is None:
            processes = psutil.Process(self._process.pid).children(recursive=True)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            # A process frees its memory before its port. With a large network that takes a while.
            deadline = time.monotonic() + _EXIT_SECONDS
            while alive := [each.pid for each in processes if _is_alive(each)]:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"processes {alive} of the service of {self.folder} did not exit when killed")
                time.sleep(0.01)

    def stop(self) -> None:
        """Terminate the service, or kill it if it does not exit."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._log is not None:
            self._log.close()
        self._reservation.close()

    def _ready(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/ready", timeout=5).status_code == 200
        return False


def _is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie has exited."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
