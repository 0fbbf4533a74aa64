"""Where things are: the engine that is meant, images that were named, folders that are divided into sides."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli.common import USAGE, CommandError, shown

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine

#: The engine that is made, and asked, where none is named.
DEFAULT = "my.index"

#: Folders that are called so are sides of a split, not classes.
SIDES = frozenset(
    ("train", "training", "test", "testing", "val", "valid", "validation", "query", "queries", "gallery", "probe")
)
#: Those of them whose images answer; the others ask.
ANSWERING = frozenset(("train", "training", "gallery"))

#: Of indexes below this size all is read and its checksum compared; larger ones are left on the disk and mapped.
_READ_WHOLE = 2**28


def is_engine(folder: Path) -> bool:
    """Whether a folder holds a saved engine, be it of an older format."""
    from helpers.search.persist import snapshot

    return snapshot.is_engine(folder)


def full(file: Path) -> Path:
    """A file's path as galleries of folders have it: its folder is resolved; the file itself may be a link."""
    return file.parent.resolve() / file.name


def engine_folder(given: str | None) -> Path:
    """The engine that was named, or else ``my.index``, or else the only one in the current folder.

    Raises
    ------
    CommandError : there is none, or several.
    """
    if given is not None:
        folder = Path(given)
        if not is_engine(folder):
            raise CommandError(
                f"{shown(folder)} {'holds no engine' if folder.exists() else 'does not exist'}. "
                "Make one: lookalike index FOLDER"
            )
        return folder
    if is_engine(Path(DEFAULT)):
        return Path(DEFAULT)
    found = sorted(path for path in Path().iterdir() if is_engine(path))
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"there are several engines here, say which: {', '.join(map(str, found))}", USAGE)
    raise CommandError(
        f"there is no engine here. Make one: lookalike index FOLDER (into {DEFAULT}), or say where it is"
    )


def root_folder(given: str) -> Path:
    """Where the images of an engine are now.

    Raises
    ------
    CommandError : there is no such folder.
    """
    if not Path(given).is_dir():
        raise CommandError(f"{shown(given)} is no folder. Give the one that the images are in now.")
    return Path(given)


def load_engine(folder: Path, root: str | None = None) -> "Engine":
    """The engine of a folder, for questions.

    Raises
    ------
    EngineFolderError, IndexFileError : it is damaged.
    """
    from helpers.search.engine import Engine

    root = None if root is None else root_folder(root)
    size = sum(file.stat().st_size for file in folder.glob("vectors-*.index"))
    return Engine.load(folder, root=root, mmap=size > _READ_WHOLE)


def images_named(names: Sequence[str]) -> tuple["ImageSet", bool]:
    """Files and folders as one set in the order given, and whether all of them are files; no image has a class.

    Raises
    ------
    CommandError : one is not there, or is a folder without images.
    """
    import numpy as np

    from helpers.images.imageset import ImageSet, image_files

    files, only_files = [], True
    for name in names:
        path = Path(name)
        if path.is_dir():
            if is_engine(path):
                raise CommandError(
                    f"{shown(path)} is an engine, not an image: name it by -e (lookalike search IMAGE -e {path})",
                    USAGE,
                )
            found = image_files(path)
            if not found:
                raise CommandError(f"{shown(path)} holds no image")
            files += found
            only_files = False
        elif path.exists():
            files.append(path)
        else:
            raise CommandError(f"{shown(path)} does not exist")
    return ImageSet("queries", tuple(files), np.full(len(files), -1), ()), only_files


def gallery_from(place: str, without: Path | None = None) -> "ImageSet":
    """A folder whose sub-folders are classes, or a CSV table with the columns ``path`` and ``label``.

    without : a folder whose images are left out, such as an engine that lies among them.

    Raises
    ------
    EmptyImageSet, FileNotFoundError, ValueError : there is no image, no such place, or the table is wrong.
    """
    from helpers.images import imageset

    path = Path(place)
    if path.is_file() and path.suffix.lower() == ".csv":
        return imageset.from_csv(path)
    images = imageset.from_folder(path)
    if without is None:
        return images
    inside = [file.is_relative_to(without.resolve()) for file in images.paths]
    if not any(inside):
        return images
    kept = [row for row, left_out in enumerate(inside) if not left_out]
    if not kept:
        raise CommandError(f"{shown(path)} holds no image but those of the engine {shown(without)}")
    return with_used_classes(images.subset(kept))


def with_used_classes(images: "ImageSet") -> "ImageSet":
    """The set without the classes that no image is of."""
    from dataclasses import replace

    import numpy as np

    used = np.flatnonzero(images.counts)
    number = np.full(len(images.class_names) + 1, -1)
    number[used] = np.arange(len(used))
    names = tuple(images.class_names[label] for label in used)
    return replace(images, labels=number[images.labels], class_names=names)


def split_by_folder(images: "ImageSet") -> tuple["ImageSet", "np.ndarray | None"]:
    """A folder's set; where its sub-folders are sides (``train``, ``test`` …), classes are the folders below these.

    Returns
    -------
    The set, with classes by what lies below the sides, and the side of each image, str (n,), or None.
    """
    from dataclasses import replace

    import numpy as np

    names = {name.lower() for name in images.class_names}
    if len(names) < 2 or not names <= SIDES or (images.labels < 0).any() or images.root is None:
        return images, None
    parts = [key.split("/") for key in images.keys]
    classes = sorted({part[1] for part in parts if len(part) > 2})
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[part[1]] if len(part) > 2 else -1 for part in parts]
    sides = np.array([part[0] for part in parts])
    return replace(images, labels=np.array(labels), class_names=tuple(classes)), sides
