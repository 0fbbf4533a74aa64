"""The gallery table: path, class and group of each image of an engine, extended without copying the existing rows."""

import os
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from helpers.images.imageset import NO_CLASS, ImageSet


class GalleryTable:
    """The images of an engine; the id of an image is its row.

    A table never changes. `extended` returns a longer one that shares the memory of the first, as appending to a slice
    does in Go. A thread that holds the shorter table still reads the same rows. Only the first use of ``images``,
    ``id_of`` and of the arrays takes time for each row.

    Parameters
    ----------
    name, root, class_names : as in `ImageSet`.
    paths : str, one per image.
    labels : int64 (n,): rows of ``class_names``, or -1.
    groups : int64 (n,), or None.
    """

    def __init__(
        self,
        name: str,
        root: Path | None,
        paths: Iterable[str],
        labels: np.ndarray,
        class_names: Iterable[str],
        groups: np.ndarray | None = None,
    ):
        self.name, self.root = name, root
        self._rows = _Rows(list(paths), np.array(labels, np.int64), list(class_names), groups)
        self._length, self._classes = len(self._rows.paths), len(self._rows.class_names)

    @classmethod
    def of(cls, images: ImageSet) -> "GalleryTable":
        """The table of an image set."""
        table = cls(images.name, images.root, map(str, images.paths), images.labels, images.class_names, images.groups)
        table.__dict__["images"] = images
        return table

    def __len__(self) -> int:
        return self._length

    @cached_property
    def images(self) -> ImageSet:
        """All rows as an image set."""
        paths = tuple(Path(path) for path in self.paths)
        return ImageSet(self.name, paths, self.labels, self.class_names, self.groups, self.root)

    @property
    def paths(self) -> list[str]:
        """The paths of all rows; a copy."""
        return self._rows.paths[: self._length]

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,), read-only."""
        return _read_only(self._rows.labels[: self._length])

    @property
    def groups(self) -> np.ndarray | None:
        """int64 (n,), read-only, or None."""
        groups = self._rows.groups
        return None if groups is None else _read_only(groups[: self._length])

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return tuple(self._rows.class_names[: self._classes])

    def path(self, id: int) -> Path:
        """The file of an image."""
        return Path(self._rows.paths[self._checked(id)])

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
        """The id of the image with this path, absolute or below ``root``; None if there is none."""
        id = self._ids.get(str(name))
        return id if id is not None or self.root is None else self._ids.get(str(self.root / name))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {path: id for id, path in enumerate(self.paths)}

    def extended(self, paths: Sequence[str | Path], class_names: Sequence[str | None]) -> "GalleryTable":
        """A table with more rows at the end; existing ids and labels do not change.

        paths : anywhere, also outside ``root``.
        class_names : one per image; None for an image of no class. A new name becomes the last class.
        """
        with self._rows.lock:
            rows = self._rows
            if len(rows.paths) != self._length:
                # Another table was made from this one already, and the new table must not contain its rows.
                rows = _Rows(self.paths, self.labels.copy(), list(self.class_names), self.groups)
            rows.append(paths, class_names)
        longer = object.__new__(GalleryTable)
        longer.name, longer.root, longer._rows = self.name, self.root, rows
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

    def __init__(self, paths: list[str], labels: np.ndarray, class_names: list[str], groups: np.ndarray | None):
        self.paths, self.labels, self.class_names = paths, labels, class_names
        self.groups = None if groups is None else np.array(groups, np.int64)
        self.label_of = {name: label for label, name in enumerate(class_names)}
        self.lock = threading.Lock()

    def append(self, paths: Sequence[str | Path], class_names: Sequence[str | None]) -> None:
        for name in dict.fromkeys(class_names):
            if name is not None and name not in self.label_of:
                self.label_of[name] = len(self.class_names)
                self.class_names.append(name)
        labels = [NO_CLASS if name is None else self.label_of[name] for name in class_names]
        used = len(self.paths)
        self.labels = _appended(self.labels, used, labels)
        if self.groups is not None:
            self.groups = _appended(self.groups, used, [-1] * len(labels))
        self.paths += [os.fspath(path) for path in paths]


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
