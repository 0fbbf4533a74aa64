"""Functions that all commands share: exit codes, messages, output formats, shared options and error reports.

This module imports nothing heavy.
"""

import argparse
import json
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import paths
from helpers.cli.tensorflow_log import hide_startup_log
from helpers.text import clean_values, printable, printable_lines, write_csv
from helpers.text import pluralize as pluralize

if TYPE_CHECKING:
    from helpers.features.extractor import FeatureExtractor
    from helpers.search.index import Index

    #: The type that ``add_subparsers`` returns.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

OK, NEGATIVE, USAGE, BAD_INPUT, UNAVAILABLE, INTERNAL_ERROR, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

EXIT_CODES = """\
    0  success
    1  the command ran, but audit found problems, search, list or leaderboard found nothing, or a notebook failed
    2  wrong arguments
    3  bad input: a file is missing, unreadable or damaged, or would be overwritten
    4  not available: weights, a package or a server
   70  internal error; --debug shows the traceback
  130  stopped by Ctrl-C; run the same command again to continue
"""

DEFAULT_EXTRACTOR, DEFAULT_BACKEND = "efficientnet-lite0", "exact:cosine"

#: The message after Ctrl-C of commands that extract features.
VECTORS_KEPT = "stopped; extracted vectors are kept: run the same command again to continue"


class CommandError(Exception):
    """An error with an exit code. The message names the problem and the remedy."""

    def __init__(self, message: str, code: int = BAD_INPUT):
        super().__init__(message)
        self.code = code


class HelpFormatter(argparse.HelpFormatter):
    """Wrap paragraphs to the width of the terminal, except those that contain an indented line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (
            part if "\n " in part or part.startswith(" ") else textwrap.fill(part, width)
            for part in text.strip().split("\n\n")
        )
        return textwrap.indent("\n\n".join(paragraphs), indent)


def add_command(
    commands: "Commands",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str,
    text: str = "",
    interrupted: str = "stopped",
) -> argparse.ArgumentParser:
    """Add a command with the option --debug, which all commands have.

    summary : one sentence, also shown in the list of commands. text : the rest of the description.
    examples : one per line, not indented. interrupted : the message after Ctrl-C.
    """
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary}\n\n{text.strip()}" if text else summary,
        epilog=f"examples:\n{lines}",
        formatter_class=HelpFormatter,
        # An abbreviation in a script would become ambiguous when a command gets another option.
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, interrupted=interrupted)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_formats(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add the options --json and --csv, which exclude each other."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="print JSON")
    group.add_argument("--csv", action="store_true", help="print CSV")
    return group


def add_extractor(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-x", "--extractor", metavar="NAME", default=DEFAULT_EXTRACTOR, help=text)


def add_backend(parser: argparse.ArgumentParser, text: str = "") -> None:
    text = f"the index that finds the nearest vectors; default: %(default)s{text}"
    parser.add_argument("-b", "--backend", metavar="NAME", default=DEFAULT_BACKEND, help=text)


def add_k(parser: argparse.ArgumentParser, default: int, text: str) -> None:
    parser.add_argument("-k", type=positive, default=default, metavar="K", help=f"{text}; default: %(default)s")


def add_follow_links(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow-links", action="store_true", help="enter linked folders, too, each once")


def number(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a number of at least ``least`` and at most ``most``."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            limit = f"at least {least}" if most == math.inf else f"between {least} and {most}"
            raise argparse.ArgumentTypeError(f"must be {limit}, got {value}")
        return value

    # The name in argparse's message about a text that is not a number.
    parse.__name__ = kind.__name__
    return parse


#: An argparse type: an integer of at least 1.
positive = number(int, 1)


def was(number: int) -> str:
    """The verb after a number of things."""
    return "was" if number == 1 else "were"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion such as ". Did you mean search?", to be appended to an error; a period if nothing is similar."""
    from difflib import get_close_matches

    known = list(known)
    similar = [one for one in known if one.startswith(name)] or get_close_matches(name, known, n=3, cutoff=0.65)
    return f". Did you mean {' or '.join(similar)}?" if similar else "."


def log(text: str) -> None:
    """Print a message on standard error. Its line breaks are kept, and other control characters are escaped."""
    print(printable_lines(text), file=sys.stderr, flush=True)


#: Messages of the running command that `log_delayed` prints.
_delayed: list[str] = []


def log_at_end(text: str) -> None:
    """Print a message on standard error when the command ends, so that progress and results do not hide it."""
    _delayed.append(text)


def log_delayed() -> None:
    """Print the messages of `log_at_end`, each once."""
    for text in dict.fromkeys(_delayed):
        log(text)
    _delayed.clear()


def log_warnings() -> Callable[..., None]:
    """A replacement for ``warnings.showwarning`` that logs messages without their position in the code.

    Each of the first 1,000 different messages is logged once.
    """
    logged: set[str] = set()

    def show(message, category, filename, lineno, file=None, line=None):
        if not issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):
            if str(message) not in logged:
                log(f"note: {message}")
            # The limit bounds the memory of a service that runs for months.
            if len(logged) < 1000:
                logged.add(str(message))

    return show


def check_output(name: str | None, *suffixes: str) -> None:
    """CommandError if a file cannot be written, or has another suffix. Call this before a long computation.

    name : None for no file.
    """
    if name is None:
        return
    file = Path(name)
    if file.suffix.lower() not in suffixes:
        raise CommandError(f"the name of {printable(file)} must end in {' or '.join(suffixes)}", USAGE)
    folder = file.parent
    if not folder.is_dir():
        raise CommandError(f"the folder {printable(folder)} of {printable(file)} does not exist: make it first")
    if file.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        raise CommandError(f"{printable(file)} cannot be written: choose another file")


def print_json(value: object) -> None:
    """Print indented JSON with valid Unicode; escape non-ASCII letters if standard output is not UTF-8."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(clean_values(value), ensure_ascii=not utf8, indent=1))


def print_csv(columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """`helpers.text.write_csv` to standard output."""
    write_csv(sys.stdout, columns, rows)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns of text."""
    lines = [list(columns), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def explain_error(error: Exception) -> tuple[int, str]:
    """The exit code and the message for an error."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, CommandError):
        return error.code, message
    from helpers.images.download import DownloadError
    from helpers.networks.weights import WeightsUnavailable
    from helpers.search.backends.remote import ServerRefused, ServerUnavailable
    from helpers.search.index import UnsupportedByIndex

    missing = (WeightsUnavailable, DownloadError, paths.NotInCheckout, ImportError)
    if isinstance(error, (*missing, UnsupportedByIndex, ServerUnavailable, ServerRefused)):
        return UNAVAILABLE, message
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return BAD_INPUT, f"{printable(error.filename)}: {error.strerror}"
    if isinstance(error, OSError | ValueError | KeyError):
        return BAD_INPUT, message
    return INTERNAL_ERROR, f"internal error: {type(error).__name__}: {message}. Use --debug to see the traceback."


def open_extractor(name: str) -> "FeatureExtractor":
    """Open an extractor by its name."""
    from helpers.features.registry import names, open_extractor

    try:
        return open_extractor(name)
    except KeyError as error:
        unknown = next((part for part in name.split("+") if part.lower() not in names()), name)
        suggestion = did_you_mean(unknown.lower(), names())
        raise CommandError(
            f"unknown extractor {unknown!r}{suggestion} `lookalike extractors` lists them all", USAGE
        ) from error


def open_index(spec: str) -> "Index":
    """Open an empty index by the name of its backend."""
    from helpers.search import index

    try:
        return index.open_index(spec)
    except ValueError as error:
        raise CommandError(f"{error}. `lookalike backends` lists them all", USAGE) from error


def quiet_libraries() -> None:
    """Silence the start-up log of TensorFlow and the warnings of matplotlib."""
    paths.set_up_tensorflow()
    hide_startup_log()
    warnings.filterwarnings("ignore", module="matplotlib")
