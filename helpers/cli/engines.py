"""`lookalike add`, `remove`, `compact`, `relocate`: change engines."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common, locations
from helpers.cli.changes import classify_new, describe_additions, find_new_regions, wait_for_compaction
from helpers.cli.common import OK, CommandError, log, pluralize, printable
from helpers.cli.naming import ids_named

if TYPE_CHECKING:
    from helpers.images.imageset import ImageSet


def register(commands: "common.Commands") -> None:
    _register_add(commands)
    _register_others(commands)


def _register_add(commands: "common.Commands") -> None:
    add = common.add_command(
        commands,
        "add",
        _add,
        "Add images to an engine, even while it is being served.",
        """
lookalike add holiday.jpg
lookalike add new/photos another.png -e photos.engine
lookalike add owls/1.jpg owls/2.jpg --class owls
""",
        """
Subfolders are classes. An image that is in the engine already is skipped, unless its file has changed: then it is
replaced, and gets a new id. A file with the same content as an image of the engine is added as a copy of it. The files
stay where they are. When the command ends, the new images are on disk, and a running server finds them at once. If
there are more than 1,000 changes and they exceed a tenth of the index, they are also written into it.
""",
        common.VECTORS_KEPT,
    )
    add.add_argument("images", metavar="IMAGE|FOLDER|TABLE", nargs="+")
    locations.add_engine(add)
    common.add_follow_links(add)
    add.add_argument("--class", dest="class_name", metavar="NAME", help="the class of all added images")


def _register_others(commands: "common.Commands") -> None:
    remove = common.add_command(
        commands,
        "remove",
        _remove,
        "Remove images from an engine; the files are kept.",
        """
lookalike remove 17 18
lookalike remove owls/1.jpg -e photos.engine
lookalike remove photos/owls
""",
        """
Name an image by its path, id or key; `lookalike list --json` prints all three. A folder stands for all of its images.
If one of the names is not in the engine, nothing is removed.
""",
    )
    remove.add_argument("images", metavar="ID|KEY|PATH", nargs="+")
    locations.add_engine(remove)

    compact = common.add_command(
        commands,
        "compact",
        _compact,
        "Write added and removed images into the index of an engine, which makes searches faster.",
        """
lookalike compact
lookalike compact -e photos.engine
""",
    )
    locations.add_engine(compact)

    relocate = common.add_command(
        commands,
        "relocate",
        _relocate,
        "Store where the images of an engine are, after they were moved.",
        """
lookalike relocate /new/photos
lookalike relocate /new/holidays --from /old/holidays -e photos.engine
""",
        """
If the engine and its images were moved together, this is not necessary. The folder must hold the images under the same
names; the contents of some of the files are compared.
""",
    )
    relocate.add_argument("folder", metavar="FOLDER", help="the folder that holds the images now")
    locations.add_engine(relocate)
    text = "the folder that held them; default: the only one that is missing, or else the indexed folder"
    relocate.add_argument("--from", dest="former", metavar="OLDFOLDER", help=text)


def _add(options: argparse.Namespace) -> int:
    from helpers.search.identity import Outcome
    from helpers.search.persist.live import LiveEngine

    folder = locations.engine_folder(options.engine)
    images = _images_to_add(options.images, options.class_name, folder, options.follow_links)
    with LiveEngine.open(folder) as live:
        locations.note_missing(live.engine, folder)
        added = live.add(images, classes=options.class_name is not None)
        classify_new(folder, live.engine)
        find_new_regions(folder, live.engine)
        total = len(live.engine)
        wait_for_compaction(live)
    if added.count(Outcome.UNREADABLE) == len(images):
        raise CommandError(f"no image was added, because none can be read, such as {printable(images.paths[0])}")
    print(f"{printable(folder)}: {describe_additions(added)}, {total:,} in total")
    return OK


def _images_to_add(names: list[str], class_name: str | None, engine: Path, follow_links: bool) -> "ImageSet":
    """The images of files, folders and tables, each once; the subfolders of a folder are classes."""
    import numpy as np

    from helpers.images.imageset import NO_CLASS, ImageSet, concatenate

    parts = []
    for name in names:
        path = locations.images_path(name)
        if path.is_dir() or locations.is_table(path):
            part = locations.read_gallery(name, engine, follow_links)
        else:
            part = ImageSet(name, (locations.absolute(path),), np.array([NO_CLASS]), ())
        if class_name is not None:
            part = ImageSet(part.name, part.paths, np.zeros(len(part), np.int64), (class_name,), root=part.root)
        parts.append(part)
    images = concatenate("added", parts)
    first_rows = {path: row for row, path in reversed(list(enumerate(images.paths)))}
    return images.subset(sorted(first_rows.values()))


def _remove(options: argparse.Namespace) -> int:
    from helpers.search.engine import UnopenedExtractor
    from helpers.search.persist.live import LiveEngine

    folder = locations.engine_folder(options.engine)
    with LiveEngine.open(folder, UnopenedExtractor.of(folder)) as live:
        locations.note_missing(live.engine, folder)
        ids = ids_named(live.engine, options.images, folder)
        live.remove(ids)
        total = len(live.engine)
        wait_for_compaction(live)
    print(f"{printable(folder)}: {pluralize(len(ids), 'image')} removed, {total:,} in total")
    return OK


def _compact(options: argparse.Namespace) -> int:
    from helpers.search.persist.compaction import compact
    from helpers.search.persist.snapshot import manifest_of
    from helpers.search.region_index import remove_unused

    folder = locations.engine_folder(options.engine)
    changes = compact(folder)
    if regions := remove_unused(folder):
        log(f"note: {pluralize(regions, 'region')} of removed images deleted")
    total = manifest_of(folder).indexed
    print(f"{printable(folder)}: {pluralize(changes, 'change')} written into the index, {total:,} images in total")
    return OK


def _relocate(options: argparse.Namespace) -> int:
    from helpers.search.persist.relocation import relocate

    folder, place = locations.engine_folder(options.engine), locations.root_folder(options.folder)
    images, there = relocate(folder, place, options.former)
    print(f"{printable(folder)}: {there:,} of {pluralize(images, 'image')} found in {printable(place)}")
    if there < images:
        log(
            f"note: {images - there:,} are not there; `lookalike sync -e {shlex.quote(str(folder))}` removes the "
            "images without a file"
        )
    return OK
