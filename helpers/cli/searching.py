"""`lookalike search`: find similar images."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import common, locations, region_queries, text_queries
from helpers.cli.common import NEGATIVE, OK, USAGE, CommandError, log, pluralize, printable
from helpers.search.rerank.registry import NAMES, RERANKERS, reranker

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine, Results
    from helpers.search.ranking import Ranking

RESULT_COLUMNS = ("rank", "id", "score", "key", "path", "class_name")
COLUMNS = ("query", *RESULT_COLUMNS)

#: The largest number of queries in the image of --grid.
_GRID_ROWS = 40


def register(commands: "common.Commands") -> None:
    """Add the command of this module to a parser."""
    search = common.add_command(
        commands,
        "search",
        _search,
        "Find the images that look most like an image, like each image of a folder, or as a text says.",
        """
lookalike search holiday.jpg
lookalike search holiday.jpg -e photos.engine -k 20
lookalike search queries/ --json
lookalike search one.jpg two.png --csv -k 3
lookalike search holiday.jpg --grid results.png
lookalike search holiday.jpg --rerank k-reciprocal
lookalike search --text "sailing boat"
lookalike search holiday.jpg --text night --without snow
lookalike search holiday.jpg --as lakeside
lookalike search holiday.jpg --box 120,40,200,260
lookalike search holiday.jpg --detect
lookalike search holiday.jpg --object 1 --object 3
lookalike search front.jpg side.jpg --together --weights 1,0.5
lookalike search holiday.jpg --paths --null | xargs -0 ls -l
""",
        f"""
If the query itself is in the engine, it is its own first result. Scores are cosine similarities or negative distances:
higher is more similar. Query images that cannot be read are listed on standard error.

--json prints a list of {{"query", "results": [{{{", ".join(f'"{column}"' for column in RESULT_COLUMNS)}}}]}}. The key
is the path relative to the indexed folder; class_name is null if the image has no class. --csv prints the columns
{", ".join(COLUMNS)}. Both are valid Unicode: a byte of a name that is not UTF-8 is printed as an escape sequence, such
as \\xe9. `lookalike remove` accepts such keys and paths.

--paths prints the bytes of the paths as they are. With --null, each path ends with a NUL byte, as xargs -0 expects. A
path with a line break needs --null.

A text is compared with the class scores of the images, which `lookalike classify` computes, by vectors of its words;
an engine of an image–text encoder embeds the text itself. With several parts, the score is the weighted mean of the
cosines with each of them; --without subtracts.

If the engine has regions (lookalike index --regions), the score is the best cosine with the whole image or with one of
its regions, which is printed after the path. --json adds "regions", a list of {{"part", "box", "class_name", "score"}}
with x, y, width and height in pixels, and --csv adds a column. Without regions, --box compares a part of the query
with whole images. For several parts, results must have a different region for each.

Re-ranking (--rerank) changes the order of the best results. All methods except none and geometry need a cosine index:
"""
        + "\n".join(f"  {name}: {one.summary}" for name, one in RERANKERS.items()),
    )
    search.add_argument("images", metavar="IMAGE|FOLDER", nargs="*")
    locations.add_engine(search)
    search.add_argument(
        "-k", type=common.positive, default=10, metavar="K", help="number of results per query; default: %(default)s"
    )
    formats = common.add_formats(search)
    formats.add_argument("--paths", action="store_true", help="print only the paths of the results, one per line")
    search.add_argument("-0", "--null", action="store_true", help="end each path of --paths with NUL, for xargs -0")
    search.add_argument("--grid", metavar="FILE", help="save an image of queries and results (.png, .jpg, .pdf …)")
    search.add_argument("--rerank", choices=NAMES, default="none", metavar="NAME", help=", ".join(NAMES))
    text_queries.add_text_options(search)
    region_queries.add_region_options(search)
    common.add_follow_links(search)
    search.add_argument("--root", metavar="FOLDER", help="where the images of the engine are now, if they were moved")


def _search(options: argparse.Namespace) -> int:
    common.quiet_libraries()
    if options.grid and Path(options.grid).suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"):
        raise CommandError(f"{printable(options.grid)} must end in .png, .jpg, .webp, .pdf or .svg", USAGE)
    if options.null and not options.paths:
        raise CommandError("--null needs --paths", USAGE)
    text_queries.check_options(options)
    region_queries.check_options(options)
    if options.detect:
        return region_queries.list_objects(options)
    queries, only_files = None, True
    if options.images:
        queries, only_files = locations.images_named(options.images, options.follow_links)
    folder = locations.engine_folder(options.engine)
    engine = locations.load_engine(folder, options.root)
    if not len(engine):
        log(f"{printable(folder)} holds no images")
        return NEGATIVE
    if options.k > len(engine):
        log(
            f"note: {pluralize(options.k, 'result')} were requested, "
            f"but the engine holds {pluralize(len(engine), 'image')}"
        )
    # A named file that cannot be read is an error; in a folder, the extractor warns about such files.
    k = min(options.k, len(engine))
    matches: list[list[region_queries.Matches]] | None = None
    if text_queries.is_combined(options) or queries is None:
        found, images = text_queries.search_combined(engine, folder, queries, k, options, strict=only_files)
    else:
        by_parts = region_queries.search(engine, folder, queries, k, options, strict=only_files)
        if by_parts is None:
            rows, results = _search_images(engine, queries, k, options, strict=only_files)
        else:
            rows, results, matches = by_parts
        images = [str(queries.paths[row]) for row in rows]
        found = list(zip(images, results, strict=True))
    if options.grid:
        _write_grid(Path(options.grid), list(zip(images, (results for _, results in found), strict=True)), matches)
    _print(found, engine, options, matches)
    if not found:
        raise CommandError("none of these images can be read")
    return OK if any(len(results) for _, results in found) else NEGATIVE


def _search_images(
    engine: "Engine", queries: "ImageSet", k: int, options: argparse.Namespace, strict: bool
) -> tuple["np.ndarray", list["Results"]]:
    """The rows of the queries that can be read, int64 (m,), and the results of each of them.

    strict : raise `UnreadableImage` if a query cannot be read.
    """
    import numpy as np

    from helpers.search.ranking import Ranking

    try:
        reranker(options.rerank).check(engine.index.metric, has_image=True)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    vectors = engine.extractor.extract(queries, strict=strict)
    rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
    if not len(rows):
        return rows, []
    vectors = text_queries.reweighted(engine, vectors[rows], options)
    if options.rerank == "none":
        ranking = engine.index.search(vectors, k)
    else:
        ranking = _reranked(options.rerank, engine, queries.subset(rows), vectors, k)
    results = [engine.results(Ranking(ranking.ids[[i]], ranking.scores[[i]])) for i in range(len(rows))]
    short = sum(len(result) < k for result in results)
    if short:
        log(
            f"note: {pluralize(short, 'query')} got fewer than {k} results, because {engine.index.spec} does not reach "
            "all images. A more thorough index such as exact:cosine does"
        )
    return rows, results


def _reranked(name: str, engine: "Engine", queries: "ImageSet", vectors: "np.ndarray", k: int) -> "Ranking":
    from helpers.images.reading import read_image
    from helpers.search.rerank import SearchSpace, rerank_each

    images = (read_image(path) for path in queries.paths) if RERANKERS[name].needs_image else None
    return rerank_each(SearchSpace.of(engine), vectors, k, name, images)


def _write_grid(
    path: Path, found: list[tuple[str, "Results"]], matches: "list[list[region_queries.Matches]] | None"
) -> None:
    from helpers.images.reading import UnreadableImage, read_image
    from helpers.visualization import grids

    if not found:
        return
    if len(found) > _GRID_ROWS:
        log(f"note: {printable(path)} shows the first {_GRID_ROWS} of {len(found):,} queries")
    try:
        shown = [(read_image(query), results) for query, results in found[:_GRID_ROWS]]
        boxes = [[[part.box for part in one if part is not None] for one in each] for each in matches or []]
        figure = grids.query_grids(shown, boxes)
    except UnreadableImage as error:
        raise CommandError(f"{error} If the images were moved, name their folder: --root FOLDER") from error
    figure.savefig(path, dpi=100)


def _print(
    found: list[tuple[str, "Results"]], engine: "Engine", options: argparse.Namespace,
    matches: "list[list[region_queries.Matches]] | None",
) -> None:  # fmt: skip
    if options.paths:
        _print_paths([str(result.path) for _, results in found for result in results], options.null)
        return
    keys = locations.table_of(engine).images.keys
    records: list[tuple[str, list[dict[str, Any]]]] = [
        (
            query,
            [
                {
                    "rank": result.rank,
                    "id": result.id,
                    "score": round(result.score, 6),
                    "key": keys[result.id],
                    "path": str(result.path),
                    "class_name": result.class_name if result.label >= 0 else None,
                }
                for result in results
            ],
        )
        for query, results in found
    ]
    if matches is not None:
        for (_, results), each in zip(records, matches, strict=True):
            for result, one in zip(results, each, strict=True):
                result["regions"] = region_queries.records(one) if options.json else region_queries.describe(one)
    if options.json:
        common.print_json([{"query": query, "results": results} for query, results in records])
    elif options.csv:
        columns = COLUMNS if matches is None else (*COLUMNS, "regions")
        common.print_csv(columns, ([query, *result.values()] for query, results in records for result in results))
    else:
        for number, (query, results) in enumerate(records):
            if len(records) > 1:
                print(f"{chr(10) if number else ''}{printable(query)}")
            for result in results:
                region = f"  [{result['regions']}]" if "regions" in result else ""
                print(
                    f"{result['rank']:4}  {result['score']:8.4f}  {printable(result['class_name'] or '–'):<20}  "
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
