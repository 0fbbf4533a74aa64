"""`lookalike completion`: the shells complete commands, options, their values and files."""

import shlex
import shutil
import subprocess

import pytest

from helpers.cli import main as cli
from helpers.cli.completion import SHELLS

#: Print what bash would complete for the words after the first two arguments; the last word is incomplete.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_lookalike
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(capsys, tmp_path):
    """Writes the script for a shell into a file."""

    def write(shell):
        assert cli.main(["completion", shell]) == 0
        file = tmp_path / f"script.{shell}"
        file.write_text(capsys.readouterr().out)
        return file

    return write


def completed_by_bash(script, *words, folder):
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", script, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")) - {""}


def test_bash_completes_commands_options_values_and_files(script, tmp_path):
    (tmp_path / "here" / "my.engine").mkdir(parents=True)
    (tmp_path / "here" / "my.jpg").touch()
    file, here = script("bash"), tmp_path / "here"
    assert completed_by_bash(file, "lookalike", "se", folder=here) == {"search", "serve"}
    assert completed_by_bash(file, "lookalike", "search", "--re", folder=here) == {"--rerank"}
    assert completed_by_bash(file, "lookalike", "search", "a.jpg", "--rerank", "k", folder=here) == {"k-reciprocal"}
    assert completed_by_bash(file, "lookalike", "search", "my", folder=here) == {"my.engine", "my.jpg"}
    assert completed_by_bash(file, "lookalike", "sync", "-e", "my", folder=here) == {"my.engine"}
    assert completed_by_bash(file, "lookalike", "completion", "", folder=here) >= set(SHELLS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(shell, script):
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED: {shell} is not installed: apt-get install {shell}")
    done = subprocess.run([shell, "-n", script(shell)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fish_completes_commands_and_options(script):
    if shutil.which("fish") is None:
        pytest.skip("NOT TESTED: fish is not installed: apt-get install fish")
    file = shlex.quote(str(script("fish")))
    for line, expected in (("lookalike se", {"search", "serve"}), ("lookalike search --re", {"--rerank"})):
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {file}; complete -C {shlex.quote(line)}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert {each.partition("\t")[0] for each in done.stdout.splitlines()} == expected
