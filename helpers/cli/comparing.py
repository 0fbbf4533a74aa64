"""`lookalike compare`: which extractor, backend and re-ranker is best on a folder of images."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import common, locations
from helpers.cli.common import DEFAULT_BACKEND, OK, USAGE, CommandError, log, pluralize, printable, was

if TYPE_CHECKING:
    from helpers.evaluation.comparison import Comparison, Method
    from helpers.evaluation.comparison_data import Prepared
    from helpers.images.layout import Layout

#: Hand-made features that are compared by default, in addition to the networks whose weights are here.
CLASSICAL = ("hsv-histogram", "hog")
#: Backends that store vectors in a server or a database of the user, which a comparison must not change.
REMOTE = ("milvus", "elasticsearch", "opensearch")


def register(commands: "common.Commands") -> None:
    command = common.add_command(
        commands,
        "compare",
        _compare,
        "Find out which extractor, backend and re-ranker is best on your images.",
        """
lookalike compare photos
lookalike compare photos -o report.html
lookalike compare photos --extractors efficientnet-lite0,resnet50,hsv-histogram -o report.html -o report.json
lookalike compare photos --extractors resnet50 --rerankers none,k-reciprocal,diffusion
lookalike compare photos --extractors resnet50 --backends exact:cosine,faiss:hnsw --known-items
""",
        f"""
Each combination of extractor, backend and re-ranker is a method. All methods search for the same queries. If the
subfolders are classes, some images are queries, and other images of the same class are relevant. Otherwise, or with
--known-items, queries are changed copies of images (crops, rotations, noise and so on), and only the original is
relevant. This measures how well an image is found again, not whether results show similar things.

Copies of a query in the folder (see lookalike audit) are ignored. Images and queries are drawn with --seed. Vectors are
cached, so an interrupted comparison continues.

Each score has a 95 % interval (bootstrap over queries), the score of a random order (chance) and the highest possible
score (ceiling). The methods are compared on the same queries, and the intervals of the differences hold for all pairs
together. If the interval of a difference includes 0, the queries cannot tell the two methods apart. Then the cheaper
one is recommended. If you repeat a comparison, scores are exactly the same, but times differ.

{locations.SIDES}

-o writes a report: .html with images, or .json. --json prints the latter; the README describes its keys.
""",
        common.VECTORS_KEPT,
    )
    command.add_argument("folder", metavar="FOLDER|TABLE")
    text = f"names separated by commas; default: networks whose weights are here, and {', '.join(CLASSICAL)}"
    command.add_argument("-x", "--extractors", metavar="NAMES", type=_names, help=text)
    for short, name, only in (("-b", "--backends", DEFAULT_BACKEND), ("-r", "--rerankers", "none")):
        text = f"names separated by commas; default: {only}"
        command.add_argument(short, name, metavar="NAMES", type=_names, default=[only], help=text)
    for name, default, what in (("queries", 200, "queries"), ("images", 2000, "images that are compared")):
        help_text = f"the largest number of {what}; default: %(default)s"
        command.add_argument(f"--{name}", metavar="N", type=common.positive, default=default, help=help_text)
    command.add_argument(
        "--seed", metavar="N", type=common.number(int, 0), default=0, help="the seed of all random choices; default: 0"
    )
    command.add_argument("--known-items", action="store_true", help="changed copies are queries, not images of a class")
    locations.add_layout(command)
    text = "write a report: .html or .json; can be repeated"
    command.add_argument("-o", "--output", metavar="FILE", action="append", default=[], help=text)
    command.add_argument("--json", action="store_true", help="print JSON")


def _names(text: str) -> list[str]:
    """An argparse type: names separated by commas, each once."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names separated by commas, got {text!r}")
    return list(dict.fromkeys(names))


def _compare(options: argparse.Namespace) -> int:
    for file in options.output:
        common.check_output(file, ".html", ".json", ".htm")
    options.extractors = options.extractors or _default_extractors()
    methods = _methods(options)
    layout = _read_layout(options)
    from helpers.evaluation import comparison_data
    from helpers.evaluation.comparison import compare
    from helpers.evaluation.comparison_record import record

    extractors = {name: common.open_extractor(name) for name in dict.fromkeys(one.extractor for one in methods)}
    log(f"comparing {pluralize(len(methods), 'method')} with the features of {', '.join(options.extractors)}")
    try:
        prepared = comparison_data.prepare(
            layout, locations.source_name(options.folder), extractors, options.known_items, options.queries,
            options.images, options.seed,
        )  # fmt: skip
    except comparison_data.TooFewImages as error:
        raise CommandError(printable(error)) from error
    except ValueError as error:
        raise CommandError(f"{printable(error)}. --known-items needs no classes") from error
    _log_images(prepared)
    comparison = compare(prepared.task, extractors, prepared.vectors, methods)
    content = record(comparison, _facts(options, prepared))
    for name in options.output:
        _write(Path(name), comparison, content)
    if options.json:
        common.print_json(content)
    else:
        _print(comparison)
    for name in options.output:
        log(f"report: {printable(name)}")
    return OK


def _default_extractors() -> list[str]:
    """The networks whose weights need no download, the default one first, and two hand-made features."""
    from helpers.networks import specs, weights

    networks = sorted((name for name in specs.ZOO if weights.local(name)), key=lambda n: n != common.DEFAULT_EXTRACTOR)
    return [*networks, *CLASSICAL]


def _methods(options: argparse.Namespace) -> "list[Method]":
    """The combinations of the options; CommandError if there are too few or too many, or a name is unknown."""
    from helpers.evaluation import comparison

    for spec in options.backends:
        if spec.partition(":")[0] in REMOTE:
            raise CommandError(
                f"compare writes nothing to servers and databases, and {printable(spec)} needs one: choose another "
                f"backend, such as {DEFAULT_BACKEND}",
                USAGE,
            )
    try:
        methods, left_out = comparison.combinations(options.extractors, options.backends, options.rerankers)
    except ValueError as error:
        raise CommandError(f"{printable(error)} (lookalike backends lists all backends)", USAGE) from error
    for message in left_out:
        log(f"note: {message}")
    if not 2 <= len(methods) <= comparison.MOST_METHODS:
        raise CommandError(
            f"these options name {pluralize(len(methods), 'method')}; a comparison needs 2 to "
            f"{comparison.MOST_METHODS}: change --extractors, --backends or --rerankers",
            USAGE,
        )
    return methods


def _read_layout(options: argparse.Namespace) -> "Layout":
    """The layout of the folder. Without classes, ``options.known_items`` becomes true."""
    from helpers.images.imageset import NO_CLASS
    from helpers.images.layout import LayoutError

    layout = locations.read_layout(options.folder, options)
    try:
        if not options.known_items and (layout.images.labels == NO_CLASS).all():
            options.known_items = True
            log("note: the folder has no classes, so changed copies of its images are the queries (--known-items)")
        if not options.known_items:
            layout = layout.for_evaluation()
        return layout
    except LayoutError as error:
        raise CommandError(f"{printable(error)} Or compare with --known-items, which needs no classes.") from error
    finally:
        locations.log_layout(layout)


def _log_images(prepared: "Prepared") -> None:
    """Print what became of the images, and which queries were drawn."""
    task = prepared.task
    used = len(task.images) + prepared.unreadable
    if used < prepared.found:
        log(f"note: {used:,} of {prepared.found:,} images were drawn; scores for all of them may differ")
    if n := prepared.unreadable:
        log(f"note: {pluralize(n, 'image')} cannot be read and {was(n)} left out")
    if len(prepared.duplicates):
        log(f"note: {pluralize(len(prepared.duplicates), 'duplicate')} found; copies of a query are ignored")
    if n := task.alone:
        role = "a query" if n == 1 else "queries"
        log(f"note: {pluralize(n, 'image')} without another image of the same class {was(n)} not used as {role}")
    queries = pluralize(len(task.protocol.queries), "query")
    drawn = f", drawn from {task.eligible:,} images" if task.eligible > task.n_units else ""
    log(f"{queries}{drawn}; gallery of {pluralize(len(task.protocol.gallery), 'image')}; {task.kind}")
    if task.changes:
        log("note: known items measure how well an image is found again, not whether results show similar things")


def _facts(options: argparse.Namespace, prepared: "Prepared") -> dict[str, Any]:
    """The first keys of the JSON: the command, the folder and the numbers of images."""
    duplicates = prepared.duplicates
    return {
        "command": _command(options),
        "folder": str(Path(options.folder).resolve()),
        "images": {"found": prepared.found, "compared": len(prepared.task.images), "unreadable": prepared.unreadable},
        "duplicates": {"count": len(duplicates), "searched": list(duplicates.searched)},
    }


def _command(options: argparse.Namespace) -> str:
    """The command that repeats the comparison, with all defaults written out."""
    words = ["lookalike", "compare", options.folder]
    for name in ("extractors", "backends", "rerankers"):
        words += [f"--{name}", ",".join(getattr(options, name))]
    for name in ("queries", "images", "seed"):
        words += [f"--{name}", str(getattr(options, name))]
    for name in ("train", "test"):
        words += [word for folder in getattr(options, name) for word in (f"--{name}", folder)]
    words += ["--classes-from", options.classes_from] if options.classes_from else []
    words += ["--known-items"] * options.known_items + ["--follow-links"] * options.follow_links
    return shlex.join(words)


def _write(file: Path, comparison: "Comparison", content: dict[str, Any]) -> None:
    from helpers.files import write_text
    from helpers.text import clean_values

    if file.suffix.lower() == ".json":
        text = json.dumps(clean_values(content), ensure_ascii=False, indent=1) + "\n"
    else:
        from helpers.visualization.comparison_report import comparison_report

        text = comparison_report(comparison, content)
    write_text(file, text)


def _print(comparison: "Comparison") -> None:
    from helpers.evaluation.comparison import METRICS

    best, *others = comparison.results
    first, lines = comparison.results[best], []
    for name, one in comparison.results.items():
        scores = (
            f"{one.scores.mean(m):.3f} [{one.intervals[m].low:.3f}, {one.intervals[m].high:.3f}]" for m in METRICS
        )
        costs = (f"{one.images_per_second.value:.1f}", f"{one.query_milliseconds.value:.1f}")
        lines.append([name, *scores, *costs, f"{one.bytes_per_image:,.0f}"])
    for bound, mean in (("chance", first.scores.mean_chance), ("ceiling", first.scores.mean_ceiling)):
        lines.append([bound, *(f"{mean(metric):.3f}" for metric in METRICS), "", "", ""])
    common.print_table(["", *METRICS, "images/s", "ms/query", "bytes/image"], lines)
    print("in brackets: 95 % intervals by bootstrap over queries")
    for name in others:
        gap = comparison.differences[name, best]
        verdict = "cannot be told apart" if gap.includes_zero else "worse"
        print(f"{name} minus {best}: mAP {gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], {verdict}")
    print("intervals of differences hold for all pairs together (95 %)\n")
    print(printable(comparison.recommendation.text))
