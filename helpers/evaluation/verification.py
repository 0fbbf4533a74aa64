"""Verification: do two images show the same person (or thing)? The threshold, its two errors, and their intervals.

A score, higher for more alike, becomes an answer by a threshold: "same" from there on. Two errors follow, and moving
the threshold trades one for the other:

- **false accept rate**: pairs of different people that are taken for one,
- **false reject rate**: pairs of one person that are taken for two.

Sources: ISO/IEC 19795-1:2021 (the rates; equal error rate). G. Huang et al., Labeled Faces in the Wild, 2007 (accuracy
over ten folds, the threshold chosen on the other nine). R. Bolle, N. Ratha, S. Pankanti, Error analysis of pattern
recognition systems: the subsets bootstrap, CVIU 2004, and T. Snijders, S. Borgatti, Non-parametric standard errors and
tests for network statistics, Connections 1999 (drawing people, not pairs).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from helpers.evaluation.intervals import Interval
from helpers.evaluation.protocol import Protocol
from helpers.images.imageset import NO_CLASS
from helpers.vectors import l2_normalize

#: Numbers that one step of a chunked loop may hold.
CHUNK = 4_000_000

#: More pairs than this are not listed; a sample is drawn instead.
MOST_PAIRS = 20_000_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images, each once, in no order within a pair.

    Parameters
    ----------
    first, second : int64 (m,): rows of the images.
    people : int64 (n,): who each image shows; an image of no class is somebody of its own.
    """

    first: np.ndarray
    second: np.ndarray
    people: np.ndarray

    @property
    def same(self) -> np.ndarray:
        """bool (m,): do both show the same person."""
        return self.people[self.first] == self.people[self.second]

    def __len__(self) -> int:
        return len(self.first)


def pairs(protocol: Protocol, same: int | None = None, different: int | None = None, seed: int = 0) -> Pairs:
    """Pairs of the same and of different people among the images that ask or answer in a protocol.

    Never paired: an image with itself, with one of its group (a copy), or with one that the protocol excludes for
    either of the two. Images of no class are each paired with people of a class, and never with each other: whether
    those show the same is not known.

    Parameters
    ----------
    same, different : how many of each, drawn by ``seed``; None is all.

    Raises
    ------
    ValueError : more are wanted than there are, or all pairs are too many to list.
    """
    rows = np.union1d(protocol.queries, protocol.gallery)
    n = len(protocol)
    people = np.where(protocol.labels == NO_CLASS, len(protocol.class_names) + np.arange(n), protocol.labels)
    rng = np.random.default_rng(seed)
    forbidden = np.array(
        [min(a, b) * n + max(a, b) for a, others in protocol.excluded.items() for b in others], dtype=np.int64
    )

    def allowed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        known = (protocol.labels[first] != NO_CLASS) | (protocol.labels[second] != NO_CLASS)
        kept = known & (first != second) & ~np.isin(first * n + second, forbidden)
        if protocol.groups is not None:
            kept &= (protocol.groups[first] < 0) | (protocol.groups[first] != protocol.groups[second])
        return kept

    alike = _same(protocol, rows, allowed, n)
    unlike = _different(rows, people, allowed, n, different, rng)
    if same is not None:
        alike = _drawn(alike, same, "the same person", rng)
    if different is not None:
        unlike = _drawn(unlike, different, "different people", rng)
    codes = np.concatenate([alike, unlike])
    return Pairs(codes // n, codes % n, people)


def _same(protocol: Protocol, rows: np.ndarray, allowed, n: int) -> np.ndarray:
    """Codes first · n + second, first < second, of all pairs of one class."""
    labels = protocol.labels[rows]
    classes = [rows[labels == label] for label in np.unique(labels[labels != NO_CLASS])]
    if sum(len(members) * (len(members) - 1) // 2 for members in classes) > MOST_PAIRS:
        raise ValueError(f"{protocol.name}: more than {MOST_PAIRS:,} pairs of one class; take a part of the images")
    found = [np.empty(0, np.int64)]
    for members in classes:
        one, other = np.triu_indices(len(members), 1)
        first, second = members[one], members[other]
        found.append((first * n + second)[allowed(first, second)])
    return np.concatenate(found)


def _different(rows: np.ndarray, people: np.ndarray, allowed, n: int, wanted: int | None, rng) -> np.ndarray:
    """Codes of all pairs of different people, or of rather more than ``wanted`` drawn ones."""
    everything = len(rows) * (len(rows) - 1) // 2

    def checked(first, second):
        first, second = np.minimum(first, second), np.maximum(first, second)
        kept = (people[first] != people[second]) & allowed(first, second)
        return first[kept] * n + second[kept]

    if wanted is not None and 4 * wanted < everything:
        codes = np.empty(0, np.int64)
        # Draw until there are enough. Where few pairs are allowed, that could take for ever, and all are listed.
        for _ in range(20):
            drawn = rng.choice(rows, size=(2, 2 * wanted + 16))
            codes = np.unique(np.concatenate([codes, checked(*drawn)]))
            if len(codes) >= wanted:
                return codes
    if everything > MOST_PAIRS:
        raise ValueError(f"{everything:,} pairs are too many to list; say how many to draw: different=100_000, say")
    one, other = np.triu_indices(len(rows), 1)
    return checked(rows[one], rows[other])


def _drawn(codes: np.ndarray, wanted: int, what: str, rng) -> np.ndarray:
    if not 1 <= wanted <= len(codes):
        raise ValueError(f"there are {len(codes)} pairs of {what}, {wanted} can't be drawn")
    return np.sort(rng.choice(codes, wanted, replace=False))


def similarities(vectors: np.ndarray, among: Pairs, metric: str = "cosine") -> np.ndarray:
    """float64 (m,): how alike the two of each pair are, higher is more.

    metric : ``cosine`` (0 where a vector is zero), or ``euclidean``, the distance negated.

    Raises
    ------
    ValueError : no such metric, or not one finite vector (n, d) an image.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(among.people):
        raise ValueError(f"vectors must have shape ({len(among.people)}, d), one an image, got {vectors.shape}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be cosine or euclidean; got {metric!r}")
    used = np.union1d(among.first, among.second)
    bad = used[~np.isfinite(vectors[used]).all(axis=1)]
    if len(bad):
        raise ValueError(f"{len(bad)} vectors hold NaN or infinity, the first is that of image {bad[0]}")
    vectors = vectors.astype(np.float64)
    if metric == "cosine":
        vectors = l2_normalize(vectors)
    scores = np.empty(len(among))
    step = max(1, CHUNK // vectors.shape[1])
    for start in range(0, len(among), step):
        part = slice(start, start + step)
        a, b = vectors[among.first[part]], vectors[among.second[part]]
        scores[part] = (a * b).sum(axis=1) if metric == "cosine" else -np.linalg.norm(a - b, axis=1)
    return scores


# ---- the curve ----------------------------------------------------------------------------------------


class EqualError(NamedTuple):
    """Where both errors are equal: the rate, and the threshold."""

    rate: float
    threshold: float


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Both errors at every threshold; "same" is what scores at least the threshold.

    Parameters
    ----------
    thresholds : float64 (t,), rising: every score that occurs, then infinity, which accepts nothing.
    false_accept, false_reject : float64 (t,): falling and rising rates.
    n_same, n_different : how many scores they are over.
    """

    thresholds: np.ndarray
    false_accept: np.ndarray
    false_reject: np.ndarray
    n_same: int
    n_different: int

    def at(self, threshold: float) -> tuple[float, float]:
        """(false accept rate, false reject rate) at any threshold."""
        if np.isnan(threshold):
            raise ValueError("the threshold is NaN")
        place = np.searchsorted(self.thresholds, threshold)
        return float(self.false_accept[place]), float(self.false_reject[place])

    def threshold_at(self, false_accept: float) -> float:
        """The lowest threshold, the one that rejects least, with no more false accepts than that rate.

        Raises
        ------
        ValueError : the rate is not in (0, 1], or so low that not one of the scores may be accepted: 1 % needs a
            hundred scores of different people, and 3,000 to be known to within 30 % (the rule of 30).
        """
        if not 1 / self.n_different <= false_accept <= 1:
            raise ValueError(
                f"a false accept rate must lie between 1/{self.n_different} (there are {self.n_different} scores of "
                f"different people) and 1 to be measured, got {false_accept}"
            )
        return float(self.thresholds[np.argmax(self.false_accept <= false_accept)])

    def equal_error(self) -> EqualError:
        """Where the two rates are nearest to each other; the rate is the mean of both there."""
        place = int(np.argmin(np.abs(self.false_accept - self.false_reject)))
        rate = (self.false_accept[place] + self.false_reject[place]) / 2
        return EqualError(float(rate), float(self.thresholds[place]))


def error_curve(scores_same: np.ndarray, scores_different: np.ndarray) -> ErrorCurve:
    """Both errors at every threshold.

    scores_same, scores_different : (a,), (b,): higher is more alike; -inf is accepted by no threshold.

    Raises
    ------
    ValueError : there are none of a kind, or some are NaN or +inf.
    """
    same = _scores(scores_same, "scores_same")
    different = _scores(scores_different, "scores_different")
    thresholds = np.unique(np.concatenate([same, different]))
    thresholds = np.append(thresholds[np.isfinite(thresholds)], np.inf)
    # Both counts by one rule: how many scores lie below the threshold.
    reject = np.searchsorted(same, thresholds) / len(same)
    accept = (len(different) - np.searchsorted(different, thresholds)) / len(different)
    return ErrorCurve(thresholds, accept, reject, len(same), len(different))


def _scores(values: np.ndarray, name: str) -> np.ndarray:
    """float64, sorted and checked."""
    array = np.sort(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must be a list of at least one score, got shape {array.shape}")
    if np.isnan(array).any() or array[-1] == np.inf:
        raise ValueError(f"{name} holds NaN or infinity")
    return array


# ---- intervals ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorIntervals:
    """Where the rates lie, most likely, for other people too."""

    false_accept: Interval
    false_reject: Interval
    equal_error: Interval


def error_intervals(
    among: Pairs, scores: np.ndarray, threshold: float, level: float = 0.95, resamples: int = 300, seed: int = 0
) -> ErrorIntervals:
    """Bootstrap intervals of both rates at a threshold and of the equal error rate; people are drawn, not pairs.

    A hundred images of ten people make 4,950 pairs, but only ten people's worth of news: one person who looks like
    another spoils all pairs of the two. So people are drawn with replacement; a pair of one person counts as often as
    that person was drawn, a pair of two people as often as both, multiplied. The time is resamples × pairs: give some
    10,000 pairs, not millions.

    Raises
    ------
    ValueError : not one score a pair, no pair of a kind, a level outside (0, 1), fewer than one resample.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(among),) or np.isnan(scores).any():
        raise ValueError(f"scores must have shape ({len(among)},), one a pair, and no NaN, got {scores.shape}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie between 0 and 1 and resamples be at least 1, got {level} and {resamples}")
    order = np.argsort(scores)
    scores, same = scores[order], among.same[order]
    if same.all() or not same.any():
        raise ValueError("there must be pairs of the same and of different people")
    _, person = np.unique(among.people[np.concatenate([among.first[order], among.second[order]])], return_inverse=True)
    one, other = person[: len(scores)], person[len(scores) :]
    # Rates change only where a new score begins: just before these places, and after the last.
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
            continue  # by chance nobody with two images, or one person alone, was drawn
        reject, accept = below_same / below_same[-1], 1 - below_different / below_different[-1]
        nearest = steps[np.argmin(np.abs(accept[steps] - reject[steps]))]
        drawn.append((accept[cut], reject[cut], (accept[nearest] + reject[nearest]) / 2))
    if not drawn or n < 3:
        return ErrorIntervals(*[Interval(float("nan"), float("nan"))] * 3)
    tail = (1 - level) / 2
    low, high = np.quantile(np.clip(drawn, 0, 1), [tail, 1 - tail], axis=0)
    return ErrorIntervals(*(Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)))


# ---- a threshold for people not seen before --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FoldedAccuracy:
    """Accuracy on people that the threshold was not chosen on, fold by fold."""

    accuracies: np.ndarray
    thresholds: np.ndarray

    @property
    def mean(self) -> float:
        """Over folds; what LFW's tables call accuracy."""
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Of that mean, as LFW's tables give it."""
        return float(self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def accuracy_across_people(among: Pairs, scores: np.ndarray, folds: int = 10, seed: int = 0) -> FoldedAccuracy:
    """LFW's way: the threshold is chosen on the pairs of some people and tested on the pairs of others.

    People are dealt into folds; each fold in turn is tested, at the threshold that is best on the pairs among all
    others. Pairs across the border are used in neither. Accuracy is the mean of that on pairs of the same and on pairs
    of different people, as LFW has as many of both: without that, "different" to everything would be 99 % right.

    Raises
    ------
    ValueError : not one score a pair, fewer than two folds, or a fold without pairs of both kinds.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(among),):
        raise ValueError(f"scores must have shape ({len(among)},), one a pair, got {scores.shape}")
    fold_of = deal(among, folds, seed)
    first, second = fold_of[among.first], fold_of[among.second]
    accuracies, thresholds = np.empty(folds), np.empty(folds)
    for fold in range(folds):
        test = (first == fold) & (second == fold)
        train = (first != fold) & (second != fold)
        for part, what in ((test, "in it"), (train, "outside it")):
            if not (among.same & part).any() or not (~among.same & part).any():
                raise ValueError(f"fold {fold} of {folds} has not both kinds of pairs {what}; take fewer folds")
        curve = error_curve(scores[train & among.same], scores[train & ~among.same])
        thresholds[fold] = _best_threshold(curve)
        tested = error_curve(scores[test & among.same], scores[test & ~among.same])
        accuracies[fold] = 1 - np.mean(tested.at(thresholds[fold]))
    return FoldedAccuracy(accuracies, thresholds)


def deal(among: Pairs, folds: int, seed: int = 0) -> np.ndarray:
    """int64 (n,): the fold of each image; a person's images share one.

    People with pairs of their own are dealt first, then the others, so that each fold gets its share of both.

    Raises
    ------
    ValueError : fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"there must be at least 2 folds, got {folds}")
    everybody, person = np.unique(among.people, return_inverse=True)
    paired = np.isin(everybody, among.people[among.first[among.same]])
    order = np.random.default_rng(seed).permutation(len(everybody))
    order = order[np.argsort(~paired[order], kind="stable")]
    fold = np.empty(len(everybody), dtype=np.int64)
    fold[order] = np.arange(len(everybody)) % folds
    return fold[person]


def _best_threshold(curve: ErrorCurve) -> float:
    """Where the errors' sum is least, halfway to the score below: a score of other people won't hit it exactly."""
    place = int(np.argmin(curve.false_accept + curve.false_reject))
    low, high = curve.thresholds[max(place - 1, 0)], curve.thresholds[place]
    return float((low + high) / 2) if np.isfinite(high) else float(np.nextafter(low, np.inf))
