"""Batches of P identities with K images each, for losses over pairs (Hermans, Beyer & Leibe 2017).

Random batches contain few positive pairs: 32 random images of 1,000 people have half a pair on average.
"""

import numpy as np
from numpy.typing import ArrayLike


class PKSampler:
    """Row numbers of balanced batches: exactly ``p`` different identities with ``k`` images each.

    Within an epoch, all identities are drawn equally often, give or take one, and so are the images of one identity as
    far as ``k`` allows. If an identity has fewer than ``k`` images, they are repeated as little as possible. An
    identity with a single image has no positive pair and is not drawn. The batches depend on the seed and the number of
    the epoch only, so a resumed training gets the same batches.

    Parameters
    ----------
    labels : integers (n,), the identity of each image; distractors (below 0) are not drawn.
    p : identities in a batch, at least 2.
    k : images of each, at least 2.
    batches_per_epoch : by default enough to draw each image, and each identity, about once.

    Attributes
    ----------
    identities : int64, the labels that are drawn, ascending.
    left_out : int64, the labels with a single image.
    short : int64, the labels with fewer than ``k`` images, which are repeated.
    n_distractors : number of images with a label below 0.
    """

    def __init__(self, labels: ArrayLike, p: int, k: int, seed: int = 0, batches_per_epoch: int | None = None):
        of = np.asarray(labels)
        if not of.size:
            raise ValueError("there are no labels: nothing to sample from")
        if of.ndim != 1 or of.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers of shape (n,), got {of.dtype} of shape {of.shape}")
        self.p = _integer("p", p, 2, "one identity has no negatives")
        self.k = _integer("k", k, 2, "one image of an identity has no positive")
        self.seed = _integer("seed", seed, 0)
        self.n_distractors = int((of < 0).sum())
        rows = np.argsort(of, kind="stable")[self.n_distractors :]
        identities = np.split(rows, np.flatnonzero(np.diff(of[rows])) + 1) if len(rows) else []
        found = {int(of[rows[0]]): rows for rows in identities}
        self._rows = {label: rows for label, rows in found.items() if len(rows) >= 2}
        self.identities = np.array(list(self._rows), dtype=np.int64)
        self.left_out = np.array([label for label in found if label not in self._rows], dtype=np.int64)
        self.short = np.array([label for label, rows in self._rows.items() if len(rows) < self.k], dtype=np.int64)
        if self.p > len(self.identities):
            raise ValueError(
                f"p = {p} identities are needed, but only {len(self.identities)} have two images or more "
                f"({len(self.left_out)} have one, {self.n_distractors} images are distractors): choose a smaller p"
            )
        if batches_per_epoch is None:
            images = sum(map(len, self._rows.values()))
            batches_per_epoch = max(-(-images // (self.p * self.k)), -(-len(self.identities) // self.p))
        self.batches_per_epoch = _integer("batches_per_epoch", batches_per_epoch, 1)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self.batches_per_epoch

    def __repr__(self) -> str:
        return (
            f"PKSampler({self.batches_per_epoch} batches of {self.p} x {self.k} from {len(self.identities)} "
            f"identities; {len(self.short)} repeat images, {len(self.left_out)} with one image and "
            f"{self.n_distractors} distractors are left out)"
        )

    def epoch(self, number: int) -> np.ndarray:
        """Row numbers of an epoch (from 0), int64 (batches, p · k); the k images of an identity are consecutive."""
        rng = np.random.default_rng([self.seed, _integer("the number of an epoch", number, 0)])
        drawn = np.zeros(len(self.identities))
        drawn_images = {label: np.zeros(len(rows)) for label, rows in self._rows.items()}
        batches = np.empty((self.batches_per_epoch, self.p, self.k), dtype=np.int64)
        for batch in batches:
            chosen = _rarest(drawn, self.p, rng)
            drawn[chosen] += 1
            for part, label in zip(batch, self.identities[chosen].tolist(), strict=True):
                part[:] = self._images(self._rows[label], drawn_images[label], rng)
        return batches.reshape(len(batches), -1)

    def _images(self, rows: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """k rows of one identity; updates ``drawn``, the number of times each was drawn."""
        rounds, rest = divmod(self.k, len(rows))
        chosen = np.concatenate([np.tile(np.arange(len(rows)), rounds), _rarest(drawn, rest, rng)])
        np.add.at(drawn, chosen, 1)
        return rows[chosen]


def _rarest(drawn: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """The positions that were drawn least often, in random order among equals."""
    return np.argsort(drawn + rng.random(len(drawn)))[:number]


def _integer(what: str, value: int, least: int, reason: str = "") -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what} must be an integer of at least {least}, got {value!r}" + (reason and f": {reason}"))
    return int(value)
