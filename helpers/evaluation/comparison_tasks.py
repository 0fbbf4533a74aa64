"""The queries by which methods are compared on a person's own images: images of a class, or changed copies.

With classes, an image is a query, and images of its class are relevant. Without, a query is a changed copy of an image,
such as a crop, and this image alone is relevant (known items). The second measures how well an image is found again; it
says nothing about images that show similar things.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np

from helpers.evaluation import builders
from helpers.evaluation.protocol import Protocol
from helpers.features.keypoints import shrink
from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.images.known_items import Change
from helpers.images.layout import Layout
from helpers.images.reading import read_image

CLASSES, KNOWN_ITEMS = "classes", "known items"

#: The changes of known items, one per query in turn.
CHANGES = (
    Change("crop", 0.7),
    Change("rotation", 15),
    Change("perspective", 0.2),
    Change("scale", 0.25),
    Change("blur", 2),
    Change("noise", 20),
    Change("jpeg", 10),
    Change("brightness", 0.5),
)
#: Changed copies are made of images of at most this many pixels on the longer side, which bounds their time.
LONGEST = 800


@dataclass(frozen=True, eq=False)
class Task:
    """Queries and gallery. Ids below ``len(images)`` are images; the others are changed copies.

    Attributes
    ----------
    images : those that are compared, all readable.
    protocol : its first images are ``images``.
    originals : int64 (q,), the id of each query's image.
    changes : (q,), the change of each query; empty for classes.
    eligible : the number of images that may be queries, of which some were drawn.
    alone : the number of images that are not queries because no other image, or only a copy, has their class.
    """

    images: ImageSet
    protocol: Protocol
    originals: np.ndarray
    changes: tuple[Change, ...]
    eligible: int
    alone: int
    seed: int

    @property
    def kind(self) -> str:
        """`CLASSES` or `KNOWN_ITEMS`."""
        return KNOWN_ITEMS if self.changes else CLASSES

    @property
    def clusters(self) -> np.ndarray | None:
        """The units of the bootstrap: copies of one image are not independent. None: each query is one."""
        return self.originals if self.changes else None

    @property
    def n_units(self) -> int:
        """The number of independent queries."""
        return len(np.unique(self.originals))

    def pixels(self, row: int) -> np.ndarray:
        """uint8 (height, width, 3): the image of query ``row``, or its changed copy.

        Raises `UnreadableImage` if the file cannot be read any more.
        """
        path = self.images.paths[self.originals[row]]
        if not self.changes:
            return read_image(path)
        image = shrink(read_image(path, at_least=LONGEST), LONGEST)
        # By the key, so that the copy of an image is the same with other images next to it, and comes from the cache.
        key = f"{self.changes[row]} {self.images.keys[self.originals[row]]}".encode("utf-8", "surrogateescape")
        return self.changes[row](image, np.random.default_rng((self.seed, zlib.crc32(key))))


def class_task(layout: Layout, name: str, n_queries: int, seed: int = 0) -> Task:
    """Queries are images of a class that has another image; all others of the class are relevant.

    Copies of a query (``layout.images.groups``) are ignored.

    layout : checked by `Layout.for_evaluation`. n_queries : the most, drawn with ``seed``.

    Raises ValueError: no image has another one of its class in the gallery.
    """
    protocol = builders.from_layout(layout, name)
    labeled = layout.images.labels != NO_CLASS
    candidates = int((labeled & layout.is_query).sum() if layout.sides is not None else labeled.sum())
    rows = np.flatnonzero(protocol.has_relevant)
    if not len(rows):
        raise ValueError(f"{name}: no image has another one of its class in the gallery, except copies of it")
    eligible = len(rows)
    if eligible > n_queries:
        rows = np.sort(np.random.default_rng(seed).choice(rows, n_queries, replace=False))
    protocol = replace(protocol, queries=protocol.queries[rows])
    return Task(layout.images, protocol, protocol.queries, (), eligible, candidates - eligible, seed)


def known_item_task(images: ImageSet, name: str, n_queries: int, seed: int = 0) -> Task:
    """Queries are changed copies of images, which are drawn with ``seed``; each has one relevant image, its original.

    Images have one query each, or several with different changes if there are more queries than images. Copies of the
    original in the gallery (``images.groups``) are ignored, because they would be right, too.

    n_queries : at most one of each change per image.
    """
    count = len(images)
    total = min(n_queries, count * len(CHANGES))
    # The first round has each change equally often, each later round the next change of each image.
    originals = np.resize(np.random.default_rng(seed).permutation(count), total)
    made = tuple(CHANGES[(i % count + i // count) % len(CHANGES)] for i in range(total))
    queries = count + np.arange(total)
    keys = tuple(f"{images.keys[row]} ({change})" for row, change in zip(originals, made, strict=True))
    groups = np.full(count, -1) if images.groups is None else images.groups
    copies = {
        int(query): tuple(row for row in np.flatnonzero(groups == groups[original]).tolist() if row != original)
        for query, original in zip(queries, originals, strict=True)
        if groups[original] >= 0
    }
    protocol = Protocol(
        name=f"{name}-known-items",
        dataset=images.name,
        description="Each query is a changed copy of a gallery image, its only relevant image.",
        keys=images.keys + keys,
        labels=np.full(count + total, NO_CLASS),
        class_names=(),
        queries=queries,
        gallery=np.arange(count),
        excluded=copies,
        listed={int(query): (int(row),) for query, row in zip(queries, originals, strict=True)},
    )
    return Task(images, protocol, originals, made, count, 0, seed)


def sample_rows(codes: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """int64, ascending: at most ``most`` rows, drawn with ``seed``; two rows of each code come first, if there are two.

    codes : int64 (n,), such as the class of each image. Two images of a class are a query and a relevant image.
    """
    if len(codes) <= most:
        return np.arange(len(codes))
    order = np.random.default_rng(seed).permutation(len(codes))
    number = np.empty(len(codes), np.int64)
    by_code = np.argsort(codes[order], kind="stable")
    starts = np.searchsorted(codes[order][by_code], codes[order][by_code])
    number[by_code] = np.arange(len(codes)) - starts
    # Among equals, the random order decides.
    return np.sort(order[np.argsort(number >= 2, kind="stable")][:most])
