"""`lookalike index`, `add`, `remove`, `compact`: make and change engines."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common, locations
from helpers.cli.common import OK, USAGE, CommandError, log, pluralize, printable
from helpers.text import clean_text

if TYPE_CHECKING:
    import numpy as np

    from helpers.features.extractor import FeatureExtractor
    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine
    from helpers.search.index import Index
    from helpers.search.persist.live import LiveEngine


def register(commands: "common.Commands") -> None:
    """Add the commands of this module to a parser."""
    _register_index(commands)
    _register_changes(commands)


def _register_index(commands: "common.Commands") -> None:
    index = common.add_command(
        commands,
        "index",
        _index,
        "Make a search engine of a folder of images.",
        """
lookalike index photos
lookalike index photos -o photos.engine --backend faiss:hnsw
lookalike index table.csv --extractor hsv-histogram -o colors.engine
lookalike index photos -o photos.engine --strict
""",
        """
Subfolders are classes; a folder without subfolders works too. Images that cannot be read are skipped, with a
message.

A table (.csv, .tsv or .txt) has the columns path and label, separated by commas, semicolons or tabs. Paths are relative
to its folder. If a row cannot be used, the command lists the rows by their lines, and makes no engine.

Features are cached by image content. If you run the same command again, it only extracts the features of new images,
and it continues where it was stopped.

An engine of the same folder is replaced once the new one is complete. Images that were removed from the old engine but
are still in the folder are in the new one. An engine that holds other images is replaced only with --force. Folders
that are not engines are never overwritten.
""",
        common.VECTORS_KEPT,
    )
    index.add_argument("folder", metavar="FOLDER", help="a folder of images, or a table")
    text = "the folder for the engine; default: %(default)s, as for the other commands"
    index.add_argument("-o", "--output", metavar="ENGINE", default=locations.DEFAULT, help=text)
    common.add_extractor(index, "the feature extractor; default: %(default)s")
    common.add_backend(index, ", which is exact; faiss:hnsw is much faster beyond 100,000 images")
    common.add_follow_links(index)
    index.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    index.add_argument("--force", action="store_true", help="replace an engine of other images")


def _register_changes(commands: "common.Commands") -> None:
    add = common.add_command(
        commands,
        "add",
        _add,
        "Add images to an engine, even while it is being served.",
        """
lookalike add my.engine holiday.jpg
lookalike add my.engine new/photos another.png
lookalike add my.engine owls/1.jpg owls/2.jpg --class owls
""",
        """
Subfolders are classes. Files that are already in the engine are skipped. When the command ends, the new images are on
disk, and a running server finds them at once. When the changes exceed a tenth of the index, they are written into it.
""",
        common.VECTORS_KEPT,
    )
    add.add_argument("engine", metavar="ENGINE")
    add.add_argument("images", metavar="IMAGE|FOLDER", nargs="+")
    common.add_follow_links(add)
    add.add_argument("--class", dest="class_name", metavar="NAME", help="the class of all added images")

    remove = common.add_command(
        commands,
        "remove",
        _remove,
        "Remove images from an engine; the files are kept.",
        """
lookalike remove my.engine 17 18
lookalike remove my.engine owls/1.jpg
lookalike remove my.engine photos/owls
""",
        """
Name an image by its path, or by its id or key, which search --json prints. A folder stands for all of its images. If
one of the names is not in the engine, nothing is removed.
""",
    )
    remove.add_argument("engine", metavar="ENGINE")
    remove.add_argument("images", metavar="ID|KEY|PATH", nargs="+")

    compact = common.add_command(
        commands,
        "compact",
        _compact,
        "Write added and removed images into the index of an engine, which makes searches faster.",
        """
lookalike compact
lookalike compact my.engine
""",
    )
    compact.add_argument("engine", metavar="ENGINE", nargs="?", help=locations.DEFAULT_HELP)


# ---- index -----------------------------------------------------------------------------------------


def _index(options: argparse.Namespace) -> int:
    common.quiet_libraries()
    from helpers.search.engine import Engine

    output = Path(options.output)
    _refuse_other_folders(output)
    gallery = locations.read_gallery(options.folder, output, options.follow_links)
    index = common.open_index(options.backend)
    extractor = common.open_extractor(options.extractor)
    replaced = _is_replacement(output, gallery, options.force)
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
            _remove_partial(output)
        raise
    print(f"{printable(output)}: {_summary(engine)}{'; the previous engine was replaced' if replaced else ''}")
    engine_option = "" if options.output == locations.DEFAULT else f" -e {shlex.quote(str(output))}"
    log(f"next: lookalike search IMAGE{engine_option}")
    return OK


def _summary(engine: "Engine") -> str:
    images, classes = pluralize(len(engine), "image"), locations.table_of(engine).class_names
    in_classes = f" in {pluralize(len(classes), 'class')}" if classes else ""
    # Features of identical images are extracted once.
    extracted = min(engine.extractor.computed, len(engine))
    return (
        f"{images}{in_classes}; {engine.extractor.name}, {engine.index.spec}; "
        f"{extracted:,} extracted, {len(engine) - extracted:,} from the cache"
    )


def _clear_server(index: "Index", extractor: "FeatureExtractor", gallery: "ImageSet", allowed: bool) -> None:
    """Empty an index on a server, after all features have been extracted; CommandError if this is not allowed."""
    if not allowed:
        raise CommandError(
            f"{index.spec} already holds {pluralize(len(index), 'vector')}: choose another name, or replace them with "
            "--force"
        )
    extractor.extract(gallery)
    index.clear()


def _refuse_other_folders(output: Path) -> None:
    """CommandError if an output exists, is not an engine, and holds other files than those of an unfinished engine."""
    prefixes = ("vectors-", "engine.sqlite", ".")
    if not output.exists() or locations.is_engine(output):
        return
    if not output.is_dir() or not all(path.name.startswith(prefixes) for path in output.iterdir()):
        raise CommandError(f"{printable(output)} exists and is not an engine: choose another output with -o")


def _is_replacement(output: Path, gallery: "ImageSet", force: bool) -> bool:
    """Whether the output replaces an engine; CommandError if images would be lost and ``force`` is not set."""
    if not locations.is_engine(output):
        return False
    if force:
        return True
    from helpers.search.engine import Engine, EngineFolderError

    try:
        old = Engine.load(output, mmap=True)
    except (EngineFolderError, OSError, ValueError) as error:
        raise CommandError(f"{error} Or replace it: --force") from error
    new_paths = set(gallery.paths)
    old_paths = map(locations.table_of(old).path, old.index.ids)
    lost = [path for path in old_paths if path not in new_paths and not _was_deleted(path, gallery.root)]
    if lost:
        raise CommandError(
            f"{printable(output)} holds {pluralize(len(lost), 'image')} that would be lost, such as "
            f"{printable(lost[0])}: choose another output with -o, or replace the engine with --force"
        )
    return True


def _was_deleted(path: Path, root: Path | None) -> bool:
    """Whether an image was in the folder that is indexed again, and no longer exists."""
    return root is not None and path.is_relative_to(root) and not path.exists()


def _remove_partial(output: Path) -> None:
    """Delete the folder of an engine that could not be saved."""
    if output.is_dir() and not locations.is_engine(output):
        for path in output.iterdir():
            path.unlink()
        output.rmdir()


# ---- add, remove, compact --------------------------------------------------------------------------


def _add(options: argparse.Namespace) -> int:
    common.quiet_libraries()
    from helpers.search.persist.live import LiveEngine

    folder = locations.engine_folder(options.engine)
    images = _images_to_add(options.images, options.class_name, folder, options.follow_links)
    with LiveEngine.open(folder) as live:
        old_paths = set(map(locations.table_of(live.engine).path, live.engine.index.ids))
        new = [row for row, path in enumerate(images.paths) if path not in old_paths]
        if len(new) < len(images):
            log(f"note: {pluralize(len(images) - len(new), 'image')} skipped: already in the engine")
        ids = live.add(images.subset(new)).tolist() if new else []
        total = len(live.engine)
        _wait_for_compaction(live)
    if new and not ids:
        raise CommandError(f"no image was added: none can be read; the first is {printable(images.paths[new[0]])}")
    id_range = f" (id {ids[0]})" if len(ids) == 1 else f" (ids {ids[0]} to {ids[-1]})" if ids else ""
    print(f"{printable(folder)}: {pluralize(len(ids), 'image')} added{id_range}, {total:,} in total")
    return OK


def _images_to_add(names: list[str], class_name: str | None, engine: Path, follow_links: bool) -> "ImageSet":
    """The images of files and folders, each once; the subfolders of a folder are classes."""
    import numpy as np

    from helpers.images.imageset import NO_CLASS, ImageSet, concatenate

    parts = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            part = locations.read_gallery(name, engine, follow_links)
        elif path.exists():
            part = ImageSet(name, (locations.absolute(path),), np.array([NO_CLASS]), ())
        else:
            raise CommandError(f"{printable(path)} does not exist")
        if class_name is not None:
            part = ImageSet(part.name, part.paths, np.zeros(len(part), np.int64), (class_name,))
        parts.append(part)
    images = concatenate("added", parts)
    first_rows = {path: row for row, path in reversed(list(enumerate(images.paths)))}
    return images.subset(sorted(first_rows.values()))


def _remove(options: argparse.Namespace) -> int:
    common.quiet_libraries()
    from helpers.search.engine import UnopenedExtractor
    from helpers.search.persist.live import LiveEngine

    folder = locations.engine_folder(options.engine)
    with LiveEngine.open(folder, UnopenedExtractor.of(folder)) as live:
        ids = _ids_named(live.engine, options.images, folder)
        live.remove(ids)
        total = len(live.engine)
        _wait_for_compaction(live)
    print(f"{printable(folder)}: {pluralize(len(ids), 'image')} removed, {total:,} in total")
    return OK


def _wait_for_compaction(live: "LiveEngine") -> None:
    """Wait until a long log is written into the index, if this has started."""
    try:
        changes = live.wait_for_compaction()
    except OSError as error:
        # The images were added or removed all the same, and the next command compacts the index.
        log(f"note: the index could not be compacted: {error}")
        return
    if changes:
        log(f"note: {pluralize(changes, 'change')} written from the log into the index")


def _ids_named(engine: "Engine", names: list[str], folder: Path) -> "np.ndarray":
    """int64 (m,): the ids of images given by id, key, path or folder; CommandError if one is not in the engine."""
    import numpy as np

    gallery, indexed = locations.table_of(engine).images, engine.index.ids.tolist()
    id_of = {gallery.keys[id]: id for id in indexed} | {str(gallery.paths[id]): id for id in indexed}
    ids = set()
    for name in names:
        path = Path(name).resolve()
        if (id := id_of.get(name, id_of.get(str(locations.absolute(Path(name)))))) is not None:
            ids.add(id)
        elif name.isdecimal() and int(name) in id_of.values():
            ids.add(int(name))
        elif below := [id for id in indexed if gallery.paths[id].is_relative_to(path)]:
            ids.update(below)
        elif printed := [id for id in indexed if name in map(clean_text, (gallery.keys[id], str(gallery.paths[id])))]:
            if len(printed) > 1:
                raise CommandError(f"{name} is the name of several images; name one by its id: {printed}", USAGE)
            ids.update(printed)
        else:
            raise CommandError(
                f"{printable(name)} is not an id, key or path of an image in {printable(folder)}; nothing was removed. "
                "`lookalike search IMAGE --json` prints ids and keys"
            )
    return np.array(sorted(ids), np.int64)


def _compact(options: argparse.Namespace) -> int:
    common.quiet_libraries()
    from helpers.search.persist.compaction import compact
    from helpers.search.persist.snapshot import manifest_of

    folder = locations.engine_folder(options.engine)
    changes = compact(folder)
    total = manifest_of(folder).indexed
    print(f"{printable(folder)}: {pluralize(changes, 'change')} written into the index, {total:,} images in total")
    return OK
