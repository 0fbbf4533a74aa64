"""Verification: whether two images show the same person (or thing), with a threshold, its errors and their intervals.

A pair is accepted as the same person if its similarity reaches the threshold. A higher threshold decreases the first
of two errors and increases the second:

- **false accept rate**: the share of pairs of different people that are accepted,
- **false reject rate**: the share of pairs of one person that are rejected.

Sources: ISO/IEC 19795-1:2021 (the rates; equal error rate). G. Huang et al., Labeled Faces in the Wild, 2007 (accuracy
over ten folds, the threshold chosen on the other nine). R. Bolle, N. Ratha, S. Pankanti, Error analysis of pattern
recognition systems: the subsets bootstrap, CVIU 2004, and T. Snijders, S. Borgatti, Non-parametric standard errors and
tests for network statistics, Connections 1999 (drawing people, not pairs).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helpers.evaluation.intervals import TAILS, Interval
from helpers.evaluation.protocol import Protocol, chunks
from helpers.images.imageset import NO_CLASS
from helpers.vectors import l2_normalize

#: The largest number of pairs to list. Above it, a sample must be drawn.
MOST_PAIRS = 20_000_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images, each once.

    Parameters
    ----------
    first, second : int64 (m,): rows of the images.
    people : int64 (n,): the person in each image; an image without a class is a separate person.
    """

    first: np.ndarray
    second: np.ndarray
    people: np.ndarray

    @property
    def same(self) -> np.ndarray:
        """bool (m,): whether both images show the same person."""
        return self.people[self.first] == self.people[self.second]

    def __len__(self) -> int:
        return len(self.first)


def pairs(protocol: Protocol, different: int | None = None, seed: int = 0) -> Pairs:
    """All pairs of the same person, and pairs of different people, among the queries and the gallery of a protocol.

    Images of one group (copies), and pairs that the protocol excludes for either image, are not paired. Two images
    without a class are not paired either, because they may show the same person.

    different : the number of pairs of different people, drawn with ``seed``; None is all.

    Raises ValueError: there are fewer pairs, or too many to list.
    """
    rows = np.union1d(protocol.queries, protocol.gallery)
    n = len(protocol)
    people = np.where(protocol.labels == NO_CLASS, len(protocol.class_names) + np.arange(n), protocol.labels)
    rng = np.random.default_rng(seed)
    same_codes = _same(protocol, rows)
    different_codes = _different(protocol, rows, people, different, rng)
    if different is not None:
        if not 1 <= different <= len(different_codes):
            raise ValueError(f"cannot draw {different} pairs of different people: there are {len(different_codes)}")
        different_codes = np.sort(rng.choice(different_codes, different, replace=False))
    codes = np.concatenate([same_codes, different_codes])
    return Pairs(codes // n, codes % n, people)


def _codes(protocol: Protocol, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """first · n + second, first < second, of those pairs of images that may be paired."""
    first, second = np.minimum(one, other), np.maximum(one, other)
    kept = (first != second) & ((protocol.labels[first] != NO_CLASS) | (protocol.labels[second] != NO_CLASS))
    if protocol.groups is not None:
        kept &= (protocol.groups[first] < 0) | (protocol.groups[first] != protocol.groups[second])
    codes = (first * len(protocol) + second)[kept]
    forbidden = [min(a, b) * len(protocol) + max(a, b) for a, others in protocol.excluded.items() for b in others]
    return codes[~np.isin(codes, np.array(forbidden, np.int64))]


def _same(protocol: Protocol, rows: np.ndarray) -> np.ndarray:
    """The codes of all pairs of one class."""
    labels = protocol.labels[rows]
    classes = [rows[labels == label] for label in np.unique(labels[labels != NO_CLASS])]
    if sum(len(members) * (len(members) - 1) // 2 for members in classes) > MOST_PAIRS:
        raise ValueError(f"{protocol.name}: more than {MOST_PAIRS:,} pairs of one class; use fewer images")
    pairs_of = (members[np.stack(np.triu_indices(len(members), 1))] for members in classes)
    return np.concatenate([np.empty(0, np.int64), *(_codes(protocol, *both) for both in pairs_of)])


def _different(
    protocol: Protocol, rows: np.ndarray, people: np.ndarray, count: int | None, rng: np.random.Generator
) -> np.ndarray:
    """The codes of all pairs of different people, or of at least ``count`` drawn ones."""
    n_pairs = len(rows) * (len(rows) - 1) // 2

    def of_different_people(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        unlike = people[one] != people[other]
        return _codes(protocol, one[unlike], other[unlike])

    if count is not None and 4 * count < n_pairs:
        codes = np.empty(0, np.int64)
        # Draw until there are enough. If too few pairs are allowed, list them all.
        for _ in range(20):
            drawn = of_different_people(*rng.choice(rows, size=(2, 2 * count + 16)))
            codes = np.unique(np.concatenate([codes, drawn]))
            if len(codes) >= count:
                return codes
    if n_pairs > MOST_PAIRS:
        raise ValueError(f"{n_pairs:,} pairs are too many to list; draw a sample, e.g. different=100_000")
    return of_different_people(*rows[np.stack(np.triu_indices(len(rows), 1))])


def similarities(vectors: np.ndarray, among: Pairs) -> np.ndarray:
    """float64 (m,): the cosine of each pair; 0 if a vector is zero."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(among.people):
        raise ValueError(f"vectors must have shape ({len(among.people)}, d), one per image, got {vectors.shape}")
    used = np.union1d(among.first, among.second)
    bad = used[~np.isfinite(vectors[used]).all(axis=1)]
    if len(bad):
        raise ValueError(f"{len(bad)} vectors contain NaN or infinity, the first is that of image {bad[0]}")
    vectors = l2_normalize(vectors.astype(np.float64))
    scores = np.empty(len(among))
    for part in chunks(len(among), vectors.shape[1]):
        scores[part] = (vectors[among.first[part]] * vectors[among.second[part]]).sum(axis=1)
    return scores


# ---- the curve ----------------------------------------------------------------------------------------


class EqualError(NamedTuple):
    """The equal error rate, and its threshold."""

    rate: float
    threshold: float


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Both errors at every threshold; pairs with at least that score are accepted.

    Parameters
    ----------
    thresholds : float64 (t,), increasing: every score that occurs, then infinity, which accepts no pair.
    false_accept, false_reject : float64 (t,): the rates.
    n_different : the number of scores of different people.
    """

    thresholds: np.ndarray
    false_accept: np.ndarray
    false_reject: np.ndarray
    n_different: int

    def at(self, threshold: float) -> tuple[float, float]:
        """(false accept rate, false reject rate) at any threshold."""
        if np.isnan(threshold):
            raise ValueError("the threshold is NaN")
        i = np.searchsorted(self.thresholds, threshold)
        return float(self.false_accept[i]), float(self.false_reject[i])

    def threshold_at(self, false_accept: float) -> float:
        """The lowest threshold whose false accept rate is at most ``false_accept``.

        Raises ValueError: the rate is not in (0, 1], or below 1 / n_different. A rate of 1 % needs a hundred scores of
        different people, and 3,000 to be measured to within 30 % (the rule of 30).
        """
        if not 1 / self.n_different <= false_accept <= 1:
            raise ValueError(
                f"a false accept rate must lie between 1/{self.n_different} (there are {self.n_different} scores of "
                f"different people) and 1 to be measured, got {false_accept}"
            )
        return float(self.thresholds[np.argmax(self.false_accept <= false_accept)])

    def equal_error(self) -> EqualError:
        """The threshold with the smallest difference of the two rates, and the mean of both rates there."""
        i = int(np.argmin(np.abs(self.false_accept - self.false_reject)))
        return EqualError(float(self.false_accept[i] + self.false_reject[i]) / 2, float(self.thresholds[i]))


def error_curve(scores_same: np.ndarray, scores_different: np.ndarray) -> ErrorCurve:
    """Both errors at every threshold.

    scores_same, scores_different : (a,), (b,): similarities; no threshold accepts -inf.
    """
    same = _scores(scores_same, "scores_same")
    different = _scores(scores_different, "scores_different")
    thresholds = np.unique(np.concatenate([same, different]))
    thresholds = np.append(thresholds[np.isfinite(thresholds)], np.inf)
    reject = np.searchsorted(same, thresholds) / len(same)
    accept = (len(different) - np.searchsorted(different, thresholds)) / len(different)
    return ErrorCurve(thresholds, accept, reject, len(different))


def _scores(values: np.ndarray, name: str) -> np.ndarray:
    """float64, sorted and checked."""
    array = np.sort(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must be a list of at least one score, got shape {array.shape}")
    if np.isnan(array).any() or array[-1] == np.inf:
        raise ValueError(f"{name} contains NaN or infinity")
    return array


# ---- intervals ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorIntervals:
    """Confidence intervals of the rates, which also hold for other people."""

    false_accept: Interval
    false_reject: Interval
    equal_error: Interval


def error_intervals(
    among: Pairs, scores: np.ndarray, threshold: float, resamples: int = 300, seed: int = 0
) -> ErrorIntervals:
    """95 % bootstrap intervals of both rates at a threshold and of the equal error rate; people are drawn, not pairs.

    Pairs are not independent: two people who look alike affect all pairs of these two. Therefore people are drawn with
    replacement. A pair of one person has the weight of the number of times that the person was drawn, a pair of two
    people that of the product of both numbers. The time grows with resamples × pairs: use about 10,000 pairs.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(among),) or np.isnan(scores).any():
        raise ValueError(f"scores must have shape ({len(among)},), one per pair, and no NaN, got {scores.shape}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    order = np.argsort(scores)
    scores, same = scores[order], among.same[order]
    if same.all() or not same.any():
        raise ValueError("there must be pairs of the same and of different people")
    _, person = np.unique(among.people[np.concatenate([among.first[order], among.second[order]])], return_inverse=True)
    one, other = person[: len(scores)], person[len(scores) :]
    # The rates change only before the first pair of each distinct score, and after the last pair.
    steps = np.append(np.flatnonzero(np.append(True, scores[1:] != scores[:-1])), len(scores))
    cut = np.searchsorted(scores, threshold)
    rng, drawn = np.random.default_rng(seed), []
    n = person.max() + 1
    for _ in range(resamples):
        times = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        weights = times[one] * np.where(same, 1, times[other])
        below_same = np.append(0, np.cumsum(weights * same))
        below_different = np.append(0, np.cumsum(weights * ~same))
        if not below_same[-1] or not below_different[-1]:
            continue  # no pair of one person, or no pair of different people, was drawn
        reject, accept = below_same / below_same[-1], 1 - below_different / below_different[-1]
        nearest = steps[np.argmin(np.abs(accept[steps] - reject[steps]))]
        drawn.append((accept[cut], reject[cut], (accept[nearest] + reject[nearest]) / 2))
    if not drawn or n < 3:
        return ErrorIntervals(*[Interval(float("nan"), float("nan"))] * 3)
    low, high = np.quantile(np.clip(drawn, 0, 1), TAILS, axis=0)
    return ErrorIntervals(*(Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)))


# ---- accuracy by cross-validation over people ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CrossValidatedAccuracy:
    """The accuracy of each fold, with the threshold that was chosen on the other folds."""

    accuracies: np.ndarray
    thresholds: np.ndarray

    @property
    def mean(self) -> float:
        """The mean over folds, which LFW's tables call accuracy."""
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of that mean, as in LFW's tables."""
        return float(self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def accuracy_across_people(among: Pairs, scores: np.ndarray, folds: int = 10, seed: int = 0) -> CrossValidatedAccuracy:
    """LFW's protocol: choose the threshold on the pairs of some people and test it on the pairs of others.

    Each person is in one fold. Each fold is tested at the best threshold for the pairs of all other folds; pairs of
    people from both sides are not used. The accuracy is the mean of the accuracies on pairs of the same person and on
    pairs of different people, because LFW has equal numbers of both. Otherwise rejecting every pair would have an
    accuracy of 99 %.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(among),):
        raise ValueError(f"scores must have shape ({len(among)},), one per pair, got {scores.shape}")
    fold_of = assign_folds(among, folds, seed)
    first, second = fold_of[among.first], fold_of[among.second]
    accuracies, thresholds = np.empty(folds), np.empty(folds)
    for fold in range(folds):
        test = (first == fold) & (second == fold)
        train = (first != fold) & (second != fold)
        for part, where in ((test, "in it"), (train, "outside it")):
            if not (among.same & part).any() or not (~among.same & part).any():
                raise ValueError(
                    f"fold {fold} of {folds} has no pair of the same person, or none of different people, {where}; use "
                    "fewer folds"
                )
        thresholds[fold] = _best_threshold(error_curve(scores[train & among.same], scores[train & ~among.same]))
        tested = error_curve(scores[test & among.same], scores[test & ~among.same])
        accuracies[fold] = 1 - np.mean(tested.at(thresholds[fold]))
    return CrossValidatedAccuracy(accuracies, thresholds)


def assign_folds(among: Pairs, folds: int, seed: int = 0) -> np.ndarray:
    """int64 (n,): the fold of each image; all images of a person are in one fold.

    The people with pairs of the same person, and all others, are divided equally among the folds.
    """
    if folds < 2:
        raise ValueError(f"there must be at least 2 folds, got {folds}")
    people, person = np.unique(among.people, return_inverse=True)
    paired = np.isin(people, among.people[among.first[among.same]])
    order = np.random.default_rng(seed).permutation(len(people))
    order = order[np.argsort(~paired[order], kind="stable")]
    fold = np.empty(len(people), dtype=np.int64)
    fold[order] = np.arange(len(people)) % folds
    return fold[person]


def _best_threshold(curve: ErrorCurve) -> float:
    """The threshold with the smallest sum of errors, halfway to the next lower score."""
    i = int(np.argmin(curve.false_accept + curve.false_reject))
    low, high = curve.thresholds[max(i - 1, 0)], curve.thresholds[i]
    return float((low + high) / 2) if np.isfinite(high) else float(np.nextafter(low, np.inf))
