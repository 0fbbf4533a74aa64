"""`lookalike audit`: duplicate images, and leaks between the sides of a split."""

import argparse
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from helpers.cli import common, locations
from helpers.cli.common import NEGATIVE, OK, USAGE, CommandError, log, pluralize, printable

if TYPE_CHECKING:
    from helpers.images.duplicates import Audit
    from helpers.images.layout import Layout

COLUMNS = ("leak", "how", "correlation", "first", "second", "same_class", "keep")


def register(commands: "common.Commands") -> None:
    command = common.add_command(
        commands,
        "audit",
        _audit,
        "Find duplicate images in a folder, and leaks between train and test.",
        """
lookalike audit photos
lookalike audit photos -o report.html
lookalike audit train test -o leaks.html
lookalike audit data --train data/images --test data/new
lookalike audit photos --extractor none --csv
""",
        f"""
The audit finds identical files; copies that were re-encoded, resized or mirrored (by perceptual hash, confirmed on the
pixels); and crops (by nearest neighbors, confirmed by keypoints and pixels). --extractor none skips the search for
crops. The last lines and the report give the measured recall: the share of changed copies that the audit finds, for
each kind of change.

Copies of one image are a group. One of them represents the group, and each other one is a duplicate. With two folders,
or with subfolders that are the sides of a split, a duplicate of an image on another side is a leak; then the image that
represents a group is on the gallery's side, if there is one. The exit code is 1 if there are leaks, or, in a folder
without sides, if there are any duplicates.

{locations.SIDES}

--json prints a list of objects, --csv a table, with one row per duplicate. Both have the columns
{", ".join(COLUMNS)}. first represents the group, second is the duplicate. The values of how are bytes, hash, mirror
and crop: the search that found the duplicate. correlation is that of the duplicate and the image of its group that
it was compared with. keep is the copy to keep: the one with the most pixels; of these the largest file, then the
oldest one, then the one with the shortest path. An enlarged copy has more pixels, too, so look before you delete. The
report is one HTML file with images of the groups, whose names are links to the files.
""",
        common.VECTORS_KEPT,
    )
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("other", metavar="FOLDER2", nargs="?", help="the other side of a split")
    command.add_argument("-o", "--output", metavar="FILE", help="write a report with images (.html)")
    common.add_extractor(command, "the features for the search for crops, or none; default: %(default)s")
    locations.add_layout(command)
    common.add_formats(command)


def _audit(options: argparse.Namespace) -> int:
    from helpers.images.duplicates import audit

    common.check_output(options.output, ".html", ".htm")
    layout = _read_layout(options)
    locations.log_layout(layout)
    vectors = None
    if options.extractor != "none":
        vectors = common.open_extractor(options.extractor).extract(layout.images)
    found = audit(layout.images, vectors, layout.sides)
    if options.output is not None:
        from helpers.files import write_text
        from helpers.visualization.audit_report import audit_report

        write_text(options.output, audit_report(found, layout.names))
    _print(found, options)
    groups = len({pair.first for pair in found.pairs})
    text = f"{pluralize(len(found), 'duplicate')} in {pluralize(groups, 'group')} among "
    text += pluralize(len(found.images), "image")
    if layout.sides is not None:
        text += f", {pluralize(len(found.leaks), 'leak')} between {' and '.join(layout.names)}"
    log(text + ("" if options.output is None else f"; report: {printable(options.output)}"))
    _log_recall(found)
    return NEGATIVE if (found.pairs if layout.sides is None else found.leaks) else OK


def _read_layout(options: argparse.Namespace) -> "Layout":
    """The images of one folder or of two, with their sides."""
    from helpers.images.layout import two_folders

    if options.other is None:
        return locations.read_layout(options.folder, options)
    if options.train or options.test or options.classes_from:
        raise CommandError(
            "--train, --test and --classes-from are for one folder: leave them out, or name one folder", USAGE
        )
    first, second = (
        locations.read_gallery(folder, follow_links=options.follow_links) for folder in (options.folder, options.other)
    )
    if set(first.paths) & set(second.paths):
        both = f"{printable(options.folder)} and {printable(options.other)}"
        raise CommandError(f"{both} overlap: one contains the other", USAGE)
    names = (first.name, second.name) if first.name != second.name else (options.folder, options.other)
    return two_folders(first, second, names)


def _print(found: "Audit", options: argparse.Namespace) -> None:
    leaks = set(found.leaks)
    table = found.table().rename(columns={"same class": "same_class"})
    table["leak"] = [pair in leaks for pair in found.pairs]
    table["keep"] = _to_keep(found)
    # Leaks come first, because they have to be fixed.
    table = table.sort_values("leak", ascending=False, kind="stable")[list(COLUMNS)]
    rows = list(table.itertuples(index=False, name=None))
    if options.json:
        common.print_json([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    elif options.csv:
        common.print_csv(
            COLUMNS, ([str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in rows)
        )
    else:
        for leak, how, correlation, first, second, same_class, keep in rows:
            marks = ("  LEAK" if leak else "") + ("" if same_class else "  DIFFERENT CLASSES")
            kept = f"  keep the {'first' if keep == first else 'second'}" if keep in (first, second) else ""
            kept = kept or f"  keep {printable(keep)}"
            print(f"{how:<6}  {correlation:.3f}  {printable(first)}  {printable(second)}{kept}{marks}")


def _to_keep(found: "Audit") -> list[str]:
    """The key of the copy to keep in the group of each duplicate."""
    from helpers.images.copies import best_copy

    best = {
        first: found.images.keys[best_copy(found.images, [first, *(pair.second for pair in pairs)])]
        for first, pairs in groupby(found.pairs, attrgetter("first"))
    }
    return [best[pair.first] for pair in found.pairs]


def _log_recall(found: "Audit") -> None:
    """Print the measured recall of the searches, by change."""
    from helpers.images import duplicates

    table = duplicates.recall(found.searched)
    alarms, copies = int(table["false_alarms"].sum()), int(table["images"].sum())
    log(f"recall in a test with changed copies ({pluralize(alarms, 'false alarm')} among {pluralize(copies, 'copy')}):")
    for level in duplicates.LEVELS:
        rows = table[table["level"] == level]
        if len(rows):
            changes = (f"{change} {value:.2f}" for change, value in zip(rows["change"], rows["recall"], strict=True))
            log(f"  {level}: {'; '.join(changes)}")
