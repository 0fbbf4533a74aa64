"""Makes protocols from a set of images, and selects what a network may learn from under a protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from helpers.evaluation.protocol import Protocol
from helpers.images.imageset import NO_CLASS, ImageSet


def leave_one_out(
    images: ImageSet,
    name: str,
    queries: Sequence[int] | np.ndarray | None = None,
    excluded: Mapping[int, Sequence[int]] | None = None,
    description: str = "",
) -> Protocol:
    """Every image of a class with at least two images is a query; all images are the gallery.

    A query is ignored in its own ranking.

    queries : rows of ``images``, or a mask, to use as queries instead; they may be without a relevant image.
    excluded : row → rows that are ignored for it, beside the query and its group.

    Raises
    ------
    ValueError : no class has two images, so there is no query.
    """
    if queries is None:
        asks = (images.labels >= 0) & (np.append(images.counts, 0)[images.labels] >= 2)
        if not asks.any():
            raise ValueError(
                f"{images.name}: no class has two images, so no query could have a right answer. "
                "Put the images into one sub-folder a class, at least two images each."
            )
        queries = np.flatnonzero(asks)
    text = description or "Each image asks, all others answer; the query itself and its copies are not counted."
    return _protocol(images, name, text, _rows(images, queries), np.arange(len(images)), excluded)


def query_gallery(
    images: ImageSet,
    query_rows: Sequence[int] | np.ndarray,
    gallery_rows: Sequence[int] | np.ndarray,
    name: str,
    excluded: Mapping[int, Sequence[int]] | None = None,
    description: str = "",
) -> Protocol:
    """Use the given rows of ``images``, or masks over it, as queries and gallery.

    Ids are rows of ``images``, which may also have images in neither part; ``images.subset`` drops those.
    """
    text = description or "One part of the images asks, the other answers."
    return _protocol(images, name, text, _rows(images, query_rows), _rows(images, gallery_rows), excluded)


def disjoint_split(images: ImageSet, name: str, every: int = 3, description: str = "") -> Protocol:
    """Every third image of each class is a query, and all others are the gallery (`Protocol.check_disjoint`).

    Images that have a copy in the set are not used as queries. The first query of a class is its first image.

    every : another step than three, at least 2.

    Raises
    ------
    ValueError : ``every`` is below 2, or there is no query.
    """
    if every < 2:
        raise ValueError(f"every must be at least 2, or nobody would be left to answer; got {every}")
    alone = np.ones(len(images), dtype=bool)
    if images.groups is not None:
        groups, sizes = np.unique(images.groups, return_counts=True)
        alone = ~np.isin(images.groups, groups[(groups >= 0) & (sizes > 1)])
    asks = np.zeros(len(images), dtype=bool)
    for label in range(len(images.class_names)):
        asks[np.flatnonzero((images.labels == label) & alone)[::every]] = True
    if not asks.any():
        raise ValueError(f"{images.name}: no image of a class is without a copy, so nobody can ask.")
    text = description or f"Of each class one image in {every} asks, all others answer; no query is in the gallery."
    return query_gallery(images, asks, ~asks, name, description=text)


def one_per_class_gallery(
    images: ImageSet,
    name: str,
    seed: int = 0,
    excluded: Mapping[int, Sequence[int]] | None = None,
    description: str = "",
) -> Protocol:
    """The gallery has one image of each class, drawn with ``seed``; all other images with a class are queries.

    Then R = 1, and top-1 accuracy is the accuracy of a classifier with one example of each class.

    Raises
    ------
    ValueError : no class has two images, so there is no query.
    """
    rng = np.random.default_rng(seed)
    present = np.flatnonzero(images.counts)
    gallery = np.array([rng.choice(np.flatnonzero(images.labels == label)) for label in present], dtype=np.int64)
    asks = images.labels >= 0
    asks[gallery] = False
    if not asks.any():
        raise ValueError(f"{images.name}: no class has two images, so nobody is left to ask.")
    text = description or f"One image a class answers (drawn with seed {seed}), all others of a class ask."
    return _protocol(images, name, text, np.flatnonzero(asks), np.sort(gallery), excluded)


def _protocol(images, name, description, queries, gallery, excluded) -> Protocol:
    asking = set(queries.tolist())
    return Protocol(
        name=name,
        dataset=images.name,
        description=description,
        keys=images.keys,
        labels=images.labels,
        class_names=images.class_names,
        queries=queries,
        gallery=gallery,
        groups=images.groups,
        # A protocol has exclusions for queries only.
        excluded={row: tuple(others) for row, others in (excluded or {}).items() if row in asking},
    )


def _rows(images: ImageSet, rows) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (len(images),):
            raise ValueError(f"{images.name}: the mask must have shape ({len(images)},), got {rows.shape}")
        return np.flatnonzero(rows)
    return rows


def held_out(images: ImageSet, name: str, fraction: float = 0.5, seed: int = 0, description: str = "") -> Protocol:
    """New images of known classes: ``fraction`` of each class are queries, the rest is the gallery.

    A network may learn from the gallery (`learnable`). Copies stay on one side (`ImageSet.split`); images without a
    class are in the gallery.
    """
    labeled = np.flatnonzero(images.labels != NO_CLASS)
    asks = set(images.subset(labeled).split(fraction, seed)[1].keys)
    asking = np.array([key in asks for key in images.keys])
    text = description or f"{fraction:.0%} of each class asks (drawn with seed {seed}), the rest answers and may teach."
    return query_gallery(images, asking, ~asking, name, description=text)


def unseen_classes(images: ImageSet, name: str, seed: int = 0, description: str = "") -> Protocol:
    """New classes: half of the classes, searched leave one out; a network may learn from the other half.

    The first half of ``numpy.random.default_rng(seed).permutation(classes)`` is to learn from. Images without a class
    are distractors in the gallery. The protocol has only the classes that are searched, numbered anew.
    """
    classes = len(images.class_names)
    kept = np.sort(np.random.default_rng(seed).permutation(classes)[classes // 2 :])
    renumbered = np.full(classes + 1, NO_CLASS)
    renumbered[kept] = np.arange(len(kept))
    rows = np.isin(images.labels, kept) | (images.labels == NO_CLASS)
    part = images.subset(rows)
    part = replace(part, labels=renumbered[part.labels], class_names=tuple(images.class_names[c] for c in kept))
    text = description or f"Half of the classes (drawn with seed {seed}) ask, each image once; the others may teach."
    return leave_one_out(part, name, description=text)


def learnable(protocol: Protocol, images: ImageSet, name: str | None = None) -> ImageSet:
    """The images of a data set that a network may learn from before it is scored under ``protocol``.

    These are the images with a class that are neither a query nor a copy of one (same group): of a leave-one-out
    protocol over some classes, the images of all other classes. Classes without such an image are dropped, and the rest
    is numbered anew.

    images : the whole data set, as its loader returns it.

    Raises
    ------
    ValueError : no image is left, as of a leave-one-out protocol over the whole data set.
    """
    asks = {protocol.keys[row] for row in protocol.queries}
    groups = np.full(len(images), -1) if images.groups is None else images.groups
    known = dict(zip(protocol.keys, protocol.groups, strict=True)) if protocol.groups is not None else {}
    frozen_groups = {known[protocol.keys[row]] for row in protocol.queries if known and known[protocol.keys[row]] >= 0}
    asking = np.array([key in asks for key in images.keys])
    copies = np.isin(groups, groups[asking & (groups >= 0)]) & (groups >= 0)
    copies |= np.array([known.get(key, -1) in frozen_groups for key in images.keys])
    rows = (images.labels != NO_CLASS) & ~asking & ~copies
    if not rows.any():
        raise ValueError(
            f"under {protocol.name} every image asks: nothing is left to learn from; take a protocol with held out "
            "images or classes"
        )
    part = images.subset(rows, name or f"{images.name}, to learn from")
    kept, labels = np.unique(part.labels, return_inverse=True)
    return replace(part, labels=labels, class_names=tuple(images.class_names[c] for c in kept))
