"""Open-set search: some queries show people who are not in the gallery, and the right result is "unknown".

A search always has results. A threshold on their scores rejects unknown people. Two rates describe it:

- **detection and identification rate** (DIR): the share of queries of people in the gallery (mates) for which that
  person is the first result *and* scores at least the threshold (rank 1). 1 - DIR is ISO's false negative
  identification rate.
- **false alarm rate**: the share of queries of other people with a result at or above the threshold.

The threshold is chosen on some people and tested on others. False alarms increase with the size of the gallery, so both
galleries must be about as large as that of the application.

Sources: P. J. Phillips, P. Grother, R. Micheals, Evaluation methods in face recognition, Handbook of Face Recognition,
2nd edition, 2011, chapter 21; ISO/IEC 19795-1:2021 (FPIR and FNIR).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers.evaluation.builders import query_gallery
from helpers.evaluation.protocol import Protocol
from helpers.evaluation.runner import check_rows, run
from helpers.evaluation.verification import ErrorCurve, error_curve
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.search.index import Index
from helpers.search.ranking import PAD, Ranking


def open_set_protocol(images: ImageSet, name: str, per_person: int = 1, seed: int = 0) -> Protocol:
    """Some images of each class are the gallery. All others are queries, with those without a class as the unknown.

    per_person : number of images of each person in the gallery, drawn with ``seed``.
    """
    if per_person < 1:
        raise ValueError(f"per_person must be at least 1, got {per_person}")
    rng = np.random.default_rng(seed)
    few = [images.class_names[label] for label in np.flatnonzero((images.counts > 0) & (images.counts <= per_person))]
    if not images.counts.any():
        raise ValueError(f"{images.name}: no image has a class, so there is no person for the gallery")
    if few:
        number = "one image" if per_person == 1 else f"{per_person} images"
        raise ValueError(
            f"{images.name}: each class needs {number} for the gallery and one more for a query; {few[0]} has too few"
        )
    if (images.labels != NO_CLASS).all():
        raise ValueError(f"{images.name}: every image has a class, so there is no query of an unknown person")
    members = [np.flatnonzero(images.labels == label) for label in np.flatnonzero(images.counts)]
    gallery = np.concatenate([rng.permutation(rows)[:per_person] for rows in members])
    is_query = np.ones(len(images), dtype=bool)
    is_query[gallery] = False
    text = (
        f"Open set: the gallery has {per_person} images of each person (drawn with seed {seed}). All other images, and "
        "those of unknown people, are queries."
    )
    return query_gallery(images, is_query, np.sort(gallery), name, description=text)


def search_scores(ranking: Ranking, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """The scores that are compared with a threshold, float64: (those of mates (a,), those of unknown people (b,)).

    For a query with a relevant image it is the score of the first result, or -inf if that is not relevant; for a query
    without, the score of the first result.
    """
    check_rows(ranking, protocol)
    ids, scores = ranking.ids[:, 0], ranking.scores[:, 0].astype(np.float64)
    relevant = (ids != PAD) & (protocol.labels[ids] == protocol.labels[protocol.queries])
    mates = protocol.has_relevant
    return np.where(relevant, scores, -np.inf)[mates], scores[~mates]


def open_set_curve(ranking: Ranking, protocol: Protocol) -> ErrorCurve:
    """False alarms (as ``false_accept``) and 1 - DIR (as ``false_reject``) at every threshold."""
    return error_curve(*search_scores(ranking, protocol))


@dataclass(frozen=True)
class OpenSetResult:
    """A threshold that was chosen on some people, measured on others.

    Parameters
    ----------
    detected, false_alarms : DIR and the measured false alarm rate.
    closed_set : DIR without a threshold, which is the top-1 accuracy.
    n_people, n_mates, n_unknown : the numbers of people in the gallery and of queries of both kinds.
    """

    threshold: float
    detected: float
    false_alarms: float
    closed_set: float
    n_people: int
    n_mates: int
    n_unknown: int


def measure(ranking: Ranking, protocol: Protocol, threshold: float) -> OpenSetResult:
    """Measure a threshold that was chosen on other people."""
    mates, others = search_scores(ranking, protocol)
    false_alarms, missed = open_set_curve(ranking, protocol).at(threshold)
    return OpenSetResult(
        threshold=threshold,
        detected=1 - missed,
        false_alarms=false_alarms,
        closed_set=float(np.isfinite(mates).mean()),
        n_people=len(np.unique(protocol.labels[protocol.gallery])),
        n_mates=len(mates),
        n_unknown=len(others),
    )


def split_by_person(labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (a,), (b,) of two halves without a common person: half of the classes and of the images without a class.

    Each image without a class counts as a separate person, as in LFW.
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
    open_index: Callable[[], Index],
    false_alarms: float = 0.01,
    per_person: int = 1,
    seed: int = 0,
) -> OpenSetResult:
    """Choose the threshold for a false alarm rate on half of the people, and measure it on the other half.

    Parameters
    ----------
    images : known people as classes, unknown ones as images without a class.
    vectors : float32 (n, d): row i is the feature vector of image i.
    open_index : returns a new, empty index, as ``lambda: open_index("exact:cosine")``.
    per_person : number of images of each known person in the gallery.
    """
    vectors = np.asarray(vectors)
    if len(vectors) != len(images):
        raise ValueError(f"{images.name}: {len(images)} images, but {len(vectors)} vectors")
    searches = []
    for rows, part in zip(split_by_person(images.labels, seed), ("calibration", "test"), strict=True):
        protocol = open_set_protocol(images.subset(rows), f"{images.name}-open-set-{part}", per_person, seed)
        searches.append((run(protocol, vectors[rows], open_index(), k=1), protocol))
    threshold = open_set_curve(*searches[0]).threshold_at(false_alarms)
    return measure(*searches[1], threshold)
