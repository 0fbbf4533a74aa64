"""Makes protocols from a set of images, and selects the images that a network may be trained on under a protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from helpers.evaluation.protocol import Protocol
from helpers.features.extractor import FeatureExtractor
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.images.layout import Layout

#: Rows of an image set: integers, or a mask over all images.
Rows = Sequence[int] | np.ndarray


def leave_one_out(images: ImageSet, name: str, description: str = "") -> Protocol:
    """Every image of a class with at least two images is a query; all images are the gallery.

    A query is ignored in its own ranking.

    Raises ValueError: no class has two images, so there is no query.
    """
    is_query = (images.labels >= 0) & (np.append(images.counts, 0)[images.labels] >= 2)
    if not is_query.any():
        raise ValueError(
            f"{images.name}: no class has two images, so no query would have a relevant image. "
            "Put the images into one sub-folder per class, at least two images in each."
        )
    text = description or (
        "Every image is a query, and all images are the gallery. The query and its copies are ignored."
    )
    return query_gallery(images, is_query, np.arange(len(images)), name, description=text)


def query_gallery(
    images: ImageSet,
    query_rows: Rows,
    gallery_rows: Rows,
    name: str,
    excluded: Mapping[int, Sequence[int]] | None = None,
    description: str = "",
    listed: Mapping[int, Sequence[int]] | None = None,
) -> Protocol:
    """Use the given rows of ``images``, or masks over it, as queries and gallery.

    Ids are rows of ``images``, which may also have images in neither part; ``images.subset`` drops those.

    excluded, listed : query row → rows that are ignored for it, and rows that are relevant to it instead of those of
        its class. Rows that are not queries are left out.
    """
    queries = _rows(images, query_rows)
    query_ids = set(queries.tolist())
    return Protocol(
        name=name,
        dataset=images.name,
        description=description or "One part of the images is the query set, the other is the gallery.",
        keys=images.keys,
        labels=images.labels,
        class_names=images.class_names,
        queries=queries,
        gallery=_rows(images, gallery_rows),
        groups=images.groups,
        # A protocol lists ignored and relevant images of queries only.
        excluded={row: tuple(others) for row, others in (excluded or {}).items() if row in query_ids},
        listed=None if listed is None else {row: tuple(ids) for row, ids in listed.items() if row in query_ids},
    )


def from_layout(layout: Layout, name: str) -> Protocol:
    """The protocol of a folder: its sides are queries and gallery; without sides, the protocol is leave one out.

    layout : checked by `Layout.for_evaluation`. name : the name of the folder, with which the protocol's name begins.

    Raises ValueError: there is no query.
    """
    if layout.sides is None:
        return leave_one_out(layout.images, f"{name}-leave-one-out")
    sides = "-".join(folder.replace("/", "-") for folder in (*sorted(layout.queries), *sorted(layout.gallery)))
    return query_gallery(layout.images, layout.is_query, layout.in_gallery, f"{name}-{sides}")


def extract_readable(
    layout: Layout, extractors: Mapping[str, FeatureExtractor]
) -> tuple[Layout, dict[str, np.ndarray]]:
    """The images that can be read, and their vectors by extractor, float32 (n, dim). A warning lists the others."""
    vectors = {name: extractor.extract(layout.images) for name, extractor in extractors.items()}
    read = ~np.any([np.isnan(each).any(axis=1) for each in vectors.values()], axis=0)
    return layout.subset(read), {name: each[read] for name, each in vectors.items()}


def disjoint_split(images: ImageSet, name: str) -> Protocol:
    """Every third image of each class is a query, and all others are the gallery (`Protocol.check_disjoint`).

    Images that have a copy in the set are not used as queries. The first query of a class is its first image.

    Raises ValueError: there is no query.
    """
    alone = np.ones(len(images), dtype=bool)
    if images.groups is not None:
        groups, sizes = np.unique(images.groups, return_counts=True)
        alone = ~np.isin(images.groups, groups[(groups >= 0) & (sizes > 1)])
    is_query = np.zeros(len(images), dtype=bool)
    for label in range(len(images.class_names)):
        is_query[np.flatnonzero((images.labels == label) & alone)[::3]] = True
    if not is_query.any():
        why = "every image with a class has a copy" if images.counts.any() else "no image has a class"
        raise ValueError(f"{images.name}: {why}, so there is no query.")
    text = "One in 3 images of each class is a query. All other images are the gallery."
    return query_gallery(images, is_query, ~is_query, name, description=text)


def fewer_queries(protocol: Protocol, count: int) -> Protocol:
    """The protocol with at least ``count`` of its queries, at regular intervals, and another name.

    The number of queries is below twice ``count``; if the protocol has fewer than ``count``, all are kept. The first
    query is kept. The gallery, and what is ignored for a query, stay the same.

    Raises ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    few = protocol.queries[:: max(1, len(protocol.queries) // count)]
    kept = set(few.tolist())
    parts = {
        name: None if ids is None else {row: others for row, others in ids.items() if row in kept}
        for name, ids in (("excluded", protocol.excluded), ("listed", protocol.listed))
    }
    return replace(protocol, name=f"{protocol.name}-{len(few)}-queries", queries=few, **parts)  # type: ignore[arg-type]


def one_per_class_gallery(images: ImageSet, name: str, seed: int = 0) -> Protocol:
    """The gallery has one image of each class, drawn with ``seed``; all other images with a class are queries.

    Then R = 1, and top-1 accuracy is the accuracy of a classifier with one example of each class.

    Raises ValueError: no class has two images, so there is no query.
    """
    rng = np.random.default_rng(seed)
    present = np.flatnonzero(images.counts)
    gallery = np.array([rng.choice(np.flatnonzero(images.labels == label)) for label in present], dtype=np.int64)
    is_query = images.labels >= 0
    is_query[gallery] = False
    if not is_query.any():
        raise ValueError(f"{images.name}: no class has two images, so there is no query.")
    text = (
        f"The gallery has one image of each class (drawn with seed {seed}). All other images with a class are queries."
    )
    return query_gallery(images, is_query, np.sort(gallery), name, description=text)


def _rows(images: ImageSet, rows: Rows) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (len(images),):
            raise ValueError(f"{images.name}: the mask must have shape ({len(images)},), got {rows.shape}")
        return np.flatnonzero(rows)
    return rows


def held_out(images: ImageSet, name: str, fraction: float = 0.5, seed: int = 0) -> Protocol:
    """New images of known classes: ``fraction`` of each class are queries, the rest is the gallery.

    A network may be trained on the gallery (`learnable`). Copies stay on one side (`ImageSet.split`); images without a
    class are in the gallery.
    """
    query_keys = set(images.subset(images.labels != NO_CLASS).split(fraction, seed)[1].keys)
    is_query = np.array([key in query_keys for key in images.keys])
    text = (
        f"{fraction:.0%} of each class (drawn with seed {seed}) are queries. All other images are the gallery, and "
        "networks may be trained on them."
    )
    return query_gallery(images, is_query, ~is_query, name, description=text)


def unseen_classes(images: ImageSet, name: str, seed: int = 0) -> Protocol:
    """New classes: half of the classes, leave one out; a network may be trained on the other half.

    The first half of ``numpy.random.default_rng(seed).permutation(classes)`` is for training. Images without a class
    are distractors in the gallery. The protocol has only the other classes, renumbered.
    """
    classes = len(images.class_names)
    kept = np.sort(np.random.default_rng(seed).permutation(classes)[classes // 2 :])
    renumbered = np.full(classes + 1, NO_CLASS)
    renumbered[kept] = np.arange(len(kept))
    part = images.subset(np.isin(images.labels, kept) | (images.labels == NO_CLASS))
    part = replace(part, labels=renumbered[part.labels], class_names=tuple(images.class_names[c] for c in kept))
    text = (
        f"Half of the classes (drawn with seed {seed}) are queries and gallery, leave one out. Networks may be trained "
        "on the other half."
    )
    return leave_one_out(part, name, description=text)


def learnable(protocol: Protocol, images: ImageSet) -> ImageSet:
    """The images of a data set that a network may be trained on before it is scored under ``protocol``.

    These are the images with a class that are neither a query nor a copy of one (same group). For a leave-one-out
    protocol of some classes, they are the images of all other classes. Classes without such an image are dropped, and
    the others are renumbered.

    images : the whole data set, as its loader returns it.

    Raises ValueError: ``images`` lacks a query or a copy of one, so it may contain it under another name; or no image
    is left, as for a leave-one-out protocol of the whole data set.
    """
    tested = set(protocol.queries.tolist())
    if protocol.groups is not None:
        groups = protocol.groups[protocol.queries]
        tested.update(np.flatnonzero(np.isin(protocol.groups, groups[groups >= 0])).tolist())
    keys = {protocol.keys[row] for row in tested}
    excluded = np.array([key in keys for key in images.keys])
    lacking = len(keys) - int(excluded.sum())
    if lacking:
        raise ValueError(
            f"{images.name!r} lacks {lacking} of the images that {protocol.name} tests with; bind the protocol to the "
            "whole data set first (Protocol.bind)"
        )
    if images.groups is not None:
        excluded |= np.isin(images.groups, images.groups[excluded & (images.groups >= 0)])
    rows = (images.labels != NO_CLASS) & ~excluded
    if not rows.any():
        raise ValueError(
            f"under {protocol.name} every image with a class is a query or a copy of one, so none is left for "
            "training; use a protocol with held-out images or classes (held_out, unseen_classes)"
        )
    part = images.subset(rows, f"{images.name}, to learn from")
    kept, labels = np.unique(part.labels, return_inverse=True)
    return replace(part, labels=labels, class_names=tuple(images.class_names[c] for c in kept))
