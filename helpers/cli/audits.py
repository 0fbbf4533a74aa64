"""`lookalike audit`: duplicate images, and leaks between the sides of a split."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common, locations
from helpers.cli.common import NEGATIVE, OK, USAGE, CommandError, log, pluralize, printable

if TYPE_CHECKING:
    from helpers.images.duplicates import Audit, Pair
    from helpers.images.imageset import ImageSet

COLUMNS = ("leak", "how", "correlation", "first", "second", "same_class")


def register(commands: "common.Commands") -> None:
    """Add the command of this module to a parser."""
    command = common.add_command(
        commands,
        "audit",
        _audit,
        "Find duplicate images in a folder, and leaks between train and test.",
        """
lookalike audit photos
lookalike audit photos -o report.html
lookalike audit train test -o leaks.html
lookalike audit photos --extractor none --csv
""",
        f"""
The audit finds identical files; copies that were re-encoded, resized or mirrored (by perceptual hash, confirmed on the
pixels); and crops (by nearest neighbors, confirmed by keypoints and pixels). --extractor none skips the search for
crops.

With two folders, or with subfolders named train and test (or val, query, gallery), pairs with one image on each side
are leaks. The exit code is 1 if there are leaks, or, in a folder without sides, if there are any pairs.

--json prints a list of objects, --csv a table. Both have the columns {", ".join(COLUMNS)}; the values of how are bytes,
hash, mirror and crop. The report is one HTML file that contains the images.
""",
        common.VECTORS_KEPT,
    )
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("other", metavar="FOLDER2", nargs="?", help="the other side of a split")
    command.add_argument("-o", "--output", metavar="FILE", help="write a report with images (.html)")
    common.add_extractor(command, "the features for the search for crops, or none; default: %(default)s")
    common.add_follow_links(command)
    common.add_formats(command)


def _audit(options: argparse.Namespace) -> int:
    common.quiet_libraries()
    from helpers.images.duplicates import audit
    from helpers.vectors import l2_normalize

    output = None if options.output is None else Path(options.output)
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"the report is HTML: {printable(output)} must end in .html", USAGE)
    images, sides = _read_sides(options.folder, options.other, options.follow_links)
    vectors = None
    if options.extractor != "none":
        vectors = l2_normalize(common.open_extractor(options.extractor).extract(images))
    found = audit(images, vectors)
    leaks = () if sides is None else found.across(sides)
    if output is not None:
        from helpers.files import write_text
        from helpers.visualization.audit_report import audit_report

        write_text(output, audit_report(found, sides))
    _print(found, leaks, options)
    pairs = f"{pluralize(len(found), 'pair')} of identical images among {pluralize(len(images), 'image')}"
    split = "" if sides is None else f", {pluralize(len(leaks), 'leak')} between {' and '.join(dict.fromkeys(sides))}"
    log(f"{pairs}{split}" + ("" if output is None else f"; report: {printable(output)}"))
    return NEGATIVE if (found.pairs if sides is None else leaks) else OK


def _read_sides(folder: str, other: str | None, follow_links: bool) -> tuple["ImageSet", list[str] | None]:
    """All images as one set, and the side of each image, or None if the folder is not split."""
    import os
    from dataclasses import replace

    from helpers.images.imageset import concatenate

    if other is None:
        images, sides = locations.split_by_folder(locations.read_gallery(folder, follow_links=follow_links))
        return images, None if sides is None else sides.tolist()
    first, second = (locations.read_gallery(each, follow_links=follow_links) for each in (folder, other))
    if set(first.paths) & set(second.paths):
        raise CommandError(f"{printable(folder)} and {printable(other)} overlap: one contains the other", USAGE)
    both = concatenate(f"{first.name} and {second.name}", [first, second])
    root = Path(os.path.commonpath([path.parent for path in both.paths]))
    names = (first.name, second.name) if first.name != second.name else (folder, other)
    return replace(both, root=root), [names[0]] * len(first) + [names[1]] * len(second)


def _print(found: "Audit", leaks: tuple["Pair", ...], options: argparse.Namespace) -> None:
    leaking = set(leaks)
    table = found.table().rename(columns={"same class": "same_class"})
    table["leak"] = [pair in leaking for pair in found.pairs]
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
        for leak, how, correlation, first, second, same_class in rows:
            marks = ("  LEAK" if leak else "") + ("" if same_class else "  DIFFERENT CLASSES")
            print(f"{how:<6}  {correlation:.3f}  {printable(first)}  {printable(second)}{marks}")
