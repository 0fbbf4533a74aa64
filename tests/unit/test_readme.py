"""README's tables are those of figures/, and its links exist."""

import json
import re

import nbformat
import pytest
from PIL import Image

from helpers import paths
from helpers.lessons import readme

TEXT = readme.README.read_text(encoding="utf-8")


def test_tables_are_made_from_the_figures():
    assert readme.refreshed(TEXT) == TEXT, "run: python -m helpers.lessons.readme"


def test_a_changed_number_is_found():
    digit = re.search(r"<!-- results -->.*?(0\.\d\d\d)", TEXT, re.DOTALL)[1]
    forged = TEXT.replace(digit, "0.999", 1)
    assert forged != TEXT
    assert readme.refreshed(forged) == TEXT


def test_images_of_the_page_and_the_picker_are_animated_and_small():
    shown = re.findall(r'src="(figures/[\w.]+\.webp)" alt="[^"]{40,}"', TEXT)
    assert set(shown) == {"figures/page.webp", "figures/picker.webp"}
    for name in shown:
        file = paths.ROOT / name
        assert file.stat().st_size < 3e6
        with Image.open(file) as image:
            assert image.n_frames > 2 and image.width >= 700


def test_two_rows_of_one_extractor_are_refused(tmp_path):
    lines = (readme.FIGURES / "leaderboard.csv").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if ",resnet50,imagenet,2048,exact:cosine," in line and ",top-1," in line)
    table = tmp_path / "leaderboard.csv"
    table.write_text("\n".join([*lines, line.replace(",2048,", ",256,")]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"2 rows of 'resnet50' under '[\w-]+' \(\w+\) with 'top-1'"):
        readme.results(table)


def test_indexes_are_shown_at_the_least_sufficient_effort(tmp_path):
    columns = "gallery,index,spec,recall,recall_error,milliseconds,bytes,count,build_seconds"
    rows = [
        "10 REAL,flat,faiss:flat,1,0,0.5,400,10,0",
        "10 REAL,graph,faiss:hnsw?search=16,0.9,0.02,0.1,600,10,0.4",
        "10 REAL,graph,faiss:hnsw?search=32,0.96,0.01,0.2,600,10,0.4",
        "99 SYNTHETIC,flat,faiss:flat,1,0,5,3960,99,0.6",
        "99 SYNTHETIC,graph,faiss:hnsw?search=16,0.7,0.01,0.125,118800,99,7.6",
    ]
    (tmp_path / "table.csv").write_text("\n".join([columns, *rows]))
    assert readme.indexes(tmp_path / "table.csv").splitlines() == [
        "| index | 10 REAL | 99 SYNTHETIC | bytes a vector | built in |",
        "| --- | --- | --- | --- | --- |",
        "| flat: `faiss:flat` | 1.000 ± 0.000, 0.50 ms | 1.000 ± 0.000, 5.00 ms | 40 | 1 s |",
        "| graph: `faiss:hnsw` | 0.960 ± 0.020, 0.20 ms | 0.700 ± 0.020, 0.12 ms | 1,200 | 8 s |",
    ]


def test_minutes_of_the_full_profile_are_shown_once_a_run_was_saved(tmp_path):
    for name, title in (("00_a", "# 00 · A: first"), ("01_b", "# 01 · B")):
        cell = nbformat.v4.new_markdown_cell(title)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
        (tmp_path / f"{name}.json").write_text(json.dumps({"seconds": 42, "headline": f"{name} runs"}))
    assert readme.notebooks(tmp_path, tmp_path, tmp_path / "none").splitlines() == [
        "| notebook | minutes | what you learn | headline of the last run |",
        "| --- | --- | --- | --- |",
        "| [00 A](notebooks/00_a.ipynb) | 0.7 | first | 00_a runs |",
        "| [01 B](notebooks/01_b.ipynb) | 0.7 | B | 01_b runs |",
    ]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "01_b.json").write_text(json.dumps({"seconds": 600}))
    assert readme.notebooks(tmp_path, tmp_path, tmp_path / "full").splitlines() == [
        "| notebook | minutes | full profile | what you learn | headline of the last run |",
        "| --- | --- | --- | --- | --- |",
        "| [00 A](notebooks/00_a.ipynb) | 0.7 | – | first | 00_a runs |",
        "| [01 B](notebooks/01_b.ipynb) | 0.7 | 10.0 | B | 01_b runs |",
    ]


def test_the_markdown_leaderboard_is_made_from_the_table():
    from helpers.evaluation import leaderboard

    board = leaderboard.load(readme.FIGURES / "leaderboard.csv")
    assert (readme.FIGURES / "leaderboard.md").read_text() == leaderboard._markdown(board)


def test_links_exist():
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", TEXT) + re.findall(r'src="(?!https?://)([^"]+)"', TEXT)
    assert len(links) > 5
    assert [link for link in links if not (paths.ROOT / link).exists()] == []


def test_both_commands_are_named():
    assert "./run_all.sh\n" in TEXT and "./run_all.sh test" in TEXT
