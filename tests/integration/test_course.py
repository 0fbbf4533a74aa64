"""The notebook runner: selection, summary, time-outs, saved notebooks."""

import json
import sys

import pytest

from helpers import paths
from helpers.lessons import runner
from tests.conftest import QUICK_SECONDS, is_quick, lesson_of


def test_select_by_number():
    everything = runner.select(None)
    assert [path.name[:2] for path in everything] == sorted(path.name[:2] for path in everything)
    assert [path.name[:2] for path in runner.select("10, 0")] == ["00", "10"]


def test_an_unknown_number_is_refused(capsys):
    assert runner.select("00,77") == []
    assert runner.main(["--only", "77"]) == 2
    assert "77" in capsys.readouterr().out


def test_a_notebook_is_quick_if_its_last_run_was(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "committed_figures_dir", lambda: tmp_path)
    (tmp_path / "results").mkdir()
    for stem, seconds in (("04_baseline_cnn", QUICK_SECONDS), ("05_transfer_learning", 1.5)):
        (tmp_path / "results" / f"{stem}.json").write_text(json.dumps({"seconds": seconds}))
    assert [path.name[:2] for path in runner.select(None) if not is_quick(path)] == ["04"]


def test_a_saved_run_of_the_full_profile_keeps_results_and_leaderboard_only(tmp_path, monkeypatch):
    """The notebook and its figures contain images that must not be copied."""
    committed, working = tmp_path / "committed", tmp_path / "working"
    committed.mkdir()
    (committed / "leaderboard.csv").write_text("earlier\n")
    monkeypatch.setattr(paths, "committed_figures_dir", lambda: committed)
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(working))

    def run(notebook, profile, figures, threads):
        """Instead of papermill: write what a notebook writes."""
        (figures / "results").mkdir()
        (figures / "results" / f"{notebook.stem}.json").write_text(f'{{"profile": "{profile}"}}')
        (figures / "00_start_here_images.jpg").write_bytes(b"an image")
        with (figures / "leaderboard.csv").open("a") as table:
            table.write("new\n")
        return runner.Outcome(notebook.stem, True, 1.0, "it ran")

    monkeypatch.setattr(runner, "run", run)
    assert runner.main(["--only", "00", "--profile", "full", "--save"]) == 0
    assert (committed / "leaderboard.csv").read_text() == "earlier\nnew\n"
    names = sorted(path.relative_to(committed).as_posix() for path in committed.rglob("*") if path.is_file())
    assert names == ["leaderboard.csv", "results_full/00_start_here.json"]


def test_solutions_belong_to_a_notebook():
    solutions = sorted((runner.NOTEBOOKS / "solutions").glob("*.ipynb"))
    assert [lesson_of(path) for path in solutions] == runner.select(None)
    assert [lesson_of(path) for path in runner.select(None)] == runner.select(None)


def test_summary_names_every_notebook_its_seconds_and_state():
    table = runner.summary(
        [runner.Outcome("00_a", True, 12.3, "top-1 0.9"), runner.Outcome("01_b", False, 4, "no such file")]
    )
    lines = table.splitlines()
    assert len(lines) == 4
    assert "00_a" in lines[2] and "12" in lines[2] and "ok" in lines[2] and "top-1 0.9" in lines[2]
    assert "01_b" in lines[3] and "FAILED" in lines[3] and "no such file" in lines[3]


def test_a_process_that_hangs_is_killed_with_its_children():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    code, log = runner._bounded([sys.executable, "-c", script], {}, seconds=1)
    assert code is None
    assert "not finished after 1 s" in log


@pytest.mark.parametrize("number", ["x", "1.5", "0", "-1"])
def test_a_number_of_jobs_that_is_not_positive_is_named(number, capsys):
    with pytest.raises(SystemExit, match="2"):
        runner._parser().parse_args(["--jobs", number])
    assert f"argument --jobs: must be a whole number, at least 1, got '{number}'" in capsys.readouterr().err


def test_the_reason_is_the_last_line_with_text():
    assert runner._last_line("Traceback\n\x1b[31mValueError: no\x1b[0m\n\n") == "ValueError: no"
    assert runner._last_line("") == "no output"


def test_a_saved_notebook_contains_no_absolute_path(tmp_path, monkeypatch):
    import nbformat

    from helpers import paths

    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    message = f"copy it into {tmp_path / 'cache'}/weights, see {paths.ROOT}/README.md"
    output = nbformat.v4.new_output("display_data", data={"text/html": message, "text/plain": ["kept as it is"]})
    printed = nbformat.v4.new_output("stream", name="stdout", text=message)
    cell = nbformat.v4.new_code_cell("1", outputs=[output, printed])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    runner._save(tmp_path / "x.ipynb", tmp_path / "x.ipynb")
    saved = nbformat.read(tmp_path / "x.ipynb", as_version=4).cells[0].outputs
    assert saved[0].data["text/html"] == saved[1].text == "copy it into data/cache/weights, see ./README.md"


def test_a_saved_notebook_has_no_progress_bar(tmp_path):
    import nbformat

    def widget(text):
        view = {"version_major": 2, "version_minor": 0, "model_id": "1"}
        data = {"application/vnd.jupyter.widget-view+json": view, "text/plain": text}
        return nbformat.v4.new_output("display_data", data=data)

    bar = widget("resnet50 · sample:   0%|          | 0/246 [00:00<?, ?image/s]")
    printed = nbformat.v4.new_output("stream", name="stdout", text="a bar looks like 0%|  |")
    cell = nbformat.v4.new_code_cell("1", outputs=[bar, widget("Button(description='next')"), printed])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    runner._save(tmp_path / "x.ipynb", tmp_path / "x.ipynb")
    saved = nbformat.read(tmp_path / "x.ipynb", as_version=4).cells[0].outputs
    assert [one.get("data", one).get("text/plain", "printed") for one in saved] == [
        "Button(description='next')",
        "printed",
    ]
