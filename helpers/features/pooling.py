"""Pooling of feature maps into vectors: flatten, average, maximum, generalized mean, regional maxima.

The feature map of a convolutional network has the activations of all channels at h × w locations. Poolings differ in
what they discard: all except flatten discard the location, the maximum also how often something occurs.
"""

from collections.abc import Callable

import numpy as np

from helpers.vectors import l2_normalize

#: The exponent of the generalized mean; Radenović et al. 2019 start from it.
GEM_EXPONENT = 3.0

#: Scales of R-MAC's regions.
RMAC_LEVELS = 3


def flatten(maps: np.ndarray) -> np.ndarray:
    """(n, h, w, channels) → (n, h · w · channels): keeps everything, so similar things must be at the same location."""
    return maps.reshape(len(maps), -1)


def average(maps: np.ndarray) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): the mean activation (SPoC: Babenko & Lempitsky 2015)."""
    return maps.mean(axis=(1, 2), dtype=np.float32)


def maximum(maps: np.ndarray) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): the maximum activation (MAC: Tolias et al. 2016)."""
    return maps.max(axis=(1, 2)).astype(np.float32, copy=False)


def gem(maps: np.ndarray, exponent: float = GEM_EXPONENT) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): the generalized mean (Radenović, Tolias & Chum 2019).

    exponent : positive; 1 is the average, larger ones approach the maximum. Negative activations count as zero.
    """
    if not exponent > 0:
        raise ValueError(f"the exponent must be positive, got {exponent}")
    found = np.empty((len(maps), maps.shape[3]), np.float32)
    # One map fits into the processor's cache; a whole batch of early maps takes four times as long.
    for row, one in enumerate(maps):
        activations = np.maximum(one, 0, dtype=np.float32)
        # Dividing by the maximum prevents overflow and underflow of the powers.
        strongest = activations.max(axis=(0, 1))
        activations /= np.where(strongest > 0, strongest, 1)
        found[row] = _power(activations, exponent).mean(axis=(0, 1)) ** (1 / exponent) * strongest
    return found


def _power(numbers: np.ndarray, exponent: float) -> np.ndarray:
    """``numbers**exponent``; a small integer exponent by products, which is ten times as fast."""
    if exponent != int(exponent) or exponent > 16:
        return numbers**exponent
    if exponent == 1:
        return numbers
    root = _power(numbers, exponent // 2)
    return root * root * numbers if exponent % 2 else root * root


def rmac(maps: np.ndarray, levels: int = RMAC_LEVELS) -> np.ndarray:
    """(n, h, w, channels) → (n, channels): the sum of the normalized maxima of overlapping squares.

    Tolias, Sicre & Jégou 2016, without their whitening of each region: squares of width 2 · min(h, w) / (l + 1) at
    levels l = 1 …, spread evenly, l of them along the shorter side.
    """
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    total = np.zeros((len(maps), maps.shape[3]), np.float32)
    for top, left, width in squares(maps.shape[1], maps.shape[2], levels):
        total += l2_normalize(maximum(maps[:, top : top + width, left : left + width]))
    return total


def cell_shares(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The share of each cell of a map that is inside each box: float32 (n, height, width), in 0 … 1.

    boxes : floating (n, 4): x, y, width, height in cells. Raises ValueError if one has no area inside the map.
    """
    low = np.asarray(boxes, np.float64).reshape(-1, 4)[:, :2]
    high = low + np.asarray(boxes, np.float64).reshape(-1, 4)[:, 2:]
    columns, rows = (
        np.clip(np.minimum(high[:, [axis]], cells + 1) - np.maximum(low[:, [axis]], cells), 0, 1)
        for axis, cells in enumerate((np.arange(width), np.arange(height)))
    )
    if not (columns.any(axis=1) & rows.any(axis=1)).all():
        raise ValueError(f"a box has no area inside the map of {width} × {height} cells")
    return (rows[:, :, None] * columns[:, None, :]).astype(np.float32)


def pool_boxes(one: np.ndarray, boxes: np.ndarray, pooling: str) -> np.ndarray:
    """Pool a map (h, w, channels) in boxes: float32 (n, channels). This is RoI pooling with exact fractional edges.

    A cell counts by its share inside the box. For the maximum, every cell counts of which more than a millionth is
    inside, or, in a smaller box, the cell with the largest share.

    Parameters
    ----------
    boxes : see `cell_shares`.
    pooling : a name in `REGION_POOLINGS`.
    """
    if pooling not in REGION_POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(REGION_POOLINGS)}; got {pooling!r}")
    if not len(boxes):
        return np.empty((0, one.shape[2]), np.float32)
    cells = one.reshape(-1, one.shape[2]).astype(np.float32, copy=False)
    shares = cell_shares(boxes, *one.shape[:2]).reshape(len(boxes), -1)
    if pooling == "max":
        inside = shares > 1e-6
        inside |= ~inside.any(axis=1, keepdims=True) & (shares == shares.max(axis=1, keepdims=True))
        return np.stack([cells[row].max(axis=0) for row in inside])
    shares /= shares.sum(axis=1, keepdims=True)
    if pooling == "average":
        return shares @ cells
    cells = np.maximum(cells, 0)
    strongest = cells.max(axis=0)
    powers = _power(cells / np.where(strongest > 0, strongest, np.float32(1)), GEM_EXPONENT)
    return ((shares @ powers) ** (1 / GEM_EXPONENT) * strongest).astype(np.float32)


def squares(height: int, width: int, levels: int = RMAC_LEVELS) -> list[tuple[int, int, int]]:
    """R-MAC's regions of a map: (top, left, side) each.

    The longer side has additional regions, so that the overlap of neighbors on the first level is close to 40 %.
    """
    short, long = sorted((height, width))
    more = min(range(1, 8), key=lambda n: abs(1 - (long - short) / n / short - 0.4)) if long > short else 0
    found = []
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        down, across = (level + (more if size == long and long > short else 0) for size in (height, width))
        for top in np.linspace(0, height - side, down).astype(int):
            found += [(int(top), int(left), side) for left in np.linspace(0, width - side, across).astype(int)]
    return found


#: The poolings of `pool_boxes`.
REGION_POOLINGS = ("average", "max", "gem")

#: Poolings that give one value per channel, by name.
POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"average": average, "max": maximum, "gem": gem, "rmac": rmac}
