"""Find what a command line names: engines, images, galleries and the sides of a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli.common import USAGE, CommandError, log, printable

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.folders import FolderScan
    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine
    from helpers.search.gallery import GalleryTable

#: The engine that commands make and use if none is named.
DEFAULT = "my.engine"
DEFAULT_HELP = f"default: {DEFAULT}, or else the only engine in the current folder"

#: Folders with these names hold the gallery of a split, and those with these names its queries; neither are classes.
GALLERY_SIDES = frozenset(("train", "training", "gallery"))
QUERY_SIDES = frozenset(("test", "testing", "val", "valid", "validation", "query", "queries", "probe"))

#: Indexes below this number of bytes are read and checked in full; larger ones are memory-mapped.
_READ_WHOLE = 2**28


def is_engine(folder: Path) -> bool:
    """Whether a folder holds a saved engine, of any format version."""
    from helpers.search.persist import snapshot

    return snapshot.is_engine(folder)


def absolute(file: Path) -> Path:
    """The path of a file as galleries store it: with its folder resolved, but not the file if it is a link."""
    return file.parent.resolve() / file.name


def engine_folder(given: str | None) -> Path:
    """The given engine, or else ``my.engine``, or else the only engine in the current folder.

    Raises
    ------
    CommandError : there is no engine, or several.
    """
    if given is not None:
        folder = Path(given)
        if not is_engine(folder):
            raise CommandError(
                f"{printable(folder)} {'holds no engine' if folder.exists() else 'does not exist'}. "
                "Make one: lookalike index FOLDER"
            )
        return folder
    if is_engine(Path(DEFAULT)):
        return Path(DEFAULT)
    found = sorted(path for path in Path().iterdir() if is_engine(path))
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"there are several engines here, name one: {', '.join(map(str, found))}", USAGE)
    raise CommandError(
        f"there is no engine here. Make one with lookalike index FOLDER (in {DEFAULT}), or name one elsewhere"
    )


def root_folder(given: str) -> Path:
    """The folder where the images of an engine are now.

    Raises
    ------
    CommandError : it is not a folder.
    """
    if not Path(given).is_dir():
        raise CommandError(f"{printable(given)} is not a folder. Name the folder that holds the images now.")
    return Path(given)


def load_engine(folder: Path, root: str | None = None) -> "Engine":
    """Load an engine to search it.

    Raises
    ------
    EngineFolderError, IndexFileError : it is damaged.
    """
    from helpers.search.engine import Engine

    size = sum(file.stat().st_size for file in folder.glob("vectors-*.index"))
    return Engine.load(folder, root=None if root is None else root_folder(root), mmap=size > _READ_WHOLE)


def table_of(engine: "Engine") -> "GalleryTable":
    """The gallery of an engine that was fitted or loaded."""
    assert engine.table is not None
    return engine.table


def scan(folder: Path, follow_links: bool, without: Path | None = None) -> "FolderScan":
    """`helpers.images.folders.scan_folder`, with a message about what it left out."""
    from helpers.images.folders import scan_folder

    found = scan_folder(folder, follow_links, without)
    if found.skipped:
        log(f"note: {printable(folder)}: {printable(found.summary())}")
    return found


def images_named(names: Sequence[str], follow_links: bool = False) -> tuple["ImageSet", bool]:
    """Files and folders as one set without classes, in the given order, and whether all names are files.

    follow_links : enter linked folders, too.

    Raises
    ------
    CommandError : one does not exist, is an engine, or is a folder without images.
    """
    import numpy as np

    from helpers.images.imageset import ImageSet

    files: list[Path] = []
    only_files = True
    for name in names:
        path = Path(name)
        if path.is_dir():
            if is_engine(path):
                raise CommandError(
                    f"{printable(path)} is an engine, not an image: pass it with -e (lookalike search IMAGE -e {path})",
                    USAGE,
                )
            found = scan(path, follow_links).images
            if not found:
                raise CommandError(f"{printable(path)} holds no image")
            files += found
            only_files = False
        elif path.exists():
            files.append(path)
        else:
            raise CommandError(f"{printable(path)} does not exist")
    return ImageSet("queries", tuple(files), np.full(len(files), -1), ()), only_files


def read_gallery(source: str, without: Path | None = None, follow_links: bool = False) -> "ImageSet":
    """The images of a folder whose subfolders are classes, or of a table with the columns ``path`` and ``label``.

    without : a folder whose images are left out, such as an engine inside the gallery's folder.
    follow_links : enter linked folders, too.

    Raises
    ------
    EmptyImageSet, FileNotFoundError, ValueError : there is no image, the source does not exist, or the table is wrong.
    """
    from helpers.images import tables

    path = Path(source)
    if path.is_file() and path.suffix.lower() in tables.SUFFIXES:
        return tables.from_table(path)
    return scan(path.resolve(), follow_links, without).image_set()


def split_by_folder(images: "ImageSet") -> tuple["ImageSet", "np.ndarray | None"]:
    """Split a folder with subfolders such as ``train`` and ``test``, below which the subfolders are classes.

    Returns
    -------
    The set with the classes below the sides, and the side of each image, str (n,). If the subfolders are classes:
    the set as it is, and None.
    """
    from dataclasses import replace

    import numpy as np

    names = {name.lower() for name in images.class_names}
    sided = len(names) > 1 and names <= GALLERY_SIDES | QUERY_SIDES
    if not sided or (images.labels < 0).any() or images.root is None:
        return images, None
    parts = [key.split("/") for key in images.keys]
    classes = sorted({part[1] for part in parts if len(part) > 2})
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[part[1]] if len(part) > 2 else -1 for part in parts]
    sides = np.array([part[0] for part in parts])
    return replace(images, labels=np.array(labels), class_names=tuple(classes)), sides
