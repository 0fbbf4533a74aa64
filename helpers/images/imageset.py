"""ImageSet: a named, ordered set of images on disk with one class each."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

#: What counts as an image when a folder is listed; the content decides when it is read.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
)

#: The label of an image that belongs to no class: a distractor, relevant to nobody.
NO_CLASS = -1


class EmptyImageSet(ValueError):
    """A folder, a table or a selection that holds no image at all."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes; row *i* of any vector array made from it is image *i*.

    Parameters
    ----------
    name : what tables and protocols call it, e.g. ``"lfw"``.
    paths : one file an image.
    labels : int64 (n,): an index into ``class_names``, or -1 for an image of no class (a distractor).
    class_names : what a person reads.
    groups : int64 (n,), optional: images of one group are copies of one original (augmented
        siblings, twins), so none of them may answer for another; -1 is in no group.
    root : the folder that ``keys`` are relative to.
    """

    name: str
    paths: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray | None = None
    root: Path | None = None

    def __post_init__(self):
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

    def _ids(self, values, what: str) -> np.ndarray:
        array = np.array(values, dtype=np.int64)
        if array.shape != (len(self.paths),):
            raise ValueError(f"{self.name}: {what} must have shape ({len(self.paths)},), got {array.shape}")
        array.setflags(write=False)
        return array

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        distractors = int((self.labels == NO_CLASS).sum())
        return (
            f"ImageSet({self.name!r}: {len(self)} images, {len(self.class_names)} classes"
            + (f", {distractors} of no class" if distractors else "")
            + ")"
        )

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The same names on every machine: paths below ``root``, with forward slashes; others in full."""
        return tuple(self._key(path) for path in self.paths)

    def _key(self, path: Path) -> str:
        inside = self.root is not None and path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (classes,): images in each class."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.class_names))

    def class_name(self, row: int) -> str:
        """The class of image ``row`` in words; ``"–"`` where it has none."""
        label = self.labels[row]
        return "–" if label == NO_CLASS else self.class_names[label]

    def subset(self, rows: Sequence[int] | np.ndarray, name: str | None = None) -> "ImageSet":
        """The images at ``rows`` (indices or a boolean mask), in that order; class names stay."""
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
        """The images whose key passes ``test``, e.g. ``lambda key: key.startswith("val/")``."""
        return self.subset(np.array([test(key) for key in self.keys], dtype=bool), name)

    def split(self, fraction: float, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """Two parts, class by class; images of one group stay on one side.

        ``fraction`` of each class (at least one image where it has two) goes to the second part. A group with
        images in several classes, such as twins, goes where the first of these classes puts it.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
        rng = np.random.default_rng(seed)
        groups = np.full(len(self), -1) if self.groups is None else self.groups
        # An image without a group is a group of its own.
        units = np.where(groups >= 0, groups, np.arange(len(self)) + groups.max(initial=-1) + 1)
        chosen, decided = np.array([], np.int64), np.array([], np.int64)
        for label in np.unique(self.labels):
            members = np.unique(units[self.labels == label])
            wanted = round(fraction * len(members))
            wanted = min(max(wanted, 1), len(members) - 1) if len(members) > 1 else 0
            order = rng.permutation(members)
            free = order[~np.isin(order, decided)]
            wanted -= int(np.isin(order, chosen).sum())
            chosen = np.concatenate([chosen, free[: max(wanted, 0)]])
            decided = np.concatenate([decided, free])
        second = np.isin(units, chosen)
        return self.subset(~second), self.subset(second)

    def sample(self, per_class: int, seed: int = 0) -> "ImageSet":
        """At most ``per_class`` images of each class, chosen by ``seed``, in the set's own order."""
        if per_class < 1:
            raise ValueError(f"per_class must be at least 1, got {per_class}")
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(np.flatnonzero(self.labels == label))[:per_class] for label in np.unique(self.labels)]
        return self.subset(np.sort(np.concatenate(rows)) if rows else [])


def image_files(folder: str | Path) -> list[Path]:
    """All images below a folder, sorted; hidden files and folders are passed over.

    Raises
    ------
    FileNotFoundError, NotADirectoryError : the folder is not there, or is a file.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist. Give the folder that holds your images.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file. Give the folder that holds your images.")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    visible = (p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def from_folder(folder: str | Path, name: str | None = None) -> ImageSet:
    """One's own images: each sub-folder is a class; images beside them belong to no class.

    A folder without sub-folders gives a set with no classes: it can be searched, not scored.

    Raises
    ------
    EmptyImageSet : there is no image in it.
    FileNotFoundError, NotADirectoryError : the folder is not there, or is a file.
    """
    folder = Path(folder).resolve()
    paths = image_files(folder)
    if not paths:
        raise EmptyImageSet(
            f"{folder} holds no image. Expected files that end in {', '.join(sorted(SUFFIXES))}, "
            "best in one sub-folder a class."
        )
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    class_names = sorted({parts[0] for parts in parents if parts})
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels = [number[parts[0]] if parts else NO_CLASS for parts in parents]
    return ImageSet(name or folder.name, tuple(paths), np.array(labels), tuple(class_names), root=folder)


def from_csv(table: str | Path, name: str | None = None, path: str = "path", label: str = "label") -> ImageSet:
    """One's own images by a CSV file with a header: a column of paths and one of class names.

    Paths are relative to the table's folder; an empty class name means no class.

    Raises
    ------
    EmptyImageSet : the table has no rows.
    ValueError : a column is missing, an image is listed twice, or the table is not UTF-8.
    FileNotFoundError : the table or one of its images is not there.
    """
    table = Path(table).resolve()
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8 ({error}). Save it again as UTF-8.") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        missing = {path, label} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{table} has no column {' and no column '.join(sorted(missing))}; "
                f"its header is: {', '.join(reader.fieldnames or ['(empty)'])}"
            )
        rows = [(table.parent / row[path].strip(), (row[label] or "").strip()) for row in reader]
    if not rows:
        raise EmptyImageSet(f"{table} lists no image.")
    rows.sort(key=lambda row: row[0].as_posix())
    paths = [row[0] for row in rows]
    for before, after in zip(paths, paths[1:], strict=False):
        if before == after:
            raise ValueError(f"{table} lists {after} twice.")
    absent = [file for file in paths if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of {len(paths)} images in {table} do not exist, the first is {absent[0]}. "
            "Paths are read relative to the table's folder."
        )
    class_names = sorted({class_name for _, class_name in rows if class_name})
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels = [number.get(class_name, NO_CLASS) for _, class_name in rows]
    inside = all(file.is_relative_to(table.parent) for file in paths)
    return ImageSet(
        name or table.stem, tuple(paths), np.array(labels), tuple(class_names), root=table.parent if inside else None
    )


def concatenate(name: str, sets: Iterable[ImageSet]) -> ImageSet:
    """Several sets one after the other; classes of the same name become one class, groups stay apart."""
    sets = list(sets)
    class_names = sorted({class_name for images in sets for class_name in images.class_names})
    number = {class_name: i for i, class_name in enumerate(class_names)}
    labels, groups, used = [], [], 0
    for images in sets:
        own = np.array([number[class_name] for class_name in images.class_names] + [NO_CLASS], dtype=np.int64)
        labels.append(own[images.labels])
        if images.groups is None:
            groups.append(np.full(len(images), -1))
        else:
            groups.append(np.where(images.groups >= 0, images.groups + used, -1))
            used += int(images.groups.max(initial=-1)) + 1
    roots = {images.root for images in sets}
    return ImageSet(
        name,
        tuple(path for images in sets for path in images.paths),
        np.concatenate(labels),
        tuple(class_names),
        np.concatenate(groups) if used else None,
        roots.pop() if len(roots) == 1 else None,
    )
