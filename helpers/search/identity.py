"""Identity of images: what an engine already knows about images that are to be added.

An image is identified by its path and by the content of its file. One rule holds for all ways in:

- the same path and the same content: nothing to do;
- the same path, another content: the image is replaced by one with a new id;
- the same content at another path: an image of its own, and a copy of the first one (`GalleryTable.groups`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helpers.search.gallery import GalleryTable


class Outcome(Enum):
    """What becomes of an image that is to be added."""

    #: A path and a content that the engine does not hold.
    NEW = "new"
    #: A new path; another image of the engine has the same content.
    COPY = "copy"
    #: The engine holds the path with another content.
    CHANGED = "changed"
    #: The engine holds the path and the content, but in another class.
    RECLASSIFIED = "reclassified"
    #: Nothing to do.
    UNCHANGED = "unchanged"
    #: The file cannot be read, and the engine does not hold its path.
    UNREADABLE = "unreadable"
    #: The file cannot be read any more: the image is removed.
    DAMAGED = "damaged"


class Known(NamedTuple):
    """What an engine knows about one image: the outcome of adding it, and the ids that its path has in the index.

    first : the row of the first image with this path. An image that repeats it is unchanged and has no ids of its own.
    """

    outcome: Outcome
    ids: tuple[int, ...]
    first: int


@dataclass(frozen=True, eq=False)
class Additions:
    """What became of images that were added.

    Attributes
    ----------
    ids : int64 (n,): the id of each image, new or old; -1 if it cannot be read.
    outcomes : one per image.
    """

    ids: np.ndarray
    outcomes: tuple[Outcome, ...]

    def count(self, *outcomes: Outcome) -> int:
        """The number of images with one of these outcomes."""
        return sum(outcome in outcomes for outcome in self.outcomes)

    @property
    def new_ids(self) -> np.ndarray:
        """int64 (m,): the ids that were given, in their order."""
        given = (Outcome.NEW, Outcome.COPY, Outcome.CHANGED, Outcome.RECLASSIFIED)
        rows = [row for row, outcome in enumerate(self.outcomes) if outcome in given]
        return self.ids[rows]


def file_paths(table: GalleryTable, paths: Iterable[Path]) -> list[str]:
    """Absolute paths of files; one file has one path, however it is named. A link is a file of its own.

    A path that the table holds stays as it is. The folders of others are resolved.
    """
    folders: dict[Path, Path] = {}
    found = []
    for path in paths:
        absolute = path if table.ids_at(path) else path.absolute()
        if not table.ids_at(absolute):
            if absolute.parent not in folders:
                folders[absolute.parent] = absolute.parent.resolve()
            absolute = folders[absolute.parent] / absolute.name
        found.append(str(absolute))
    return found


def compare(
    table: GalleryTable,
    contains: Callable[[np.ndarray], np.ndarray],
    paths: Sequence[str],
    contents: Sequence[bytes | None],
    class_names: Sequence[str | None] | None = None,
) -> list[Known]:
    """What an engine knows about images. The cost does not depend on the size of the gallery.

    An image without a content is not compared: its outcome is NEW.

    Parameters
    ----------
    contains : ids → which of them the index holds.
    paths, contents : absolute paths and identities, one per image.
    class_names : compared as well, if they are given; None for an image of no class.
    """
    at = [table.ids_at(path) if content is not None else () for path, content in zip(paths, contents, strict=True)]
    # Once per content, because thousands of files may be equal.
    equal = {content: table.ids_with(content) for content in set(contents) if content is not None}
    ids = np.unique(np.array([id for part in (*at, *equal.values()) for id in part], np.int64))
    held = set(ids[contains(ids)].tolist()) if len(ids) else set()
    known, copied = [], {content for content, same in equal.items() if not held.isdisjoint(same)}
    first = {paths[row]: row for row in reversed(range(len(paths))) if contents[row] is not None}
    for row, content in enumerate(contents):
        if first.get(paths[row], row) != row:
            known.append(Known(Outcome.UNCHANGED, (), first[paths[row]]))
            continue
        own = tuple(id for id in at[row] if id in held)
        outcome = Outcome.NEW
        if own and table.content(own[-1]) != content:
            outcome = Outcome.CHANGED
        elif own:
            same = class_names is None or table.class_name(own[-1]) == class_names[row]
            outcome = Outcome.UNCHANGED if same else Outcome.RECLASSIFIED
        elif content in copied:
            outcome = Outcome.COPY
        known.append(Known(outcome, own, row))
        if content is not None:
            copied.add(content)
    return known


@dataclass(frozen=True, eq=False)
class Candidates:
    """Images that are to be added, with their features.

    Attributes
    ----------
    paths : absolute.
    contents : the identity of each file before its features were extracted; images without one are not compared.
    class_names : None for an image of no class.
    display_names : None for the name of the file.
    vectors : float32 (n, dim); a row of NaN for an image that cannot be read.
    unchanged : the ids of the images whose features were not extracted, because the engine holds them; -1 for others.
    """

    paths: Sequence[str]
    contents: Sequence[bytes | None]
    class_names: Sequence[str | None]
    display_names: Sequence[str | None]
    vectors: np.ndarray
    unchanged: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class Plan:
    """The changes that add some candidates.

    Attributes
    ----------
    rows : the candidates that get a new id, in the order of their ids.
    class_names : of these candidates.
    replaced : int64 (m,), the ids that are removed.
    additions : what becomes of all candidates.
    """

    rows: list[int]
    class_names: list[str | None]
    replaced: np.ndarray
    additions: Additions


def plan(
    table: GalleryTable, contains: Callable[[np.ndarray], np.ndarray], candidates: Candidates, classes: bool
) -> Plan:
    """Decide what becomes of candidates. New ids follow the last row of the table.

    classes : whether an image in another class is replaced. Otherwise, a replaced image keeps its class if its
        candidate has none.
    """
    unreadable = np.isnan(candidates.vectors).all(axis=1) & (candidates.unchanged < 0)
    known = compare(table, contains, candidates.paths, candidates.contents, candidates.class_names if classes else None)
    ids, outcomes = np.full(len(candidates), -1), [Outcome.UNCHANGED] * len(candidates)
    rows: list[int] = []
    class_names: list[str | None] = []
    replaced: list[int] = []
    for row, (outcome, own, first) in enumerate(known):
        if candidates.unchanged[row] >= 0 or first != row:
            ids[row] = candidates.unchanged[row]
            continue
        if unreadable[row]:
            # Without a content, it was not compared.
            same = np.array(table.ids_at(candidates.paths[row]), np.int64)
            own = own or tuple(same[contains(same)].tolist())
            outcomes[row] = Outcome.DAMAGED if own else Outcome.UNREADABLE
            replaced += own
            continue
        outcomes[row] = outcome
        if outcome is Outcome.UNCHANGED:
            ids[row] = own[-1]
            continue
        class_name = candidates.class_names[row]
        if own and not classes and class_name is None:
            class_name = table.class_name(own[-1])
        ids[row] = len(table) + len(rows)
        rows.append(row)
        class_names.append(class_name)
        replaced += own
    ids = ids[[one.first for one in known]]
    return Plan(rows, class_names, np.array(replaced, np.int64), Additions(ids, tuple(outcomes)))
