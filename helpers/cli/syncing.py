"""`lookalike sync`: bring an engine up to date with its folder, but keep images of drives that are not mounted."""

import argparse
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common, locations
from helpers.cli.changes import classify_new, describe_additions, find_new_regions, wait_for_compaction
from helpers.cli.common import OK, CommandError, log, pluralize, printable

if TYPE_CHECKING:
    from helpers.features.extractor import FeatureExtractor
    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine

#: More lost images than this, and than half of the folder's images, are a reason to refuse.
_FEW = 10


def register(commands: "common.Commands") -> None:
    sync = common.add_command(
        commands,
        "sync",
        _sync,
        "Bring an engine up to date with the folder that it was made from.",
        """
lookalike sync
lookalike sync --dry-run
lookalike sync -e photos.engine
lookalike sync --root /new/photos
""",
        """
New files are added, changed files replace their images, and images whose files are gone are removed, even while the
engine is being served. Images that were added from elsewhere are kept. `lookalike index FOLDER` does the same.

The command refuses to remove images that may be on a drive that is not mounted: images whose folder is now empty, or
more than ten images that are also more than half of all images in the folder. Files that were renamed do not count.
--force removes these images.

--dry-run prints one line for each change: its kind and the path. The kinds are add, replace, reclass (the image has
another class now) and remove. Files are not decoded for this, so a file that is not a valid image is listed, too.
""",
        common.VECTORS_KEPT,
    )
    locations.add_engine(sync)
    sync.add_argument("-n", "--dry-run", action="store_true", help="only print what would be changed")
    common.add_follow_links(sync)
    sync.add_argument("--root", metavar="FOLDER", help="where the images of the engine are now, if they were moved")
    sync.add_argument("--force", action="store_true", help="remove images even if their drive may not be mounted")


def _sync(options: argparse.Namespace) -> int:
    from helpers.search.engine import Engine

    folder = locations.engine_folder(options.engine)
    root = None if options.root is None else locations.root_folder(options.root)
    engine = locations.load_without_extractor(folder, root)
    locations.note_missing(engine, folder, has_root=True)
    source = engine.table.source
    if source is None:
        raise CommandError(
            f"{printable(folder)} was not made by `lookalike index`, so its folder is not known: use "
            f"`lookalike index FOLDER -o {shlex.quote(str(folder))}` or `lookalike add`"
        )
    gallery = _read(source, folder, options.follow_links)
    if options.dry_run:
        _print_preview(engine, gallery, folder)
        return OK
    refuse_lost(engine, gallery, folder, options.force)
    extractor = common.open_extractor(engine.extractor.name)
    update(folder, gallery, source, extractor, options.root)
    find_new_regions(folder, Engine.load(folder, extractor, mmap=True))
    return OK


def _read(source: str, folder: Path, follow_links: bool) -> "ImageSet":
    """The images of the engine's folder or table; CommandError if there are none."""
    from helpers.images.imageset import EmptyImageSet

    try:
        return locations.read_gallery(source, folder, follow_links)
    except (EmptyImageSet, FileNotFoundError) as error:
        raise CommandError(
            f"{error} Nothing was changed. If the folder is on a drive, mount it; if it was moved, name its new place: "
            "--root FOLDER"
        ) from error


def refuse_lost(engine: "Engine", gallery: "ImageSet", folder: Path, force: bool) -> None:
    """CommandError if images would be removed whose files may be on a drive that is not mounted.

    gallery : what is there now of the folder that the engine was made from. folder : of the engine.
    """
    from helpers.search.persist.sync import Others, preview

    table = engine.table
    gone = Others.of(table, engine.index.ids.tolist(), gallery, folder).gone
    if force or not len(gone):
        return
    empty = _empty_folders(map(table.path, gone.tolist()))
    if not empty and len(gone) <= _FEW:
        return
    lost = preview(engine, gallery, folder).lost
    if empty and len(lost):
        reason = f"{printable(empty[0])} is now empty"
    elif len(lost) > max(_FEW, len(gallery)):
        reason = f"the folder now has only {pluralize(len(gallery), 'image')}"
    else:
        return
    raise CommandError(
        f"{pluralize(len(lost), 'image')} would be removed, because their files are gone, such as "
        f"{printable(table.path(lost[0]))}, but {reason}. Nothing was changed. If a drive is not mounted, mount it. "
        "To remove these images, use --force"
    )


def _empty_folders(files: Iterable[Path]) -> list[Path]:
    """The folders of files that do not exist, or the nearest of their parents that do, if they are empty."""
    parents = {file.parent for file in files}
    places = {next(one for one in (parent, *parent.parents) if one.exists()) for parent in parents}
    return sorted(place for place in places if not any(place.iterdir()))


def _print_preview(engine: "Engine", gallery: "ImageSet", folder: Path) -> None:
    from helpers.search.identity import Outcome
    from helpers.search.persist.sync import preview

    verbs = {
        Outcome.NEW: "add", Outcome.COPY: "add", Outcome.CHANGED: "replace", Outcome.RECLASSIFIED: "reclass",
    }  # fmt: skip
    planned, table = preview(engine, gallery, folder), engine.table
    outcomes = zip(planned.paths, planned.outcomes, strict=True)
    rows = [(verbs[outcome], path) for path, outcome in outcomes if outcome in verbs]
    rows += [("remove", str(table.path(id))) for id in planned.others.gone.tolist()]
    for verb, path in rows:
        print(f"{verb:<8}  {printable(path)}")
    counts = {verb: sum(one == verb for one, _ in rows) for verb in ("add", "replace", "reclass", "remove")}
    kept = len(planned.others.elsewhere) + len(planned.others.unlisted)
    log(
        f"{printable(folder)}: {', '.join(f'{count:,} to {verb}' for verb, count in counts.items())}; "
        f"{pluralize(kept, 'image')} from elsewhere kept; nothing was changed"
    )
    try:
        refuse_lost(engine, gallery, folder, force=False)
    except CommandError as error:
        log(f"note: without --dry-run, this would be an error: {error}")


def update(
    output: Path, gallery: "ImageSet", source: str, extractor: "FeatureExtractor", root: str | None = None
) -> None:
    """Bring an engine of the same gallery, extractor and backend up to date."""
    from helpers.search.persist import snapshot
    from helpers.search.persist.live import LiveEngine
    from helpers.search.persist.sync import sync

    with LiveEngine.open(output, extractor, root) as live:
        if live.engine.table.source is None:
            with live.locked() as connection:
                snapshot.write_source(connection, source, live.engine.saved.roots)
        done = sync(live, gallery)
        wait_for_compaction(live)
        classify_new(output, live.engine)
        details = [f"{described(live.engine)}; {describe_additions(done.additions)}"]
        if gone := len(done.others.gone):
            details.append(f"{gone:,} removed, because {'its file is' if gone == 1 else 'their files are'} gone")
        if elsewhere := len(done.others.elsewhere):
            details.append(f"{elsewhere:,} from elsewhere kept")
        if unlisted := len(done.others.unlisted):
            details.append(f"{unlisted:,} kept that {printable(gallery.name)} does not list")
        print(f"{printable(output)}: {', '.join(details)}; {extractor.computed:,} extracted")


def described(engine: "Engine") -> str:
    """Images, classes, extractor and index of an engine."""
    table = engine.table
    classes = len({label for label in table.labels[engine.index.ids].tolist() if label >= 0})
    in_classes = f" in {pluralize(classes, 'class')}" if classes else ""
    return f"{pluralize(len(engine), 'image')}{in_classes}; {engine.extractor.name}, {engine.index.spec}"
