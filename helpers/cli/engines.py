"""`lookalike index`, `add`, `remove`, `compact`: make an engine, change it, tidy it up."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import locations
from helpers.cli.common import (
    OK,
    CommandError,
    add_command,
    add_extractor,
    log,
    open_extractor,
    open_index,
    pluralize,
    quiet_libraries,
    shown,
)

if TYPE_CHECKING:
    import numpy as np

    from helpers.features.extractor import FeatureExtractor
    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine
    from helpers.search.index import Index
    from helpers.search.persist.live import LiveEngine

EXTRACTOR, INDEX = "resnet50", "exact:cosine"

_KEPT = "stopped; the vectors that were computed are kept, and the same command goes on from there"


def register(commands) -> None:
    """Add this family's commands to a parser's."""
    _register_index(commands)
    _register_changes(commands)


def _register_index(commands) -> None:
    index = add_command(
        commands,
        "index",
        _index,
        "Make a search engine of a folder of images.",
        """
lookalike index photos
lookalike index photos -o photos.index --index faiss:hnsw
lookalike index table.csv --extractor hsv-histogram -o colors.index
lookalike index photos -o photos.index --strict
""",
        f"""
Sub-folders are classes; a folder without any can be searched all the same. A table has the columns path and label.
Images that can't be read are named and left out.

Vectors are kept by the images' content: the same command again describes only what is new, and goes on where it was
stopped. An engine made of the same folder is replaced, all at once when the new one is complete (images that were
removed from it by hand and still lie in the folder are in again). One that holds other images is replaced with
--force only. Other folders are never overwritten. Without -o the engine is made in {locations.DEFAULT}, where
`lookalike search` looks first.
""",
        _KEPT,
    )
    index.add_argument("folder", metavar="FOLDER", help="the images: a folder, or a CSV table")
    index.add_argument("-o", "--output", metavar="ENGINE", default=locations.DEFAULT, help="default: %(default)s")
    add_extractor(index, "what turns images into vectors; default: %(default)s", default=EXTRACTOR)
    index.add_argument(
        "-i",
        "--index",
        metavar="NAME",
        default=INDEX,
        help="what finds the nearest vectors; default: %(default)s, which misses nothing; beyond 100,000 images "
        "faiss:hnsw is much quicker",
    )
    index.add_argument("--strict", action="store_true", help="stop at the first image that can't be read")
    index.add_argument("--force", action="store_true", help="replace an engine of other images")


def _register_changes(commands) -> None:
    add = add_command(
        commands,
        "add",
        _add,
        "Add images to an engine, also while it is being served.",
        """
lookalike add my.index holiday.jpg
lookalike add my.index new/photos another.png
lookalike add my.index owls/1.jpg owls/2.jpg --class owls
""",
        """
Sub-folders are classes, as with index. Files that are in the engine already are left out. What was added is on the disk
when the command ends, and a server that is running finds it at once. When a tenth of the index was changed, the changes
are written into it.
""",
        _KEPT,
    )
    add.add_argument("engine", metavar="ENGINE")
    add.add_argument("images", metavar="IMAGE|FOLDER", nargs="+")
    add.add_argument("--class", dest="class_name", metavar="NAME", help="the class of all that is added")

    remove = add_command(
        commands,
        "remove",
        _remove,
        "Take images out of an engine; the files stay.",
        """
lookalike remove my.index 17 18
lookalike remove my.index owls/1.jpg
lookalike remove my.index photos/owls
""",
        """
An image is named by its id or key, as search --json shows them, or by its path; a folder stands for all images in
it. If one of them is not in the engine, none is removed.
""",
    )
    remove.add_argument("engine", metavar="ENGINE")
    remove.add_argument("images", metavar="ID|KEY|PATH", nargs="+")

    compact = add_command(
        commands,
        "compact",
        _compact,
        "Write what was added and removed into an engine's index, so that it is as quick as a new one.",
        """
lookalike compact
lookalike compact my.index
""",
    )
    compact.add_argument("engine", metavar="ENGINE", nargs="?")


def _index(options: argparse.Namespace) -> int:
    quiet_libraries()
    from helpers.search.engine import Engine

    output = Path(options.output)
    _check_place(output)
    gallery = locations.gallery_from(options.folder, without=output)
    index = open_index(options.index)
    extractor = open_extractor(options.extractor)
    replaced = _check_output(output, gallery, options.force)
    if options.strict:
        extractor.extract(gallery, strict=True)
    if len(index):
        _clear_server(index, extractor, gallery, replaced or options.force)
    existed = output.exists()
    engine = Engine(extractor, index).fit(gallery)
    try:
        engine.save(output)
    except BaseException:
        if not existed:
            _take_back(output)
        raise
    print(f"{shown(output)}: {_summary(engine)}{'; the engine before was replaced' if replaced else ''}")
    named = "" if options.output == locations.DEFAULT else f" -e {shlex.quote(str(output))}"
    log(f"next: lookalike search IMAGE{named}")
    return OK


def _summary(engine: "Engine") -> str:
    images, classes = pluralize(len(engine), "image"), engine.table.class_names
    of_classes = f" of {pluralize(len(classes), 'class')}" if classes else ""
    # A copy of an image is not described again.
    extracted = min(engine.extractor.computed, len(engine))
    return (
        f"{images}{of_classes}; {engine.extractor.name}, {engine.index.spec}; "
        f"{extracted:,} described now, {len(engine) - extracted:,} known before"
    )


def _clear_server(index: "Index", extractor: "FeatureExtractor", gallery: "ImageSet", allowed: bool) -> None:
    """Take out what an index in a server holds, when all vectors are there to be put in again.

    Raises
    ------
    CommandError : it is not allowed.
    """
    if not allowed:
        raise CommandError(
            f"{index.spec} holds {pluralize(len(index), 'vector')} already: choose another name, or replace them with "
            "--force"
        )
    extractor.extract(gallery)
    index.clear()


def _check_place(output: Path) -> None:
    """Before anything else is done.

    Raises
    ------
    CommandError : something is there that is no engine, nor what is left of one that was being written.
    """
    ours = ("vectors-", "engine.sqlite", ".")
    if not output.exists() or locations.is_engine(output):
        return
    if not output.is_dir() or not all(path.name.startswith(ours) for path in output.iterdir()):
        raise CommandError(f"{shown(output)} is there and is no engine: choose another output by -o")


def _check_output(output: Path, gallery: "ImageSet", force: bool) -> bool:
    """Whether an engine is there that may be replaced.

    Raises
    ------
    CommandError : it may not.
    """
    if not locations.is_engine(output):
        return False
    if force:
        return True
    from helpers.search.engine import Engine, EngineFolderError

    try:
        there = Engine.load(output, mmap=True)
    except (EngineFolderError, OSError, ValueError) as error:
        raise CommandError(f"{error} Or replace it: --force") from error
    ours = set(gallery.paths)
    paths = map(there.table.path, there.index.ids)
    lost = [path for path in paths if not _comes_again(path, ours, gallery)]
    if lost:
        raise CommandError(
            f"{shown(output)} holds {pluralize(len(lost), 'image')} that would be lost, such as {shown(lost[0])}: "
            "choose another output by -o, or replace it with --force"
        )
    return True


def _comes_again(path: Path, ours: set[Path], gallery: "ImageSet") -> bool:
    """Whether an image is in the new gallery, or was in its folder and is not any more."""
    return path in ours or (gallery.root is not None and path.is_relative_to(gallery.root) and not path.exists())


def _take_back(output: Path) -> None:
    """A folder that was made for an engine which did not come about."""
    if output.is_dir() and not locations.is_engine(output):
        for path in output.iterdir():
            path.unlink()
        output.rmdir()


def _add(options: argparse.Namespace) -> int:
    quiet_libraries()
    from helpers.search.persist.live import LiveEngine

    folder = locations.engine_folder(options.engine)
    images = _to_add(options.images, options.class_name, folder)
    with LiveEngine.open(folder) as live:
        table, held = live.engine.table, live.engine.index.ids
        there = set(map(table.path, held))
        new = [row for row, path in enumerate(images.paths) if path not in there]
        if len(new) < len(images):
            log(f"note: {pluralize(len(images) - len(new), 'image')} of {len(images):,} in the engine already")
        ids = live.add(images.subset(new)) if new else []
        total = len(live.engine)
        _let_compact(live)
    if new and not len(ids):
        raise CommandError(f"nothing was added: no image can be read, the first is {shown(images.paths[new[0]])}")
    which = f" (id {ids[0]})" if len(ids) == 1 else f" (ids {ids[0]} to {ids[-1]})" if len(ids) else ""
    print(f"{shown(folder)}: {pluralize(len(ids), 'image')} added{which}, {total:,} in all")
    return OK


def _to_add(named: list[str], class_name: str | None, engine: Path) -> "ImageSet":
    """Files and folders as one set without repeats, paths in full; a folder's sub-folders are classes."""
    from helpers.images.imageset import ImageSet, concatenate

    parts = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            part = locations.gallery_from(name, without=engine)
        elif path.exists():
            part = ImageSet(name, (locations.full(path),), [-1], ())
        else:
            raise CommandError(f"{shown(path)} does not exist")
        if class_name is not None:
            part = ImageSet(part.name, part.paths, [0] * len(part), (class_name,))
        parts.append(part)
    everything = concatenate("added", parts)
    first = {path: row for row, path in reversed(list(enumerate(everything.paths)))}
    return everything.subset(sorted(first.values()))


def _remove(options: argparse.Namespace) -> int:
    quiet_libraries()
    from helpers.search.engine import UnopenedExtractor
    from helpers.search.persist.live import LiveEngine

    folder = locations.engine_folder(options.engine)
    with LiveEngine.open(folder, UnopenedExtractor.of(folder)) as live:
        ids = _ids(live.engine, options.images, folder)
        live.remove(ids)
        total = len(live.engine)
        _let_compact(live)
    print(f"{shown(folder)}: {pluralize(len(ids), 'image')} removed, {total:,} in all")
    return OK


def _let_compact(live: "LiveEngine") -> None:
    """Wait until a log that has become long is in the index."""
    try:
        written = live.wait_for_compaction()
    except OSError as error:
        # The command did what it was asked for, and the next one tries again.
        log(f"note: the index could not be compacted: {error}")
        return
    if written:
        log(f"note: the log had become long; {pluralize(written, 'change')} were written into the index")


def _ids(engine: "Engine", named: list[str], folder: Path) -> "np.ndarray":
    """int64 (m,): the ids of images that are named by id, key, path or folder.

    Raises
    ------
    CommandError : one is none of these.
    """
    import numpy as np

    gallery, held = engine.gallery, engine.index.ids
    rows = {gallery.keys[i]: i for i in held} | {str(gallery.paths[i]): i for i in held}
    ids = set()
    for name in named:
        path = Path(name).resolve()
        if (row := rows.get(name, rows.get(str(locations.full(Path(name)))))) is not None:
            ids.add(row)
        elif name.isdecimal() and np.isin(int(name), held):
            ids.add(int(name))
        elif below := [i for i in held if gallery.paths[i].is_relative_to(path)]:
            ids.update(below)
        else:
            raise CommandError(
                f"{shown(name)} is no id, key or path of an image in {shown(folder)}; nothing was removed. "
                "`lookalike search IMAGE --json` shows ids and keys"
            )
    return np.array(sorted(ids), np.int64)


def _compact(options: argparse.Namespace) -> int:
    quiet_libraries()
    from helpers.search.persist.compaction import compact
    from helpers.search.persist.snapshot import manifest_of

    folder = locations.engine_folder(options.engine)
    changes = compact(folder)
    total = manifest_of(folder).indexed
    print(f"{shown(folder)}: {pluralize(changes, 'change')} written into the index, {total:,} images in all")
    return OK
