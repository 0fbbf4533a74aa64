"""The evaluation protocol: which images are queries, gallery, relevant and ignored.

A gallery image is relevant to a query if both have the same class, or if the protocol lists it for the query, and the
image is not ignored. The ignored images are the query itself, the images of its group (copies of one original) and
those that the protocol lists as ignored for the query (duplicates).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from posixpath import splitext

import numpy as np
from numpy.typing import ArrayLike

from helpers.images.imageset import NO_CLASS, ImageSet
from helpers.search.index.filters import IdsPerQuery, ranges
from helpers.search.ranking import PAD

#: Entries (rows × columns) that one step of a chunked loop may hold.
CHUNK = 2_000_000


class ProtocolMismatch(ValueError):
    """The images are not those of the protocol."""


@dataclass(frozen=True, eq=False)
class Protocol:
    """Queries, gallery and relevance over one list of images; id *i* is row *i* of that list.

    Methods take a query's *row* j in ``queries``: row j of a ranking has the results of ``queries[j]``.

    Parameters
    ----------
    name : e.g. ``"lfw-leave-one-out"``; also the file name of a frozen protocol.
    dataset : the name of the ImageSet that it was made from.
    description : one sentence.
    keys : the images' keys (``ImageSet.keys``), each once.
    labels : int64 (n,): an index into ``class_names``, or -1 for an image without a class, relevant to no query.
    class_names : the names of the classes, each once.
    queries : int64 (q,): ids, each once. A query with the label -1 has no relevant image; metrics report it.
    gallery : int64 (g,): ids, each once.
    groups : int64 (n,) or None: images that share a group (>= 0) with the query are ignored.
    excluded : query id → ids that are ignored for it. List both directions if both images are queries.
    listed : query id → ids that are relevant to it, for images with objects of several classes. The classes then decide
        nothing, and a query that is not listed has no relevant image. None: the images of its class are relevant.
    """

    name: str
    dataset: str
    description: str
    keys: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    queries: np.ndarray
    gallery: np.ndarray
    groups: np.ndarray | None = None
    excluded: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    listed: Mapping[int, tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or "\\" in self.name:
            raise ValueError(f"a protocol's name becomes a file name: not empty and no slash, got {self.name!r}")
        object.__setattr__(self, "keys", tuple(self.keys))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        self._check_keys()
        object.__setattr__(self, "labels", self._per_image(self.labels, "labels"))
        if self.labels.min() < NO_CLASS or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"{self.name}: labels must lie in -1 … {len(self.class_names) - 1} "
                f"({len(self.class_names)} class names), got {self.labels.min()} … {self.labels.max()}"
            )
        if self.groups is not None:
            object.__setattr__(self, "groups", self._per_image(self.groups, "groups"))
        object.__setattr__(self, "queries", self._ids(self.queries, "queries"))
        object.__setattr__(self, "gallery", self._ids(self.gallery, "gallery"))
        object.__setattr__(self, "excluded", self._ids_of_queries(self.excluded, "excluded"))
        if self.listed is not None:
            object.__setattr__(self, "listed", self._ids_of_queries(self.listed, "listed"))

    def _check_keys(self) -> None:
        if not self.keys:
            raise ValueError(f"{self.name}: there are no images")
        bad = next((key for key in self.keys if not isinstance(key, str) or not key), None)
        if bad is not None:
            raise ValueError(f"{self.name}: keys must be non-empty strings, got {bad!r}")
        _no_repeats(self.keys, f"{self.name}: keys")
        _no_repeats(self.class_names, f"{self.name}: class_names")

    def _per_image(self, values: ArrayLike, what: str) -> np.ndarray:
        array = _integers(values, f"{self.name}: {what}")
        if array.shape != (len(self.keys),):
            raise ValueError(f"{self.name}: {what} must have shape ({len(self.keys)},), got {array.shape}")
        return _frozen(array)

    def _ids(self, values: ArrayLike, what: str) -> np.ndarray:
        array = _integers(values, f"{self.name}: {what}")
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{self.name}: {what} must be a list of at least one id, got shape {array.shape}")
        self._check_range(array, what)
        _no_repeats(array.tolist(), f"{self.name}: {what}")
        return _frozen(array)

    def _check_range(self, ids: np.ndarray, what: str) -> None:
        outside = ids[(ids < 0) | (ids >= len(self.keys))]
        if len(outside):
            raise ValueError(
                f"{self.name}: {what} must hold ids 0 … {len(self.keys) - 1} ({len(self.keys)} images), "
                f"got {outside[0]}" + (f" and {len(outside) - 1} more" if len(outside) > 1 else "")
            )

    def _ids_of_queries(self, given: Mapping, what: str) -> dict[int, tuple[int, ...]]:
        queries = set(self.queries.tolist())
        checked: dict[int, tuple[int, ...]] = {}
        for query in sorted(given):
            if query not in queries:
                raise ValueError(f"{self.name}: {what} lists {query!r}, which is not the id of a query")
            ids = np.unique(_integers(given[query], f"{self.name}: {what}[{query}]"))
            self._check_range(ids, f"{what}[{query}]")
            if len(ids):
                checked[int(query)] = tuple(ids.tolist())
        return checked

    def __len__(self) -> int:
        """The number of images, and so of the rows of an array of feature vectors."""
        return len(self.keys)

    def __repr__(self) -> str:
        return (
            f"Protocol({self.name!r} on {self.dataset!r}: {len(self.queries)} queries, "
            f"gallery of {len(self.gallery)}, {self.n_distractors} of them distractors)"
        )

    # ---- relevant and ignored images ----------------------------------------------------------------

    def ignored(self, row: int) -> np.ndarray:
        """int64 ids, ascending: the gallery images that are ignored for query ``row``."""
        self._check_row(row)
        starts = self.ignored_ids.starts
        return self.ignored_ids.ids[starts[row] : starts[row + 1]]

    def relevant(self, row: int) -> np.ndarray:
        """int64 ids, ascending: the gallery images that are relevant to query ``row``."""
        self._check_row(row)
        if self.listed is not None:
            return self._listed_ids.ids[self._listed_ids.starts[row] : self._listed_ids.starts[row + 1]]
        label = self.labels[self.queries[row]]
        if label == NO_CLASS:
            return np.empty(0, dtype=np.int64)
        same = np.sort(self.gallery[self.labels[self.gallery] == label])
        return np.setdiff1d(same, self.ignored(row), assume_unique=True)

    def _check_row(self, row: int) -> None:
        if not 0 <= row < len(self.queries):
            raise IndexError(f"{self.name}: query rows are 0 … {len(self.queries) - 1}, got {row}")

    def relevance(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """bool (r, k): which of the results ``ids`` (r, k) are relevant to the query rows ``rows`` (r,).

        The results are gallery images that are not ignored, or -1, which is not relevant.
        """
        if self.listed is not None:
            return self._listed_ids.take(np.asarray(rows)).contains(ids)
        labels = self.labels[self.queries[rows]][:, None]
        return (ids != PAD) & (labels != NO_CLASS) & (self.labels[ids] == labels)

    @cached_property
    def _listed_ids(self) -> IdsPerQuery:
        """The listed images of each query row that are in the gallery and not ignored."""
        listed = self.listed or {}
        ids = [np.array(listed.get(query, ()), np.int64) for query in self.queries.tolist()]
        kept = (np.setdiff1d(each[self.in_gallery[each]], self.ignored(row)) for row, each in enumerate(ids))
        return IdsPerQuery.of(list(kept))

    @cached_property
    def ignored_ids(self) -> IdsPerQuery:
        """The ignored images of each query row, as the filter ``excluded`` of a search."""
        pairs = [(np.arange(len(self.queries)), self.queries), self._group_pairs(), self._excluded_pairs()]
        rows, ids = (np.concatenate(column) for column in zip(*pairs, strict=True))
        kept = self.in_gallery[ids]
        rows, ids = np.divmod(np.unique(rows[kept] * len(self) + ids[kept]), len(self))
        return IdsPerQuery(np.searchsorted(rows, np.arange(len(self.queries) + 1)), ids)

    def _group_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(query row, gallery id) of every pair that shares a group."""
        if self.groups is None:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        members = self.gallery[self.groups[self.gallery] >= 0]
        members = members[np.argsort(self.groups[members], kind="stable")]
        groups = self.groups[self.queries]
        first, end = (np.searchsorted(self.groups[members], groups, side) for side in ("left", "right"))
        return np.repeat(np.arange(len(self.queries)), end - first), members[ranges(first, end)]

    def _excluded_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        row_of = {query: row for row, query in enumerate(self.queries.tolist())}
        pairs = [(row_of[query], other) for query, others in self.excluded.items() for other in others]
        flat = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return flat[:, 0], flat[:, 1]

    @cached_property
    def in_gallery(self) -> np.ndarray:
        """bool (n,): whether each image is in the gallery."""
        return _frozen(np.isin(np.arange(len(self)), self.gallery))

    @cached_property
    def n_ignored(self) -> np.ndarray:
        """int64 (q,): the number of ignored gallery images of each query."""
        return _frozen(np.diff(self.ignored_ids.starts))

    @cached_property
    def n_candidates(self) -> np.ndarray:
        """int64 (q,): the gallery without the ignored images; the longest ranking that each query can have."""
        return _frozen(len(self.gallery) - self.n_ignored)

    @cached_property
    def n_relevant(self) -> np.ndarray:
        """int64 (q,): R, the number of relevant gallery images that are not ignored."""
        if self.listed is not None:
            return _frozen(np.diff(self._listed_ids.starts))
        labels = self.labels[self.queries]
        in_class = np.bincount(self.labels[self.gallery] + 1, minlength=len(self.class_names) + 1)
        rows = np.repeat(np.arange(len(self.queries)), self.n_ignored)
        ignored = np.bincount(
            rows, weights=self.labels[self.ignored_ids.ids] == labels[rows], minlength=len(self.queries)
        )
        return _frozen(np.where(labels == NO_CLASS, 0, in_class[labels + 1] - ignored.astype(np.int64)))

    @cached_property
    def has_relevant(self) -> np.ndarray:
        """bool (q,): whether the query has a relevant image."""
        return _frozen(self.n_relevant > 0)

    @cached_property
    def n_distractors(self) -> int:
        """The number of gallery images that are relevant to no query: without a class, or of a class without a query.

        With listed images, these are the gallery images that are listed for no query.
        """
        if self.listed is not None:
            return int((~np.isin(self.gallery, self._listed_ids.ids)).sum())
        classes = np.unique(self.labels[self.queries])
        return int((~np.isin(self.labels[self.gallery], classes[classes != NO_CLASS])).sum())

    def ignored_mask(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """bool (r, k): which of the results ``ids`` (r, k) are ignored for the query rows ``rows`` (r,).

        Padding is not ignored. The memory grows with r × k: pass the rows in `chunks`.
        """
        return self.ignored_ids.take(np.asarray(rows)).contains(ids)

    def check_disjoint(self) -> None:
        """Check that no query, and no image that is ignored for a query, is in the gallery.

        Database augmentation, k-reciprocal re-ranking and diffusion compare gallery images with each other. A query in
        the gallery, or a copy of it, would influence its own ranking, even if it is dropped from that ranking later.

        Raises ValueError: queries or copies of them are in the gallery; the message has the number of such queries.
        """
        inside = int((self.n_ignored > 0).sum())
        if inside:
            raise ValueError(
                f"{self.name}: {inside} of {len(self.queries)} queries, or copies of them, are in the gallery and "
                "would influence their own rankings. Make a protocol with disjoint queries and gallery "
                "(disjoint_split, query_gallery)."
            )

    # ---- images ------------------------------------------------------------------------------------

    def bind(self, images: ImageSet) -> tuple["Protocol", ImageSet]:
        """Find the protocol's images in ``images``: row i of the returned set is id i.

        Other images are left out, so a protocol of a part of a data set also works with the whole. The returned set has
        the protocol's classes and groups: an image without a class in the protocol stays a distractor even if the data
        set has its class. An image that was saved in another format is found by its name without the suffix; the
        returned protocol has the keys of the returned set.

        Raises ProtocolMismatch: images are missing or listed twice, or their classes differ.
        """
        found = images.subset(self._rows_in(images))
        self._check_classes(found)
        groups = found.groups if self.groups is None else self.groups
        bound = self if found.keys == self.keys else replace(self, keys=found.keys)
        return bound, replace(found, labels=self.labels, class_names=self.class_names, groups=groups)

    def _rows_in(self, images: ImageSet) -> list[int]:
        """The row of each of the protocol's images in ``images``."""
        row_of = self._row_of(set(self.keys), images.keys, images.name)
        stem_of = {key: splitext(key)[0] for key in self.keys}
        if len(row_of) < len(self) == len(set(stem_of.values())):
            lacking = {key: stem for key, stem in stem_of.items() if key not in row_of}
            found = self._row_of(set(lacking.values()), [splitext(key)[0] for key in images.keys], images.name)
            row_of |= {key: found[stem] for key, stem in lacking.items() if stem in found}
        missing = [key for key in self.keys if key not in row_of]
        if missing:
            raise ProtocolMismatch(
                f"{self.name}: {images.name!r} ({len(images)} images) lacks {len(missing)} of the protocol's "
                f"{len(self)} images: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}. Load the whole data "
                f"set {self.dataset!r}, or make a new protocol from your images (leave_one_out, query_gallery)."
            )
        return [row_of[key] for key in self.keys]

    def _row_of(self, wanted: set[str], names: Sequence[str], what: str) -> dict[str, int]:
        """Wanted name → its row in ``names``; names that are not there are left out."""
        row_of: dict[str, int] = {}
        for row, name in enumerate(names):
            if name in wanted and row_of.setdefault(name, row) != row:
                raise ProtocolMismatch(f"{self.name}: {what!r} contains {name!r} twice; list each image once.")
        return row_of

    def _check_classes(self, found: ImageSet) -> None:
        ours = [None if label == NO_CLASS else self.class_names[label] for label in self.labels]
        theirs = [None if label == NO_CLASS else found.class_names[label] for label in found.labels]
        used = set(ours) - {None}
        # An image without a class in the protocol may have one in the set, but not a class of the protocol.
        differs = [
            f"{key!r} is {mine or 'of no class'} in the protocol, {other or 'of no class'} in the images"
            for key, mine, other in zip(self.keys, ours, theirs, strict=True)
            if mine != other and (mine is not None or other in used)
        ]
        if differs:
            raise ProtocolMismatch(
                f"{self.name}: the classes of {len(differs)} of {len(self)} images differ from {found.name!r}: "
                f"{differs[0]}. Load {self.dataset!r} with the protocol's settings (classes, minimum number of images "
                "per class), or make a new protocol from your images."
            )


def chunks(n: int, width: int) -> Iterator[np.ndarray]:
    """Yield the rows 0 … n - 1 in pieces, int64, of at most `CHUNK` entries if each row has ``width``."""
    step = max(1, CHUNK // max(1, width))
    for start in range(0, n, step):
        yield np.arange(start, min(n, start + step))


def _integers(values: ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what} must be integers, got {array.dtype}")
    return np.array(array, dtype=np.int64)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _no_repeats(values: Sequence, what: str) -> None:
    if len(set(values)) < len(values):
        repeated = next(value for value, count in Counter(values).items() if count > 1)
        raise ValueError(f"{what} must be unique, {repeated!r} occurs more than once")
