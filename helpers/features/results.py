"""Results of long computations, such as clusterings and tuned classifiers, cached on disk."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

from helpers import paths
from helpers.features.store import pixels_hash
from helpers.files import write_atomically


class ResultsWarning(UserWarning):
    """A result cannot be written, or a stored one is damaged; the message names the file."""


def cached(name: str, key: dict, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Compute arrays once, then read them from one file, which is written atomically.

    name : first part of the file's name, under ``results/`` in the cache.
    key : everything that determines the result, as plain JSON, including library versions. Use `fingerprint` for
        arrays.
    compute : called if there is no such file. Arrays of objects raise a ValueError.
    """
    digest = hashlib.sha256(json.dumps([name, key], sort_keys=True).encode()).hexdigest()[:16]
    path = paths.cache_dir() / "results" / f"{name}-{digest}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            warnings.warn(f"{path} is damaged ({error}) and is computed again.", ResultsWarning, stacklevel=3)
    found = {each: np.asarray(array) for each, array in compute().items()}
    try:
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **found))
    except OSError as error:
        warnings.warn(
            f"{path} can't be written ({error}): the result is not kept. "
            "Set LOOKALIKE_CACHE to a writable folder with free space.",
            ResultsWarning,
            stacklevel=3,
        )
    return found


def fingerprint(array: np.ndarray) -> str:
    """A hash of an array's shape, type and values, for the key of `cached`."""
    return pixels_hash(np.asarray(array)).hex()
