"""Normalization of vectors."""

import math

import numpy as np
from numpy.typing import DTypeLike

#: Rows normalized at a time, to keep intermediate results small.
_ROWS = 4096
#: Between these squared lengths, the squares of the numbers that matter neither overflow nor underflow in float32.
_SMALLEST, _LARGEST = 1e-20, 1e30
#: The squared length of a float32 vector of length one differs from 1 by about this rounding error.
_ROUNDING = 2.0**-22
#: See `round_to_grid`.
_GRID = 2.0**-26


def l2_normalize(vectors: np.ndarray, compute_dtype: DTypeLike | None = None) -> np.ndarray:
    """Divide each vector by its Euclidean length; a zero vector stays zero, and a row of NaN stays NaN.

    vectors : (n, d). float32 stays float32, every other type becomes float64. The input is not changed.
    compute_dtype : type of the intermediate results, by default that of the output. With float64, the squares of
        float32 numbers neither overflow nor underflow; the last bit of the output may differ.

    Returns a new array (n, d).
    """
    vectors = np.asarray(vectors)
    if vectors.dtype != np.float32:
        vectors = vectors.astype(np.float64, copy=False)
    if len(vectors) == 1 and compute_dtype is np.float64:
        return _unit_vector(vectors)
    unit = np.empty_like(vectors)
    for start in range(0, len(vectors), _ROWS):
        part = vectors[start : start + _ROWS].astype(compute_dtype or vectors.dtype, copy=False)
        # As `numpy.linalg.norm`, which takes longer for one vector.
        length = np.sqrt(np.add.reduce(part * part, axis=1, keepdims=True))
        if not length.all():
            length = np.where(length > 0, length, 1)
        np.divide(part, length, out=unit[start : start + _ROWS], casting="same_kind")
    return unit


def _unit_vector(vector: np.ndarray) -> np.ndarray:
    """`l2_normalize` of one vector (1, d) in float64, with fewer calls: they take longer than the arithmetic."""
    unit = vector.astype(np.float64)
    length = math.sqrt(np.vdot(unit, unit))
    if length != 0:  # also if it is NaN
        unit /= length
    return unit.astype(vector.dtype)


def round_to_grid(unit: np.ndarray) -> np.ndarray:
    """float64: the components of unit vectors as multiples of 2⁻²⁶, so that float64 sums of their products are exact.

    The angle of a vector changes by about 1e-8.
    """
    return np.round(unit / _GRID) * _GRID


def unit_query(query: np.ndarray) -> np.ndarray:
    """`l2_normalize` of one query, with fewer calls: these take much of the time of a search in a graph index.

    The last bits may differ, so stored vectors are normalized by `l2_normalize`.

    query : float32 (1, d). Returns the query itself if its length is one.
    """
    square = float(np.vdot(query, query))
    if abs(square - 1) <= _ROUNDING:
        return query
    if _SMALLEST < square < _LARGEST:
        return query * (1 / math.sqrt(square))
    return _unit_vector(query)
