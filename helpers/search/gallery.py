"""The gallery table: path, content and class of each image of an engine, extended without copying the existing rows."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from helpers.images.imageset import NO_CLASS, ImageSet


class GalleryTable:
    """The images of an engine; the id of an image is its row.

    A table never changes. `extended` returns a longer one that shares the memory of the first, as appending to a slice
    does in Go. A thread that holds the shorter table still reads the same rows. Only the first use of ``images``,
    ``id_of``, ``ids_at``, ``ids_with`` and of the arrays takes time for each row.

    Parameters
    ----------
    name, root, class_names : as in `ImageSet`.
    paths : str, one per image. The path of an image that was replaced by a newer one stands in several rows.
    labels : int64 (n,): rows of ``class_names``, or -1.
    groups : int64 (n,), or None.
    contents : `helpers.features.file_hashes.identities` of the files, or None if no content is known.
    display_names : names of images, by id, that differ from those of their files, such as those of uploads.
    source : the folder or the table from which ``lookalike index`` made the engine, or None.
    """

    def __init__(
        self,
        name: str,
        root: Path | None,
        paths: Iterable[str],
        labels: np.ndarray,
        class_names: Iterable[str],
        groups: np.ndarray | None = None,
        contents: Sequence[bytes | None] | None = None,
        display_names: Mapping[int, str] | None = None,
        source: str | None = None,
    ):
        self.name, self.root, self.source = name, root, source
        paths = list(paths)
        known: list[bytes | None] = [None] * len(paths) if contents is None else list(contents)
        self._rows = _Rows(
            paths, np.array(labels, np.int64), list(class_names), groups, known, dict(display_names or {})
        )
        self._length, self._classes = len(self._rows.paths), len(self._rows.class_names)

    @classmethod
    def of(
        cls,
        images: ImageSet,
        contents: Sequence[bytes | None] | None = None,
        display_names: Mapping[int, str] | None = None,
        source: str | None = None,
    ) -> "GalleryTable":
        """The table of an image set."""
        paths, labels, names = map(str, images.paths), images.labels, images.class_names
        table = cls(images.name, images.root, paths, labels, names, images.groups, contents, display_names, source)
        table.__dict__["images"] = images
        return table

    def __len__(self) -> int:
        return self._length

    @cached_property
    def images(self) -> ImageSet:
        """All rows as an image set."""
        paths = tuple(Path(path) for path in self.paths)
        return ImageSet(self.name, paths, self.labels, self.class_names, self.groups, self.root)

    def subset(self, ids: np.ndarray) -> ImageSet:
        """The images of some ids, in their order. Unlike `images`, this does not read all rows."""
        paths = tuple(self.path(id) for id in ids.tolist())
        return ImageSet(self.name, paths, self.labels[ids], self.class_names, root=self.root)

    @property
    def paths(self) -> list[str]:
        """The paths of all rows; a copy."""
        return self._rows.paths[: self._length]

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,), read-only."""
        return _read_only(self._rows.labels[: self._length])

    @property
    def given_groups(self) -> np.ndarray | None:
        """int64 (n,), read-only, or None: the groups of the image set, without those of equal contents."""
        groups = self._rows.groups
        return None if groups is None else _read_only(groups[: self._length])

    @cached_property
    def groups(self) -> np.ndarray | None:
        """int64 (n,), read-only, or None if no image is in a group. Images of equal content are of one group."""
        joined = join_copies(self.given_groups, self.contents)
        return None if joined is None else _read_only(joined)

    @property
    def contents(self) -> list[bytes | None]:
        """The content of each row, or None where it is not known; a copy."""
        return self._rows.contents[: self._length]

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return tuple(self._rows.class_names[: self._classes])

    def path(self, id: int) -> Path:
        """The file of an image."""
        return Path(self.path_text(id))

    def path_text(self, id: int) -> str:
        """The path of an image's file as a string, in about a twentieth of the time that `path` takes."""
        return self._rows.paths[self._checked(id)]

    def content(self, id: int) -> bytes | None:
        """The content of an image's file when its features were extracted, or None if it is not known."""
        return self._rows.contents[self._checked(id)]

    def display_name(self, id: int) -> str:
        """The name that people know an image by: that of its file, or the original name of an upload."""
        return self._rows.display_names.get(id) or self.path_text(id).rpartition(os.sep)[2]

    @property
    def display_names(self) -> dict[int, str]:
        """The names, by id, that differ from those of the files; a copy."""
        return {id: name for id, name in list(self._rows.display_names.items()) if id < self._length}

    def label(self, id: int) -> int:
        """The label of an image, or -1."""
        return int(self._rows.labels[self._checked(id)])

    def class_name(self, id: int) -> str | None:
        """The class name of an image, or None."""
        label = self.label(id)
        return None if label == NO_CLASS else self._rows.class_names[label]

    def class_label(self, name: str) -> int | None:
        """The label of a class, or None if there is no such class."""
        label = self._rows.label_of.get(name, self._classes)
        return label if label < self._classes else None

    def id_of(self, name: str | Path) -> int | None:
        """The last id of the image with this path, absolute or below ``root``; None if there is none."""
        ids = self.ids_at(name)
        if not ids and self.root is not None:
            ids = self.ids_at(self.root / name)
        return ids[-1] if ids else None

    def ids_at(self, path: str | Path) -> tuple[int, ...]:
        """The ids that the file at an absolute path ever had, ascending."""
        return self._ids_of("paths", str(path))

    def ids_with(self, content: bytes) -> tuple[int, ...]:
        """The ids of the images with this content, ascending."""
        return self._ids_of("contents", content)

    def _ids_of(self, column: str, value: str | bytes) -> tuple[int, ...]:
        return tuple(id for id in self._rows.ids_by(column).get(value, ()) if id < self._length)

    def extended(
        self,
        paths: Sequence[str | Path],
        class_names: Sequence[str | None],
        contents: Sequence[bytes | None] | None = None,
        display_names: Sequence[str | None] | None = None,
    ) -> "GalleryTable":
        """A table with more rows at the end; existing ids and labels do not change.

        paths : anywhere, also outside ``root``.
        class_names : one per image; None for an image of no class. A new name becomes the last class.
        contents, display_names : one per image, or None, as in the constructor.
        """
        with self._rows.lock:
            rows = self._rows
            if len(rows.paths) != self._length:
                # Another table was made from this one already, and the new table must not contain its rows.
                rows = _Rows(
                    self.paths, self.labels.copy(), list(self.class_names), self.given_groups, self.contents,
                    self.display_names,
                )  # fmt: skip
            rows.append(paths, class_names, contents or [None] * len(paths), display_names or [None] * len(paths))
        longer = object.__new__(GalleryTable)
        longer.name, longer.root, longer.source, longer._rows = self.name, self.root, self.source, rows
        longer._length, longer._classes = self._length + len(paths), len(rows.class_names)
        if longer._classes == self._classes and "class_names" in self.__dict__:
            longer.__dict__["class_names"] = self.class_names
        return longer

    def _checked(self, id: int) -> int:
        if not 0 <= id < self._length:
            raise IndexError(f"{self.name} has no row {id}, it has {self._length}")
        return id


class _Rows:
    """Rows that tables of different lengths share; they are only ever appended."""

    def __init__(
        self, paths: list[str], labels: np.ndarray, class_names: list[str], groups: np.ndarray | None,
        contents: list[bytes | None], display_names: dict[int, str],
    ):  # fmt: skip
        self.paths, self.labels, self.class_names = paths, labels, class_names
        self.groups = None if groups is None else np.array(groups, np.int64)
        self.contents, self.display_names = contents, display_names
        self.label_of = {name: label for label, name in enumerate(class_names)}
        #: The ids of each value of a column, from the first search in it.
        self._ids: dict[str, dict[object, list[int]]] = {}
        self.lock = threading.Lock()

    def ids_by(self, column: str) -> dict[object, list[int]]:
        """The ids of each value of ``"paths"`` or ``"contents"``."""
        if column not in self._ids:
            with self.lock:
                self._ids[column] = _add_ids({}, getattr(self, column), 0)
        return self._ids[column]

    def append(
        self, paths: Sequence[str | Path], class_names: Sequence[str | None], contents: Sequence[bytes | None],
        display_names: Sequence[str | None],
    ) -> None:  # fmt: skip
        for name in dict.fromkeys(class_names):
            if name is not None and name not in self.label_of:
                self.label_of[name] = len(self.class_names)
                self.class_names.append(name)
        labels = [NO_CLASS if name is None else self.label_of[name] for name in class_names]
        used, files = len(self.paths), [os.fspath(path) for path in paths]
        self.labels = _appended(self.labels, used, labels)
        if self.groups is not None:
            self.groups = _appended(self.groups, used, [-1] * len(labels))
        self.display_names |= {id: name for id, name in enumerate(display_names, start=used) if name}
        for column, values in {"paths": files, "contents": contents}.items():
            if column in self._ids:
                _add_ids(self._ids[column], values, used)
        self.contents += contents
        self.paths += files


def _add_ids(ids: dict[object, list[int]], values: Iterable[object], start: int) -> dict[object, list[int]]:
    """Add rows to a dictionary from values to ids, and return it."""
    for id, value in enumerate(values, start):
        if value is not None:
            ids.setdefault(value, []).append(id)
    return ids


def join_copies(groups: np.ndarray | None, contents: Sequence[bytes | None]) -> np.ndarray | None:
    """Groups in which images of equal content are of one group: int64 (n,), or None if no image is in a group.

    A joined group has the lowest number of its parts. New groups follow the highest number.

    groups : int64 (n,), -1 without a group; or None. contents : (n,), None where it is not known.
    """
    ids: dict[bytes, int] = {}
    first = np.array([row if one is None else ids.setdefault(one, row) for row, one in enumerate(contents)], np.int64)
    count = len(first)
    if (first == np.arange(count)).all():
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    given = np.full(count, -1) if groups is None else np.asarray(groups)
    # A node for each content, which is the row of its first image, and one for each given group.
    numbers, node = np.unique(given, return_inverse=True)
    grouped, size = np.flatnonzero(given >= 0), count + len(numbers)
    graph = coo_array((np.ones(len(grouped)), (first[grouped], count + node[grouped])), shape=(size, size))
    component = connected_components(graph, directed=False)[1][first]
    unused = np.iinfo(np.int64).max
    lowest = np.full(size, unused)
    np.minimum.at(lowest, component[grouped], given[grouped])
    members = np.bincount(component, minlength=size)
    new = np.unique(component[(members[component] > 1) & (lowest[component] == unused)])
    lowest[new] = int(given.max(initial=-1)) + 1 + np.arange(len(new))
    joined = lowest[component]
    return np.where(joined == unused, -1, joined)


def _appended(buffer: np.ndarray, used: int, values: Sequence[int]) -> np.ndarray:
    """A buffer with values after its first ``used``: the same buffer if they fit, or else one half as large again."""
    end = used + len(values)
    if end > len(buffer):
        buffer, full = np.empty(max(end, used + used // 2), buffer.dtype), buffer
        buffer[:used] = full[:used]
    buffer[used:end] = values
    return buffer


def _read_only(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)
    return values
