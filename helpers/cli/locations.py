"""Find what a command line names: engines, images, galleries and the sides of a split."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli.common import USAGE, CommandError, add_follow_links, log, log_at_end, printable

if TYPE_CHECKING:
    from helpers.images.folders import FolderScan
    from helpers.images.imageset import ImageSet
    from helpers.images.layout import Layout
    from helpers.search.engine import Engine

#: The engine that commands make and use if none is named.
DEFAULT = "my.engine"

#: How `helpers.images.layout` recognizes the sides of a split, for the help of commands.
SIDES = """Usual names of the gallery's side are gallery and database, or else train and training; those of the queries'
side are query, queries and probe, or else test and testing, or else val, valid, validation and dev. Upper and lower
case are not distinguished. Folders and images next to the sides are left out, with a message. If a folder is not
recognized, or if there are several, name the sides with --train and --test."""

#: Indexes below this number of bytes are read and checked in full; larger ones are memory-mapped.
_READ_WHOLE = 2**28


def is_engine(folder: Path) -> bool:
    """Whether a folder holds a saved engine, of any format version."""
    from helpers.search.persist import snapshot

    return snapshot.is_engine(folder)


def absolute(file: Path) -> Path:
    """The path of a file as galleries store it: with its folder resolved, but not the file if it is a link."""
    return file.parent.resolve() / file.name


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the option --engine, which all commands that use an engine have."""
    text = f"the engine; default: {DEFAULT} in the current folder, or else the only engine there"
    parser.add_argument("-e", "--engine", metavar="ENGINE", help=text)


def refuse_url(name: str) -> None:
    """CommandError if the name of an image or a folder is the address of a web page or server."""
    if "://" in name and not Path(name).exists():
        quoted = shlex.quote(name)
        raise CommandError(
            f"{printable(name)} is a URL, and URLs are not supported: download the image first, or search with "
            f"curl -L {quoted} | lookalike search -",
            USAGE,
        )


def images_path(name: str) -> Path:
    """The path of a file or folder of images; CommandError if it does not exist, or is an engine or a URL."""
    refuse_url(name)
    path = Path(name)
    if not path.exists():
        raise CommandError(f"{printable(path)} does not exist")
    if path.is_dir() and is_engine(path):
        quoted = shlex.quote(str(path))
        raise CommandError(f"{printable(path)} is an engine, not images: name it with the option -e {quoted}", USAGE)
    return path


def engine_folder(given: str | None) -> Path:
    """The given engine, or else ``my.engine``, or else the only engine in the current folder; else CommandError."""
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
        raise CommandError(f"there are several engines here; name one with -e: {', '.join(map(str, found))}", USAGE)
    raise CommandError(
        f"there is no engine here. Make one with lookalike index FOLDER (in {DEFAULT}), or name one elsewhere with -e"
    )


def root_folder(given: str) -> Path:
    """The folder where the images of an engine are now; CommandError if it is not a folder."""
    if not Path(given).is_dir():
        raise CommandError(f"{printable(given)} is not a folder. Name the folder that holds the images now.")
    return Path(given)


def load_engine(folder: Path, root: str | None = None) -> "Engine":
    """Load an engine to search it."""
    from helpers.search.engine import Engine

    size = sum(file.stat().st_size for file in folder.glob("vectors-*.index"))
    engine = Engine.load(folder, root=None if root is None else root_folder(root), mmap=size > _READ_WHOLE)
    note_missing(engine, folder, has_root=True)
    return engine


def load_without_extractor(folder: Path, root: Path | None = None) -> "Engine":
    """Load an engine without its extractor, so that no weights are needed."""
    from helpers.search.engine import Engine, UnopenedExtractor

    return Engine.load(folder, UnopenedExtractor.of(folder), root, mmap=True)


def note_missing(engine: "Engine", folder: Path, has_root: bool = False) -> None:
    """Print a line for each folder of images that is not there.

    has_root : whether the command has the option --root.
    """
    from helpers.search.persist.roots import GALLERY

    missing = engine.saved.roots.missing
    for root in missing:
        gallery = root.stored.number == GALLERY
        former = "" if len(missing) == 1 else f" --from {shlex.quote(root.stored.path)}"
        log(
            f"note: the images of {printable(root.path)} are not there ({root.checked} checked): "
            f"{'pass --root NEWFOLDER, or ' if has_root and gallery else ''}"
            f"run lookalike relocate NEWFOLDER -e {shlex.quote(str(folder))}{former}"
        )


def scan(folder: Path, follow_links: bool, without: Path | None = None) -> "FolderScan":
    """`helpers.images.folders.scan_folder`, with a message at the end about what it left out."""
    from helpers.images.folders import scan_folder

    found = scan_folder(folder, follow_links, without)
    if found.skipped:
        log_at_end(f"note: {printable(folder)}: {printable(found.summary())}")
    return found


def images_named(names: Sequence[str], follow_links: bool = False) -> tuple["ImageSet", bool]:
    """Files and folders as one set without classes, in the given order, and whether all names are files.

    CommandError if one does not exist, is an engine, or is a folder without images.

    follow_links : enter linked folders, too.
    """
    import numpy as np

    from helpers.images.imageset import ImageSet

    files: list[Path] = []
    for name in names:
        path = images_path(name)
        found = scan(path, follow_links).images if path.is_dir() else [path]
        if not found:
            raise CommandError(f"{printable(path)} holds no image")
        files += found
    only_files = not any(Path(name).is_dir() for name in names)
    return ImageSet("queries", tuple(files), np.full(len(files), -1), ()), only_files


def source_name(source: str) -> str:
    """The name of a folder, or of a table without its suffix."""
    path = Path(source).resolve()
    return path.name if path.is_dir() else path.stem


def is_table(path: Path) -> bool:
    """Whether a file is read as a table of images, by its suffix."""
    from helpers.images import tables

    return path.suffix.lower() in tables.SUFFIXES and path.is_file()


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
    refuse_url(source)
    if is_table(path):
        return tables.from_table(path)
    return scan(path.resolve(), follow_links, without).image_set()


def add_layout(parser: argparse.ArgumentParser) -> None:
    """Add the options --train, --test, --classes-from and --follow-links."""
    text = "a subfolder that holds the {}; can be repeated; default: recognized by its name"
    parser.add_argument("--train", metavar="DIR", action="append", default=[], help=text.format("gallery of a split"))
    parser.add_argument("--test", metavar="DIR", action="append", default=[], help=text.format("queries of a split"))
    parser.add_argument(
        "--classes-from",
        choices=("first", "parent"),
        help="which folder is the class of an image; first: the first folder below FOLDER or below its side; parent: "
        "the folder that contains the image; default: first",
    )
    add_follow_links(parser)


def read_layout(source: str, options: argparse.Namespace) -> "Layout":
    """The images of a folder or table with their classes and sides, by the options of `add_layout`.

    CommandError if the options do not fit the folder. For other errors see `read_gallery`.
    """
    from helpers.images import layout

    is_table = Path(source).is_file()
    if is_table and options.classes_from:
        raise CommandError(f"--classes-from is for folders; {printable(source)} has a column of classes", USAGE)
    classes_from = "table" if is_table else options.classes_from or "first"
    try:
        return layout.read_layout(
            read_gallery(source, follow_links=options.follow_links), options.train, options.test, classes_from
        )
    except layout.LayoutError as error:
        raise CommandError(str(error), USAGE) from error


def log_layout(layout: "Layout") -> None:
    """Print how the images were read."""
    for line in layout.describe():
        log(printable(line))
