"""Measuring in fresh processes: what one has loaded or allocated is no matter to the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers import paths


def child(module: str, *arguments: str, variables: dict[str, str] | None = None) -> dict:
    """What a fresh process that runs a module prints as JSON in its last line; what it says of errors is passed on.

    Raises
    ------
    CalledProcessError : it failed.
    """
    said = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=paths.ROOT,
        env=os.environ | (variables or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return json.loads(said.splitlines()[-1])


def peak_memory() -> int | None:
    """Of this process so far, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
