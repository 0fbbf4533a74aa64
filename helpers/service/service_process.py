"""A service in processes beside this one, for notebooks, tests and benchmarks that are its clients."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import psutil
import requests

from helpers import paths

#: For processes that were killed.
_SECONDS_TO_END = 20


class ServiceNotReady(RuntimeError):
    """A service that was started did not come up; the message ends with what it said."""


class ServiceProcess:
    """`lookalike serve` in processes of its own, on a free port of this computer; ended with the ``with`` block.

    Parameters
    ----------
    folder : of an engine.
    workers : processes that share it.
    key : what changes ask for; None leaves them open to this computer.
    options : further ones, as on the command line, such as ``("--allow-host", "images.example")``.
    patience : seconds until it has to be ready.

    Attributes
    ----------
    url : where it is, ``http://127.0.0.1:port``.

    Raises
    ------
    ServiceNotReady : it ended, or is not ready in time.
    """

    def __init__(
        self,
        folder: str | Path,
        workers: int = 1,
        key: str | None = None,
        options: tuple[str, ...] = (),
        patience: float = 180.0,
    ):
        self.folder, self._count, self._patience = Path(folder), workers, patience
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable, "-m", "helpers.cli", "serve", str(self.folder.absolute()), "--port", str(port),
            "--workers", str(workers), "--log-level", "warning", *options,
        ]  # fmt: skip
        self._environment = paths.child_environment() | {"LOOKALIKE_API_KEY": key or ""}
        self._process: subprocess.Popen | None = None
        self._log = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it, or start it again after it was stopped or killed, and wait until it is ready."""
        if self._log is not None:
            self._log.close()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it is read after the process has ended)
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + self._patience
        try:
            while not self._ready():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ServiceNotReady(f"the service of {self.folder} is not ready. It said: {self.said()}")
                time.sleep(0.05)
        except BaseException:
            self.stop()
            raise
        return self

    def said(self) -> str:
        """The end of what it wrote to the terminal."""
        if self._log is None or self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:].strip()

    @property
    def workers(self) -> list[int]:
        """Ids of the processes that answer."""
        if self._process is None or self._process.poll() is not None:
            return []
        if self._count == 1:
            return [self._process.pid]
        children = psutil.Process(self._process.pid).children()
        # Beside its workers, Python starts one process that only keeps count of shared memory.
        return [child.pid for child in children if "spawn_main" in " ".join(_command_line(child))]

    def kill_worker(self) -> int:
        """End one of the workers at once, as ``kill -9`` does; its id."""
        victim = self.workers[0]
        os.kill(victim, signal.SIGKILL)
        return victim

    def kill(self) -> None:
        """End all of its processes at once, as when the power fails; after it their port can be had again.

        Raises
        ------
        TimeoutError : one of them did not end.
        """
        if self._process is not None and self._process.poll() is None:
            family = psutil.Process(self._process.pid).children(recursive=True)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            # A process gives its memory back before its port, which takes the longer the larger its network is.
            deadline = time.monotonic() + _SECONDS_TO_END
            while living := [each.pid for each in family if _lives(each)]:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"processes {living} of the service of {self.folder} did not end when killed")
                time.sleep(0.01)

    def stop(self) -> None:
        """Ask it to end, and wait until it has; a process that doesn't is killed."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._log is not None:
            self._log.close()

    def _ready(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/ready", timeout=5).status_code == 200
        return False


def _lives(process: psutil.Process) -> bool:
    """One that ended and that nobody has asked for its status is only a name."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
