"""Prepares the images of a folder for a comparison: draws images, extracts features, finds copies, draws queries."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from helpers.evaluation.builders import extract_readable
from helpers.evaluation.comparison import copy_vectors
from helpers.evaluation.comparison_tasks import Task, class_task, known_item_task, sample_rows
from helpers.features.extractor import FeatureExtractor
from helpers.images.duplicates import Audit, audit
from helpers.images.layout import Layout

#: Fewer images, or queries, give no useful comparison.
LEAST_IMAGES, LEAST_QUERIES = 10, 5


class TooFewImages(ValueError):
    """A folder has too few images, or too few queries, for a comparison."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The input of `helpers.evaluation.comparison.compare`, and what became of the images.

    Attributes
    ----------
    vectors : name of the extractor → float32 (n + copies, dim).
    found : the number of images before some were drawn. unreadable : of the drawn ones that were left out.
    duplicates : the copies of one image among those that are compared.
    """

    task: Task
    vectors: dict[str, np.ndarray]
    found: int
    unreadable: int
    duplicates: Audit


def prepare(
    layout: Layout,
    name: str,
    extractors: Mapping[str, FeatureExtractor],
    known_items: bool,
    n_queries: int,
    n_images: int,
    seed: int,
) -> Prepared:
    """Draw images and queries, and extract the features, which are cached.

    Parameters
    ----------
    layout : checked by `Layout.for_evaluation`, unless ``known_items``.
    name : of the folder. extractors : name → extractor.
    known_items : whether queries are changed copies instead of images of a class.
    n_queries, n_images : the most, drawn with ``seed``.

    Raises
    ------
    TooFewImages : fewer than `LEAST_IMAGES` readable images, or than `LEAST_QUERIES` queries.
    ValueError : no image has another one of its class.
    """
    found = len(layout.images)
    if found < LEAST_IMAGES:
        raise TooFewImages(f"{name} has {found} images; a comparison needs at least {LEAST_IMAGES}")
    # Two of the drawn images are of each class and side.
    codes = np.zeros(found, np.int64) if known_items else layout.images.labels
    if layout.sides is not None:
        codes = codes * (1 + int(layout.sides.max())) + layout.sides
    layout = layout.subset(sample_rows(codes, n_images, seed))
    drawn = len(layout.images)
    layout, vectors = extract_readable(layout, extractors)
    if len(layout.images) < LEAST_IMAGES:
        raise TooFewImages(
            f"only {len(layout.images)} of {found} images of {name} can be read; a comparison needs {LEAST_IMAGES}"
        )
    unreadable = drawn - len(layout.images)
    # Crops are searched by the vectors of the first network; hand-crafted features do not find them.
    for_crops = next((vectors[name] for name, one in extractors.items() if one.weights != "none"), None)
    duplicates = audit(layout.images, for_crops, layout.sides)
    layout = replace(layout, images=replace(layout.images, groups=duplicates.groups()))
    if known_items:
        task = known_item_task(layout.images, name, n_queries, seed)
        copies = copy_vectors(task, extractors)
        vectors = {name: np.concatenate([each, copies[name]]) for name, each in vectors.items()}
    else:
        task = class_task(layout, name, n_queries, seed)
    if len(task.protocol.queries) < LEAST_QUERIES:
        raise TooFewImages(
            f"{name} has {len(task.protocol.queries)} images whose class has another image; a comparison needs "
            f"at least {LEAST_QUERIES}"
        )
    return Prepared(task, vectors, found, unreadable, duplicates)
