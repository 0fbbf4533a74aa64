"""The full profile of notebook 13: it runs `benchmarks.indexes`, which measures each index in a process of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from helpers import paths

#: The sizes of the comparison.
SIZES = (["--real"], *(["--count", str(count)] for count in (10_000, 100_000, 1_000_000)))


def run(*arguments: str) -> pd.DataFrame:
    """The table that ``python -m benchmarks.indexes`` writes, whose other output is printed.

    It continues an interrupted run. Raises subprocess.CalledProcessError if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        command = [sys.executable, "-m", "benchmarks.indexes", *arguments, "--table", str(file)]
        print(subprocess.run(command, cwd=paths.ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)
        return pd.read_csv(file)


def compare() -> pd.DataFrame:
    """The comparison of all indexes at all `SIZES`."""
    return pd.concat([run(*size) for size in SIZES], ignore_index=True)
