"""`lookalike search`: which pictures look like these."""

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
    counted,
    positive,
    print_csv,
    print_json,
    quiet_libraries,
    remark,
    shown,
)
from helpers.search.rerank.registry import NAMES, RERANKERS, reranker

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Answers, Engine
    from helpers.search.ranking import Ranking

COLUMNS = ("query", "rank", "id", "score", "key", "path", "class_name")

#: Queries that one picture of --grid can show.
_GRID_ROWS = 40


def register(commands) -> None:
    """Add this family's command to a parser's."""
    search = add_command(
        commands,
        "search",
        _search,
        "Find the pictures that look most like a picture, or like each picture of a folder.",
        """
lookalike search holiday.jpg
lookalike search holiday.jpg -e photos.index -k 20
lookalike search queries/ --json
lookalike search one.jpg two.png --csv -k 3
lookalike search holiday.jpg --grid answers.png
lookalike search holiday.jpg --rerank k-reciprocal
""",
        f"""
The engine is the one that -e names, or else {locations.DEFAULT}, or else the only one in the current folder. A picture
that is in the engine itself is its own first answer. Scores are cosines or negated distances: higher is nearer.

--json prints a list of {{"query", "answers": [{{"rank", "id", "score", "key", "path", "class_name"}}]}}; the key is the
path below the folder that was indexed, the class name null where there is none. --csv prints the columns
{",".join(COLUMNS)}. Queries that can't be read are named on the standard error output.

Re-ranking (--rerank) puts the best results into another order. All but none and geometry need an index of cosines:
"""
        + "\n".join(f"  {name}: {one.summary}" for name, one in RERANKERS.items()),
    )
    search.add_argument("pictures", metavar="IMAGE|FOLDER", nargs="+")
    search.add_argument("-e", "--engine", metavar="ENGINE", help=f"default: {locations.DEFAULT}")
    search.add_argument("-k", type=positive, default=10, metavar="K", help="answers a picture; default: %(default)s")
    formats = add_formats(search, "print JSON", "print CSV")
    formats.add_argument("--paths", action="store_true", help="print the answers' paths alone, one a line")
    search.add_argument("--grid", metavar="FILE", help="write queries and answers as a picture too (.png, .jpg, .pdf)")
    search.add_argument("--rerank", choices=NAMES, default="none", metavar="NAME", help=", ".join(NAMES))
    search.add_argument("--root", metavar="FOLDER", help="where the engine's pictures are now, if they were moved")


def _search(options: argparse.Namespace) -> int:
    quiet_libraries()
    if options.grid and Path(options.grid).suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"):
        raise CommandError(f"{shown(options.grid)} must end in .png, .jpg, .webp, .pdf or .svg", USAGE)
    asked, only_files = locations.pictures_named(options.pictures)
    folder = locations.engine_folder(options.engine)
    engine = locations.load_engine(folder, options.root)
    if not len(engine):
        remark(f"{shown(folder)} is empty: there is nothing to find")
        return FOUND
    if options.k > len(engine):
        remark(
            f"note: {counted(options.k, 'answer')} were asked for, the engine holds {counted(len(engine), 'picture')}"
        )
    # A picture that was named has to be readable; of a folder, what is not is named in a warning.
    readable, answers = answered(engine, asked, min(options.k, len(engine)), options.rerank, strict=only_files)
    queries = [str(asked.paths[row]) for row in readable]
    found = list(zip(queries, answers, strict=True))
    if options.grid:
        _write_grid(Path(options.grid), found)
    _print(found, engine, options)
    if not found:
        raise CommandError("none of these pictures can be read")
    return OK if any(len(answer) for answer in answers) else FOUND


def answered(
    engine: "Engine", asked: "ImageSet", k: int, rerank: str = "none", strict: bool = False
) -> tuple["np.ndarray", list["Answers"]]:
    """Rows of the pictures that can be read, int64 (m,), and the answers to each of them.

    rerank : the name of a re-ranker. strict : whether one that can't be read is an error.

    Raises
    ------
    UnreadablePicture : one can't be read, and ``strict`` is set.
    CommandError : the re-ranker can't follow an index of this metric.
    """
    import numpy as np

    from helpers.search.ranking import Ranking

    try:
        reranker(rerank).check(engine.index.metric, has_image=True)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    vectors = engine.describer.describe(asked, strict=strict)
    rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
    if not len(rows):
        return rows, []
    if rerank == "none":
        ranking = engine.index.search(vectors[rows], k)
    else:
        ranking = _reranked(rerank, engine, asked.subset(rows), vectors[rows], k)
    answers = [engine.answers(Ranking(ranking.ids[[i]], ranking.scores[[i]])) for i in range(len(rows))]
    short = sum(len(answer) < k for answer in answers)
    if short:
        remark(
            f"note: {counted(short, 'query')} got fewer than {k} answers: {engine.index.spec} "
            "does not reach all pictures. An index with a wider search does, such as exact:cosine"
        )
    return rows, answers


def _reranked(name: str, engine: "Engine", queries: "ImageSet", vectors: "np.ndarray", k: int) -> "Ranking":
    from helpers.images.reading import read_picture
    from helpers.search.rerank import SearchSpace, rerank_each

    images = (read_picture(path) for path in queries.paths) if RERANKERS[name].needs_image else None
    return rerank_each(SearchSpace.of(engine), vectors, k, name, images)


def _write_grid(path: Path, found: list[tuple[str, "Answers"]]) -> None:
    from helpers.images.reading import UnreadablePicture, read_picture
    from helpers.visualization import grids

    if not found:
        return
    if len(found) > _GRID_ROWS:
        remark(f"note: {shown(path)} shows the first {_GRID_ROWS} of {len(found):,} queries")
    try:
        figure = grids.answer_grids([(read_picture(query), answers) for query, answers in found[:_GRID_ROWS]])
    except UnreadablePicture as error:
        raise CommandError(f"{error} Were the pictures moved? Say where they are: --root FOLDER") from error
    figure.savefig(path, dpi=100)


def _print(found: list[tuple[str, "Answers"]], engine: "Engine", options: argparse.Namespace) -> None:
    records = [(query, [_record(engine, answer) for answer in answers]) for query, answers in found]
    if options.json:
        print_json([{"query": query, "answers": answers} for query, answers in records])
    elif options.csv:
        rows = ([query, *answer.values()] for query, answers in records for answer in answers)
        print_csv(COLUMNS, rows)
    elif options.paths:
        for _, answers in records:
            for answer in answers:
                print(shown(answer["path"]))
    else:
        for number, (query, answers) in enumerate(records):
            if len(records) > 1:
                print(f"{chr(10) if number else ''}{shown(query)}")
            for answer in answers:
                print(
                    f"{answer['rank']:4}  {answer['score']:8.4f}  {shown(answer['class_name'] or '–'):<20}  "
                    f"{shown(answer['path'])}"
                )


def _record(engine: "Engine", answer) -> dict:
    return {
        "rank": answer.rank,
        "id": answer.id,
        "score": round(answer.score, 6),
        "key": engine.gallery.keys[answer.id],
        "path": str(answer.path),
        "class_name": answer.class_name if answer.label >= 0 else None,
    }
