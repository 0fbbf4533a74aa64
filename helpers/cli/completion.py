"""`lookalike completion`: the script that completes command lines in a shell."""

import argparse

from helpers.cli import common
from helpers.cli.common import OK

#: The shells, which the parser must know without an import of `shtab`.
SHELLS = ("bash", "zsh", "fish")

#: The names of values in the help that are files, or folders only.
_FILES = {"FILE", "TABLE", "IMAGE", "PROTOCOL", "PATH"}
_FOLDERS = {"FOLDER", "FOLDER2", "OLDFOLDER", "DIR", "ENGINE"}


def register(commands: "common.Commands") -> None:
    command = common.add_command(
        commands,
        "completion",
        _completion,
        "Print a script that completes commands, options and file names in a shell.",
        """
lookalike completion bash > ~/.local/share/bash-completion/completions/lookalike
lookalike completion zsh > ~/.zfunc/_lookalike
lookalike completion fish > ~/.config/fish/completions/lookalike.fish
""",
        """
The next shell that you open reads the script. bash needs the package bash-completion. zsh needs the lines
`fpath+=~/.zfunc` and `autoload -Uz compinit && compinit` in ~/.zshrc. The script is static, so a completion starts no
Python; print it again after an update.
""",
    )
    command.add_argument("shell", choices=SHELLS, help=", ".join(SHELLS))


def _completion(options: argparse.Namespace) -> int:
    import shtab

    from helpers.cli.arguments import command_parsers

    for command in command_parsers(options.parser).values():
        for action in command._actions:
            kinds = set(str(action.metavar or "").split("|"))
            if kinds & _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif kinds & _FOLDERS:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(options.parser, options.shell))
    return OK
