"""Runs the notebooks headless: ``python -m helpers.lessons.runner``, which ``run_all.sh`` calls.

Papermill runs each notebook in a separate process, with a time-out for each cell and one for the notebook. A run that
hangs is killed and repeated once; a run that fails is not repeated.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from helpers import extras, paths
from helpers.files import write_text

NOTEBOOKS = paths.ROOT / "notebooks"
BUILD = paths.ROOT / "build"
CELL_SECONDS = {"sample": 600, "full": 3600}
WHOLE_SECONDS = {"sample": 1200, "full": 7200}
LEADERBOARD = ("leaderboard.csv", "leaderboard.md")
#: The folder in ``figures/`` for the results of saved runs of the full profile.
FULL_RESULTS = "results_full"
#: Environment variables with the number of threads of the numerical libraries.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Outcome:
    """The result of running one notebook."""

    notebook: str
    ok: bool
    seconds: float
    headline: str

    def __str__(self) -> str:
        """A line of the final table."""
        return f"{self.notebook:<28}  {self.seconds:7.0f}  {'ok' if self.ok else 'FAILED':<6}  {self.headline}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 if a notebook failed, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    notebooks = select(options.only)
    if not notebooks:
        print(f"no notebook matches --only {options.only}; available: {', '.join(map(_number, select(None)))}")
        return 2
    # Licenses do not allow copies of the full profile's images: such a run saves its leaderboard rows and results only.
    keep_all = options.save and options.profile == "sample"
    figures = paths.committed_figures_dir() if keep_all else paths.figures_dir()
    if options.save and not keep_all:
        # The run adds its rows to the committed ones.
        _copy(paths.committed_figures_dir(), figures, *LEADERBOARD)
    started = time.perf_counter()
    count = f"{len(notebooks)} notebook{'s' if len(notebooks) > 1 else ''}"
    print(f"{count}, profile {options.profile}, executed copies in {BUILD / 'notebooks'}", flush=True)
    outcomes = []
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:
        # The longest first, so that none of them runs alone at the end.
        order = sorted(notebooks, key=saved_seconds, reverse=True)
        runs = {pool.submit(run, notebook, options.profile, figures, threads=threads): notebook for notebook in order}
        for future in as_completed(runs):
            notebook, outcome = runs[future], future.result()
            if keep_all and outcome.ok:
                _save(notebook, BUILD / "notebooks" / notebook.name)
                outcome = _with_solutions(notebook, outcome, threads)
            elif options.save and outcome.ok:
                _copy(figures / "results", paths.committed_figures_dir() / FULL_RESULTS, f"{notebook.stem}.json")
            outcomes.append(outcome)
            print(f"[{len(outcomes)}/{len(notebooks)}] {outcome}", flush=True)
    if options.save and not keep_all:
        _copy(figures, paths.committed_figures_dir(), *LEADERBOARD)
    outcomes.sort(key=lambda outcome: outcome.notebook)
    print(f"\n{summary(outcomes)}\n\n{time.perf_counter() - started:.0f} s in all")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def select(only: str | None) -> list[Path]:
    """The numbered notebooks, or those with the numbers in ``only`` (``"00,10"``); none if a number is unknown."""
    notebooks = sorted(path for path in NOTEBOOKS.glob("*.ipynb") if re.match(r"\d\d_", path.name))
    if only is None:
        return notebooks
    numbers = {number.strip().zfill(2) for number in only.split(",") if number.strip()}
    if numbers - set(map(_number, notebooks)):
        return []
    return [path for path in notebooks if _number(path) in numbers]


def saved_seconds(notebook: Path) -> float:
    """How long the last saved run of a notebook took; 0 without one."""
    file = paths.committed_figures_dir() / "results" / f"{notebook.stem}.json"
    return json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.is_file() else 0


def run(
    notebook: Path,
    profile: str,
    figures: Path,
    parameters: dict | None = None,
    output: Path | None = None,
    threads: int | None = None,
) -> Outcome:
    """Execute one notebook into ``build/notebooks`` (or ``output``); a run that hangs is repeated once.

    threads : number of threads of each numerical library; None is the libraries' default.
    """
    output = output or BUILD / "notebooks" / notebook.name
    output.parent.mkdir(parents=True, exist_ok=True)
    figures.mkdir(parents=True, exist_ok=True)
    result = figures / "results" / f"{notebook.stem}.json"
    result.unlink(missing_ok=True)
    command = [*_papermill(notebook, output, profile), "-p", "PROFILE", profile]
    for name, value in (parameters or {}).items():
        command += ["-y", json.dumps({name: value})]
    environment = _threaded(threads) | {
        "LOOKALIKE_FIGURES": str(figures), "LOOKALIKE_CHECK": "1", "JUPYTER_PREFER_ENV_PATH": "1",
    }  # fmt: skip
    started = time.perf_counter()
    for _ in range(2):
        code, log = _bounded(command, environment, WHOLE_SECONDS[profile])
        if code is not None and "CellTimeoutError" not in log:
            break
    seconds = time.perf_counter() - started
    output.with_suffix(".log").write_text(log, encoding="utf-8")
    if code == 0 and result.is_file():
        return Outcome(notebook.stem, True, seconds, json.loads(result.read_text(encoding="utf-8"))["headline"])
    reason = "no results file" if code == 0 else _last_line(log) if code is not None else "time-out"
    return Outcome(notebook.stem, False, seconds, f"{reason} (log: {output.with_suffix('.log')})")


def _threaded(threads: int | None) -> dict[str, str]:
    """The environment of a notebook. Variables of the user have precedence."""
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {}
    return paths.TENSORFLOW | limits | os.environ


def _papermill(notebook: Path, output: Path, profile: str) -> list[str]:
    return [
        sys.executable, "-m", "papermill", str(notebook), str(output), "--cwd", str(notebook.parent), "--kernel",
        "python3", "--no-progress-bar", "--log-level", "ERROR", "--execution-timeout", str(CELL_SECONDS[profile]),
    ]  # fmt: skip


def summary(outcomes: list[Outcome]) -> str:
    """The final table: notebook, seconds, state and headline of each run."""
    return "\n".join([f"{'notebook':<28}  seconds  state   headline", "-" * 88, *map(str, outcomes)])


def _bounded(command: list[str], environment: dict, seconds: int) -> tuple[int | None, str]:
    """Run a command; return its exit status (None: it was killed) and output. Its children are killed with it."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        log, _ = process.communicate(timeout=seconds)
        return process.returncode, log
    except subprocess.TimeoutExpired:
        _kill(process)
        return None, process.communicate()[0] + f"\nnot finished after {seconds} s: killed"
    except BaseException:  # Ctrl-C must not leave a kernel running
        _kill(process)
        raise


def _kill(process: subprocess.Popen) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _last_line(log: str) -> str:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in log.splitlines()]
    return next((line for line in reversed(lines) if line), "no output")


def _number(notebook: Path) -> str:
    return notebook.name[:2]


def _copy(source: Path, target: Path, *names: str) -> None:
    """Copy the files that exist from a folder to another one."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def _with_solutions(notebook: Path, outcome: Outcome, threads: int | None) -> Outcome:
    """Run the notebook's solutions, and replace the committed ones by the executed copy; the outcome of both.

    threads : as for the notebook, because rounding errors of a training depend on it.
    """
    solutions = notebook.parent / "solutions" / f"{notebook.stem}_solutions.ipynb"
    output = BUILD / "notebooks" / solutions.name
    code, log = _bounded(_papermill(solutions, output, "sample"), _threaded(threads), WHOLE_SECONDS["sample"])
    if code != 0:
        return replace(outcome, ok=False, headline=f"{solutions.name} failed: {_last_line(log)}")
    _save(solutions, output)
    return outcome


def _save(notebook: Path, executed_copy: Path) -> None:
    """Replace the committed notebook by its executed copy, without papermill's metadata and volatile output."""
    with extras.importing("notebooks", "nbformat"):
        import nbformat

    executed = nbformat.read(executed_copy, as_version=4)
    executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    executed.metadata.pop("papermill", None)
    executed.metadata.pop("widgets", None)
    count = 0
    for cell in executed.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("papermill-")]
        if not cell.metadata["tags"]:
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _lasting(cell.outputs)
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
                for texts in (output, output.get("data", {})):
                    texts |= {key: _without_folders(text) for key, text in texts.items() if isinstance(text, str)}
    write_text(notebook, nbformat.writes(executed).rstrip("\n") + "\n")


def _lasting(outputs: list[dict]) -> list[dict]:
    """The outputs without standard error and without some widgets, which a saved notebook cannot show.

    These are progress bars, whose text would always show 0 %, and widgets with a static image, another output with the
    same text.
    """
    images = [output["data"].get("text/plain", "") for output in outputs if "image/png" in output.get("data", {})]
    kept = []
    for output in outputs:
        data = output.get("data", {})
        text = data.get("text/plain", "")
        is_widget = "application/vnd.jupyter.widget-view+json" in data
        if output.get("name") != "stderr" and not (is_widget and ("%|" in text or text in images)):
            kept.append(output)
    return kept


def _without_folders(text: str) -> str:
    """The text with relative paths: error messages contain absolute ones, which a saved notebook must not."""
    for folder, name in ((paths.cache_dir(), "data/cache"), (paths.ROOT, ".")):
        text = text.replace(str(folder), name)
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run_all.sh", description="Run the notebooks of the course.")
    parser.add_argument(
        "--profile", choices=sorted(CELL_SECONDS), default="sample", help="the data to use (default: sample)"
    )
    parser.add_argument("--only", metavar="00,10", help="numbers of the notebooks to run")
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=min(2, os.cpu_count() or 1),
        metavar="N",
        help="number of notebooks in parallel; they share the cores (default: 2, or 1 on one core)",
    )
    parser.add_argument(
        "--save",
        action="store_true",
        help="replace the committed notebooks and figures; with the full profile, only its results",
    )
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
