"""Compressed vectors: float16, and int8 with one scale per vector."""

import numpy as np


def to_float16(vectors: np.ndarray) -> np.ndarray:
    """Convert float (n, d) to float16: half the bytes of float32, 11 bits of precision, values up to ±65504."""
    largest = np.abs(vectors).max(initial=0)
    if largest > np.finfo(np.float16).max:
        raise ValueError(f"a value of {largest:.3g} does not fit into float16 (±65504): normalize the vectors first")
    return np.asarray(vectors, np.float16)


def to_int8(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize float (n, d) to codes int8 (n, d) and scales float32 (n,).

    The 255 steps span ± the largest absolute value of each vector, so code times scale is exact to half a scale. The
    scales do not change the cosine of two vectors. NaN and infinity are refused.
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        raise ValueError(f"row {np.flatnonzero(~np.isfinite(largest))[0]} contains NaN or infinity: remove such rows")
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales
