"""Checks of the arguments of an index: vectors, ids, counts."""

import math

import numpy as np
from numpy.typing import ArrayLike


def check_count(name: str, value: int) -> int:
    """``value`` as an int. Raises ValueError unless it is a whole number of at least 1."""
    if type(value) is int and value >= 1:
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def check_k(k: int) -> int:
    """``k`` as an int, see `check_count`."""
    return check_count("k", k)


def as_vectors(vectors: ArrayLike, dim: int | None) -> np.ndarray:
    """C-ordered float32 (n, dim) of finite numbers; the same array if it is one already."""
    if isinstance(vectors, np.ndarray) and vectors.dtype == np.float32 and vectors.flags.c_contiguous:
        array = vectors
    else:
        array = _as_float32(vectors)
    if array.ndim != 2:
        hint = "; pass one vector v as v[None]" if array.ndim == 1 else ""
        raise ValueError(f"vectors must have shape (n, dim), got {array.shape}{hint}")
    if dim is not None and array.shape[1] != dim:
        raise ValueError(f"got vectors of {array.shape[1]} numbers, but the index holds {dim}: use its extractor")
    if array.shape[1] == 0:
        raise ValueError(f"vectors must have at least one number each, got shape {array.shape}")
    # The sum of the squares is not finite if a number is not, or if the sum is too large for float32.
    if not math.isfinite(np.vdot(array, array)) and (bad := ~np.isfinite(array).all(axis=1)).any():
        row = int(np.flatnonzero(bad)[0])
        what = "NaN" if np.isnan(array[row]).any() else "infinity (or a number too large for float32)"
        raise ValueError(f"row {row} holds {what} ({int(bad.sum())} of {len(array)} rows do): omit such rows")
    return array


def _as_float32(vectors: ArrayLike) -> np.ndarray:
    try:
        given = np.asarray(vectors)
        if given.dtype.kind == "c":
            raise TypeError("complex numbers")
        # Numbers beyond float32 become infinite, and are rejected by `as_vectors`.
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(given, dtype=np.float32) if given.ndim else given
    except (TypeError, ValueError) as error:
        raise ValueError(f"vectors must be numbers in an array of shape (n, dim): {error}") from error


def as_ids(ids: ArrayLike) -> np.ndarray:
    """int64 (n,) of whole numbers; a copy."""
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"ids must be whole numbers in an array of shape (n,), got {array.dtype} {array.shape}")
    return array.astype(np.int64)


def as_new_ids(ids: ArrayLike, count: int) -> np.ndarray:
    """`as_ids` of ``count`` vectors. Raises ValueError unless they are unique and not negative."""
    ids = as_ids(ids)
    if ids.shape != (count,):
        raise ValueError(f"ids must have shape ({count},), one per vector; got {ids.shape}")
    if (ids < 0).any():
        raise ValueError(f"ids must not be negative, got {ids[ids < 0][0]}")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"ids must be unique: {name_ids(values[counts > 1])} given twice")
    return ids


def check_held(ids: np.ndarray, held: np.ndarray, problem: str) -> None:
    """Raise KeyError unless all ids are held; ``problem`` follows the others in the message."""
    if not held.all():
        raise KeyError(f"{name_ids(ids[~held])} {problem}")


def name_ids(ids: np.ndarray) -> str:
    """A few ids, for a message."""
    shown = ", ".join(map(str, ids[:5]))
    return f"{'id' if len(ids) == 1 else 'ids'} {shown}{f' … ({len(ids)} in all)' if len(ids) > 5 else ''}"
