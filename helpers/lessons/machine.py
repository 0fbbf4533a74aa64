"""Compares this machine with the requirements of the course."""

import os
import platform
import re
import shutil
import sys
from urllib.parse import urlsplit

import pandas as pd

from helpers import extras, paths
from helpers.images import download
from helpers.networks import specs, weights

#: Packages that the course imports or starts; alternatives are separated by a bar.
PACKAGES = (
    "numpy", "tensorflow-cpu|tensorflow", "keras", "opencv-contrib-python-headless", "scikit-learn", "pillow",
    "matplotlib", "jupyterlab", "ipywidgets", "papermill",
)  # fmt: skip


def check() -> pd.DataFrame:
    """One row per requirement: its name, what was found, what is required, whether it is fulfilled."""
    cache = paths.cache_dir().absolute()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    rows = [
        ("Python", platform.python_version(), "3.11 to 3.13", (3, 11) <= sys.version_info[:2] <= (3, 13)),
        ("processor cores", str(os.cpu_count()), "2 or more", (os.cpu_count() or 1) >= 2),
        ("free disk for the cache", f"{free:.0f} GB", "2 GB or more", free >= 2),
        *(_package(names, _locked()) for names in PACKAGES),
    ]
    return pd.DataFrame(rows, columns=["what", "found", "required", "fine"])


def networks() -> pd.DataFrame:
    """One row per network of the zoo: dimension, input size, whether its weights are in the cache, the paper."""
    return pd.DataFrame(
        [(row.name, row.dim, row.size, weights.available(row.name), row.source) for row in specs.ZOO.values()],
        columns=["network", "dim", "input", "weights in cache", "source"],
    )


def downloads() -> pd.DataFrame:
    """One row per data set of the full profile: name, file, its size in MB, host. Its first archive is used."""
    firsts = [(source.name, source.archives[0]) for source in download.SOURCES.values() if source.archives]
    rows = [(name, first.filename, first.megabytes, urlsplit(first.url).netloc) for name, first in firsts]
    return pd.DataFrame(rows, columns=["data set", "file", "MB", "host"])


def _package(names: str, locked: dict[str, str]) -> tuple[str, str, str, bool]:
    for name in names.split("|"):
        if found := extras.version(name):
            required = locked.get(name, found)
            return name, found, required, found.split(".")[:2] == required.split(".")[:2]
    return names, "not installed", locked.get(names.split("|")[0], "any"), False


def _locked() -> dict[str, str]:
    """Package → version in the lock. If it has several, for several Pythons, the installed one is preferred.

    Empty outside a checkout, where there is no lock.
    """
    if not paths.IN_CHECKOUT:
        return {}
    locked: dict[str, str] = {}
    for name, number in re.findall(r"^([\w.-]+)==(\S+)", (paths.ROOT / "requirements.txt").read_text(), re.MULTILINE):
        if name not in locked or number == extras.version(name):
            locked[name] = number
    return locked
