"""Open-set search: some who are looked for are not in the gallery, and the right answer is "unknown".

Search always finds somebody. Only a threshold can say "nobody", and it makes two errors:

- **detection and identification rate** (DIR): searches for people of the gallery (mates) whose person is among the
  first ``rank`` answers *and* scores at least the threshold. What is missing is ISO's false negative identification.
- **false alarm rate**: searches for others that get an answer at or above the threshold all the same.

The threshold is chosen on some people and tested on others, or it would know the test. A false alarm is the more
likely the larger the gallery, so both halves must have galleries of about the size that the threshold is used with.

Sources: P. J. Phillips, P. Grother, R. Micheals, Evaluation methods in face recognition, Handbook of Face Recognition,
2nd edition, 2011, chapter 21; ISO/IEC 19795-1:2021 (FPIR and FNIR).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers.evaluation.builders import query_gallery
from helpers.evaluation.intervals import Interval, bootstrap_interval
from helpers.evaluation.protocol import Protocol
from helpers.evaluation.runner import run
from helpers.evaluation.verification import ErrorCurve, error_curve
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.search.ranking import PAD, Ranking


def enrolled(images: ImageSet, name: str, per_person: int = 1, seed: int = 0) -> Protocol:
    """Of each class some images are the gallery; the others ask, and so do all images of no class, the unknown.

    per_person : images of each person in the gallery, drawn by ``seed``.

    Raises
    ------
    ValueError : a class has no image left to ask, or there is no unknown.
    """
    rng = np.random.default_rng(seed)
    few = [images.class_names[label] for label in np.flatnonzero((images.counts > 0) & (images.counts <= per_person))]
    if per_person < 1 or few or not images.counts.any():
        raise ValueError(
            f"{images.name}: {per_person} images of each class (at least 1) go into the gallery and one must be left "
            f"to ask; too few has {few[0] if few else 'every class'}"
        )
    if (images.labels != NO_CLASS).all():
        raise ValueError(f"{images.name}: no image is of no class, so nobody unknown asks")
    members = [np.flatnonzero(images.labels == label) for label in np.flatnonzero(images.counts)]
    gallery = np.concatenate([rng.permutation(rows)[:per_person] for rows in members])
    asks = np.ones(len(images), dtype=bool)
    asks[gallery] = False
    return query_gallery(
        images,
        np.flatnonzero(asks),
        np.sort(gallery),
        name,
        description=f"Open set: {per_person} a person answer (drawn with seed {seed}); the others and all unknown ask.",
    )


def search_scores(ranking: Ranking, protocol: Protocol, rank: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What thresholds work on, float64: (scores of the mates (a,), scores of the false alarms (b,)).

    For a query with a relevant image, the score of its best right answer among the first ``rank``, or -inf if none
    is right; for a query without, the score of its first answer.

    Raises
    ------
    ValueError : not one row a query, or the ranking has fewer than ``rank`` columns.
    """
    if len(ranking) != len(protocol.queries):
        raise ValueError(f"{protocol.name}: {len(protocol.queries)} queries, but the ranking has {len(ranking)} rows")
    if not 1 <= rank <= ranking.k:
        raise ValueError(f"rank must lie between 1 and {ranking.k}, the ranking's width; got {rank}")
    ids, scores = ranking.ids[:, :rank], ranking.scores[:, :rank].astype(np.float64)
    right = (ids != PAD) & (protocol.labels[ids] == protocol.labels[protocol.queries][:, None])
    mates = protocol.answerable
    best = np.where(right, scores, -np.inf).max(axis=1)
    return best[mates], np.where(ids[:, 0] != PAD, scores[:, 0], -np.inf)[~mates]


def open_set_curve(ranking: Ranking, protocol: Protocol, rank: int = 1) -> ErrorCurve:
    """False alarms (as ``false_accept``) and 1 - DIR (as ``false_reject``) at every threshold.

    Raises
    ------
    ValueError : see ``search_scores``; or all queries, or none, have a mate in the gallery.
    """
    mates, others = search_scores(ranking, protocol, rank)
    if not len(mates) or not len(others):
        raise ValueError(f"{protocol.name}: {len(mates)} queries have a mate and {len(others)} have none; both must be")
    return error_curve(mates, others)


def identify(ranking: Ranking, labels: np.ndarray, threshold: float) -> np.ndarray:
    """int64 (q,): the class of each query's first answer, or -1, "unknown", where it scores below the threshold.

    labels : int64 (n,): the class of each id.
    """
    first, score = ranking.ids[:, 0], ranking.scores[:, 0]
    return np.where((first != PAD) & (score >= threshold), np.asarray(labels)[first], NO_CLASS)


@dataclass(frozen=True)
class OpenSetResult:
    """A threshold that was chosen on some people, and how it does on others.

    Parameters
    ----------
    threshold, wanted : the threshold, and the false alarm rate that it was chosen for.
    detected, detected_interval : DIR; people are drawn for the interval.
    false_alarms, false_alarms_interval : the rate that came out.
    closed_set : DIR without any threshold: the top-k accuracy for that rank.
    n_people, n_mates, n_unknown : people in the gallery, and searches of both kinds.
    """

    threshold: float
    wanted: float
    detected: float
    detected_interval: Interval
    false_alarms: float
    false_alarms_interval: Interval
    closed_set: float
    n_people: int
    n_mates: int
    n_unknown: int


def measure(ranking: Ranking, protocol: Protocol, threshold: float, wanted: float, rank: int = 1) -> OpenSetResult:
    """How a threshold that was chosen elsewhere, for ``wanted`` false alarms, does here."""
    mates, others = search_scores(ranking, protocol, rank)
    curve = open_set_curve(ranking, protocol, rank)
    false_alarms, missed = curve.at(threshold)
    people = protocol.labels[protocol.queries[protocol.answerable]]
    return OpenSetResult(
        threshold=threshold,
        wanted=wanted,
        detected=1 - missed,
        detected_interval=bootstrap_interval(mates >= threshold, clusters=people),
        false_alarms=false_alarms,
        false_alarms_interval=bootstrap_interval(others >= threshold),
        closed_set=float(np.isfinite(mates).mean()),
        n_people=len(np.unique(protocol.labels[protocol.gallery])),
        n_mates=len(mates),
        n_unknown=len(others),
    )


def halves(labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (a,), (b,) of two halves with no person in both: half of the classes, and of the images of no class.

    Each image of no class is taken as a person of its own, which is true of LFW's.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.unique(labels[labels != NO_CLASS]))
    unknown = rng.permutation(np.flatnonzero(labels == NO_CLASS))
    chosen = np.isin(labels, classes[: len(classes) // 2])
    chosen[unknown[: len(unknown) // 2]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def calibrate_and_test(
    images: ImageSet,
    vectors: np.ndarray,
    open_index: Callable,
    false_alarms: float = 0.01,
    per_person: int = 1,
    rank: int = 1,
    seed: int = 0,
) -> OpenSetResult:
    """Choose the threshold for a false alarm rate on half of the people, and measure it on the other half.

    Parameters
    ----------
    images : known people as classes, unknown ones as images of no class.
    vectors : float32 (n, d): row i describes image i.
    open_index : called without arguments for a new, empty index, as in ``lambda: open_index("exact:cosine")``.
    per_person : images of each known person in the gallery.

    Raises
    ------
    ValueError : see ``enrolled``; vectors of another shape; too few unknown people for so low a rate.
    """
    vectors = np.asarray(vectors)
    if len(vectors) != len(images):
        raise ValueError(f"{images.name}: {len(images)} images, but {len(vectors)} vectors")
    ran = []
    for rows, part in zip(halves(images.labels, seed), ("calibration", "test"), strict=True):
        protocol = enrolled(images.subset(rows), f"{images.name}-open-set-{part}", per_person, seed)
        ran.append((run(protocol, vectors[rows], open_index(), k=rank), protocol))
    threshold = open_set_curve(*ran[0], rank).threshold_at(false_alarms)
    return measure(*ran[1], threshold, false_alarms, rank)
