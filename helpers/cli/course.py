"""`lookalike notebook`: open or run a notebook of the course."""

import argparse
import subprocess
import sys

from helpers import extras, paths
from helpers.cli import common
from helpers.cli.common import USAGE, CommandError


def register(commands: "common.Commands") -> None:
    notebook = common.add_command(
        commands,
        "notebook",
        _notebook,
        "Open a notebook of the course in JupyterLab, or run it.",
        """
lookalike notebook 00
lookalike notebook 9 --run
lookalike notebook 05 --run --profile full
""",
        "--run saves the executed notebook in build/notebooks. The exit code is 1 if it failed.",
    )
    notebook.add_argument("number", metavar="NN", help="00 to 18")
    notebook.add_argument("--run", dest="headless", action="store_true", help="run it without opening it")
    notebook.add_argument(
        "--profile", choices=("sample", "full"), default="sample", help="which data --run uses; default: %(default)s"
    )


def _notebook(options: argparse.Namespace) -> int:
    from helpers.lessons import runner

    paths.checkout("The notebooks")
    chosen = runner.select(options.number)
    if len(chosen) != 1:
        numbers = ", ".join(path.name[:2] for path in runner.select(None))
        raise CommandError(f"unknown notebook {options.number!r}; choose one of: {numbers}", USAGE)
    extras.require("notebooks")
    if options.headless:
        return runner.main(["--only", options.number, "--profile", options.profile])
    # `call` waits after Ctrl-C, so that JupyterLab can ask for confirmation.
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(chosen[0])])
