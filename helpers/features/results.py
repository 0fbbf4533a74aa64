"""Results of long computations on disk, by everything that decides them: clusterings, tuned classifiers."""

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
    """A result could not be kept, or a kept one is damaged and is computed again; the message names the file."""


def cached(name: str, key: dict, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that ``compute`` returns, computed once and then read from one file.

    Parameters
    ----------
    name : begins the file's name, under ``results/`` in the cache.
    key : everything that decides the result, as plain JSON; `fingerprint` stands for an array. Include the versions of
        the libraries that compute.
    compute : called without arguments where there is no such file. Arrays of objects are refused.

    A file is written as a whole or not at all, so an interrupted call leaves nothing behind.
    """
    digest = hashlib.sha256(json.dumps([name, key], sort_keys=True).encode()).hexdigest()[:16]
    path = paths.cache_dir() / "results" / f"{name}-{digest}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as kept:
                return dict(kept)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            warnings.warn(f"{path} is damaged ({error}) and is computed again.", ResultsWarning, stacklevel=3)
    found = {each: np.asarray(array) for each, array in compute().items()}
    if objects := [each for each, array in found.items() if array.dtype.hasobject]:
        raise TypeError(f"arrays of objects can't be kept: {', '.join(objects)}")
    try:
        write_atomically(path, lambda file: np.savez(file, **found))
    except OSError as error:
        warnings.warn(
            f"{path} can't be written ({error}): the result is not kept. "
            "Set LOOKALIKE_CACHE to a folder that can be written and has space.",
            ResultsWarning,
            stacklevel=3,
        )
    return found


def fingerprint(array: np.ndarray) -> str:
    """A hash of an array's shape, type and values, for the key of `cached`."""
    return pixels_hash(np.asarray(array)).hex()
