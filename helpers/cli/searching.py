"""`lookalike search`: find similar images."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common, locations, region_queries, result_output, standard_input, text_queries
from helpers.cli.common import NEGATIVE, OK, USAGE, CommandError, log, pluralize, printable
from helpers.cli.naming import ids_excluded
from helpers.cli.query import Found, Search
from helpers.cli.result_output import COLUMNS, RESULT_COLUMNS
from helpers.search.rerank.registry import NAMES, RERANKERS, reranker

if TYPE_CHECKING:
    import numpy as np

    from helpers.search.engine import Engine
    from helpers.search.ranking import Ranking


_RESULT_KEYS = ", ".join(f'"{column}"' for column in RESULT_COLUMNS)
_EXAMPLES = """
lookalike search holiday.jpg
lookalike search holiday.jpg -e photos.engine -k 20
lookalike search queries/ --json
lookalike search one.jpg two.png --csv -k 3
lookalike search holiday.jpg --grid results.png
curl -L https://example.org/owl.jpg | lookalike search -
lookalike search holiday.jpg --threshold 0.8
lookalike search holiday.jpg --exclude holiday.jpg --exclude 'old/*'
lookalike search holiday.jpg --good 2 --bad 5
lookalike search holiday.jpg --rerank k-reciprocal
lookalike search --text "sailing boat"
lookalike search holiday.jpg --text night --without snow
lookalike search holiday.jpg --as lakeside
lookalike search holiday.jpg --box 120,40,200,260
lookalike search holiday.jpg --detect
lookalike search holiday.jpg --object 1 --object 3
lookalike search front.jpg side.jpg --together --weights 1,0.5
lookalike search holiday.jpg --paths --null | xargs -0 ls -l
"""
_TEXT = f"""
If the query itself is in the engine, it is its own first result. Scores are cosine similarities or negative distances:
higher is more similar. Re-ranking gives scores in another unit: the name of the method follows each score, and
score_kind in JSON and CSV says what the scores are. Query images that cannot be read are listed on standard error.

--exclude takes ids, keys, paths and folders, as `lookalike remove` does, and also patterns. In a pattern, * stands for
any text, including slashes, and ? for one character. A pattern must match the whole key or the whole path of an image;
the path may be relative to the current folder. To exclude a class, name its folder.

--good and --bad move the query towards and away from results of an earlier search (Rocchio). Give all marks each time.

--json prints a list of {{"query", "score_kind", "results": [{{{_RESULT_KEYS}}}]}}. The key is the path
relative to the indexed folder; class_name is null if the image has no class. --csv prints the columns
{", ".join(COLUMNS)}. Both are valid Unicode: a byte of a name that is not UTF-8 is printed as an escape sequence, such
as \\xe9. `lookalike remove` accepts such keys and paths.

--paths prints the bytes of the paths as they are. With --null, each path ends with a NUL byte, as xargs -0 expects. A
path with a line break needs --null.

The word vectors of a text are compared with the class scores of the images, which `lookalike classify` computes. If the
extractor of the engine is an image–text encoder, it embeds the text itself. With several images or texts, the score is
the weighted mean of the cosines with each of them; the texts of --without have negative weights.

If the engine has regions (lookalike index --regions), the score is the best cosine with the whole image or with one of
its regions, which is printed after the path. --json adds "regions", a list of {{"part", "box", "class_name", "score"}}
with x, y, width and height in pixels, and --csv adds a column. Several parts of the query must match different parts of
a result; the score is then the geometric mean of their cosines. Without regions, --box compares a part of the query
with whole images.

Re-ranking (--rerank) changes the order of the best results. All methods except none and geometry need a cosine index:
""" + "\n".join(f"  {name}: {one.summary}" for name, one in RERANKERS.items())


def register(commands: "common.Commands") -> None:
    search = common.add_command(
        commands,
        "search",
        _search,
        "Find the images that look most like an image or like each image of a folder, or that match a text.",
        _EXAMPLES,
        _TEXT,
    )
    search.add_argument("images", metavar="IMAGE|FOLDER|-", nargs="*", help="- is an image from standard input")
    locations.add_engine(search)
    common.add_k(search, 10, "number of results per query")
    text = "minimum score of a result; a search may then find no results"
    search.add_argument("--threshold", type=float, metavar="SCORE", help=text)
    text = "leave out these images of the engine: an id, key, path, folder, or a pattern with * and ?; can be repeated"
    search.add_argument("--exclude", metavar="NAME", action="append", default=[], help=text)
    for name, direction in (("good", "towards"), ("bad", "away from")):
        text = f"a {name} result: the query is moved {direction} it; an id, key or path; can be repeated"
        search.add_argument(f"--{name}", metavar="NAME", action="append", default=[], help=text)
    result_output.add_output_options(search)
    search.add_argument("--rerank", choices=NAMES, default="none", metavar="NAME", help=", ".join(NAMES))
    text_queries.add_text_options(search)
    region_queries.add_region_options(search)
    common.add_follow_links(search)
    search.add_argument("--root", metavar="FOLDER", help="where the images of the engine are now, if they were moved")


def _search(options: argparse.Namespace) -> int:
    result_output.check_options(options)
    text_queries.check_options(options)
    with standard_input.as_file(options.images) as (options.images, file):
        region_queries.check_options(options)
        if options.threshold is not None and options.rerank != "none":
            raise CommandError(
                f"--threshold compares similarities, but the scores of --rerank {options.rerank} have another unit: "
                "use one of the two options",
                USAGE,
            )
        if options.detect:
            return region_queries.list_objects(options, standard_input.NAME if file else options.images[0])
        return _search_and_print(options, file)


def _search_and_print(options: argparse.Namespace, file: str | None) -> int:
    """Search and print. ``file`` : the image from standard input, or None."""
    queries, only_files = locations.images_named(options.images, options.follow_links)
    folder = locations.engine_folder(options.engine)
    engine = locations.load_engine(folder, options.root)
    excluded = ids_excluded(engine, options.exclude)
    held = len(engine) - len(excluded)
    not_excluded = " that are not excluded" if excluded else ""
    if not held:
        remedy = "exclude fewer images" if excluded else "add images with `lookalike add`"
        log(f"{printable(folder)} holds no images{not_excluded}: {remedy}")
        return NEGATIVE
    if options.k > held:
        log(
            f"note: {pluralize(options.k, 'result')} were requested, but the engine holds {pluralize(held, 'image')}"
            f"{not_excluded}"
        )
    # A named file that cannot be read is an error; in a folder, the extractor warns about such files.
    found = _found(Search(engine, folder, queries, min(options.k, held), options, only_files, excluded or None))
    if options.threshold is not None:
        found = _above(engine, found, options.threshold)
    if options.grid:
        result_output.write_grid(Path(options.grid), found)
    if file:
        # A query of several images contains the names of all.
        found = [replace(one, name=one.name.replace(file, standard_input.NAME)) for one in found]
    result_output.print_results(found, engine, options)
    if not found:
        raise CommandError("none of these images can be read")
    return OK if any(len(one.results) for one in found) else NEGATIVE


def _found(search: Search) -> list[Found]:
    if text_queries.is_combined(search.options):
        return text_queries.search_combined(search)
    by_parts = region_queries.search(search)
    return _search_images(search) if by_parts is None else by_parts


def _above(engine: "Engine", found: list[Found], threshold: float) -> list[Found]:
    """The results with at least this score, which come first."""
    kept = []
    for one in found:
        count = sum(result.score >= threshold for result in one.results)
        matches = None if one.matches is None else one.matches[:count]
        kept.append(replace(one, results=engine.results(one.results.ranking.head(count)), matches=matches))
    if not any(len(one.results) for one in kept):
        best = max((result.score for one in found for result in one.results), default=None)
        best_text = "" if best is None else f"; the best has {best:.4f}"
        log(f"no result has a score of {threshold:g} or more{best_text}")
    return kept


def _search_images(search: Search) -> list[Found]:
    """The results of each query that can be read."""
    from helpers.search.ranking import Ranking

    engine, options, k = search.engine, search.options, search.k
    try:
        reranker(options.rerank).check(engine.index.metric, has_image=True)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    images, vectors = search.extracted()
    if not images:
        return []
    vectors = search.moved(text_queries.reweighted(engine, vectors, options))
    if options.rerank == "none":
        ranking = engine.index.search(vectors, k, excluded=search.excluded)
    else:
        ranking = _reranked(search, images, vectors)
    results = [engine.results(Ranking(ranking.ids[[i]], ranking.scores[[i]])) for i in range(len(images))]
    if short := sum(len(result) < k for result in results):
        log(
            f"note: {pluralize(short, 'query')} got fewer than {k} results, because {engine.index.spec} does not reach "
            "all images. A more thorough index such as exact:cosine does"
        )
    return [Found(str(image), image, one) for image, one in zip(images, results, strict=True)]


def _reranked(search: Search, paths: list[Path], vectors: "np.ndarray") -> "Ranking":
    from helpers.images.reading import read_image
    from helpers.search.rerank import SearchSpace, rerank_each

    name = search.options.rerank
    images = (read_image(path) for path in paths) if RERANKERS[name].needs_image else None
    return rerank_each(SearchSpace.of(search.engine, search.excluded), vectors, search.k, name, images)
