"""Batches of P identities with K images each: what a loss over pairs needs, and random batches rarely hold.

Of 32 images drawn at random from 1000 people hardly two show the same person; without positives there is nothing
to learn (the PK batches of Hermans, Beyer & Leibe 2017).
"""

from collections.abc import Sequence
from numbers import Integral

import numpy as np


class PKSampler:
    """Rows of balanced batches: exactly ``p`` different identities with ``k`` images each.

    Identities are drawn without replacement until all were there, then anew, so that within an epoch their counts
    differ by at most one; the same holds for the images of one identity, as far as ``k`` allows. An identity with
    fewer than ``k`` images repeats them as little as possible; one with a single image has no positive pair and
    is never drawn. The batches depend on the seed and the epoch's number alone: a resumed training goes on with the
    batches it would have had.

    Parameters
    ----------
    labels : integers (n,), the identity of each image; below 0 is a distractor, never drawn.
    p : identities in a batch, at least 2. k : images of each, at least 2.
    seed : at least 0.
    batches_per_epoch : None takes as many as draw each eligible image, and each identity, about once.
    groups : integers (n,), optional: images of one group (not below 0) are near copies. They count as one image,
        of which each draw takes any one: copies side by side are a positive pair that teaches nothing.
    replacement : draw the images of an identity that has fewer than ``k`` independently, repeats left to chance.

    Attributes
    ----------
    identities : int64, the labels that are drawn, ascending.
    left_out : int64, the labels that are not, because they have one image (or copies of one) only.
    short : int64, the labels that are drawn with repeats, because they have fewer than ``k`` images.
    n_distractors : images whose label is below 0.

    Raises
    ------
    ValueError : no labels, p, k or batches_per_epoch too small, p larger than the number of identities that have two
        images, labels or groups that are not (n,) integers, or a seed below 0.
    """

    def __init__(
        self,
        labels: Sequence[int] | np.ndarray,
        p: int,
        k: int,
        seed: int = 0,
        batches_per_epoch: int | None = None,
        *,
        groups: Sequence[int] | np.ndarray | None = None,
        replacement: bool = False,
    ):
        labels = _integers("labels", labels)
        if not len(labels):
            raise ValueError("there are no labels: nothing to sample from")
        self.p = _whole("p", p, 2, "one identity alone has no negatives")
        self.k = _whole("k", k, 2, "one image of an identity has no positive")
        self.seed = _whole("seed", seed, 0)
        self.replacement = bool(replacement)
        groups = np.full(len(labels), -1) if groups is None else _integers("groups", groups)
        if groups.shape != labels.shape:
            raise ValueError(f"there are {len(groups)} groups for {len(labels)} labels")
        self.n_distractors = int((labels < 0).sum())
        found = {int(labels[rows[0]]): _units(rows, groups) for rows in _by_identity(labels)}
        self._units = {label: units for label, units in found.items() if len(units) >= 2}
        self.identities = np.array(list(self._units), dtype=np.int64)
        self.left_out = np.array([label for label in found if label not in self._units], dtype=np.int64)
        self.short = np.array([label for label, units in self._units.items() if len(units) < self.k], dtype=np.int64)
        if self.p > len(self.identities):
            raise ValueError(
                f"p = {p} different identities were asked for, but only {len(self.identities)} have two images "
                f"or more ({len(self.left_out)} have one, {self.n_distractors} images are distractors): "
                "take a smaller p"
            )
        if batches_per_epoch is None:
            images = sum(map(len, self._units.values()))
            batches_per_epoch = max(-(-images // (self.p * self.k)), -(-len(self.identities) // self.p))
        self.batches_per_epoch = _whole("batches_per_epoch", batches_per_epoch, 1)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches_per_epoch

    def __repr__(self) -> str:
        return (
            f"PKSampler({self.batches_per_epoch} batches of {self.p} x {self.k} from {len(self.identities)} "
            f"identities; {len(self.short)} repeat images, {len(self.left_out)} with one image and "
            f"{self.n_distractors} distractors are left out)"
        )

    def epoch(self, number: int) -> np.ndarray:
        """Row numbers, int64 (batches, p · k); the k images of an identity stand side by side.

        Raises
        ------
        ValueError : the number is not a whole number of at least 0.
        """
        rng = np.random.default_rng([self.seed, _whole("the epoch's number", number, 0)])
        drawn = np.zeros(len(self.identities))
        drawn_units = {label: np.zeros(len(units)) for label, units in self._units.items()}
        batches = np.empty((self.batches_per_epoch, self.p, self.k), dtype=np.int64)
        for batch in batches:
            chosen = _rarest(drawn, self.p, rng)
            drawn[chosen] += 1
            for place, label in zip(batch, self.identities[chosen].tolist(), strict=True):
                place[:] = self._images(self._units[label], drawn_units[label], rng)
        return batches.reshape(len(batches), -1)

    def _images(self, units: list[np.ndarray], drawn: np.ndarray, rng: np.random.Generator) -> list[int]:
        """k rows of one identity; ``drawn``, how often each unit was drawn so far, is brought up to date."""
        if self.replacement and len(units) < self.k:
            chosen = rng.integers(len(units), size=self.k)
        else:
            rounds, rest = divmod(self.k, len(units))
            chosen = np.concatenate([np.tile(np.arange(len(units)), rounds), _rarest(drawn, rest, rng)])
        np.add.at(drawn, chosen, 1)
        return [int(rng.choice(units[unit])) for unit in chosen]


def _rarest(drawn: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Some different positions, those drawn least often so far first; chance decides among equals."""
    return np.argsort(drawn + rng.random(len(drawn)))[:number]


def _by_identity(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each identity, ascending; distractors left out."""
    rows = np.argsort(labels, kind="stable")[(labels < 0).sum() :]
    return np.split(rows, np.flatnonzero(np.diff(labels[rows])) + 1) if len(rows) else []


def _units(rows: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """The rows of one identity, near copies together."""
    own = groups[rows]
    return [rows[own == group] for group in np.unique(own[own >= 0])] + [row[None] for row in rows[own < 0]]


def _integers(what: str, values) -> np.ndarray:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers of shape (n,), got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _whole(what: str, value, least: int, why: str = "") -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        wanted = f"a whole number of at least {least}"
        raise ValueError(f"{what} must be {wanted}, got {value!r}" + (f": {why}" if why else ""))
    return int(value)
