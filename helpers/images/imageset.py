"""`ImageSet`: a named, ordered set of image files with one class each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

#: The label of an image without a class: a distractor, relevant to no query.
NO_CLASS = -1


class EmptyImageSet(ValueError):
    """A folder, table or selection contains no images."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes. Row *i* of every feature array of the set belongs to image *i*.

    Parameters
    ----------
    name : its name in tables and protocols, such as ``"lfw"``.
    paths : one file per image.
    labels : int64 (n,), indices into ``class_names``; -1 is an image without a class (a distractor).
    class_names : names to display.
    groups : int64 (n,), optional. Images of one group are copies of one original, so they are ignored as results of
        each other; -1 is an image without a group.
    root : the folder that ``keys`` are relative to.
    """

    name: str
    paths: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(path if isinstance(path, Path) else Path(path) for path in self.paths))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "labels", self._ids(self.labels, "labels"))
        if len(self.labels) and not -1 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(
                f"{self.name}: labels must lie in -1 … {len(self.class_names) - 1} "
                f"({len(self.class_names)} class names), got {self.labels.min()} … {self.labels.max()}"
            )
        if self.groups is not None:
            object.__setattr__(self, "groups", self._ids(self.groups, "groups"))

    def _ids(self, values: ArrayLike, what: str) -> np.ndarray:
        array = np.array(values, dtype=np.int64)
        if array.shape != (len(self.paths),):
            raise ValueError(f"{self.name}: {what} must have shape ({len(self.paths)},), got {array.shape}")
        array.setflags(write=False)
        return array

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        distractors = int((self.labels == NO_CLASS).sum())
        more = f", {distractors} distractors" if distractors else ""
        return f"ImageSet({self.name!r}: {len(self)} images, {len(self.class_names)} classes{more})"

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Names that are the same on every machine: paths relative to ``root``, with forward slashes.

        Paths outside ``root`` are absolute.
        """
        root = self.root
        inside = (path.relative_to(root) if root and path.is_relative_to(root) else path for path in self.paths)
        return tuple(path.as_posix() for path in inside)

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (classes,): the number of images of each class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.class_names))

    @property
    def units(self) -> np.ndarray:
        """int64 (n,): the group of each image; an image without a group is a group of its own."""
        groups = np.full(len(self), -1) if self.groups is None else self.groups
        return np.where(groups >= 0, groups, np.arange(len(self)) + groups.max(initial=-1) + 1)

    def class_name(self, row: int) -> str:
        """The name of the class of image ``row``; ``"–"`` for a distractor."""
        label = self.labels[row]
        return "–" if label == NO_CLASS else self.class_names[label]

    def subset(self, rows: Sequence[int] | np.ndarray, name: str | None = None) -> "ImageSet":
        """The images at ``rows`` (indices or a boolean mask), in that order. All class names are kept."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise ValueError(f"{self.name}: the mask must have shape ({len(self)},), got {rows.shape}")
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        return replace(
            self,
            name=name or self.name,
            paths=tuple(self.paths[row] for row in rows),
            labels=self.labels[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    def where(self, test: Callable[[str], bool], name: str | None = None) -> "ImageSet":
        """The images whose key passes ``test``, such as ``lambda key: key.startswith("val/")``."""
        return self.subset(np.array([test(key) for key in self.keys], dtype=bool), name)

    def split(self, fraction: float, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """Split each class into two parts; images of one group stay together.

        ``fraction`` of each class goes to the second part, at least one image of a class with two or more. A group
        with images of several classes goes to the part that the first of these classes puts it in.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
        rng = np.random.default_rng(seed)
        units = self.units
        chosen, decided = np.array([], np.int64), np.array([], np.int64)
        for label in np.unique(self.labels):
            members = np.unique(units[self.labels == label])
            target = round(fraction * len(members))
            target = min(max(target, 1), len(members) - 1) if len(members) > 1 else 0
            order = rng.permutation(members)
            free = order[~np.isin(order, decided)]
            target -= int(np.isin(order, chosen).sum())
            chosen = np.concatenate([chosen, free[: max(target, 0)]])
            decided = np.concatenate([decided, free])
        second = np.isin(units, chosen)
        return self.subset(~second), self.subset(second)

    def sample(self, per_class: int, seed: int = 0) -> "ImageSet":
        """At most ``per_class`` random images of each class, in the order of the set."""
        if per_class < 1:
            raise ValueError(f"per_class must be at least 1, got {per_class}")
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(np.flatnonzero(self.labels == label))[:per_class] for label in np.unique(self.labels)]
        return self.subset(np.sort(np.concatenate(rows)) if rows else [])


def numbered(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Sorted class names, and the label of each image; an empty name is no class."""
    class_names = sorted(set(names) - {""})
    number = {class_name: i for i, class_name in enumerate(class_names)}
    return tuple(class_names), np.array([number.get(name, NO_CLASS) for name in names])


def concatenate(name: str, sets: Iterable[ImageSet]) -> ImageSet:
    """Several sets as one. Classes of the same name become one class; groups are not merged."""
    sets = list(sets)
    class_names = sorted({class_name for images in sets for class_name in images.class_names})
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels, groups, used = [], [], 0
    for images in sets:
        own = np.array([number[class_name] for class_name in images.class_names] + [NO_CLASS], dtype=np.int64)
        labels.append(own[images.labels])
        given = np.full(len(images), -1) if images.groups is None else images.groups
        groups.append(np.where(given >= 0, given + used, -1))
        used += int(given.max(initial=-1)) + 1
    roots = {images.root for images in sets}
    return ImageSet(
        name,
        tuple(path for images in sets for path in images.paths),
        np.concatenate(labels),
        tuple(class_names),
        np.concatenate(groups) if used else None,
        roots.pop() if len(roots) == 1 else None,
    )
