"""What `lookalike search` writes: text, JSON, CSV, paths, and the image of --grid."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import common, region_queries, text_queries
from helpers.cli.common import USAGE, CommandError, log, pluralize, printable
from helpers.cli.query import Found

if TYPE_CHECKING:
    from helpers.search.engine import Engine

RESULT_COLUMNS = ("rank", "id", "score", "key", "path", "class_name")
COLUMNS = ("query", "score_kind", *RESULT_COLUMNS)

#: The largest number of queries in the image of --grid.
_GRID_ROWS = 40


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --json, --csv, --paths, --null and --grid."""
    formats = common.add_formats(parser)
    formats.add_argument("--paths", action="store_true", help="print only the paths of the results, one per line")
    parser.add_argument("-0", "--null", action="store_true", help="end each path of --paths with NUL, for xargs -0")
    parser.add_argument("--grid", metavar="FILE", help="save an image of queries and results (.png, .jpg, .pdf …)")


def check_options(options: argparse.Namespace) -> None:
    """Raise CommandError if the options do not go together, or if the file of --grid cannot be written."""
    common.check_output(options.grid, ".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")
    if options.null and not options.paths:
        raise CommandError("--null needs --paths", USAGE)


def write_grid(path: Path, found: Sequence[Found]) -> None:
    """Write the image of --grid, and print what it shows."""
    from helpers.images.reading import UnreadableImage, read_image
    from helpers.visualization import grids

    if not any(len(one.results) for one in found):
        log(f"note: {printable(path)} was not written, because there is no result")
        return
    shown = found[:_GRID_ROWS]
    try:
        images = [(read_image(one.image), one.results) for one in shown if one.image is not None]
        boxes = [[[part.box for part in each if part is not None] for each in one.matches or ()] for one in shown]
        figure = grids.query_grids(images, boxes if _of_parts(found) else ())
    except UnreadableImage as error:
        raise CommandError(f"{error} If the images were moved, name their folder: --root FOLDER") from error
    figure.savefig(path, dpi=100)
    first = f"the first {len(shown)} of {len(found):,} queries" if len(shown) < len(found) else ""
    results = pluralize(sum(len(one.results) for one in shown), "result")
    log(f"{printable(path)}: image of {first or pluralize(len(shown), 'query')} with {results}")


def print_results(found: Sequence[Found], engine: "Engine", options: argparse.Namespace) -> None:
    """Print the results of queries in the format of the options."""
    if options.paths:
        _print_paths([str(result.path) for one in found for result in one.results], options.null)
        return
    kind = _score_kind(options, engine.index.metric, _of_parts(found))
    records = [(one.name, _records(one, engine, options.json)) for one in found]
    if options.json:
        common.print_json([{"query": query, "score_kind": kind, "results": results} for query, results in records])
    elif options.csv:
        columns = (*COLUMNS, "regions") if _of_parts(found) else COLUMNS
        common.print_csv(columns, ([query, kind, *result.values()] for query, results in records for result in results))
    else:
        _print_text(records, f"  {options.rerank}" if options.rerank != "none" else "")


def _of_parts(found: Sequence[Found]) -> bool:
    """Whether parts of images were found."""
    return any(one.matches is not None for one in found)


def _score_kind(options: argparse.Namespace, metric: str, of_parts: bool) -> str:
    """What the scores are, for people and programs. ``metric`` : of the index."""
    if options.rerank != "none":
        return f"re-ranking by {options.rerank}"
    if text_queries.is_combined(options):
        return "weighted mean of cosines"
    if of_parts:
        several = len(options.box) + len(options.object) > 1
        return "geometric mean of cosines" if several else "best cosine with a part"
    return "cosine" if metric == "cosine" else f"negative {metric} distance"


def _records(found: Found, engine: "Engine", for_json: bool) -> list[dict[str, Any]]:
    keys = engine.table.images.keys
    records: list[dict[str, Any]] = [
        {
            "rank": result.rank,
            "id": result.id,
            "score": round(result.score, 6),
            "key": keys[result.id],
            "path": str(result.path),
            "class_name": result.class_name if result.label >= 0 else None,
        }
        for result in found.results
    ]
    if found.matches is not None:
        for record, each in zip(records, found.matches, strict=True):
            record["regions"] = region_queries.records(each) if for_json else region_queries.describe(each)
    return records


def _print_text(records: Sequence[tuple[str, list[dict[str, Any]]]], label: str) -> None:
    """Print one line per result. ``label`` follows each score that is not the index's own."""
    for number, (query, results) in enumerate(records):
        if len(records) > 1:
            print(f"{chr(10) if number else ''}{printable(query)}")
        for result in results:
            region = f"  [{result['regions']}]" if "regions" in result else ""
            print(
                f"{result['rank']:4}  {result['score']:8.4f}{label}  {printable(result['class_name'] or '–'):<20}  "
                f"{printable(result['path'])}{region}"
            )


def _print_paths(paths: list[str], null: bool) -> None:
    """Print the bytes of paths, which need not be text, one per line or each followed by NUL."""
    broken = next((path for path in paths if "\n" in path), None)
    if broken is not None and not null:
        raise CommandError(f"the path {printable(broken)} contains a line break: use --paths --null", USAGE)
    end = b"\0" if null else b"\n"
    # What was printed as text comes first.
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join(os.fsencode(path) + end for path in paths))
