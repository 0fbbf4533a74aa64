"""run_all.sh reads its arguments before it sets anything up."""

import os
import shutil
import subprocess

import pytest

from helpers import paths

NUMBERS = ["00", "01", "09", "10"]
RUN_USAGE = "usage: ./run_all.sh [--profile sample|full] [--only 00,10] [--jobs N] [--save]"
TEST_USAGE = (
    "usage: ./run_all.sh test [--slow | --ci] [--profile sample|full] [--only 00,10] [--jobs N] [arguments of pytest]"
)


@pytest.fixture
def checkout(tmp_path):
    """A folder with the script and the names of four notebooks, in which the set-up has been done."""
    folder = tmp_path / "check out"
    (folder / "notebooks" / "solutions").mkdir(parents=True)
    for number in NUMBERS:
        (folder / "notebooks" / f"{number}_title.ipynb").touch()
        (folder / "notebooks" / "solutions" / f"{number}_title_solutions.ipynb").touch()
    shutil.copy(paths.ROOT / "run_all.sh", folder)
    return folder


def run(folder, *arguments):
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [folder / "run_all.sh", *arguments],
        cwd=folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--jobs", "0"], "--jobs must be a number from 1 to 999, not '0'"),
        (["--jobs", "00"], "not '00'"),
        (["--jobs", "-1"], "not '-1'"),
        (["--jobs", "x"], "not 'x'"),
        (["--jobs", "1.5"], "not '1.5'"),
        (["--jobs=99999999999999999999"], "from 1 to 999"),
        (["--jobs"], "--jobs needs a value"),
        (["--jobs="], "--jobs needs a value"),
        (["--jobs", "--save"], "--jobs needs a value"),
        (["--only", "99"], "there is no notebook '99' (available: 00 01 09 10)"),
        (["--only", "9,x"], "there is no notebook 'x'"),
        (["--only", "09*"], "there is no notebook '09*'"),
        (["--only", "*"], "there is no notebook '*'"),
        (["--only", "009"], "there is no notebook '009'"),
        (["--only", ","], "--only needs a value"),
        (["--only"], "--only needs a value"),
        (["--only", ""], "--only needs a value"),
        (["--profile"], "--profile needs a value"),
        (["--profile", "big"], "--profile must be sample or full, not 'big'"),
        (["--slow"], "unknown option --slow"),
        (["--ci"], "unknown option --ci"),
        (["--save=1"], "unknown option --save=1"),
        (["--bogus"], "unknown argument '--bogus'"),
        (["9"], "unknown argument '9'"),
        (["--save", "--only", "09", "--jobs", "0"], "--jobs must be"),
        (["test", "--jobs", "0"], "--jobs must be"),
        (["test", "--only", "99"], "there is no notebook '99'"),
        (["test", "--only"], "--only needs a value"),
        (["test", "--save"], "unknown option --save"),
        (["test", "--ci=1"], "unknown option --ci=1"),
        (["test", "--slow", "--ci"], "--slow and --ci cannot be combined"),
        (["test", "--ci", "tests/unit"], "cannot be combined with arguments of pytest"),
        (["test", "--only", "9", "tests/unit"], "cannot be combined with arguments of pytest"),
    ],
)
def test_wrong_arguments_are_one_line_and_nothing_is_set_up(checkout, arguments, reason):
    before = sorted(checkout.rglob("*"))
    ended = run(checkout, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("run_all.sh: ") and reason in line
    assert line.endswith(TEST_USAGE if arguments[0] == "test" else RUN_USAGE)
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["test", "--help"], ["--only", "9", "-h"]])
def test_help_prints_both_forms(checkout, arguments):
    ended = run(checkout, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert RUN_USAGE.removeprefix("usage: ") in ended.stdout and TEST_USAGE.removeprefix("usage: ") in ended.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ([], "-m helpers.lessons.runner"),
        (["--only", "9"], "-m helpers.lessons.runner --only 09"),
        (["--only=09", "--save"], "-m helpers.lessons.runner --only 09 --save"),
        (["--only", "9, 10,0", "--jobs=02"], "-m helpers.lessons.runner --only 09,10,00 --jobs 2"),
        (["--profile=full", "--jobs", "3"], "-m helpers.lessons.runner --profile full --jobs 3"),
        (["test", "tests/unit", "-k", "a or b"], "-m pytest tests/unit -k a or b"),
        (["test", "--jobs", "1", "--profile", "full", "-x"], "-m pytest -n 1 --profile full -x"),
        (
            ["test", "--slow", "--only=9,10"],
            "-m pytest tests/notebooks notebooks/09_title.ipynb notebooks/solutions/09_title_solutions.ipynb "
            "notebooks/10_title.ipynb notebooks/solutions/10_title_solutions.ipynb --nbval-lax "
            "--nbval-cell-timeout=600 -m slow or measured -n 2 -k 09_ or 10_",
        ),
        (
            ["test", "--ci", "--only", "0", "--jobs", "1"],
            "-m pytest tests/notebooks notebooks/00_title.ipynb notebooks/solutions/00_title_solutions.ipynb "
            "--nbval-lax --nbval-cell-timeout=600 -m not measured or ci -n 1 -k 00_",
        ),
    ],
)
def test_clear_arguments_are_passed_on(checkout, arguments, called):
    replace_set_up(checkout, python='echo "$@"')
    ended = run(checkout, *arguments)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", f"{called}\n")


def replace_set_up(checkout, **programs):
    """Shell scripts take the place of the programs of a set-up that takes minutes."""
    script = (checkout / "run_all.sh").read_text(encoding="utf-8")
    (checkout / "run_all.sh").write_text(script.replace("\nset_up\n", "\n"), encoding="utf-8")
    folder = checkout / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name, content in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{content}\n", encoding="utf-8")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(("lint", "types", "tests", "status"), [
    (0, 0, 0, 0), (0, 0, 5, 5), (0, 1, 0, 1), (0, 2, 5, 1), (3, 0, 0, 3),
])  # fmt: skip
def test_a_failing_check_fails_the_run(checkout, lint, types, tests, status):
    """The types are checked while the tests run, and their errors are printed last."""
    script = f"echo wrong type; exit {types}"
    replace_set_up(checkout, ruff=f"exit {lint}", mypy=f"sleep 0.2; {script}", python=f"echo tested; exit {tests}")
    ended = run(checkout, "test", "--ci")
    assert ended.returncode == status
    assert ended.stdout.split("\n") == ([""] if lint else ["tested", "wrong type", ""])
