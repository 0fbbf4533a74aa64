"""Compresses feature vectors: half precision, and 8-bit integers with one scale per vector."""

import numpy as np


def to_float16(vectors: np.ndarray) -> np.ndarray:
    """float (n, d) → float16 (n, d): 11 bits of precision, half the bytes of float32.

    Raises
    ------
    ValueError : a number exceeds float16's range, ±65504.
    """
    largest = np.abs(vectors).max(initial=0)
    if largest > np.finfo(np.float16).max:
        raise ValueError(f"a number of {largest:.3g} does not fit into float16 (±65504): normalize the vectors")
    return np.asarray(vectors, np.float16)


def to_int8(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float (n, d) → int8 (n, d) and float32 (n,): each vector in 255 steps between ± its largest number.

    A vector is about its codes times its scale (`from_int8`), with an error of at most half a scale in each number. The
    cosine of two vectors does not depend on the scales.

    Raises
    ------
    ValueError : a number is NaN or infinite.
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        raise ValueError(
            f"row {np.flatnonzero(~np.isfinite(largest))[0]} contains NaN or infinity; leave out such rows"
        )
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def from_int8(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int8 (n, d) and float32 (n,) → float32 (n, d)."""
    return codes.astype(np.float32) * scales[:, None]
