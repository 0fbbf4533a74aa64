"""Measure in new processes, so that imports and memory of one measurement do not affect the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers import paths

#: The file in which Linux describes the process that reads it.
STATUS = Path("/proc/self/status")


def child(module: str, *arguments: str, variables: dict[str, str] | None = None) -> dict:
    """Run a module in a new process and return the last line that it prints, from JSON.

    Raises
    ------
    CalledProcessError : the process failed.
    """
    output = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=paths.ROOT,
        env=os.environ | (variables or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


def memory(key: str) -> int | None:
    """Bytes of this process, or None if the system does not report them.

    key : a line of ``/proc/self/status``: ``"VmRSS"``, the resident memory, or ``"VmHWM"``, its peak.
    """
    if not STATUS.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(key))


def peak_memory() -> int | None:
    """The peak memory of this process in bytes, or None if the system does not report it."""
    return memory("VmHWM")


def system_load() -> str:
    """The load of the computer, including this process; "unknown" if the system does not report it."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
