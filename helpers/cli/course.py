"""`lookalike notebook`: open one of the course's notebooks, or run it."""

import argparse
import subprocess
import sys

from helpers import extras, paths
from helpers.cli.common import USAGE, CommandError, add_command


def register(commands) -> None:
    """Add this family's command to a parser's."""
    notebook = add_command(
        commands,
        "notebook",
        _notebook,
        "Open a notebook of the course in JupyterLab, or run it.",
        """
lookalike notebook 00
lookalike notebook 9 --run
lookalike notebook 05 --run --profile full
""",
        "A notebook that was run lies in build/notebooks; the exit code is 1 if it failed.",
    )
    notebook.add_argument("number", metavar="NN", help="00 to 16")
    notebook.add_argument("--run", dest="headless", action="store_true", help="run it without opening it")
    notebook.add_argument("--profile", choices=("sample", "full"), default="sample", help="which data; with --run")


def _notebook(options: argparse.Namespace) -> int:
    from helpers.lessons import runner

    paths.checkout("The notebooks")
    everything = runner.select(None)
    chosen = runner.select(options.number)
    if len(chosen) != 1:
        numbers = ", ".join(path.name[:2] for path in everything)
        raise CommandError(f"no notebook has the number {options.number!r}; there are: {numbers}", USAGE)
    extras.require("notebooks")
    if options.headless:
        return runner.main(["--only", options.number, "--profile", options.profile])
    # JupyterLab asks on Ctrl-C by itself, and is waited for.
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(chosen[0])])
