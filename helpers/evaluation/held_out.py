"""Protocols for networks that learn from the same data set: what may be learnt from, and what is kept away from it."""

from dataclasses import replace

import numpy as np

from helpers.evaluation.protocol import Protocol, leave_one_out, query_gallery
from helpers.pictures.imageset import NO_CLASS, ImageSet


def held_out(images: ImageSet, name: str, fraction: float = 0.5, seed: int = 0, description: str = "") -> Protocol:
    """New pictures of known classes: ``fraction`` of each class asks and is never learnt from, the rest answers.

    Copies stay on one side (`ImageSet.split`); pictures without a class are in the gallery.
    """
    labelled = np.flatnonzero(images.labels != NO_CLASS)
    asks = set(images.subset(labelled).split(fraction, seed)[1].keys)
    asking = np.array([key in asks for key in images.keys])
    text = description or f"{fraction:.0%} of each class asks (drawn with seed {seed}), the rest answers and may teach."
    return query_gallery(images, asking, ~asking, name, description=text)


def unseen_classes(images: ImageSet, name: str, seed: int = 0, description: str = "") -> Protocol:
    """New classes: half of the classes is left to learn from, the others ask and answer, leave one out.

    The first half of ``numpy.random.default_rng(seed).permutation(classes)`` teaches. Pictures without a class are
    distractors in the gallery. Class numbers and names are those of the classes that are left.
    """
    classes = len(images.class_names)
    kept = np.sort(np.random.default_rng(seed).permutation(classes)[classes // 2 :])
    renumbered = np.full(classes + 1, NO_CLASS)
    renumbered[kept] = np.arange(len(kept))
    rows = np.isin(images.labels, kept) | (images.labels == NO_CLASS)
    part = images.subset(rows)
    part = replace(part, labels=renumbered[part.labels], class_names=tuple(images.class_names[c] for c in kept))
    text = description or f"Half of the classes (drawn with seed {seed}) ask, each picture once; the others may teach."
    return leave_one_out(part, name, description=text)


def learnable(protocol: Protocol, images: ImageSet, name: str | None = None) -> ImageSet:
    """The pictures of a data set that a network may learn from before it is scored under ``protocol``.

    Those that have a class and never ask: neither they nor a copy of them (same group). Under leave one out over some
    classes these are the pictures of all other classes. Classes that lose all their pictures are dropped and the rest
    is numbered anew.

    images : the whole data set, as its loader gives it.

    Raises
    ------
    ValueError : nothing is left, as under leave one out over the whole data set.
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
            f"under {protocol.name} every picture asks: nothing is left to learn from; take a protocol with held out "
            "pictures or classes"
        )
    part = images.subset(rows, name or f"{images.name}, to learn from")
    kept, labels = np.unique(part.labels, return_inverse=True)
    return replace(part, labels=labels, class_names=tuple(images.class_names[c] for c in kept))
