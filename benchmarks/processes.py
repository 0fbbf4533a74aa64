"""Measure in new processes, so that imports and memory of one measurement do not affect the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers import paths


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


def peak_memory() -> int | None:
    """The peak memory of this process in bytes, or None if the system does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
