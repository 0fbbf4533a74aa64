"""What all commands share: exit codes, remarks, output formats, and errors in one sentence. Imports nothing heavy."""

import argparse
import csv
import json
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence

OK, FOUND, USAGE, BAD_INPUT, UNAVAILABLE, MISTAKE, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

EXIT_CODES = """\
    0  done
    1  done, and it found problems (audit), or nothing (search, leaderboard); a notebook failed
    2  wrong arguments
    3  bad input: a file is missing, unreadable or damaged, or would be overwritten
    4  something can't be had: weights, a package, a server
   70  a mistake of this program; --debug shows where
  130  stopped by Ctrl-C; the same command goes on from there
"""


class CommandError(Exception):
    """What a command refuses to do, with its exit code; the message names what is wrong and the remedy."""

    def __init__(self, message: str, code: int = BAD_INPUT):
        super().__init__(message)
        self.code = code


class HelpFormatter(argparse.HelpFormatter):
    """Paragraphs are wrapped to the terminal's width; a paragraph with an indented line stays as it is."""

    def _fill_text(self, text, width, indent):
        paragraphs = (
            part if "\n " in part or part.startswith(" ") else textwrap.fill(part, width)
            for part in text.strip().split("\n\n")
        )
        return textwrap.indent("\n\n".join(paragraphs), indent)


def add_command(
    commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str,
    text: str = "",
    interrupted: str = "stopped",
) -> argparse.ArgumentParser:
    """A command of ``commands`` (what ``add_subparsers`` gives), to which its options are to be added.

    summary : one sentence, for the list of commands too. text : what else there is to say.
    examples : one a line, without indent. interrupted : what is said after Ctrl-C.
    """
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary}\n\n{text.strip()}" if text else summary,
        epilog=f"examples:\n{lines}",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run, interrupted=interrupted)
    parser.add_argument("--debug", action="store_true", help="after an error, show where it happened")
    return parser


def add_formats(parser: argparse.ArgumentParser, json_help: str, csv_help: str) -> argparse._MutuallyExclusiveGroup:
    """The options --json and --csv, of which one may be given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help=json_help)
    group.add_argument("--csv", action="store_true", help=csv_help)
    return group


def add_extractor(parser: argparse.ArgumentParser, text: str, **settings) -> None:
    """The option --extractor."""
    parser.add_argument("-d", "--extractor", metavar="NAME", help=text, **settings)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def pluralize(number: int, noun: str) -> str:
    """In words: "1 image", "1,000 images", "2 classes", "3 queries"."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {plural}"


def shown(text: object) -> str:
    """A name on one line: line breaks and other control characters are written as escapes."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in str(text))


def log(text: str) -> None:
    """To the person, not into the results."""
    print(text, file=sys.stderr, flush=True)


def log_warnings() -> Callable[..., None]:
    """What Python is to call to show a warning: each is said once, without its place in the code."""
    said = set()

    def show(message, category, filename, lineno, file=None, line=None):
        if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):
            if str(message) not in said:
                log(f"note: {message}")
            # A service runs for long.
            if len(said) < 1000:
                said.add(str(message))

    return show


def print_json(value: object) -> None:
    """As JSON, readable; letters beyond ASCII are escaped where the output can't take them."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not utf8, indent=1))


def print_csv(columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """As CSV with a header; None is empty."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """As text in columns; the last one is not filled up."""
    lines = [list(columns), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def explained(error: Exception) -> tuple[int, str]:
    """The exit code of an error and what is said about it."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, CommandError):
        return error.code, message
    if isinstance(error, _unavailable()):
        return UNAVAILABLE, message
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return BAD_INPUT, f"{shown(error.filename)}: {error.strerror}"
    if isinstance(error, OSError | ValueError | KeyError):
        return BAD_INPUT, message
    return MISTAKE, (
        f"{type(error).__name__}: {message}. That should not have happened; the same command with --debug shows where."
    )


def _unavailable() -> tuple[type[Exception], ...]:
    from helpers.images.download import DownloadError
    from helpers.networks.weights import WeightsUnavailable
    from helpers.paths import NotInCheckout
    from helpers.search.backends.remote import ServerRefused, ServerUnavailable
    from helpers.search.index import UnsupportedByIndex

    return (
        WeightsUnavailable,
        DownloadError,
        UnsupportedByIndex,
        ServerUnavailable,
        ServerRefused,
        NotInCheckout,
        ImportError,
    )


def open_extractor(name: str):
    """An extractor by its name.

    Raises
    ------
    CommandError : there is none; the message lists some.
    WeightsUnavailable : its weights can't be had.
    """
    from helpers.features.registry import open_extractor

    try:
        return open_extractor(name)
    except KeyError as error:
        raise CommandError(f"no extractor is called {name!r}: `lookalike extractors` lists them all", USAGE) from error


def open_index(spec: str):
    """An empty index by its name.

    Raises
    ------
    CommandError : there is none; the message lists those there are.
    ImportError : its package is not installed.
    """
    from helpers.search import index

    try:
        return index.open_index(spec)
    except ValueError as error:
        raise CommandError(f"{error}. `lookalike indexes` lists them all", USAGE) from error


def quiet_libraries() -> None:
    """Nothing of what libraries have to say about processors and graphs is of interest here."""
    from helpers import paths

    paths.quiet_tensorflow()
    warnings.filterwarnings("ignore", module="matplotlib")
