"""Unit tests start no process and open no port; tests that do are in tests/integration."""

import sys

import pytest

#: Audit events (see Python's table of them) → what a test did.
REFUSED = {"subprocess.Popen": "started a process", "os.fork": "started a process", "socket.bind": "opened a port"}
#: Programs that describe the processor to joblib and h5py.
PROBES = ("cat", "lscpu", "uname")
_active = False


def _refuse(event: str, arguments: tuple) -> None:
    if _active and event in REFUSED and arguments[:1] not in [(probe,) for probe in PROBES]:
        raise AssertionError(f"A unit test {REFUSED[event]} ({arguments!r:.200}). Move it to tests/integration.")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def no_processes():
    global _active
    _active = True
    yield
    _active = False
