"""Synthetic vectors: any number of vectors that are made from real ones, and as hard to search as these.

Random vectors are not suitable. In hundreds of dimensions all of them are equally far from a query, while the vectors
of images lie on a manifold of far fewer dimensions, whose number decides how an index performs (Amsaleg et al. 2015,
"Estimating local intrinsic dimensionality", https://doi.org/10.1145/2783258.2783405). Therefore each new vector lies
near a real one, in directions in which that one's neighbors lie: a mix of both as in SMOTE (Chawla et al. 2002,
https://doi.org/10.1613/jair.953), and noise along all of these directions; without noise, new vectors would lie on the
few lines between old ones.

Synthetic vectors serve to measure time, memory, and recall against exact search. They do not depict images, so they
cannot measure a precision or recall of *images*, and everything that prints their results says that they are synthetic.
`python -m benchmarks.indexes --recipe` compares them with real ones. New vectors fill the space between the real ones
without new kinds of images. Therefore the first results of a held-out query are not as much closer than the next ones
as they would be among as many real vectors: its search is harder, not easier.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from helpers.search.index import check_count, open_index
from helpers.search.rerank.neighbors import Gallery
from helpers.vectors import l2_normalize

#: Rows of a block.
BLOCK = 4096
#: The number of nearest neighbors of a real vector that give the directions, and the noise along them. With these
#: values, the distances to the first, tenth and hundredth neighbor agree within a few percent with those among as many
#: real vectors of ResNet50.
NEIGHBORS, NOISE = 10, 0.7


@dataclass(frozen=True, eq=False)
class SyntheticVectors:
    """Vectors that are computed on demand, in blocks, always the same ones; see `synthesize`.

    Attributes
    ----------
    real : float32 (n, dim) of length one, the source.
    near : int64 (n, m): rows of the nearest others of each.
    count : number of synthetic vectors.
    kept : int64 (n,): for activations, how many numbers of each real vector are not zero; None for other vectors.
    """

    real: np.ndarray
    near: np.ndarray
    count: int
    seed: int
    kept: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def dim(self) -> int:
        return self.real.shape[1]

    @property
    def blocks(self) -> int:
        """Number of blocks; all but the last have `BLOCK` rows."""
        return -(-self.count // BLOCK)

    def __str__(self) -> str:
        return f"{self.count:,} vectors of {self.dim} numbers SYNTHETIC from {len(self.real):,} real ones"

    def parents(self) -> np.ndarray:
        """int64 (count,): the real row that each vector was made from."""
        drawn = [self._random(number).integers(0, len(self.real), BLOCK) for number in range(self.blocks)]
        return np.concatenate(drawn)[: self.count]

    def _random(self, number: int) -> np.random.Generator:
        """Of a block, which draws its parents first."""
        return np.random.default_rng([self.seed, number])

    def __iter__(self) -> Iterator[np.ndarray]:
        """float32 (b, dim) of length one, block by block."""
        for number in range(self.blocks):
            # A whole block is drawn and then cut, so that no row depends on ``count``.
            random, rows = self._random(number), min(BLOCK, self.count - number * BLOCK)
            width = self.near.shape[1]
            parents = random.integers(0, len(self.real), BLOCK)[:rows]
            partners = random.integers(0, width, BLOCK)[:rows]
            shares = random.random(BLOCK, np.float32)[:rows]
            weights = random.standard_normal((BLOCK, width), np.float32)[:rows] * np.float32(NOISE / width**0.5)
            weights[np.arange(rows), partners] += shares
            start, near = self.real[parents], self.near[parents]
            synthetic = start.copy()
            for column in range(width):
                synthetic += weights[:, [column]] * (self.real[near[:, column]] - start)
            if self.kept is not None:
                synthetic = _largest(synthetic, self.kept[parents])
            yield l2_normalize(synthetic, np.float64)


def synthesize(vectors: np.ndarray, count: int, seed: int = 0, activations: bool = False) -> SyntheticVectors:
    """``count`` new vectors near real ones: x = v + u·(p - v) + noise/√m · Σ gⱼ·(nⱼ - v), normalized to length one.

    v is a random real vector; n₁ … nₘ are its nearest others by cosine (`NEIGHBORS`); p is a random one of these; u is
    uniform from 0 to 1; gⱼ is standard normal. Row *i* depends only on the vectors, ``seed`` and *i*: a smaller
    ``count`` gives the first rows of a larger one.

    vectors : float (n, dim), finite, without later queries. They are copied. seed : not negative.
    activations : the vectors are outputs of ReLU, without negative numbers and with many zeros. So are the new ones:
        each keeps its largest numbers, as many as its v has above zero, and the others become zero.

    Raises ValueError: there are too few vectors, or activations are negative or have a row of zeros.
    """
    if activations and not (np.all(np.asarray(vectors) >= 0) and np.all(np.any(vectors, axis=1))):
        raise ValueError("activations of ReLU must not be negative, and each row needs a number above zero")
    count = check_count("count", count)
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    index = open_index("exact:cosine").add(vectors)
    if len(index) <= NEIGHBORS:
        raise ValueError(f"{NEIGHBORS} neighbors need more than {NEIGHBORS} vectors, got {len(index)}")
    vectors = l2_normalize(np.asarray(vectors, np.float32), np.float64)
    near, _ = Gallery(len(vectors)).others(index.search(vectors, NEIGHBORS + 1), NEIGHBORS)
    kept = np.count_nonzero(vectors, axis=1) if activations else None
    return SyntheticVectors(vectors, near, count, seed, kept)


def _largest(vectors: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The ``counts`` largest numbers of each row, if they are positive; zero for the others."""
    least = np.sort(vectors, axis=1)[np.arange(len(vectors)), vectors.shape[1] - counts][:, None]
    return np.where(vectors >= least, np.maximum(vectors, 0), np.float32(0))
