"""Evaluation of object detectors: intersection over union, matching, precision, recall and average precision.

The definitions are those of ``pycocotools`` (https://github.com/cocodataset/cocoapi): detections are matched to known
objects of their class from the highest score down, and average precision is the mean of the interpolated precision at
the recalls 0, 0.01 … 1. Boxes are x, y, width, height, in pixels. Sources: Everingham et al. 2010 (PASCAL VOC), Lin et
al. 2014 (COCO).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from helpers.evaluation.intervals import TAILS, Interval
from helpers.networks.boxes import iou

#: The recalls at which the precision is averaged.
RECALLS = np.linspace(0, 1, 101)
#: The number of detections of a class in an image that count, those with the highest scores.
MOST = 100


@dataclass(frozen=True, eq=False)
class KnownObjects:
    """The objects of some images.

    Parameters
    ----------
    images : int64 (m,): the image of each object, a row of the image set.
    labels : int64 (m,): its class.
    boxes : float64 (m, 4).
    ignored : bool (m,): objects, such as difficult ones, that need not be found. Detections of them do not count. By
        default, there are none.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray = None  # type: ignore[assignment]  # replaced below

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", _boxes(self.boxes))
        if self.ignored is None:
            object.__setattr__(self, "ignored", np.zeros(len(self.boxes), bool))
        for name, kind in (("images", np.int64), ("labels", np.int64), ("ignored", bool)):
            object.__setattr__(self, name, _column(getattr(self, name), len(self.boxes), kind, name))


@dataclass(frozen=True, eq=False)
class ScoredBoxes:
    """What a detector found: image, int64 (n,), label, int64 (n,), box, float64 (n, 4), and score, float64 (n,)."""

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", _boxes(self.boxes))
        for name, kind in (("images", np.int64), ("labels", np.int64), ("scores", np.float64)):
            object.__setattr__(self, name, _column(getattr(self, name), len(self.boxes), kind, name))
        if not np.isfinite(self.scores).all():
            raise ValueError("scores contain NaN or infinity")


class PrecisionRecall(NamedTuple):
    """Precision and recall of the detections that reach a score; the precision is NaN if there is none."""

    precision: float
    recall: float


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of one class that count, from the highest score down.

    Parameters
    ----------
    images, scores, correct : (n,): the image, the score, and whether a known object was matched.
    objects : int64 (images,): the number of known objects of the class in each image, without those that are ignored.
    """

    images: np.ndarray
    scores: np.ndarray
    correct: np.ndarray
    objects: np.ndarray

    def curve(self, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall, float64 (n,) each, of the detections up to each one.

        times : (images,): how often each image counts; by default once.
        """
        weights = np.ones(len(self.images)) if times is None else times[self.images]
        n = self.objects.sum() if times is None else self.objects @ times
        hits, drawn = np.cumsum(weights * self.correct), np.cumsum(weights)
        precision = np.divide(hits, drawn, out=np.zeros(len(hits)), where=drawn > 0)
        return precision, hits / n if n else np.full(len(hits), np.nan)

    def average_precision(self, times: np.ndarray | None = None) -> float:
        """The mean of the interpolated precision at `RECALLS`; NaN if there is no known object."""
        n = self.objects.sum() if times is None else self.objects @ times
        if not n:
            return float("nan")
        precision, recall = self.curve(times)
        # The interpolated precision at a recall is the best precision at this or a higher recall.
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
        return float(best[np.searchsorted(recall, RECALLS, side="left")].mean())


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """The matches of each class with a known object or a detection, by label.

    n_images : the number of images. Images without an object or detection count, because bootstrap intervals draw them.
    """

    matches: Mapping[int, ClassMatches]
    n_images: int

    @cached_property
    def average_precisions(self) -> dict[int, float]:
        """Label → average precision, for classes with a known object."""
        values = {label: found.average_precision() for label, found in self.matches.items()}
        return {label: value for label, value in values.items() if not np.isnan(value)}

    @property
    def mean_average_precision(self) -> float:
        """The mean over classes with a known object."""
        return float(np.mean(list(self.average_precisions.values())))

    def at(self, score: float) -> PrecisionRecall:
        """Precision and recall of all detections, of all classes, with at least this score."""
        return self._ratios(score, np.ones(self.n_images))

    def _ratios(self, score: float, times: np.ndarray) -> PrecisionRecall:
        hits, drawn, objects = 0.0, 0.0, 0.0
        for found in self.matches.values():
            kept = found.scores >= score
            weights = times[found.images[kept]]
            hits += weights @ found.correct[kept]
            drawn += weights.sum()
            objects += found.objects @ times
        return PrecisionRecall(
            float(hits / drawn) if drawn else float("nan"), float(hits / objects) if objects else float("nan")
        )

    def intervals(self, score: float, resamples: int = 1000) -> dict[str, Interval]:
        """95 % percentile bootstrap intervals over images of ``mAP``, and of ``precision`` and ``recall`` at a score.

        Whole images are drawn with replacement, because the objects of an image are not independent. A draw without a
        known object, or without a detection, is left out of the values that it does not define.
        """
        if resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {resamples}")
        if self.n_images < 2:
            return {name: Interval(float("nan"), float("nan")) for name in ("mAP", "precision", "recall")}
        rng = np.random.default_rng(0)
        drawn = np.empty((resamples, 3))
        for row in drawn:
            times = np.bincount(rng.integers(self.n_images, size=self.n_images), minlength=self.n_images).astype(float)
            values = np.array([found.average_precision(times) for found in self.matches.values()])
            known = values[~np.isnan(values)]
            row[:] = known.mean() if len(known) else np.nan, *self._ratios(score, times)
        low, high = np.nanquantile(drawn, TAILS, axis=0)
        return {name: Interval(float(low[i]), float(high[i])) for i, name in enumerate(("mAP", "precision", "recall"))}


def evaluate_detections(
    known: KnownObjects, detections: ScoredBoxes, n_images: int, threshold: float = 0.5
) -> DetectionScores:
    """Match detections to the known objects of their image and class.

    Parameters
    ----------
    n_images : the number of images; images are numbered from 0.
    threshold : the smallest intersection over union of a match.

    Raises ValueError: an image is not one of ``n_images``, or the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    for what in (known, detections):
        if len(what.images) and not 0 <= what.images.min() <= what.images.max() < n_images:
            raise ValueError(f"images must lie in 0 … {n_images - 1}, got {what.images.min()} … {what.images.max()}")
    labels = np.union1d(known.labels, detections.labels).tolist()
    return DetectionScores(
        {label: _class_matches(known, detections, label, n_images, threshold) for label in labels}, n_images
    )


def _class_matches(
    known: KnownObjects, detections: ScoredBoxes, label: int, n_images: int, threshold: float
) -> ClassMatches:
    of_known, of_found = np.flatnonzero(known.labels == label), np.flatnonzero(detections.labels == label)
    objects = np.bincount(known.images[of_known][~known.ignored[of_known]], minlength=n_images)
    kept, correct = [np.empty(0, np.int64)], [np.empty(0, bool)]
    for image in np.unique(detections.images[of_found]):
        rows = of_found[detections.images[of_found] == image]
        rows = rows[np.argsort(-detections.scores[rows], kind="stable")][:MOST]
        truth = of_known[known.images[of_known] == image]
        ignored = known.ignored[truth]
        matched = match(iou(detections.boxes[rows], known.boxes[truth]), ignored, threshold)
        # The last value is for -1, no object.
        skipped = np.append(ignored, False)[matched]
        kept.append(rows[~skipped])
        correct.append(matched[~skipped] >= 0)
    rows, hits = np.concatenate(kept), np.concatenate(correct)
    # Images are in ascending order, and equal scores keep it.
    order = np.argsort(-detections.scores[rows], kind="stable")
    rows, hits = rows[order], hits[order]
    return ClassMatches(detections.images[rows], detections.scores[rows], hits, objects)


def match(overlap: np.ndarray, ignored: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """int64 (n,): the object that each detection of one image and class matches, or -1.

    Each detection, in the given order, takes the free object with the largest overlap of at least ``threshold``. It
    takes an ignored object only if no other is left for it. Of equal overlaps, the last object is taken.

    Parameters
    ----------
    overlap : float (n, m): intersection over union of detections, from the highest score down, and objects.
    ignored : bool (m,).
    """
    matched, free = np.full(len(overlap), -1), np.ones(overlap.shape[1], bool)
    for row, values in enumerate(overlap):
        for candidates in (free & ~ignored, free & ignored):
            possible = np.flatnonzero(candidates & (values >= min(threshold, 1 - 1e-10)))
            if len(possible):
                matched[row] = possible[len(possible) - 1 - np.argmax(values[possible][::-1])]
                free[matched[row]] = False
                break
    return matched


def _boxes(values: ArrayLike) -> np.ndarray:
    """float64 (n, 4), checked."""
    boxes = np.asarray(values, dtype=np.float64)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (n, 4): x, y, width, height; got {boxes.shape}")
    bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1))
    if len(bad):
        raise ValueError(
            f"boxes must be finite, with a width and a height of at least 0; the first other one is {boxes[bad[0]]}"
        )
    return boxes


def _column(values: ArrayLike, n: int, kind: type, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one for each box, got {array.shape}")
    if kind is np.int64 and array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    return array.astype(kind)
