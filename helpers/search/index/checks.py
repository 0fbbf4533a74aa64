"""Checks of what an index is handed: vectors, ids, counts."""

import numpy as np


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """float32 (n, dim) brought to length one, a new array; the zero vector stays zero."""
    unit = np.empty_like(vectors)
    for start in range(0, len(vectors), 4096):
        # In float64, where no square overflows or vanishes.
        part = vectors[start : start + 4096].astype(np.float64)
        length = np.sqrt((part * part).sum(axis=1, keepdims=True))
        unit[start : start + 4096] = part / np.where(length > 0, length, 1)
    return unit


def check_magnitude(vectors: np.ndarray, most: float, where: str) -> None:
    """Refuse what a library would turn into infinity, and then leave out or put last.

    Raises
    ------
    ValueError : a number of the vectors exceeds ``most``.
    """
    largest = np.abs(vectors).max(initial=0)
    if largest > most:
        raise ValueError(
            f"a number of {largest:.3g} is too large for {where}, which goes up to {most:.3g}: "
            "scale the vectors, or use exact:euclidean"
        )


def check_count(name: str, value: int) -> int:
    """An option that counts something, as an int.

    Raises
    ------
    ValueError : it is not a whole number of at least 1.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def check_k(k: int) -> int:
    """``k`` as an int.

    Raises
    ------
    ValueError : it is not a whole number of at least 1.
    """
    return check_count("k", k)


def as_vectors(vectors, dim: int | None) -> np.ndarray:
    """C-ordered float32 (n, dim) with finite numbers; the same array where it is that already."""
    try:
        given = np.asarray(vectors)
        if given.dtype.kind == "c":
            raise TypeError("complex numbers")
        # Too large for float32 becomes infinite, which is refused below.
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(given, dtype=np.float32) if given.ndim else given
    except (TypeError, ValueError) as error:
        raise ValueError(f"vectors must be numbers in an array of shape (n, dim): {error}") from error
    if array.ndim != 2:
        hint = "; one vector v is v[None]" if array.ndim == 1 else ""
        raise ValueError(f"vectors must have shape (n, dim), got {array.shape}{hint}")
    if dim is not None and array.shape[1] != dim:
        raise ValueError(f"got vectors of {array.shape[1]} numbers, the index holds {dim}: another extractor?")
    if array.shape[1] == 0:
        raise ValueError(f"vectors must have at least one number each, got shape {array.shape}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = "NaN" if np.isnan(array[row]).any() else "infinity (or a number too large for float32)"
        raise ValueError(f"row {row} holds {what} ({int(bad.sum())} of {len(array)} rows do): leave such rows out")
    return array


def as_ids(ids) -> np.ndarray:
    """int64 (n,) of whole numbers; a copy."""
    array = np.asarray(ids)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"ids must be whole numbers in an array of shape (n,), got {array.dtype} {array.shape}")
    return array.astype(np.int64)


def name_ids(ids: np.ndarray) -> str:
    """A few ids in words."""
    shown = ", ".join(map(str, ids[:5]))
    return f"{'id' if len(ids) == 1 else 'ids'} {shown}{f' … ({len(ids)} in all)' if len(ids) > 5 else ''}"
