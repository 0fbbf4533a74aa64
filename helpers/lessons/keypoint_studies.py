"""Measurements of keypoints: their kinds compared, searches under a protocol, and keypoints on and around faces."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from helpers.evaluation import metrics, runner
from helpers.evaluation.intervals import bootstrap_interval
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.features import keypoints
from helpers.features.keypoints import Keypoints, Matches
from helpers.lessons.keypoint_votes import VoteIndex
from helpers.search.ranking import Ranking


class VoteSearch(NamedTuple):
    """A search by votes under a protocol: its scores and ranking, milliseconds per query, and bytes of the index."""

    scores: Scores
    ranking: Ranking
    query_ms: float
    index_bytes: int


def search_by_votes(found: Sequence[Keypoints], protocol: Protocol) -> VoteSearch:
    """Search the gallery of a protocol for all queries with `VoteIndex`, and score the whole ranking.

    found : the keypoints of all images, in the protocol's order.
    """
    index = VoteIndex(found[0].kind).add([found[row] for row in protocol.gallery], protocol.gallery.tolist())
    start = time.perf_counter()
    ranking = index.search([found[row] for row in protocol.queries], len(index))
    query_ms = 1000 * (time.perf_counter() - start) / len(protocol.queries)
    ranking = runner.excluding(ranking, protocol)
    return VoteSearch(metrics.evaluate(ranking, protocol), ranking, query_ms, index.nbytes)


def verified_shares(ranking: Ranking, protocol: Protocol) -> tuple[float, float]:
    """The share of the relevant and of the other results that agree with the query on a homography.

    ranking : of `VoteIndex.search`, whose score is 1 or more for such results; it verifies the first 50.
    """
    top = ranking.head(50)
    relevant = metrics.relevance_mask(top, protocol)
    verified = top.scores >= 1
    return float(verified[relevant].mean()), float(verified[~relevant & (top.ids >= 0)].mean())


def is_inside(found: Keypoints, box: tuple[float, float, float, float]) -> np.ndarray:
    """bool (n,): which keypoints lie in a box (left, top, right, bottom) in pixels."""
    return np.all((found.points > box[:2]) & (found.points < box[2:]), axis=1)


#: Where the face lies in most of LFW's images of 250 × 250 pixels, and a larger box around the head: left, top, right
#: and bottom in pixels.
_FACE, _HEAD = (75, 65, 175, 190), (65, 40, 185, 250)


def compare_face_parts(found: Sequence[Keypoints], protocol: Protocol) -> pd.DataFrame:
    """`search_by_votes` with all keypoints of LFW's images, those on the face, and those around the head.

    Returns
    -------
    One row per part: mean number of keypoints, top-1 and mAP with 95 % intervals and chance, and `verified_shares`.
    """
    parts = {
        "everywhere": list(found),
        "on the face": [one.subset(is_inside(one, _FACE)) for one in found],
        "around the head": [one.subset(~is_inside(one, _HEAD)) for one in found],
    }
    lines = []
    for name, part in parts.items():
        search = search_by_votes(part, protocol)
        line: dict[str, object] = {"keypoints": name, "per image": float(np.mean([len(one) for one in part]))}
        for metric, row in search.scores.table().set_index("metric").loc[["top-1", "mAP"]].iterrows():
            line |= {str(metric): row["value"], f"{metric} low": row["low"], f"{metric} high": row["high"]}
            line[f"{metric} chance"] = row["chance"]
        line["relevant verified"], line["others verified"] = verified_shares(search.ranking, protocol)
        lines.append(line)
    return pd.DataFrame(lines)


def compare_kinds(
    images: Sequence[np.ndarray], kinds: Sequence[str], limit: int = 500, degrees: float = 30, scale: float = 0.7,
    within: float = 3,
) -> pd.DataFrame:  # fmt: skip
    """Match each image with a rotated and scaled copy of itself, with each kind of keypoints.

    Parameters
    ----------
    images : uint8 (h, w, 3) RGB.
    limit : number of keypoints per image.
    within : maximum error of a correct match, in pixels of the copy; the transformation is known.

    Returns
    -------
    One row per kind: keypoints per image, bytes of a descriptor, milliseconds to extract and to match an image, correct
    matches per image, and precision, the mean over images of the share of correct matches, with its 95 % interval.
    """
    copies = [rotated_copy(image, degrees, scale) for image in images]
    lines = []
    for kind in kinds:
        start = time.perf_counter()
        found = [keypoints.extract(image, kind, limit) for image in images]
        extracted = time.perf_counter()
        others = [keypoints.extract(copy, kind, limit) for copy, _ in copies]
        begun = time.perf_counter()
        matched = [keypoints.match(one, other) for one, other in zip(found, others, strict=True)]
        done = time.perf_counter()
        errors = [
            transfer_errors(one, other, pairs, matrix)
            for one, other, pairs, (_, matrix) in zip(found, others, matched, copies, strict=True)
        ]
        precision = np.array([(one <= within).mean() for one in errors if len(one)])
        low, high = bootstrap_interval(precision)
        lines.append({
            "kind": kind,
            "keypoints": float(np.mean([len(one) for one in found])),
            "bytes": found[0].descriptors.itemsize * found[0].descriptors.shape[1],
            "ms to extract": 1000 * (extracted - start) / len(images),
            "ms to match": 1000 * (done - begun) / len(images),
            "correct matches": float(np.mean([(one <= within).sum() for one in errors])),
            "precision": float(precision.mean()), "low": low, "high": high,
        })  # fmt: skip
    return pd.DataFrame(lines)


def rotated_copy(image: np.ndarray, degrees: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A rotated and scaled copy in a frame that holds all corners, and the homography float64 (3, 3) to it."""
    height, width = image.shape[:2]
    matrix = np.eye(3)
    matrix[:2] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    corners = np.array([[(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]], np.float64)
    mapped = cv2.perspectiveTransform(corners, matrix)[0]
    matrix[:2, 2] -= mapped.min(axis=0)
    size = np.ceil(np.ptp(mapped, axis=0) + 1).astype(int)
    return cv2.warpPerspective(image, matrix, size.tolist(), borderValue=(127, 127, 127)), matrix


def transfer_errors(query: Keypoints, gallery: Keypoints, matches: Matches, matrix: np.ndarray) -> np.ndarray:
    """float64 (m,): the distances of matched gallery keypoints from where a homography maps the query's, in pixels."""
    if not len(matches):
        return np.empty(0)
    mapped = cv2.perspectiveTransform(query.points[None, matches.pairs[:, 0]].astype(np.float64), matrix)[0]
    return np.linalg.norm(mapped - gallery.points[matches.pairs[:, 1]], axis=1)
