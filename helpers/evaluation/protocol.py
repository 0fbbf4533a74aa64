"""Protocol: who asks, who answers, who is right, and who is never counted.

A score means nothing without one. Relevance is decided here and nowhere else: an answer is right for a
query when both carry the same class and the answer is not excluded. Excluded are the query itself, the
pictures of its group (copies of one original) and whatever else the protocol lists for it (duplicates).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers import paths
from helpers.pictures.imageset import NO_CLASS, ImageSet
from helpers.search.index.filters import IdsPerQuery, keep
from helpers.search.ranking import PAD, Ranking

if TYPE_CHECKING:
    from helpers.search.index import Index

#: The layout of the JSON files; a reader refuses any other.
FORMAT = 1

#: Entries (rows × columns) that one step of a chunked loop may hold.
CHUNK = 2_000_000


class ProtocolMismatch(ValueError):
    """The pictures at hand are not the ones that a protocol speaks of."""


class ProtocolFileError(ValueError):
    """A file that should hold a protocol and does not."""


@dataclass(frozen=True, eq=False)
class Protocol:
    """Queries, gallery and relevance over one list of pictures; id *i* is row *i* of that list.

    A query is addressed by its *row* j in ``queries``: row j of a ranking answers ``queries[j]``.

    Parameters
    ----------
    name : e.g. ``"lfw-leave-one-out"``; also the file name of a frozen protocol.
    dataset : the name of the ImageSet that it was made on.
    description : one sentence for a person.
    keys : the pictures' keys (``ImageSet.keys``), each once.
    labels : int64 (n,): an index into ``class_names``, or -1 for a picture that is relevant to nobody.
    class_names : what a person reads.
    queries : int64 (q,): ids of the pictures that ask, each once. A query of label -1 is allowed; it is
        unanswerable, and metrics count it aloud.
    gallery : int64 (g,): ids of the pictures that answer, each once.
    groups : int64 (n,) or None: pictures that share a group (>= 0) with the query are never counted.
    excluded : query id -> ids that are never counted for it; one way only, list both ways if both ask.

    Raises
    ------
    ValueError : any of this does not hold; the message names what is wrong.
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

    def __post_init__(self):
        if not self.name or "/" in self.name or "\\" in self.name:
            raise ValueError(f"a protocol's name becomes a file name: not empty and no slash, got {self.name!r}")
        object.__setattr__(self, "keys", tuple(self.keys))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        self._check_keys()
        object.__setattr__(self, "labels", self._per_picture(self.labels, "labels"))
        if self.labels.min() < NO_CLASS or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"{self.name}: labels must lie in -1 … {len(self.class_names) - 1} "
                f"({len(self.class_names)} class names), got {self.labels.min()} … {self.labels.max()}"
            )
        if self.groups is not None:
            object.__setattr__(self, "groups", self._per_picture(self.groups, "groups"))
        object.__setattr__(self, "queries", self._ids(self.queries, "queries"))
        object.__setattr__(self, "gallery", self._ids(self.gallery, "gallery"))
        object.__setattr__(self, "excluded", self._exclusions(self.excluded))

    def _check_keys(self) -> None:
        if not self.keys:
            raise ValueError(f"{self.name}: there is no picture in it")
        bad = next((key for key in self.keys if not isinstance(key, str) or not key), None)
        if bad is not None:
            raise ValueError(f"{self.name}: keys must be non-empty strings, got {bad!r}")
        _no_repeats(self.keys, f"{self.name}: keys")
        _no_repeats(self.class_names, f"{self.name}: class_names")

    def _per_picture(self, values, what: str) -> np.ndarray:
        array = _integers(values, f"{self.name}: {what}")
        if array.shape != (len(self.keys),):
            raise ValueError(f"{self.name}: {what} must have shape ({len(self.keys)},), got {array.shape}")
        array.setflags(write=False)
        return array

    def _ids(self, values, what: str) -> np.ndarray:
        array = _integers(values, f"{self.name}: {what}")
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{self.name}: {what} must be a list of at least one id, got shape {array.shape}")
        self._check_range(array, what)
        _no_repeats(array.tolist(), f"{self.name}: {what}")
        array.setflags(write=False)
        return array

    def _check_range(self, ids: np.ndarray, what: str) -> None:
        outside = ids[(ids < 0) | (ids >= len(self.keys))]
        if len(outside):
            raise ValueError(
                f"{self.name}: {what} must hold ids 0 … {len(self.keys) - 1} ({len(self.keys)} pictures), "
                f"got {outside[0]}" + (f" and {len(outside) - 1} more" if len(outside) > 1 else "")
            )

    def _exclusions(self, excluded: Mapping) -> dict[int, tuple[int, ...]]:
        asking = set(self.queries.tolist())
        checked = {}
        for query in sorted(excluded):
            if query not in asking:
                raise ValueError(f"{self.name}: excluded lists {query!r}, which is not the id of a query")
            ids = np.unique(_integers(excluded[query], f"{self.name}: excluded[{query}]"))
            self._check_range(ids, f"excluded[{query}]")
            if len(ids):
                checked[int(query)] = tuple(ids.tolist())
        return checked

    def __len__(self) -> int:
        """Pictures that the protocol speaks of: the rows that a vector array must have."""
        return len(self.keys)

    def __repr__(self) -> str:
        return (
            f"Protocol({self.name!r} on {self.dataset!r}: {len(self.queries)} queries, "
            f"gallery of {len(self.gallery)}, {self.n_distractors} of them distractors)"
        )

    # ---- who is relevant, who is never counted ------------------------------------------------------

    def never_counted(self, row: int) -> np.ndarray:
        """int64 ids, rising: gallery pictures that never count for query ``row``."""
        row = self._row(row)
        starts, ids = self._never
        return ids[starts[row] : starts[row + 1]]

    def relevant(self, row: int) -> np.ndarray:
        """int64 ids, rising: gallery pictures that are right answers to query ``row``."""
        row = self._row(row)
        label = self.labels[self.queries[row]]
        if label == NO_CLASS:
            return np.empty(0, dtype=np.int64)
        same = np.sort(self.gallery[self.labels[self.gallery] == label])
        return np.setdiff1d(same, self.never_counted(row), assume_unique=True)

    def _row(self, row: int) -> int:
        if not 0 <= row < len(self.queries):
            raise IndexError(f"{self.name}: query rows are 0 … {len(self.queries) - 1}, got {row}")
        return int(row)

    @cached_property
    def ignored_ids(self) -> IdsPerQuery:
        """What never counts for each query row, as the filter ``excluded`` of a search."""
        return IdsPerQuery(*self._never)

    @cached_property
    def _never(self) -> tuple[np.ndarray, np.ndarray]:
        """What never counts, row after row: ``ids[starts[j]:starts[j + 1]]`` belongs to query row j."""
        pairs = [
            (np.arange(len(self.queries)), self.queries),
            self._group_pairs(),
            self._excluded_pairs(),
        ]
        rows = np.concatenate([rows for rows, _ in pairs])
        ids = np.concatenate([ids for _, ids in pairs])
        answers = self.in_gallery[ids]
        codes = np.unique(rows[answers] * len(self) + ids[answers])
        rows, ids = np.divmod(codes, len(self))
        return np.searchsorted(rows, np.arange(len(self.queries) + 1)), ids

    def _group_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(query row, gallery id) of every pair that shares a group."""
        if self.groups is None:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        members = self.gallery[self.groups[self.gallery] >= 0]
        members = members[np.argsort(self.groups[members], kind="stable")]
        wanted = self.groups[self.queries]
        first = np.searchsorted(self.groups[members], wanted, side="left")
        count = np.searchsorted(self.groups[members], wanted, side="right") - first
        # Each query's run of members, laid end to end: its first position, plus 0, 1, … within the run.
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.repeat(np.arange(len(self.queries)), count), members[np.repeat(first, count) + within]

    def _excluded_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        row_of = {query: row for row, query in enumerate(self.queries.tolist())}
        pairs = [(row_of[query], other) for query, others in self.excluded.items() for other in others]
        flat = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return flat[:, 0], flat[:, 1]

    @cached_property
    def in_gallery(self) -> np.ndarray:
        """bool (n,): does this picture answer."""
        mask = np.zeros(len(self), dtype=bool)
        mask[self.gallery] = True
        mask.setflags(write=False)
        return mask

    @cached_property
    def n_never_counted(self) -> np.ndarray:
        """int64 (q,): gallery pictures that never count for each query."""
        return _frozen(np.diff(self._never[0]))

    @cached_property
    def n_candidates(self) -> np.ndarray:
        """int64 (q,): the gallery less what never counts; the longest ranking that each query can have."""
        return _frozen(len(self.gallery) - self.n_never_counted)

    @cached_property
    def n_relevant(self) -> np.ndarray:
        """int64 (q,): R, the right answers in the gallery after exclusions."""
        labels = self.labels[self.queries]
        in_class = np.bincount(self.labels[self.gallery] + 1, minlength=len(self.class_names) + 1)
        starts, ids = self._never
        rows = np.repeat(np.arange(len(self.queries)), np.diff(starts))
        lost = np.bincount(rows, weights=self.labels[ids] == labels[rows], minlength=len(self.queries))
        return _frozen(np.where(labels == NO_CLASS, 0, in_class[labels + 1] - lost.astype(np.int64)))

    @cached_property
    def answerable(self) -> np.ndarray:
        """bool (q,): has the query any right answer at all."""
        return _frozen(self.n_relevant > 0)

    @cached_property
    def n_distractors(self) -> int:
        """Gallery pictures that are relevant to nobody: of no class, or of a class that nobody asks for."""
        asked = np.unique(self.labels[self.queries])
        return int((~np.isin(self.labels[self.gallery], asked[asked != NO_CLASS])).sum())

    def never_counted_mask(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """bool (r, k): which of the answers ``ids`` (r, k) never count for the query rows ``rows`` (r,).

        Hand it a chunk of rows where there are many; padding is never True.
        """
        return self.ignored_ids.take(np.asarray(rows)).contains(ids)

    def check_apart(self) -> None:
        """Make sure that no query, and nothing that never counts for one, stands in the gallery.

        What asks the gallery about itself beforehand (database augmentation, k-reciprocal re-ranking, diffusion) lets
        all gallery pictures have a part in each other's answers. A query among them, or a copy of it, would have a part
        in its own ranking, which dropping it from the ranking does not undo.

        Raises
        ------
        ValueError : for some query there is; the message names the protocol and how many queries.
        """
        inside = int((self.n_never_counted > 0).sum())
        if inside:
            raise ValueError(
                f"{self.name}: {inside} of {len(self.queries)} queries, or copies of them, stand in the gallery, where "
                "they would help to rank their own answers. Make a protocol whose queries are apart (queries_apart, "
                "query_gallery)."
            )

    # ---- pictures ----------------------------------------------------------------------------------

    def bind(self, images: ImageSet) -> tuple["Protocol", ImageSet]:
        """Find the protocol's pictures in ``images``: row i of the returned set is id i.

        Pictures that the protocol does not know are left out, so the full official data set will do where
        the protocol was frozen on a part of it. The returned set carries the protocol's classes and groups:
        a person with a single picture there stays a distractor even if the full set has more of them.

        Raises
        ------
        ProtocolMismatch : pictures are missing or listed twice, or their classes disagree.
        """
        row_of: dict[str, int] = {}
        wanted = set(self.keys)
        for row, key in enumerate(images.keys):
            if key in wanted and row_of.setdefault(key, row) != row:
                raise ProtocolMismatch(f"{self.name}: {images.name!r} holds {key!r} twice; list each picture once.")
        missing = [key for key in self.keys if key not in row_of]
        if missing:
            raise ProtocolMismatch(
                f"{self.name}: {images.name!r} ({len(images)} pictures) lacks {len(missing)} of the protocol's "
                f"{len(self)} pictures: {_some(missing)}. Load the data set {self.dataset!r} that the protocol was "
                "made on, whole and not a sample of it, or make a new protocol from the pictures you have "
                "(leave_one_out, query_gallery)."
            )
        found = images.subset([row_of[key] for key in self.keys])
        self._check_classes(found)
        groups = found.groups if self.groups is None else self.groups
        return self, replace(found, labels=self.labels, class_names=self.class_names, groups=groups)

    def _check_classes(self, found: ImageSet) -> None:
        ours = [None if label == NO_CLASS else self.class_names[label] for label in self.labels]
        theirs = [None if label == NO_CLASS else found.class_names[label] for label in found.labels]
        used = set(ours) - {None}
        # "Of no class" here against a class there is no contradiction, unless somebody may ask for that class.
        differs = [
            f"{key!r} is {mine or 'of no class'!s} in the protocol, {other or 'of no class'!s} in the pictures"
            for key, mine, other in zip(self.keys, ours, theirs, strict=True)
            if mine != other and (mine is not None or other in used)
        ]
        if differs:
            raise ProtocolMismatch(
                f"{self.name}: the classes of {len(differs)} of {len(self)} pictures disagree with {found.name!r}: "
                f"{differs[0]}. Load {self.dataset!r} as the protocol's maker did (same classes, same least "
                "number of pictures a class), or make a new protocol from the pictures you have."
            )

    # ---- files -------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, one picture a line, all at once or not at all."""
        path = Path(path)
        write_text(path, self._json())
        return path

    def _json(self) -> str:
        pictures = zip(self.keys, self.labels.tolist(), strict=True)
        if self.groups is not None:
            pictures = zip(self.keys, self.labels.tolist(), self.groups.tolist(), strict=True)
        parts = {
            "format": str(FORMAT),
            "name": json.dumps(self.name),
            "dataset": json.dumps(self.dataset),
            "description": json.dumps(self.description),
            "class_names": _lines([json.dumps(name) for name in self.class_names]),
            "grouped": json.dumps(self.groups is not None),
            "queries": _lines(_wrapped(_ranges(self.queries))),
            "gallery": _lines(_wrapped(_ranges(self.gallery))),
            "excluded": _lines([f'"{query}": {json.dumps(ids)}' for query, ids in self.excluded.items()], "{}"),
            "pictures": _lines([json.dumps(picture) for picture in pictures]),
        }
        return "{\n" + ",\n".join(f'"{key}": {value}' for key, value in parts.items()) + "\n}\n"

    @classmethod
    def load(cls, path: str | Path) -> "Protocol":
        """Read what ``save`` wrote.

        Raises
        ------
        FileNotFoundError : there is no such file.
        ProtocolFileError : it is not JSON (cut short?), of another format, or holds no valid protocol.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist. Write a protocol there with Protocol.save.")
        remedy = "Restore the file (git checkout) or write it again with Protocol.save."
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # covers broken JSON and broken UTF-8
            raise ProtocolFileError(f"{path} is not readable as JSON, perhaps cut short: {error}. {remedy}") from error
        if not isinstance(content, dict) or "format" not in content:
            raise ProtocolFileError(f"{path} is JSON but not a protocol: it has no 'format'. {remedy}")
        if content["format"] != FORMAT:
            raise ProtocolFileError(
                f"{path} has format {content['format']!r}; this version reads format {FORMAT}. "
                "Use the version of the project that wrote it, or write the protocol again with Protocol.save."
            )
        try:
            return cls._from_json(content)
        except KeyError as error:
            raise ProtocolFileError(f"{path} is not a whole protocol: {error} is missing. {remedy}") from error
        except (TypeError, ValueError) as error:
            raise ProtocolFileError(f"{path} holds no valid protocol: {error}. {remedy}") from error

    @classmethod
    def _from_json(cls, content: dict) -> "Protocol":
        columns = list(zip(*content["pictures"], strict=True))
        expected = 3 if content["grouped"] else 2
        if len(columns) != expected:
            raise ValueError(f"each picture must be a list of {expected} values, got {len(columns)}")
        return cls(
            name=content["name"],
            dataset=content["dataset"],
            description=content["description"],
            keys=columns[0],
            labels=columns[1],
            class_names=content["class_names"],
            queries=_from_ranges(content["queries"]),
            gallery=_from_ranges(content["gallery"]),
            groups=columns[2] if content["grouped"] else None,
            excluded={int(query): tuple(ids) for query, ids in content["excluded"].items()},
        )


# ---- making protocols ------------------------------------------------------------------------------


def leave_one_out(
    images: ImageSet,
    name: str,
    queries: Sequence[int] | np.ndarray | None = None,
    excluded: Mapping[int, Sequence[int]] | None = None,
    description: str = "",
) -> Protocol:
    """Every picture whose class has another one asks; all pictures answer, the query itself excepted.

    queries : rows of ``images`` (or a mask) that ask instead; they may be unanswerable.
    excluded : row -> rows that are never counted for it, beside the query and its group.

    Raises
    ------
    ValueError : no class has two pictures, so nobody can ask.
    """
    if queries is None:
        asks = (images.labels >= 0) & (np.append(images.counts, 0)[images.labels] >= 2)
        if not asks.any():
            raise ValueError(
                f"{images.name}: no class has two pictures, so no query could have a right answer. "
                "Put the pictures into one sub-folder a class, at least two pictures each."
            )
        queries = np.flatnonzero(asks)
    text = description or "Each picture asks, all others answer; the query itself and its copies are not counted."
    return _protocol(images, name, text, _rows(images, queries), np.arange(len(images)), excluded)


def query_gallery(
    images: ImageSet,
    query_rows: Sequence[int] | np.ndarray,
    gallery_rows: Sequence[int] | np.ndarray,
    name: str,
    excluded: Mapping[int, Sequence[int]] | None = None,
    description: str = "",
) -> Protocol:
    """Some pictures ask, others answer: rows of ``images``, or masks over it.

    Ids stay rows of ``images``, pictures in neither part included; ``images.subset`` first drops those.
    """
    text = description or "One part of the pictures asks, the other answers."
    return _protocol(images, name, text, _rows(images, query_rows), _rows(images, gallery_rows), excluded)


def queries_apart(images: ImageSet, name: str, every: int = 3, description: str = "") -> Protocol:
    """Of each class every so many-th picture asks, all others answer; who has a copy in the set answers only.

    The first, in the set's order, then the ``every``-th after it, and so on. `Protocol.check_apart` holds.

    every : at least 2; a third by default.

    Raises
    ------
    ValueError : ``every`` below 2, or nobody can ask.
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
        raise ValueError(f"{images.name}: no picture of a class is without a copy, so nobody can ask.")
    text = description or f"Of each class one picture in {every} asks, all others answer; no query is in the gallery."
    return query_gallery(images, asks, ~asks, name, description=text)


def one_per_class_gallery(
    images: ImageSet,
    name: str,
    seed: int = 0,
    excluded: Mapping[int, Sequence[int]] | None = None,
    description: str = "",
) -> Protocol:
    """The gallery holds one picture a class, drawn by ``seed``; all other pictures of a class ask.

    Then R = 1, and top-1 accuracy is the accuracy of a classifier with one example a class.

    Raises
    ------
    ValueError : no class has two pictures, so nobody is left to ask.
    """
    rng = np.random.default_rng(seed)
    present = np.flatnonzero(images.counts)
    gallery = np.array([rng.choice(np.flatnonzero(images.labels == label)) for label in present], dtype=np.int64)
    asks = images.labels >= 0
    asks[gallery] = False
    if not asks.any():
        raise ValueError(f"{images.name}: no class has two pictures, so nobody is left to ask.")
    text = description or f"One picture a class answers (drawn with seed {seed}), all others of a class ask."
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
        # The caller's list is about pictures; only those that ask need theirs.
        excluded={row: tuple(others) for row, others in (excluded or {}).items() if row in asking},
    )


def _rows(images: ImageSet, rows) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (len(images),):
            raise ValueError(f"{images.name}: the mask must have shape ({len(images)},), got {rows.shape}")
        return np.flatnonzero(rows)
    return rows


# ---- frozen protocols ------------------------------------------------------------------------------


def frozen_names() -> tuple[str, ...]:
    """The protocols that ship with the project."""
    folder = paths.protocols_dir()
    return tuple(sorted(file.stem for file in folder.glob("*.json"))) if folder.is_dir() else ()


def frozen(name: str) -> Protocol:
    """A protocol that ships with the project, by name.

    Raises
    ------
    FileNotFoundError : there is none of that name; the message lists those there are.
    ProtocolFileError : its file is damaged.
    """
    if name not in frozen_names():
        raise FileNotFoundError(
            f"there is no frozen protocol {name!r} in {paths.protocols_dir()}; "
            f"there are: {', '.join(frozen_names()) or '(none)'}"
        )
    return Protocol.load(paths.protocols_dir() / f"{name}.json")


# ---- running a protocol ----------------------------------------------------------------------------


def run(protocol: Protocol, vectors: np.ndarray, index: "Index", k: int | None = None) -> Ranking:
    """Put the gallery into ``index``, ask all queries, drop what never counts and keep the best ``k``.

    Parameters
    ----------
    vectors : float32 (n, d): row i describes picture i of the protocol (see ``Protocol.bind``).
    index : empty; it holds the gallery afterwards.
    k : answers a query; None is the whole gallery, which mAP needs. That takes 12 to 16 bytes for each
        pair of query and gallery picture; ``run_in_chunks`` does without.

    Returns
    -------
    Ranking (q, k), -1 where a query has fewer than ``k`` candidates; row j answers ``queries[j]``.

    Raises
    ------
    ValueError : vectors of the wrong shape or with NaN or infinity; an index that is not empty; k < 1.
    """
    width = int(protocol.n_candidates.max()) if k is None else k
    ids = np.full((len(protocol.queries), width), PAD, dtype=np.int64)
    scores = None
    for rows, part in run_in_chunks(protocol, vectors, index, k):
        if scores is None:
            scores = np.full(ids.shape, -np.inf, dtype=part.scores.dtype)
        ids[rows] = part.ids
        scores[rows] = part.scores
    return Ranking(ids, scores)


def run_in_chunks(
    protocol: Protocol, vectors: np.ndarray, index: "Index", k: int | None = None
) -> Iterator[tuple[np.ndarray, Ranking]]:
    """``run``, a few queries at a time: yields (query rows, their Ranking) and holds no more than that."""
    vectors = _checked_vectors(protocol, vectors)
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1 or None, got {k}")
    if hasattr(index, "__len__") and len(index):
        raise ValueError(f"the index must be empty, it holds {len(index)} vectors; open a new one")
    width = int(protocol.n_candidates.max()) if k is None else k
    index.add(vectors[protocol.gallery], protocol.gallery)
    for rows in chunks(len(protocol.queries), max(width, len(protocol))):
        yield rows, index.search(vectors[protocol.queries[rows]], width, excluded=protocol.ignored_ids.take(rows))


def excluding(ranking: Ranking, protocol: Protocol, k: int | None = None) -> Ranking:
    """Drop what never counts from each row, close the gaps, and keep the best ``k`` (None: as wide as it was).

    Rows that come out shorter than ``k`` end in -1, so search for ``k + protocol.n_never_counted.max()``
    answers first.

    Raises
    ------
    ValueError : not one row a query, or an id that the protocol does not know.
    """
    if len(ranking) != len(protocol.queries):
        raise ValueError(f"{protocol.name}: {len(protocol.queries)} queries, but the ranking has {len(ranking)} rows")
    width = ranking.k if k is None else k
    ids = np.full((len(ranking), width), PAD, dtype=np.int64)
    scores = np.full(ids.shape, -np.inf, dtype=ranking.scores.dtype)
    for rows in chunks(len(ranking), max(ranking.k, len(protocol))):
        part = _excluding(Ranking(ranking.ids[rows], ranking.scores[rows]), protocol, rows, width)
        ids[rows], scores[rows] = part.ids, part.scores
    return Ranking(ids, scores)


def _excluding(ranking: Ranking, protocol: Protocol, rows: np.ndarray, width: int) -> Ranking:
    if ranking.ids.size and ranking.ids.max() >= len(protocol):
        raise ValueError(f"{protocol.name}: id {ranking.ids.max()} in the ranking, but ids end at {len(protocol) - 1}")
    kept = (ranking.ids != PAD) & ~protocol.never_counted_mask(rows, ranking.ids)
    ids, scores = keep(ranking.ids, ranking.scores, kept, width)
    return Ranking(ids, scores.astype(ranking.scores.dtype))


def chunks(n: int, width: int) -> Iterator[np.ndarray]:
    """int64 row numbers 0 … n - 1 in pieces of at most ``CHUNK`` entries when each row is ``width`` wide."""
    step = max(1, CHUNK // max(1, width))
    for start in range(0, n, step):
        yield np.arange(start, min(n, start + step))


def _checked_vectors(protocol: Protocol, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(protocol):
        raise ValueError(
            f"{protocol.name}: vectors must have shape ({len(protocol)}, d), one row a picture of the protocol, "
            f"got {vectors.shape}. Describe the pictures that Protocol.bind returns."
        )
    vectors = vectors.astype(np.float32, copy=False)
    finite = np.concatenate([np.isfinite(vectors[rows]).all(axis=1) for rows in chunks(*vectors.shape)])
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise ValueError(
            f"{protocol.name}: {int((~finite).sum())} of {len(vectors)} vectors hold NaN or infinity, the first is "
            f"row {first} ({protocol.keys[first]}). Look at that picture and at the describer's preprocessing."
        )
    return vectors


# ---- small things ----------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a text file all at once: whoever reads it sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _integers(values, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what} must be integers, got {array.dtype}")
    return np.array(array, dtype=np.int64)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _no_repeats(values: Sequence, what: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} must be unique, {value!r} stands twice")
        seen.add(value)


def _some(values: Sequence[str], n: int = 3) -> str:
    return ", ".join(values[:n]) + (", …" if len(values) > n else "")


def _ranges(ids: np.ndarray) -> list[int | str]:
    """[0, 1, 2, 3, 7] -> ["0-3", 7], in the order given."""
    items: list[int | str] = []
    for part in np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1):
        first, last = int(part[0]), int(part[-1])
        items.append(first if first == last else f"{first}-{last}")
    return items


def _from_ranges(items: list[int | str]) -> np.ndarray:
    """The ids that ``_ranges`` wrote."""
    parts = []
    for item in items:
        first, last = (int(end) for end in item.split("-")) if isinstance(item, str) else (item, item)
        if last < first:
            raise ValueError(f"the range {item!r} runs backwards")
        parts.append(np.arange(first, last + 1))
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _wrapped(items: list, per_line: int = 16) -> list[str]:
    """JSON items, ``per_line`` to a string."""
    return [", ".join(json.dumps(item) for item in items[i : i + per_line]) for i in range(0, len(items), per_line)]


def _lines(items: list[str], brackets: str = "[]") -> str:
    return brackets[0] + "".join(f"{',' if i else ''}\n {item}" for i, item in enumerate(items)) + "\n" + brackets[1]
