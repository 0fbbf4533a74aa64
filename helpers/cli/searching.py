"""`lookalike search`: which images look like these."""

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
    add_formats,
    log,
    pluralize,
    positive,
    print_csv,
    print_json,
    quiet_libraries,
    shown,
)
from helpers.search.rerank.registry import NAMES, RERANKERS, reranker

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine, Results
    from helpers.search.ranking import Ranking

COLUMNS = ("query", "rank", "id", "score", "key", "path", "class_name")

#: Queries that one image of --grid can show.
_GRID_ROWS = 40


def register(commands) -> None:
    """Add this family's command to a parser's."""
    search = add_command(
        commands,
        "search",
        _search,
        "Find the images that look most like an image, or like each image of a folder.",
        """
lookalike search holiday.jpg
lookalike search holiday.jpg -e photos.index -k 20
lookalike search queries/ --json
lookalike search one.jpg two.png --csv -k 3
lookalike search holiday.jpg --grid answers.png
lookalike search holiday.jpg --rerank k-reciprocal
""",
        f"""
The engine is the one that -e names, or else {locations.DEFAULT}, or else the only one in the current folder. An image
that is in the engine itself is its own first answer. Scores are cosines or negated distances: higher is nearer.

--json prints a list of {{"query", "answers": [{{"rank", "id", "score", "key", "path", "class_name"}}]}}; the key is the
path below the folder that was indexed, the class name null where there is none. --csv prints the columns
{",".join(COLUMNS)}. Queries that can't be read are named on the standard error output.

Re-ranking (--rerank) puts the best results into another order. All but none and geometry need an index of cosines:
"""
        + "\n".join(f"  {name}: {one.summary}" for name, one in RERANKERS.items()),
    )
    search.add_argument("images", metavar="IMAGE|FOLDER", nargs="+")
    search.add_argument("-e", "--engine", metavar="ENGINE", help=f"default: {locations.DEFAULT}")
    search.add_argument("-k", type=positive, default=10, metavar="K", help="answers an image; default: %(default)s")
    formats = add_formats(search, "print JSON", "print CSV")
    formats.add_argument("--paths", action="store_true", help="print the answers' paths alone, one a line")
    search.add_argument("--grid", metavar="FILE", help="write queries and answers as an image too (.png, .jpg, .pdf)")
    search.add_argument("--rerank", choices=NAMES, default="none", metavar="NAME", help=", ".join(NAMES))
    search.add_argument("--root", metavar="FOLDER", help="where the engine's images are now, if they were moved")


def _search(options: argparse.Namespace) -> int:
    quiet_libraries()
    if options.grid and Path(options.grid).suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"):
        raise CommandError(f"{shown(options.grid)} must end in .png, .jpg, .webp, .pdf or .svg", USAGE)
    asked, only_files = locations.images_named(options.images)
    folder = locations.engine_folder(options.engine)
    engine = locations.load_engine(folder, options.root)
    if not len(engine):
        log(f"{shown(folder)} is empty: there is nothing to find")
        return FOUND
    if options.k > len(engine):
        log(
            f"note: {pluralize(options.k, 'result')} were asked for, the engine holds {pluralize(len(engine), 'image')}"
        )
    # An image that was named has to be readable; of a folder, what is not is named in a warning.
    readable, results = answered(engine, asked, min(options.k, len(engine)), options.rerank, strict=only_files)
    queries = [str(asked.paths[row]) for row in readable]
    found = list(zip(queries, results, strict=True))
    if options.grid:
        _write_grid(Path(options.grid), found)
    _print(found, engine, options)
    if not found:
        raise CommandError("none of these images can be read")
    return OK if any(len(result) for result in results) else FOUND


def answered(
    engine: "Engine", asked: "ImageSet", k: int, rerank: str = "none", strict: bool = False
) -> tuple["np.ndarray", list["Results"]]:
    """Rows of the images that can be read, int64 (m,), and the answers to each of them.

    rerank : the name of a re-ranker. strict : whether one that can't be read is an error.

    Raises
    ------
    UnreadableImage : one can't be read, and ``strict`` is set.
    CommandError : the re-ranker can't follow an index of this metric.
    """
    import numpy as np

    from helpers.search.ranking import Ranking

    try:
        reranker(rerank).check(engine.index.metric, has_image=True)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    vectors = engine.extractor.extract(asked, strict=strict)
    rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
    if not len(rows):
        return rows, []
    if rerank == "none":
        ranking = engine.index.search(vectors[rows], k)
    else:
        ranking = _reranked(rerank, engine, asked.subset(rows), vectors[rows], k)
    results = [engine.results(Ranking(ranking.ids[[i]], ranking.scores[[i]])) for i in range(len(rows))]
    short = sum(len(result) < k for result in results)
    if short:
        log(
            f"note: {pluralize(short, 'query')} got fewer than {k} answers: {engine.index.spec} "
            "does not reach all images. An index with a wider search does, such as exact:cosine"
        )
    return rows, results


def _reranked(name: str, engine: "Engine", queries: "ImageSet", vectors: "np.ndarray", k: int) -> "Ranking":
    from helpers.images.reading import read_image
    from helpers.search.rerank import SearchSpace, rerank_each

    images = (read_image(path) for path in queries.paths) if RERANKERS[name].needs_image else None
    return rerank_each(SearchSpace.of(engine), vectors, k, name, images)


def _write_grid(path: Path, found: list[tuple[str, "Results"]]) -> None:
    from helpers.images.reading import UnreadableImage, read_image
    from helpers.visualization import grids

    if not found:
        return
    if len(found) > _GRID_ROWS:
        log(f"note: {shown(path)} shows the first {_GRID_ROWS} of {len(found):,} queries")
    try:
        figure = grids.query_grids([(read_image(query), results) for query, results in found[:_GRID_ROWS]])
    except UnreadableImage as error:
        raise CommandError(f"{error} Were the images moved? Say where they are: --root FOLDER") from error
    figure.savefig(path, dpi=100)


def _print(found: list[tuple[str, "Results"]], engine: "Engine", options: argparse.Namespace) -> None:
    records = [(query, [_record(engine, result) for result in results]) for query, results in found]
    if options.json:
        print_json([{"query": query, "results": results} for query, results in records])
    elif options.csv:
        rows = ([query, *result.values()] for query, results in records for result in results)
        print_csv(COLUMNS, rows)
    elif options.paths:
        for _, results in records:
            for result in results:
                print(shown(result["path"]))
    else:
        for number, (query, results) in enumerate(records):
            if len(records) > 1:
                print(f"{chr(10) if number else ''}{shown(query)}")
            for result in results:
                print(
                    f"{result['rank']:4}  {result['score']:8.4f}  {shown(result['class_name'] or '–'):<20}  "
                    f"{shown(result['path'])}"
                )


def _record(engine: "Engine", result) -> dict:
    return {
        "rank": result.rank,
        "id": result.id,
        "score": round(result.score, 6),
        "key": engine.gallery.keys[result.id],
        "path": str(result.path),
        "class_name": result.class_name if result.label >= 0 else None,
    }
