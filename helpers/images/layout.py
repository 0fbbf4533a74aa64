"""The layout of an image set: which folders are classes, and which are the sides of a split.

In ``photos/cat/1.jpg`` and ``photos/dog/2.jpg``, the folders are classes. In ``data/train/cat/1.jpg`` and
``data/test/cat/2.jpg``, ``train`` and ``test`` are the sides of a split: the gallery, and the queries. `read_layout`
recognizes usual names of sides. A folder is split if it has a folder for the gallery and one for the queries, or if all
its folders have names of sides. Other images in it are left out. `Layout.describe` tells what was recognized.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path, PurePosixPath

import numpy as np

from helpers.images.imageset import NO_CLASS, ImageSet, concatenate, numbered
from helpers.text import pluralize

#: Names of folders that hold the gallery of a split, in lower case. An evaluation uses the first kind that it finds.
GALLERY_NAMES = (("gallery", "database"), ("train", "training"))
#: The same for the queries.
QUERY_NAMES = (("query", "queries", "probe"), ("test", "testing"), ("val", "valid", "validation", "dev"))

#: Where the class of an image comes from: the first folder below the folder or its side, the image's own folder, or a
#: table, which has the classes already.
CLASSES_FROM = ("first", "parent", "table")

#: Names that a message lists.
_LISTED = 5


class LayoutError(ValueError):
    """The layout does not fit its use; the message names what was read, and the remedy."""


@dataclass(frozen=True, eq=False)
class Layout:
    """An image set with its classes, and the sides of its split.

    Parameters
    ----------
    images : the images that are used, with their classes.
    names : the names of the sides, those of the gallery first; empty without a split.
    sides : int64 (n,), the side of each image, an index into ``names``; None without a split.
    gallery, queries : the names of the sides that an evaluation uses; empty if the names do not tell.
    left_out : what was left out, and its number of images.
    notes : what else the user should know.
    """

    images: ImageSet
    names: tuple[str, ...] = ()
    sides: np.ndarray | None = None
    gallery: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def in_gallery(self) -> np.ndarray:
        """bool (n,): whether each image is on a side of the gallery."""
        return self._on(self.gallery)

    @property
    def is_query(self) -> np.ndarray:
        """bool (n,): whether each image is on a side of the queries."""
        return self._on(self.queries)

    def subset(self, rows: np.ndarray) -> "Layout":
        """The layout of the images at ``rows``, bool (n,)."""
        return replace(self, images=self.images.subset(rows), sides=None if self.sides is None else self.sides[rows])

    def describe(self) -> list[str]:
        """Lines that tell how the images were read: sides, classes and counts, what was left out, and notes."""
        if self.sides is None:
            names = f" ({_listed(self.images.class_names)})" if self.images.class_names else ""
            lines = [f"layout: {pluralize(len(self.images), 'image')}, {self._classes(slice(None))}{names}, no split"]
        else:
            roles = dict.fromkeys(self.gallery, "gallery ") | dict.fromkeys(self.queries, "queries ")
            sides = []
            for number, name in enumerate(self.names):
                rows = self.sides == number
                counts = f"{pluralize(int(rows.sum()), 'image')}, {self._classes(rows)}"
                sides.append(f"{roles.get(name, '')}{name} ({counts})")
            lines = [f"layout: {', '.join(sides)}"]
        if self.left_out:
            lines.append(
                "left out: " + ", ".join(f"{what} ({pluralize(n, 'image')})" for what, n in self.left_out.items())
            )
        return lines + [f"note: {note}" for note in self.notes]

    def for_evaluation(self) -> "Layout":
        """The layout without the sides that are neither gallery nor queries, checked for an evaluation.

        Raises
        ------
        LayoutError : there are no classes, or only one, so that every result would be correct; or the split has no
            queries, no gallery, or no common class.
        """
        if self.sides is None:
            self._check_classes()
            return replace(self, notes=(*self.notes, self._queries_note()))
        for role, names, option in (("gallery", self.gallery, "--train"), ("queries", self.queries, "--test")):
            if not names:
                raise LayoutError(
                    f"{self.images.name} is split into {_listed(self.names)}: name the folder of the {role} with "
                    f"{option}"
                )
        kept = self._with_roles()
        kept._check_classes()
        return replace(kept, notes=(*kept.notes, *kept._common_classes()))

    def _on(self, names: Iterable[str]) -> np.ndarray:
        if self.sides is None:
            return np.zeros(len(self.images), dtype=bool)
        return np.isin(self.sides, [self.names.index(name) for name in names])

    def _classes(self, rows: "np.ndarray | slice") -> str:
        labels = np.unique(self.images.labels[rows])
        return pluralize(int((labels != NO_CLASS).sum()), "class") if (labels != NO_CLASS).any() else "no classes"

    def _with_roles(self) -> "Layout":
        assert self.sides is not None
        names = (*self.gallery, *self.queries)
        counts = dict(zip(self.names, np.bincount(self.sides, minlength=len(self.names)).tolist(), strict=True))
        for name in names:
            if not counts.pop(name):
                raise LayoutError(f"{name} in {self.images.name} holds no images")
        number = np.array([names.index(name) if name in names else -1 for name in self.names])
        kept = self.subset(number[self.sides] >= 0)
        images, sides = _with_used_classes(kept.images), number[kept.sides]
        return replace(kept, images=images, names=names, sides=sides, left_out={**self.left_out, **counts})

    def _check_classes(self) -> None:
        classed = self.images.labels != NO_CLASS
        where = self.images.name if self.sides is None else _listed(self.names)
        remedy = "Give the folder that holds one subfolder per class."
        if not classed.any():
            raise LayoutError(f"{where}: no image has a class. {remedy}")
        if len(np.unique(self.images.labels[classed])) == 1:
            name = self.images.class_name(int(np.argmax(classed)))
            raise LayoutError(
                f"{where} has only one class, {name}, so that every result would be correct. "
                + (self._deeper(name) or remedy)
            )

    def _deeper(self, name: str) -> str:
        """A remedy if the folder of the only class holds folders, else an empty text."""
        if self.sides is not None or self.images.root is None:
            return ""
        below = {parts[1] for key in self.images.keys if len(parts := key.split("/")) > 2 and parts[0] == name}
        if not below:
            return ""
        return (
            f"It holds the folders {_listed(sorted(below))}: did you mean {self.images.root / name}, or "
            "--classes-from parent?"
        )

    def _queries_note(self) -> str:
        counts = np.append(self.images.counts, 0)[self.images.labels]
        rows = (self.images.labels != NO_CLASS) & (counts >= 2)
        if rows.all():
            return "each image is a query"
        if not rows.any():
            return "no image is a query, because no class has two images"
        verb = "is a query" if rows.sum() == 1 else "are queries"
        return (
            f"{int(rows.sum()):,} of {pluralize(len(rows), 'image')} {verb}; the others have no class, or are the only "
            "image of their class"
        )

    def _common_classes(self) -> Iterator[str]:
        """Notes on queries without a relevant image.

        Raises
        ------
        LayoutError : no query has one.
        """
        labels = self.images.labels
        in_gallery = np.unique(labels[self.in_gallery])
        lost = self.is_query & (~np.isin(labels, in_gallery) | (labels == NO_CLASS))
        queries, gallery = _listed(self.queries), _listed(self.gallery)
        if lost.sum() == self.is_query.sum():
            raise LayoutError(
                f"{queries} and {gallery} have no class in common. Give the folders of a class the same name."
            )
        if lost.any():
            alone = [self.images.class_names[label] for label in np.unique(labels[lost]) if label != NO_CLASS]
            why = f": {gallery} does not have {_listed(alone)}" if alone else ""
            yield f"{pluralize(int(lost.sum()), 'query')} will find no relevant image{why}"


def read_layout(
    images: ImageSet,
    train: Sequence[str | Path] = (),
    test: Sequence[str | Path] = (),
    classes_from: str = "first",
) -> Layout:
    """Recognize the classes and the sides of a set by the names of its folders.

    Parameters
    ----------
    images : the images of a folder, as `from_folder` returns them, or of a table.
    train, test : the folders with the gallery and with the queries: subfolders of the set's root, or paths. If one of
        them is empty, the folder is recognized by its name.
    classes_from : one of `CLASSES_FROM`.

    Raises
    ------
    LayoutError : a folder in ``train`` or ``test`` holds no image of the set, contains another one, or the folder for
        the other role is missing.
    """
    if classes_from not in CLASSES_FROM:
        raise ValueError(f"classes_from must be one of {', '.join(CLASSES_FROM)}; got {classes_from!r}")
    if train or test:
        gallery, queries = _given(images, train, test)
        layout = _layout(images, classes_from, [*gallery, *queries])
        return replace(layout, gallery=tuple(gallery), queries=tuple(queries))
    if classes_from == "table" or images.root is None:
        return Layout(images, notes=tuple(_class_notes(images)))
    tops = {key.split("/")[0] for key in images.keys if "/" in key}
    # Folders may be empty.
    folders = {path.name for path in images.root.iterdir() if path.is_dir() and not path.name.startswith(".")}
    names = sorted({*tops, *folders})
    galleries, others = _named(GALLERY_NAMES, names), _named(QUERY_NAMES, names)
    sides = [name for kind in (*galleries, *others) for name in kind]
    complete = galleries and others and tops.intersection(sides)
    if complete or (len(sides) > 1 and not tops.difference(sides)):
        # Two folders of one kind do not tell which one to use.
        roles = [tuple(kinds[0]) if kinds and len(kinds[0]) == 1 else () for kinds in (galleries, others)]
        return replace(_layout(images, classes_from, sides), gallery=roles[0], queries=roles[1])
    layout = _layout(images, classes_from)
    if found := [name for name in sides if name in tops and len(tops) > 1]:
        other = "gallery (such as train)" if others else "queries (such as test)"
        verb = "is read as a class" if len(found) == 1 else "are read as classes"
        note = f"{_listed(found)} {verb}, because no other folder holds the {other}"
        return replace(layout, notes=(*layout.notes, note))
    return layout


def two_folders(first: ImageSet, second: ImageSet, names: tuple[str, str]) -> Layout:
    """The layout of two folders without a common image, which are the sides of a split."""
    both = concatenate(f"{first.name} and {second.name}", [first, second])
    root = Path(os.path.commonpath([path.parent for path in both.paths]))
    both = replace(both, root=root)
    return Layout(both, names, np.repeat([0, 1], [len(first), len(second)]), notes=tuple(_class_notes(both)))


def _named(kinds: Sequence[Sequence[str]], names: Iterable[str]) -> list[list[str]]:
    """Those of the names that are usual for a role, by kind; kinds without a name are left out."""
    found = ([name for name in names if name.lower() in kind] for kind in kinds)
    return [each for each in found if each]


def _given(images: ImageSet, train: Sequence[str | Path], test: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """The folders of the gallery and of the queries, relative to the root."""
    gallery, queries = ([_relative(images, folder) for folder in folders] for folders in (train, test))
    tops = sorted({key.split("/")[0] for key in images.keys if "/" in key} - {*gallery, *queries})
    gallery = gallery or _usual(images.name, "gallery", GALLERY_NAMES, tops, "--train")
    queries = queries or _usual(images.name, "queries", QUERY_NAMES, tops, "--test")
    for first, second in permutations([*gallery, *queries], 2):
        if PurePosixPath(second).is_relative_to(first):
            raise LayoutError(f"the sides {first} and {second} overlap. Give folders that are not inside each other.")
    return gallery, queries


def _usual(name: str, role: str, kinds: Sequence[Sequence[str]], tops: Sequence[str], option: str) -> list[str]:
    """The one folder with a usual name for a role."""
    found = next(iter(_named(kinds, tops)), [])
    if len(found) != 1:
        what = f"{_listed(found)} are usual names" if found else "no folder has a usual name"
        raise LayoutError(f"{name}: {what} for the {role}; name the folder with {option}")
    return found


def _relative(images: ImageSet, folder: str | Path) -> str:
    """A folder relative to the root of the set."""
    if images.root is None:
        raise LayoutError(f"{images.name} has no common folder, so it has no folder {folder}")
    inside = images.root / folder
    path = inside if inside.is_dir() else Path(folder).absolute()
    # Only the part above the set is resolved, because a folder inside it may be a link.
    root = images.root.resolve()
    above = next((each for each in path.parents if each.resolve() == root), None)
    name = "" if above is None else path.relative_to(above).as_posix()
    if not any(key.startswith(f"{name}/") for key in images.keys):
        raise LayoutError(f"{images.root} has no folder {folder} with images")
    return name


def _layout(images: ImageSet, classes_from: str, names: Sequence[str] = ()) -> Layout:
    """The layout without roles; the sides ``names`` are folders relative to the root, none of them in another."""
    number = {PurePosixPath(name).parts: i for i, name in enumerate(names)} or {(): 0}
    depths = sorted({len(parts) for parts in number})
    folders = [tuple(key.split("/")[:-1]) for key in images.keys]
    found = [next(((number[f[:d]], f[d:]) for d in depths if f[:d] in number), (-1, f)) for f in folders]
    sides = np.array([side for side, _ in found], dtype=np.int64)
    used = sides >= 0
    below = [folder for side, folder in found if side >= 0]
    kept = _with_classes(images.subset(used), below, classes_from)
    notes = list(_class_notes(kept))
    for i, name in enumerate(names or [images.name]):
        rows = np.flatnonzero(sides[used] == i)
        part = kept.subset(rows)
        if (part.labels != NO_CLASS).any():
            notes += _depth_notes(part, [below[row] for row in rows], classes_from, name)
    left_out = _left_out([images.keys[row] for row in np.flatnonzero(~used)], number)
    return Layout(kept, tuple(names), sides[used] if names else None, left_out=left_out, notes=tuple(notes))


def _left_out(keys: Sequence[str], sides: Iterable[tuple[str, ...]]) -> dict[str, int]:
    """Folders without a side in them, and files next to the sides, with their numbers of images."""
    above = {side[:depth] for side in sides for depth in range(len(side))}
    folders: Counter[str] = Counter()
    files = []
    for key in keys:
        parts = tuple(key.split("/"))
        depth = next(depth for depth in range(1, len(parts) + 1) if parts[:depth] not in above)
        if depth == len(parts):
            files.append(key)
        else:
            folders["/".join(parts[:depth])] += 1
    return dict(sorted(folders.items())) | ({f"next to the sides: {_listed(files)}": len(files)} if files else {})


def _with_classes(images: ImageSet, folders: Sequence[tuple[str, ...]], classes_from: str) -> ImageSet:
    """The set with the classes of its folders, tuples of names below the root or the side; () is no class."""
    if classes_from == "table":
        return _with_used_classes(images)
    position = 0 if classes_from == "first" else -1
    names = [folder[position] if folder else "" for folder in folders]
    class_names, labels = numbered(names)
    return replace(images, labels=labels, class_names=class_names)


def _with_used_classes(images: ImageSet) -> ImageSet:
    """The set without class names of no image."""
    used = np.unique(images.labels[images.labels != NO_CLASS])
    number = np.full(len(images.class_names) + 1, NO_CLASS)  # the last entry is for images without a class
    number[used] = np.arange(len(used))
    return replace(images, labels=number[images.labels], class_names=tuple(images.class_names[label] for label in used))


def _class_notes(images: ImageSet) -> Iterator[str]:
    alike: dict[str, list[str]] = {}
    for name in images.class_names:
        alike.setdefault(name.casefold(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            yield f"the classes {_listed(names)} differ in case only"


def _depth_notes(images: ImageSet, folders: Sequence[tuple[str, ...]], classes_from: str, where: str) -> Iterator[str]:
    if classes_from == "table":
        return
    outside = [key for key, folder in zip(images.keys, folders, strict=True) if not folder]
    if outside:
        yield f"without a class, because directly in {where}: {pluralize(len(outside), 'image')} ({_listed(outside)})"
    nested = sorted({"/".join(folder) for folder in folders if len(folder) > 1})
    if nested and classes_from == "first":
        number = sum(len(folder) > 1 for folder in folders)
        yield (
            f"in folders below a class of {where}: {pluralize(number, 'image')}, such as in {nested[0]}; the class "
            f"there is {nested[0].split('/')[0]}, or {nested[0].split('/')[-1]} with --classes-from parent"
        )


def _listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
