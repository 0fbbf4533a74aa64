"""The published claims that notebook 10 tests: what was claimed, what a run measures, and why they differ or agree."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.evaluation import metrics
from helpers.evaluation.intervals import wilson_interval
from helpers.lessons import full_profile


@dataclass(frozen=True)
class Claim:
    """One published claim, with its source.

    measured : what a run measures, with a field such as ``{recall:.3f}`` for each number.
    """

    claimed: str
    source: str
    measured: str
    why: str


#: The first and the third reference of notebook 10.
_TRENTO, _CIFAR = "[1]", "[3]"
_UNKNOWN = "source not found"

CLAIMS = (
    Claim(
        "A convolutional network for faces has 96 % accuracy.",
        f"a student project on LFW, {_UNKNOWN}",
        "Trained on photographs, the same network classifies {faces_training:.3f} of the training images correctly, "
        "and has top-1 {faces_top1:.3f} with new images; the second published network {objects_training:.3f} and "
        "{objects_top1:.3f}; 1-NN on a color histogram {nearest_training:.3f} and {nearest_top1:.3f}. Full profile: "
        "the face network has top-1 {faces_att:.3f} on AT&T and {faces_lfw:.3f} on LFW.",
        "96 % is the accuracy on the *training* images. A network with enough parameters memorizes them (notebook 04).",
    ),
    Claim(
        "Top-1/3/5/10 of 0.938/0.953/0.955/0.960 with ResNet152, and 0.170/0.398/0.510/0.637 with a network from "
        "scratch.",
        _TRENTO,
        "The order is the same. Imagenette, full profile: {pretrained} with ResNet50, and {from_scratch} with the "
        "network from scratch.",
        "The images are of ImageNet classes, and ResNet's weights were trained on ImageNet. The 600 queries are 100 "
        "images and their copies. ResNet152 is not measured: its weights need the internet (notebook 05).",
    ),
    Claim(
        'Top-1/3/5 "accuracy" of 0.1867/0.1989/0.1880.',
        f"an earlier version of {_TRENTO}",
        "Top-k accuracy cannot decrease with *k*. Precision@k can: {precisions} for k = 1, 3, 5, with {rival} here.",
        "The numbers behave like precision@k, under the name of another metric.",
    ),
    Claim(
        "A small network is better than a ResNet on sketches: 0.677 and 0.292, or the reverse.",
        _TRENTO,
        "With 65 queries the intervals are {sketches_first} and {sketches_second}. On our {drawings} drawings with "
        "distractors, top-1 is {drawn_large:.3f} with {large} and {drawn_low:.3f} to {drawn_high:.3f} with three "
        "networks from scratch, each a mean over {seeds} seeds; chance is {drawn_chance:.3f}. {large} minus the "
        "published small network: {drawn_difference}.",
        "The two scores differ, but the report does not say clearly which network has which. One training and one set "
        "of queries do not show that small networks are better on drawings.",
    ),
    Claim(
        "k nearest neighbors: 19 % on CIFAR-10 with HOG and SIFT words, 23 % with the other features. Other "
        "classifiers: 37 to 56 %.",
        f"{_CIFAR}, section 6.3 of its notebook *Bag of Visual Words*",
        "Full profile: {neighbors_raw:.1%} with raw counts of visual words, {neighbors_scaled:.1%} after each part "
        "was divided by its length. Other classifiers: {others_low:.1%} to {others_high:.1%}.",
        "Vectors of raw counts are much longer than the other features, and their length depends on the number of "
        "keypoints (notebook 17).",
    ),
    Claim(
        "MAP@100 of 0.0019 with visual words and 0.0088 with VGG16 on CIFAR-10.",
        _CIFAR,
        "The ceiling is {map_ceiling:.3f}; the scores are {map_words:.1%} and {map_vgg:.1%} of it. The scores are not "
        "measured again.",
        "The sum over the first 100 results is divided by *R* = 5,000.",
    ),
    Claim(
        "The distance of a result fell from 92 to 5923 with a better network.",
        "the project on LFW",
        "Times 64, the median distance of the nearest image is {distance_times_64:.1f} instead of {distance:.3f}, with "
        "the same results. The color histogram has the smallest distance, {distance_histogram:.3f}, and the lowest "
        "top-1.",
        "Distances of two feature spaces have no common unit. Compare rankings. (5923 is also larger than 92.)",
    ),
    Claim(
        "Annoy, Manhattan distance, 30 trees, 4,096 numbers: 0.2 to 1.5 s a query among a million images, 23 s to "
        "start.",
        f"a project, {_UNKNOWN}; [2] has the same design",
        "Full profile, {annoy_gallery} vectors: {annoy_ms:.1f} ms a query, {annoy_open:.1f} s to open "
        "{annoy_gb:.1f} GB, and {annoy_recall:.3f} of the true neighbors. An HNSW graph: {graph_ms:.1f} ms and "
        "{graph_recall:.3f}.",
        "The published time probably includes the network, or reading from the disk; the report does not say. A "
        "million vectors are not measured here.",
    ),
)


def from_full_profile() -> dict[str, float | str]:
    """The numbers of `table` that come from published ones, and from the committed tables of the full profile."""
    numbers: dict[str, float | str] = {
        "faces_att": full_profile.score("att-faces-held-out", "cnn-student-faces", "top-1"),
        "faces_lfw": full_profile.score("lfw-held-out", "cnn-student-faces", "top-1"),
    }
    for name, extractor in (("pretrained", "resnet50"), ("from_scratch", "cnn-student-objects")):
        found = [full_profile.score("imagenette-val-train", extractor, f"top-{k}") for k in (1, 3, 5, 10)]
        numbers[name] = "/".join(f"{value:.3f}" for value in found)
    for name, correct in (("sketches_first", 44), ("sketches_second", 19)):
        low, high = wilson_interval(correct / 65, 65)
        numbers[name] = f"[{low:.3f}, {high:.3f}]"
    ceiling = metrics.average_precision(np.ones(100, dtype=bool), 5000, k=100)
    numbers |= {"map_ceiling": ceiling, "map_words": 0.0019 / ceiling, "map_vgg": 0.0088 / ceiling}
    words = full_profile.table("17_cifar10_study_classifiers").set_index(["fusion", "classifier"])["test accuracy"]
    raw, scaled = words["HOG + SIFT, raw counts"], words["HOG + SIFT"]
    others = pd.concat([raw.drop("k nearest"), scaled.drop("k nearest")])
    numbers |= {"neighbors_raw": raw["k nearest"], "neighbors_scaled": scaled["k nearest"]}
    numbers |= {"others_low": others.min(), "others_high": others.max()}
    systems = full_profile.table("13_indexes_at_scale_published")
    annoy = systems[systems["index"] == "published"].iloc[0]
    graph = systems[systems["index"] == "hnsw-f16"].iloc[0]
    numbers |= {"annoy_gallery": annoy["gallery"], "annoy_ms": annoy["milliseconds"], "annoy_recall": annoy["recall"]}
    numbers |= {"annoy_open": annoy["open_seconds"], "annoy_gb": annoy["megabytes"] / 1000}
    return numbers | {"graph_ms": graph["milliseconds"], "graph_recall": graph["recall"]}


def table(measured: Mapping[str, float | str]) -> pd.DataFrame:
    """One row per claim: what was claimed and by whom, what was measured, and why.

    measured : a number, or several as text, for each field of `CLAIMS`.
    """
    rows = [
        (f"{claim.claimed.rstrip('.')} ({claim.source}).", claim.measured.format(**measured), claim.why)
        for claim in CLAIMS
    ]
    return pd.DataFrame(rows, columns=["claimed", "what we measure", "why"])
