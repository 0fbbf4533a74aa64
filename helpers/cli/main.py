"""`lookalike`: search engines for images from the command line.

Results go to the standard output and remarks to the standard error output, so that ``lookalike search a.jpg --json |
jq`` is given nothing but JSON. Progress bars are shown on a terminal only. What failed is said in a sentence that names
the file and the remedy; ``--debug`` shows where it failed. The exit codes are in `helpers.cli.common`.

The parser is made from the commands' own modules, which import what they compute with when they run: ``--help`` waits
for no network.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from helpers.cli import audits, common, course, engines, listings, scores, searching, serving

#: In the order of ``lookalike --help``.
FAMILIES = (engines, searching, scores, audits, listings, serving, course)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for (``sys.argv`` by default); the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that are no text, and a terminal may lack a letter: no reason to fail.
        stream.reconfigure(errors="backslashreplace")
    try:
        options = parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = common.log_warnings()
            # Each is to come here, also where one like it was shown before.
            warnings.simplefilter("always", UserWarning)
            code = options.run(options)
            # Here, where a reader that went away is still expected.
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        common.log(options.interrupted)
        return common.INTERRUPTED
    except BrokenPipeError:
        # `lookalike … | head` has seen enough. What is left in the buffer must not be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return common.OK
    except Exception as error:
        if options.debug:
            raise
        code, message = common.explained(error)
        common.log(f"lookalike {options.command}: {message}")
        return code


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="lookalike",
        description="Finds images that look like an image: makes search engines of folders, asks, scores and serves "
        "them.",
        epilog=f"{_START}\nexit codes:\n{common.EXIT_CODES}\n`lookalike COMMAND --help` shows a command's examples.",
        formatter_class=common.HelpFormatter,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for family in FAMILIES:
        family.register(commands)
    return top


_START = """examples:
  lookalike index photos              make a search engine of a folder, in my.index
  lookalike search holiday.jpg        what looks like this image
  lookalike serve                     the same as a web page
"""
