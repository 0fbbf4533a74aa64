"""Grown vectors: as many as a test of speed needs, made from a few real ones, and as hard to search as those.

Random numbers won't do. In hundreds of dimensions all of them are equally far from a query, while vectors of images
lie on something of far fewer dimensions, and how many these are decides how an index fares (Amsaleg et al. 2015,
"Estimating local intrinsic dimensionality", https://doi.org/10.1145/2783258.2783405). So each new vector is put beside
a real one, in directions in which that one's neighbors lie: a mix of both as in SMOTE (Chawla et al. 2002,
https://doi.org/10.1613/jair.953), and noise along all of these directions, without which new vectors would lie on the
few straight lines between old ones.

What grown vectors are good for: time, memory, and recall against exact search. What they are not: they depict nothing,
so no precision or recall of *images* can be measured with them, and everything that prints a figure about them says
that they are grown. `python -m benchmarks.indexes --recipe` compares them with real ones. Growing to many times the
number fills in between the real vectors but finds no new kinds of images. A query that was kept out is then not as
near to its first answers as it would be among as many real ones, compared with how far the next ones are: its search
is the harder, not the easier one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from helpers.search.index import check_count, open_index
from helpers.search.rerank.neighbors import Gallery
from helpers.vectors import l2_normalize

#: Rows of a block.
BLOCK = 4096


@dataclass(frozen=True, eq=False)
class SyntheticVectors:
    """Vectors that are made when they are asked for, block by block, the same ones every time; see `synthesize`.

    Attributes
    ----------
    real : float32 (n, dim) of length one, what they are grown from.
    near : int64 (n, m): rows of the nearest others of each.
    count : how many there are.
    """

    real: np.ndarray
    near: np.ndarray
    count: int
    seed: int
    noise: float

    def __len__(self) -> int:
        return self.count

    @property
    def dim(self) -> int:
        return self.real.shape[1]

    @property
    def blocks(self) -> int:
        """How many blocks there are; all have `BLOCK` rows but the last."""
        return -(-self.count // BLOCK)

    def __str__(self) -> str:
        return f"{self.count:,} vectors of {self.dim} numbers SYNTHETIC from {len(self.real):,} real ones"

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.block, range(self.blocks))

    def block(self, number: int) -> np.ndarray:
        """float32 (b, dim) of length one: the rows from ``number`` · `BLOCK` on.

        Raises
        ------
        IndexError : there is no such block.
        """
        if not 0 <= number < self.blocks:
            raise IndexError(f"there is no block {number}: {self.count} vectors have {self.blocks}, from 0 on")
        # All of a block is drawn, and then cut: so no row depends on how many there are.
        random, rows = np.random.default_rng([self.seed, number]), min(BLOCK, self.count - number * BLOCK)
        width = self.near.shape[1]
        parents = random.integers(0, len(self.real), BLOCK)[:rows]
        partners = random.integers(0, width, BLOCK)[:rows]
        shares = random.random(BLOCK, np.float32)[:rows]
        weights = random.standard_normal((BLOCK, width), np.float32)[:rows] * np.float32(self.noise / width**0.5)
        weights[np.arange(rows), partners] += shares
        start, near = self.real[parents], self.near[parents]
        synthetic = start.copy()
        for column in range(width):
            synthetic += weights[:, [column]] * (self.real[near[:, column]] - start)
        return l2_normalize(synthetic, np.float64)


def synthesize(
    vectors: np.ndarray, count: int, seed: int = 0, neighbors: int = 10, noise: float = 0.7
) -> SyntheticVectors:
    """``count`` new vectors around real ones: x = v + u·(p - v) + noise/√m · Σ gⱼ·(nⱼ - v), then brought to length one.

    v is a real vector, drawn; n₁ … nₘ its nearest others by cosine; p one of these, drawn; u uniform from 0 to 1; gⱼ
    standard normal. Row *i* depends on the vectors, ``seed`` and *i* alone: fewer are the beginning of more.

    Parameters
    ----------
    vectors : float (n, dim), finite; what is to be asked later must not be among them. They are copied.
    seed : not negative.
    neighbors : m. noise : 0 leaves mixes of two. With the defaults, distances to the first, tenth and hundredth
        neighbor come out as among as many real vectors of ResNet50, within a few per cent.

    Raises
    ------
    ValueError : ``count`` or ``neighbors`` is below 1, there are too few vectors for so many neighbors, ``noise`` or
        ``seed`` is negative, or bad vectors.
    """
    count, neighbors = check_count("count", count), check_count("neighbors", neighbors)
    if not noise >= 0:
        raise ValueError(f"noise must not be negative, got {noise}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    index = open_index("exact:cosine").add(vectors)
    if len(index) <= neighbors:
        raise ValueError(f"{neighbors} neighbors need more than {neighbors} vectors to grow from, got {len(index)}")
    vectors = l2_normalize(np.asarray(vectors, np.float32), np.float64)
    near, _ = Gallery(len(vectors)).others(index.search(vectors, neighbors + 1), neighbors)
    return SyntheticVectors(vectors, near, count, seed, float(noise))
