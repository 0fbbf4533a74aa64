"""From a feature map to a vector: flatten, average, maximum, generalized mean, regional maxima.

A convolutional network ends in a map: at each of h × w places, how strongly each of its channels answers. Search needs
one vector. What is thrown away on the way decides what "similar" means: places (all but flatten), or how often
something occurs (the maximum).
"""

from collections.abc import Callable

import numpy as np

from helpers.vectors import l2_normalize

#: The exponent of the generalized mean; Radenović et al. 2019 start from it.
GEM_EXPONENT = 3.0

#: Scales of R-MAC's regions.
RMAC_LEVELS = 3


def flatten(maps: np.ndarray) -> np.ndarray:
    """(n, h, w, channels) → (n, h · w · channels): nothing is lost, and every place has to hold the same thing."""
    return maps.reshape(len(maps), -1)


def average(maps: np.ndarray) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): how much of each channel there is (SPoC: Babenko & Lempitsky 2015)."""
    return maps.mean(axis=(1, 2), dtype=np.float32)


def maximum(maps: np.ndarray) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): the strongest answer of each channel (MAC: Tolias et al. 2016)."""
    return maps.max(axis=(1, 2)).astype(np.float32, copy=False)


def gem(maps: np.ndarray, exponent: float = GEM_EXPONENT) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): the generalized mean (Radenović, Tolias & Chum 2019).

    exponent : 1 is the average; the larger, the nearer to the maximum. Negative answers count as none.

    Raises
    ------
    ValueError : the exponent is not positive.
    """
    if not exponent > 0:
        raise ValueError(f"the exponent must be positive, got {exponent}")
    found = np.empty((len(maps), maps.shape[3]), np.float32)
    # One map at a time stays in the processor's cache: a batch of early maps takes four times as long.
    for row, one in enumerate(maps):
        results = np.maximum(one, 0, dtype=np.float32)
        # By the strongest answer, so that no power overflows or vanishes.
        strongest = results.max(axis=(0, 1))
        results /= np.where(strongest > 0, strongest, 1)
        found[row] = _power(results, exponent).mean(axis=(0, 1)) ** (1 / exponent) * strongest
    return found


def _power(numbers: np.ndarray, exponent: float) -> np.ndarray:
    """``numbers**exponent``; a small whole exponent by products, which takes a tenth of the time."""
    if exponent != int(exponent) or exponent > 16:
        return numbers**exponent
    power = None
    left = int(exponent)
    square = numbers
    while left:
        if left & 1:
            power = square if power is None else power * square
        left >>= 1
        if left:
            square = square * square
    return power


def rmac(maps: np.ndarray, levels: int = RMAC_LEVELS) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): maxima of overlapping squares, each brought to length one, then summed.

    Tolias, Sicre & Jégou 2016, without their whitening of each region: squares of width 2 · min(h, w) / (l + 1) at
    levels l = 1 …, spread evenly, l of them along the shorter side.

    Raises
    ------
    ValueError : no level.
    """
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    total = np.zeros((len(maps), maps.shape[3]), np.float32)
    for top, left, width in squares(*maps.shape[1:3], levels):
        region = maximum(maps[:, top : top + width, left : left + width])
        total += l2_normalize(region)
    return total


def squares(height: int, width: int, levels: int = RMAC_LEVELS) -> list[tuple[int, int, int]]:
    """R-MAC's regions of a map: (top, left, side) each.

    Along the longer side there are as many more as bring the overlap of two neighbors nearest to 40 %.
    """
    short, long = sorted((height, width))
    # Neighbors on the first level are `short` wide; the number of steps whose overlap is nearest to 0.4.
    steps = range(1, 8)
    more = min(steps, key=lambda n: abs(1 - (long - short) / n / short - 0.4)) if long > short else 0
    found = []
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        down, across = (level + (more if size == long and long > short else 0) for size in (height, width))
        for top in np.linspace(0, height - side, down).astype(int):
            found += [(int(top), int(left), side) for left in np.linspace(0, width - side, across).astype(int)]
    return found


#: Those whose vectors are as long as the map has channels, by name.
POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "average": average,
    "max": maximum,
    "gem": gem,
    "rmac": rmac,
}
