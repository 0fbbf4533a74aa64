"""The Debian package that `make_pairs.py` and `make_sample.py` read, from their command line."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def argument(usage: str) -> Path:
    """The only argument of the command line; without it, or with more, the script ends with its usage."""
    if len(sys.argv) != 2:
        sys.exit(usage)
    return Path(sys.argv[1])


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
