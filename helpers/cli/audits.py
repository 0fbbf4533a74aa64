"""`lookalike audit`: images that are one, and leaks between the sides of a split."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import locations
from helpers.cli.common import (
    FOUND,
    OK,
    USAGE,
    CommandError,
    add_command,
    add_extractor,
    add_formats,
    log,
    open_extractor,
    pluralize,
    print_csv,
    print_json,
    quiet_libraries,
    shown,
)

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.duplicates import Audit
    from helpers.images.imageset import ImageSet

COLUMNS = ("leak", "how", "correlation", "first", "second", "same_class")


def register(commands) -> None:
    """Add this family's command to a parser's."""
    command = add_command(
        commands,
        "audit",
        _audit,
        "Find images that are one: duplicates in a folder, leaks between train and test.",
        """
lookalike audit photos
lookalike audit photos -o report.html
lookalike audit train test -o leaks.html
lookalike audit photos --extractor none --csv
""",
        """
Searched for are equal files; copies that were saved, resized or mirrored (perceptual hash, confirmed on the pixels);
and crops (neighbors by the extractor, confirmed by keypoints and pixels), which --extractor none leaves out.

With two folders, or sub-folders called train and test (or val, query, gallery), pairs with an image on each side are
leaks. The exit code is 1 if there are leaks, or, in a folder without sides, any pairs, so that scripts can stop there.

--json prints a list of objects and --csv a table with the columns leak, how (bytes, hash, mirror or crop), correlation,
first, second, same_class. The report is one HTML file with the images in it; it needs no network and no script.
""",
        "stopped; the vectors that were computed are kept",
    )
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("other", metavar="FOLDER2", nargs="?", help="the other side of a split")
    command.add_argument("-o", "--output", metavar="FILE", help="write a report with images (.html)")
    add_extractor(command, "whose neighbors are examined for crops, or none; default: %(default)s", default="resnet50")
    add_formats(command, "print JSON", "print CSV")


def _audit(options: argparse.Namespace) -> int:
    quiet_libraries()
    from helpers.images.duplicates import audit
    from helpers.vectors import l2_normalize

    output = None if options.output is None else Path(options.output)
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"the report is HTML: {shown(output)} must end in .html", USAGE)
    images, sides = _sides(options.folder, options.other)
    vectors = None
    if options.extractor != "none":
        vectors = l2_normalize(open_extractor(options.extractor).extract(images))
    found = audit(images, vectors)
    leaks = found.across(sides) if sides is not None else ()
    if output is not None:
        from helpers.files import write_text
        from helpers.visualization.audit_report import audit_report

        write_text(output, audit_report(found, sides))
    _print(found, leaks, options)
    words = f"{pluralize(len(found), 'pair')} of the same image among {pluralize(len(images), 'image')}"
    split = "" if sides is None else f", {pluralize(len(leaks), 'leak')} between {' and '.join(dict.fromkeys(sides))}"
    log(f"{words}{split}" + ("" if output is None else f"; report: {shown(output)}"))
    return FOUND if (leaks if sides is not None else found.pairs) else OK


def _sides(folder: str, other: str | None) -> tuple["ImageSet", "np.ndarray | None"]:
    """All images as one set, and the side of each, str (n,); None where there is one side."""
    import os
    from dataclasses import replace

    import numpy as np

    from helpers.images.imageset import concatenate

    if other is None:
        return locations.split_by_folder(locations.gallery_from(folder))
    first, second = (locations.gallery_from(place) for place in (folder, other))
    if set(first.paths) & set(second.paths):
        raise CommandError(f"{shown(folder)} and {shown(other)} overlap: one lies in the other", USAGE)
    both = concatenate(f"{first.name} and {second.name}", [first, second])
    common = Path(os.path.commonpath([path.parent for path in both.paths]))
    names = (first.name, second.name) if first.name != second.name else (folder, other)
    return replace(both, root=common), np.repeat(names, [len(first), len(second)])


def _print(found: "Audit", leaks: tuple, options: argparse.Namespace) -> None:
    leaking = {(pair.first, pair.second) for pair in leaks}
    keys, labels = found.images.keys, found.images.labels
    # Leaks first: they are what has to be mended.
    pairs = sorted(found.pairs, key=lambda pair: (pair.first, pair.second) not in leaking)
    rows = [
        (
            (pair.first, pair.second) in leaking,
            pair.how,
            pair.correlation,
            keys[pair.first],
            keys[pair.second],
            bool(labels[pair.first] == labels[pair.second]),
        )
        for pair in pairs
    ]
    if options.json:
        print_json([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    elif options.csv:
        print_csv(COLUMNS, ([str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in rows))
    else:
        for leak, how, correlation, first, second, same in rows:
            marks = ("  LEAK" if leak else "") + ("" if same else "  CLASSES DIFFER")
            print(f"{how:<6}  {correlation:.3f}  {shown(first)}  {shown(second)}{marks}")
