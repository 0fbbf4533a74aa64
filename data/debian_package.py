"""The Debian packages that `make_pairs.py`, `make_sample.py` and `make_scenes.py` read, from their command lines."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def argument(usage: str) -> Path:
    """The only argument of the command line; without it, or with more, the script ends with its usage."""
    return arguments(usage, 1)[0]


def arguments(usage: str, number: int) -> list[Path]:
    """All arguments of the command line; with fewer or more than ``number``, the script ends with its usage."""
    if len(sys.argv) != number + 1:
        sys.exit(usage)
    return [Path(each) for each in sys.argv[1:]]


@contextmanager
def unpacked(package: Path) -> Iterator[Path]:
    """The folder with a package's files, unpacked for the time of the block unless ``package`` is such a folder."""
    if not package.exists():
        sys.exit(f"{package} does not exist. Give the package, or the folder that it was unpacked to.")
    if package.is_dir():
        yield package
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", str(package), folder], check=True)
        yield Path(folder)
