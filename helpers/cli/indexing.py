"""`lookalike index`: make engines, and keep them up to date."""

import argparse
import os
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common, locations, region_queries, syncing
from helpers.cli.changes import classify_new, find_new_regions, find_regions
from helpers.cli.common import OK, USAGE, CommandError, log, pluralize, printable

if TYPE_CHECKING:
    import numpy as np

    from helpers.features.extractor import FeatureExtractor
    from helpers.features.regions import RegionSource
    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine
    from helpers.search.index import Index


#: The names of `helpers.features.regions.SOURCES`, which the parser must not import.
_SOURCES = ("detector", "grid", "proposals")


def register(commands: "common.Commands") -> None:
    index = common.add_command(
        commands,
        "index",
        _index,
        "Make a search engine from a folder of images.",
        """
lookalike index photos
lookalike index photos -o photos.engine --backend faiss:hnsw
lookalike index table.csv --extractor hsv-histogram -o colors.engine
lookalike index photos -o photos.engine --strict
lookalike index photos --regions detector
""",
        """
Subfolders are classes; a folder without subfolders works too. Images that cannot be read are skipped, with a
message.

A table (.csv, .tsv or .txt) has the columns path and label, separated by commas, semicolons or tabs. Paths are relative
to its folder. If a row cannot be used, the command lists the rows by their lines, and makes no engine.

Features are cached by image content. If you run the same command again, it only extracts the features of new images,
and it continues where it was stopped.

With --regions, parts of the images are indexed, too, so that a search finds small objects: the objects that a detector
finds, a fixed grid, or proposals of regions that look like objects. `add`, `sync` and `index` find the regions of new
images. The backend must use cosine similarity, as exact:cosine does.

If the engine was made from the same folder, the command brings it up to date: new files are added, changed files
replace their images, and images whose files are gone are removed. Images that were added from elsewhere are kept.
Images that were removed from the engine but are still in the folder come back. With another extractor or backend, and
with --force, the engine is made again from the same images. An engine from another folder is replaced only with
--force. Folders that are not engines are never overwritten.
""",
        common.VECTORS_KEPT,
    )
    index.add_argument("folder", metavar="FOLDER", help="a folder of images, or a table")
    text = "the folder for the engine; default: %(default)s, as for the other commands; -e is the same"
    names = ("-o", "--output", "-e", "--engine")
    index.add_argument(*names, dest="output", metavar="ENGINE", default=locations.DEFAULT, help=text)
    common.add_extractor(index, "the feature extractor; default: %(default)s")
    common.add_backend(index, ", which is exact; faiss:hnsw is much faster beyond 100,000 images")
    common.add_follow_links(index)
    text = "extract keypoints too, so that the first search --rerank geometry does not wait for them"
    index.add_argument("--keypoints", action="store_true", help=text)
    text = "index parts of the images, too: " + ", ".join(_SOURCES)
    index.add_argument("--regions", choices=_SOURCES, metavar="SOURCE", help=text)
    region_queries.add_detector_options(index)
    index.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    index.add_argument(
        "--force",
        action="store_true",
        help="replace an engine from another folder, and drop images whose files are gone",
    )


def _index(options: argparse.Namespace) -> int:
    output = Path(options.output)
    _refuse_other_folders(output)
    gallery = locations.read_gallery(options.folder, output, options.follow_links)
    source = str(Path(options.folder).resolve())
    index = common.open_index(options.backend)
    extractor = common.open_extractor(options.extractor)
    regions = _region_source(options, index)
    old = _engine_to_keep(output, gallery, source, options.force)
    if old is not None:
        syncing.refuse_lost(old, gallery, output, options.force)
    if options.strict:
        extractor.extract(gallery, strict=True)
    same = old is not None and (old.extractor.fingerprint, old.index.spec) == (extractor.fingerprint, index.spec)
    if same and not options.force:
        syncing.update(output, gallery, source, extractor)
    else:
        _make(output, gallery, source, extractor, index, old, options.force)
    _find_regions(output, extractor, regions, options)
    if options.keypoints:
        _cache_keypoints(gallery)
    engine_option = "" if options.output == locations.DEFAULT else f" -e {shlex.quote(str(output))}"
    log(f"next: lookalike search IMAGE{engine_option}")
    return OK


def _make(
    output: Path, gallery: "ImageSet", source: str, extractor: "FeatureExtractor", index: "Index",
    old: "Engine | None", force: bool,
) -> None:  # fmt: skip
    """Make an engine.

    old : the engine in its place, if it is from the same gallery. Images that were added to it from elsewhere are kept.
    """
    import numpy as np

    from helpers.features.file_hashes import identities
    from helpers.images.imageset import concatenate
    from helpers.search.engine import Engine
    from helpers.search.persist.roots import OWN

    existed, replaced = output.exists(), locations.is_engine(output)
    added = np.empty(0, np.int64) if old is None else _added_images(old, gallery, output, force)
    # Before the features are extracted.
    contents, names = identities(gallery.paths), {}
    if old is not None and len(added):
        table, start = old.table, len(gallery)
        known = table.display_names
        others = replace(table.images.subset(added), groups=None, root=gallery.root)
        gallery = concatenate(gallery.name, [gallery, others])
        names = {row: known[id] for row, id in enumerate(added.tolist(), start) if id in known}
        now = identities(gallery.paths[start:])
        # The stored content of an upload is that of the file that was sent.
        own = [old.saved.roots.number_of(path) == OWN for path in gallery.paths[start:]]
        contents += [table.content(id) if mine else one for id, mine, one in zip(added.tolist(), own, now, strict=True)]
    if len(index):
        _clear_server(index, extractor, gallery, replaced or force)
    engine = Engine(extractor, index).fit(gallery, contents, names, source)
    try:
        engine.save(output, replace=force, former=None if old is None else old.saved)
    except BaseException:
        if not existed and output.is_dir() and not locations.is_engine(output):
            shutil.rmtree(output)
        raise
    classify_new(output, engine)
    kept = f", {len(added):,} from elsewhere kept" if len(added) else ""
    # Features of identical images are extracted once.
    extracted = min(engine.extractor.computed, len(engine))
    print(
        f"{printable(output)}: {syncing.described(engine)}; {extracted:,} extracted, {len(engine) - extracted:,} from "
        f"the cache{'; the previous engine was replaced' if replaced else ''}{kept}"
    )


def _region_source(options: argparse.Namespace, index: "Index") -> "RegionSource | None":
    """The source of regions by --regions; CommandError if the index has no cosines."""
    detector = region_queries.open_detector(options)
    if detector is not None and options.regions != "detector":
        raise CommandError("--detector needs --regions detector", USAGE)
    if options.regions is None:
        return None
    if index.metric != "cosine":
        raise CommandError(
            f"--regions needs cosines, but {index.spec} has {index.metric} distances: choose a backend such as "
            f"{common.DEFAULT_BACKEND}",
            USAGE,
        )
    from helpers.features.regions import region_source

    return region_source(options.regions, detector)


def _find_regions(
    output: Path, extractor: "FeatureExtractor", source: "RegionSource | None", options: argparse.Namespace
) -> None:
    """Find the regions of a source; without one, those of new images if the engine has regions."""
    from helpers.search.engine import Engine

    engine = Engine.load(output, extractor, mmap=True)
    if source is None:
        find_new_regions(output, engine)
        return
    own = options.detector is not None
    files = (str(Path(options.detector).resolve()), str(Path(options.labels).resolve())) if own else None
    find_regions(output, engine, source, files)


def _cache_keypoints(gallery: "ImageSet") -> None:
    """Cache the keypoints that the re-ranker geometry compares."""
    from helpers.features.keypoints import each_readable, shrink
    from helpers.search.rerank.registry import RERANKERS

    prepare = partial(shrink, longest=RERANKERS["geometry"].settings["longest"])
    count = sum(1 for _ in each_readable(gallery, prepare))
    log(f"note: the keypoints of {pluralize(count, 'image')} are cached")


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
    """CommandError if an output cannot be made, or holds other files than those of an engine or unfinished engine."""
    place = next(one for one in (output, *output.absolute().parents) if one.exists())
    if place != output and not (place.is_dir() and os.access(place, os.W_OK)):
        raise CommandError(f"{printable(output)} cannot be made in {printable(place)}: choose another output with -o")
    prefixes = ("vectors-", "engine.sqlite", ".")
    if not output.exists() or locations.is_engine(output):
        return
    if not output.is_dir() or not all(path.name.startswith(prefixes) for path in output.iterdir()):
        raise CommandError(f"{printable(output)} exists and is not an engine: choose another output with -o")


def _engine_to_keep(output: Path, gallery: "ImageSet", source: str, force: bool) -> "Engine | None":
    """The engine in the output, without its extractor, if it was made from the same folder or table; None if not.

    CommandError if an engine from another gallery would be lost, and ``force`` is not set.
    """
    if not locations.is_engine(output):
        return None
    from helpers.search.persist.engine_file import EngineFolderError

    try:
        old = locations.load_without_extractor(output)
    except (EngineFolderError, OSError, ValueError) as error:
        if force:
            return None
        raise CommandError(str(error) if "--force" in str(error) else f"{error} Or replace it: --force") from error
    table = old.table
    same = table.source == source or (table.source is None and table.root is not None and table.root == gallery.root)
    if same:
        return old
    new = set(gallery.paths)
    lost = [path for path in map(table.path, old.index.ids.tolist()) if path not in new]
    if lost and not force:
        locations.note_missing(old, output)
        raise CommandError(
            f"{printable(output)} holds {pluralize(len(lost), 'image')} that would be lost, such as "
            f"{printable(lost[0])}: choose another output with -o, add images with lookalike add "
            f"{shlex.quote(source)} -e {shlex.quote(str(output))}, or replace the engine with --force"
        )
    if lost:
        log(f"note: {pluralize(len(lost), 'image')} of the previous engine dropped, such as {printable(lost[0])}")
    return None


def _added_images(old: "Engine", gallery: "ImageSet", output: Path, force: bool) -> "np.ndarray":
    """int64 (m,): ids of the images that were added to an engine from elsewhere.

    CommandError if the files of some are gone, and ``force`` is not set; else these are left out.
    """
    import numpy as np

    from helpers.search.persist.sync import Others

    table = old.table
    others = Others.of(table, old.index.ids.tolist(), gallery, output)
    ids = np.sort(np.concatenate([others.elsewhere, others.unlisted]))
    there = np.array([table.path(id).exists() for id in ids.tolist()], bool)
    if there.all():
        return ids
    gone = [printable(table.path(id)) for id in ids[~there].tolist()]
    named = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
    if not force:
        raise CommandError(
            f"the engine is made again, but the files of {pluralize(len(gone), 'added image')} are gone: {named}. "
            "Drop these images with --force"
        )
    log(f"note: {pluralize(len(gone), 'added image')} dropped, because their files are gone: {named}")
    return ids[there]
