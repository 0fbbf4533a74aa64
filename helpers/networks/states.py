"""Files with the state of a training: plain JSON, and arrays such as its weights."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.files import write_atomically

if TYPE_CHECKING:
    import keras


class TrainingStateError(OSError):
    """The state of a training cannot be written or read; the message names the file and the remedy."""


def write(path: Path, state: dict, **arrays: Sequence[np.ndarray]) -> None:
    """Write a state and arrays. One file, written atomically: both are always of the same epoch."""
    content = {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    for kind, values in arrays.items():
        content |= {f"{kind}{number:05}": value for number, value in enumerate(values)}
    try:
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **content))
    except OSError as error:
        raise TrainingStateError(
            f"{path} cannot be written ({error}); the previous state is still there. Free some space and repeat the "
            "call to resume, or set LOOKALIKE_CACHE to a folder on another disk, where the training starts again."
        ) from error


def read(path: Path, *kinds: str) -> tuple[dict, list[list[np.ndarray]]]:
    """The state, and the arrays of each kind."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            state = json.loads(saved["state"].tobytes())
            return state, [[saved[key] for key in sorted(saved.files) if key.startswith(kind)] for kind in kinds]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingStateError(f"{path} is damaged ({error}). Move it to another folder to train again.") from error


def variables(model: "keras.Model") -> list:
    """What a resumed training needs: the variables of a compiled model and of its optimizer."""
    return [*model.weights, *model.optimizer.variables]
