"""Roots: the folders that an engine's paths are relative to, found again after the engine or its images were moved."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from helpers.features.file_hashes import identities

#: The numbers of the engine's own folder, which holds uploads, and of the gallery's folder. Others follow.
OWN, GALLERY = 0, 1

#: The number of files that are looked for to find a root.
SAMPLES = 5
#: If the images of one addition are in more folders than this, their root is the common parent of these folders.
_MOST_FOLDERS = 8
#: An engine with this number of roots gets no further one but the root of the file system.
_MOST_ROOTS = 32


class StoredRoot(NamedTuple):
    """A row of the table of roots.

    path : the absolute path when it was stored. relative : its path from the engine's folder, or None if there is none.
    """

    number: int
    path: str
    relative: str | None


class Sample(NamedTuple):
    """A file that a root should hold: its path relative to the root, and its content if that is known."""

    path: str
    content: bytes | None


@dataclass(frozen=True)
class Root:
    """A root and its present place.

    Attributes
    ----------
    path : where it is now; the stored path if it is missing.
    checked, found : how many files were looked for, and how many of them exist.
    """

    stored: StoredRoot
    path: str
    checked: int = 0
    found: int = 0

    @property
    def missing(self) -> bool:
        """Whether none of the files that were looked for exists."""
        return self.checked > 0 and not self.found

    @property
    def start(self) -> str:
        """The part that the paths of its files start with."""
        return self.path if self.path.endswith(os.sep) else self.path + os.sep


class Roots:
    """The roots of one engine. They do not change; `extended` returns others."""

    def __init__(self, folder: Path, roots: Iterable[Root]):
        self.folder = Path(folder)
        self._own = f"{self.folder.absolute()}{os.sep}"
        self._roots = {root.stored.number: root for root in roots}
        starts = [(root.start, number) for number, root in self._roots.items()]
        # The longest first, because one root may contain another.
        self._starts = sorted([*starts, (self._own, OWN)], key=lambda pair: -len(pair[0]))

    @classmethod
    def of(cls, folder: Path, root: Path | None, paths: Sequence[str], former: "Roots | None" = None) -> Self:
        """The roots of a gallery that is about to be saved.

        root : the gallery's folder. former : the roots that it had before, if any; they are kept.
        """
        roots = [] if root is None else [new_root(folder, GALLERY, str(root.absolute()))]
        for number, other in enumerate((one for one in former or () if one.stored.number != GALLERY), GALLERY + 1):
            roots.append(new_root(folder, number, other.path))
        return cls(folder, roots).extended(paths)

    def __iter__(self) -> Iterator[Root]:
        return iter(self._roots.values())

    @property
    def gallery(self) -> Path | None:
        """The gallery's folder; None if the gallery was saved without one."""
        return Path(self._roots[GALLERY].path) if GALLERY in self._roots else None

    @property
    def stored(self) -> list[StoredRoot]:
        """The rows of the table of roots."""
        return [root.stored for root in self]

    @property
    def missing(self) -> list[Root]:
        """The roots whose files are not there."""
        return [root for root in self if root.missing]

    def encode(self, path: str | Path) -> tuple[str, int]:
        """The stored form of a path: relative to its root, with slashes, and the number of the root.

        Raises ValueError: the path is below no root; `extended` adds one.
        """
        path = _absolute(path)
        for start, number in self._starts:
            if path.startswith(start):
                return path[len(start) :].replace(os.sep, "/"), number
        raise ValueError(f"{path} is in none of the folders of {self.folder}")

    def decode(self, path: str, number: int) -> str:
        """The absolute path."""
        return (self._own if number == OWN else self._roots[number].start) + path

    def number_of(self, path: str | Path) -> int:
        """The number of the root that contains a path."""
        return self.encode(path)[1]

    def start_of(self, path: str) -> str:
        """The start of an absolute path that is its root; empty if there is none."""
        return next((start for start, _ in self._starts if path.startswith(start)), "")

    def extended(self, paths: Iterable[str | Path], root: Path | None = None) -> Self:
        """Roots that contain all of these paths: with further ones, if that is necessary.

        root : the folder of those paths that it contains. The root of another path is its own folder.
        """
        anchors = {start for start, _ in self._starts if start == Path(start).anchor}
        # The root of the file system contains everything, but its files cannot be found again after a move.
        outside = [path for path in map(_absolute, paths) if self.start_of(path) in ("", *anchors)]
        if not outside:
            return self
        start = "\0" if root is None else f"{root.absolute()}{os.sep}"
        # As text, see `_absolute`.
        parents = {os.path.dirname(path) for path in outside if not path.startswith(start)}  # noqa: PTH120
        folders = {str(Path(parent)) for parent in parents}
        if root is not None and any(path.startswith(start) for path in outside):
            folders.add(str(root.absolute()))
        new = _without_nested(folders)
        if len(new) > _MOST_FOLDERS:
            new = _common(new)
        if len(self._roots) + len(new) > _MOST_ROOTS:
            new = sorted({Path(folder).anchor for folder in new})
        known = {root.path for root in self}
        first = max([GALLERY, *self._roots]) + 1
        added = [
            new_root(self.folder, number, folder) for number, folder in enumerate(sorted(set(new) - known), start=first)
        ]
        return type(self)(self.folder, [*self, *added])


def locate(
    folder: Path,
    stored: Iterable[StoredRoot],
    samples: Mapping[int, Sequence[Sample]],
    gallery: str | Path | None = None,
) -> Roots:
    """Find the roots of an engine, with few looks at the file system.

    A root is looked for at its place relative to the engine, and at its former absolute path. If the engine was moved,
    the contents of the sampled files decide, so that an unrelated folder of the same name is not taken; the relative
    place is preferred, because engine and images may have been copied together.

    samples : up to `SAMPLES` files of each root. gallery : where the gallery's folder is, if that is known.
    """
    roots = []
    for root in stored:
        files = samples.get(root.number, ())
        given = gallery if root.number == GALLERY else None
        place = _place(folder, root, files) if given is None else str(Path(given).absolute())
        roots.append(Root(root, place, len(files), len(_existing(place, files))))
    return Roots(folder, roots)


def spread(count: int) -> list[int]:
    """Up to `SAMPLES` rows of ``count``, evenly spread."""
    return sorted({row * (count - 1) // max(1, min(SAMPLES, count) - 1) for row in range(min(SAMPLES, count))})


def _place(folder: Path, stored: StoredRoot, samples: Sequence[Sample]) -> str:
    near = stored.path if stored.relative is None else os.path.normpath(folder.resolve() / stored.relative)
    if near == stored.path:
        return near
    if not samples:
        return near if Path(near).is_dir() else stored.path
    equal = {place: _count_equal(place, _existing(place, samples)) for place in (near, stored.path)}
    return near if equal[near] and equal[near] >= equal[stored.path] else stored.path


def _existing(place: str, samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if Path(place, sample.path).exists()]


def _count_equal(place: str, samples: Sequence[Sample]) -> int:
    """How many of these files have their content, or no known one."""
    now = identities([Path(place, sample.path) for sample in samples])
    return sum(sample.content in (None, content) for sample, content in zip(samples, now, strict=True))


def new_root(folder: Path, number: int, path: str) -> Root:
    """The root of a number at an absolute path."""
    try:
        relative = Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        relative = None
    if path == Path(path).anchor:
        relative = None
    return Root(StoredRoot(number, path, relative), path)


def _absolute(path: str | Path) -> str:
    path = str(path)
    # As text, because a path object takes as long as everything else.
    return path if os.path.isabs(path) else str(Path(path).absolute())  # noqa: PTH117


def _without_nested(folders: Iterable[str]) -> list[str]:
    """Folders without those that another one contains, sorted."""
    kept: list[str] = []
    for folder in sorted(folders, key=lambda folder: folder.rstrip(os.sep) + os.sep):
        if not kept or not folder.startswith(kept[-1].rstrip(os.sep) + os.sep):
            kept.append(folder)
    return kept


def _common(folders: Sequence[str]) -> list[str]:
    """The common parent of folders, one for each drive."""
    drives: dict[str, list[str]] = {}
    for folder in folders:
        drives.setdefault(Path(folder).anchor, []).append(folder)
    return sorted(os.path.commonpath(part) for part in drives.values())
