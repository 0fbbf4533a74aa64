"""`lookalike`: search engines for images from the command line.

Results are printed on standard output, messages on standard error, so ``lookalike search a.jpg --json | jq`` reads JSON
only. Progress bars appear on a terminal only. An error message names the file and the remedy; ``--debug`` shows the
traceback. `helpers.cli.common` defines the exit codes.

The modules of the commands import what they compute with only when a command runs, so that ``--help`` is fast.
"""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from helpers import paths
from helpers.cli import common
from helpers.cli.arguments import parse

#: The modules of the commands, in the order of ``lookalike --help``. ``register`` of a module adds its commands.
COMMAND_MODULES = (
    "indexing", "syncing", "engines", "contents", "searching", "words", "scores", "comparing", "audits", "listings",
    "serving", "course", "completion",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default ``sys.argv``) and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal may lack a letter.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parse(parser(), sys.argv[1:] if arguments is None else arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = common.log_warnings()
            # Python would suppress a warning that was shown before.
            warnings.simplefilter("always", UserWarning)
            common.quiet_libraries()
            code = options.run(options)
            # Flush here, where a closed pipe is still handled.
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        common.log(options.interrupted)
        return common.INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe has ended, as in `lookalike … | head`. Python must not write the buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return common.OK
    except Exception as error:
        if options.debug:
            raise
        code, message = common.explain_error(error)
        common.log(f"lookalike {options.command}: {message}")
        return code
    finally:
        common.log_delayed()


def parser() -> argparse.ArgumentParser:
    """The parser with all commands and their options."""
    top = argparse.ArgumentParser(
        prog="lookalike",
        description="Find images that look like a given image: make, search, evaluate and serve image search engines.",
        epilog=f"{_START}\nexit codes:\n{common.EXIT_CODES}\n`lookalike COMMAND --help` shows examples.",
        formatter_class=common.HelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version, help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name in COMMAND_MODULES:
        import_module(f"helpers.cli.{name}").register(commands)
    return top


class _Version(argparse.Action):
    """Print the version. It is read only then, because every command makes the parser."""

    def __init__(self, option_strings, dest, help=None):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        print(f"lookalike {paths.package_version()}")
        parser.exit()


_START = """examples:
  lookalike index photos              make a search engine from a folder, in my.engine
  lookalike search holiday.jpg        find the images that look like this one
  lookalike serve                     start a web page for the same search
"""
