"""What this machine has, beside what the course needs."""

import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from helpers import paths
from helpers.networks import specs, weights

#: The packages that the course itself imports or starts.
PACKAGES = (
    "numpy", "tensorflow-cpu|tensorflow", "keras", "opencv-contrib-python-headless", "scikit-learn", "pillow",
    "matplotlib", "jupyterlab", "ipywidgets", "papermill",
)  # fmt: skip


def check() -> pd.DataFrame:
    """One row a requirement: what it is, what was found, what is wanted, whether that is fine."""
    free = shutil.disk_usage(_existing(paths.cache_dir())).free / 1e9
    rows = [
        ("Python", platform.python_version(), "3.11 to 3.13", (3, 11) <= sys.version_info[:2] <= (3, 13)),
        ("processor cores", str(os.cpu_count()), "2 or more", (os.cpu_count() or 1) >= 2),
        ("free disk for the cache", f"{free:.0f} GB", "2 GB or more", free >= 2),
        *(_package(names, _locked()) for names in PACKAGES),
    ]
    return pd.DataFrame(rows, columns=["what", "found", "wanted", "fine"])


def networks() -> pd.DataFrame:
    """One row a network of the zoo: vector length, input size, whether its weights are in the cache, the paper."""
    return pd.DataFrame(
        [(row.name, row.dim, row.size, weights.available(row.name), row.source) for row in specs.ZOO.values()],
        columns=["network", "dim", "input", "weights in cache", "source"],
    )


def _package(names: str, locked: dict[str, str]) -> tuple[str, str, str, bool]:
    for name in names.split("|"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        wanted = locked.get(name, found)
        return name, found, wanted, found.split(".")[:2] == wanted.split(".")[:2]
    return names, "not installed", locked.get(names.split("|")[0], "any"), False


def _locked() -> dict[str, str]:
    """Package → version in the lock; where the lock has several (for several Pythons), the one that is installed.

    Empty for an installed package, which has no lock: any version that it accepts is fine.
    """
    if not paths.IN_CHECKOUT:
        return {}
    locked: dict[str, str] = {}
    for name, number in re.findall(r"^([\w.-]+)==(\S+)", (paths.ROOT / "requirements.txt").read_text(), re.MULTILINE):
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = None
        if name not in locked or number == installed:
            locked[name] = number
    return locked


def _existing(folder):
    return folder if folder.exists() else _existing(folder.parent)
