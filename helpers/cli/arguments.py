"""Read a command line. The error for a wrong one shows the usage of its command, and similar names."""

import argparse
from collections.abc import Sequence

from helpers.cli.common import OK, did_you_mean


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. Without arguments, the help is printed, as pip does.

    Raises SystemExit: the arguments are wrong, or help or the version was requested.
    """
    if not arguments:
        parser.print_help()
        raise SystemExit(OK)
    commands = command_parsers(parser)
    name = arguments[0]
    if not name.startswith("-") and name not in commands:
        parser.error(f"unknown command {name!r}{did_you_mean(name, commands)} `lookalike --help` lists the commands.")
    command = commands.get(name, parser)
    _check_options(command, arguments[1:] if name in commands else arguments)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        command.error(f"unrecognized arguments: {' '.join(unknown)}")
    # `lookalike completion` describes it.
    options.parser = parser
    return options


def command_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by its name."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def _check_options(command: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """An error if a long option is unknown. argparse would first ask for missing arguments, or not name the command."""
    known = [name for action in command._actions for name in action.option_strings]
    for argument in arguments:
        if argument == "--":
            return
        name = argument.partition("=")[0]
        # An argument with a space is a value, such as a text.
        if name.startswith("--") and " " not in argument and name not in known:
            command.error(f"unknown option {name}{did_you_mean(name, (one for one in known if one.startswith('--')))}")
