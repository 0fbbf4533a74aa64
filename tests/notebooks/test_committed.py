"""The committed notebooks are one clean run of the sample profile each, small, and tell of their results."""

import json
import re

import nbformat
import pandas as pd
import pytest

from helpers import course, paths
from helpers.evaluation.intervals import wilson_interval
from helpers.search import measuring

FIGURES = paths.ROOT / "figures"
NOTEBOOKS = course.select(None)
SOLUTIONS = sorted((course.NOTEBOOKS / "solutions").glob("*.ipynb"))
#: Home folders and absolute paths of whoever ran it; hosts of package registries.
PRIVATE = re.compile(r"/(?:home|root|Users|work|tmp|private|mnt)/\w|[A-Z]:\\\\Users")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def test_there_are_notebooks():
    assert {path.name[:2] for path in NOTEBOOKS} >= {f"{number:02}" for number in [*range(14), 16]}


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda path: path.stem)
class TestEveryNotebook:
    def test_is_one_clean_run(self, path):
        cells = code_cells(read(path))
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]

    def test_is_small_and_tells_nothing_of_the_machine(self, path):
        assert path.stat().st_size < 1_000_000
        text = path.read_text(encoding="utf-8")
        pictures_removed = re.sub(r'"image/png": "[^"]*"', "", text)
        assert not PRIVATE.search(pictures_removed), PRIVATE.search(pictures_removed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEveryLesson:
    def test_has_one_parameters_cell_in_upper_case(self, path):
        tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1
        names = re.findall(r"^(\w+) *=", tagged[0].source, re.MULTILINE)
        assert "PROFILE" in names and "SEED" in names
        assert all(name.isupper() for name in names)

    def test_has_the_shape_of_a_lesson(self, path):
        cells = read(path).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        assert 30 <= len(cells) <= 70
        assert cells[0].source.startswith(f"# {path.name[:2]} · ") and "You are going to" in cells[0].source
        assert "## Recap" in text and "Three questions" in text and "## Exercises" in text
        assert sum("check(" in cell.source for cell in code_cells(read(path))) >= 1
        assert (path.parent / "solutions" / path.name.replace(".ipynb", "_solutions.ipynb")).is_file()

    def test_its_results_file_is_of_this_run(self, path):
        result = json.loads((FIGURES / "results" / f"{path.stem}.json").read_text(encoding="utf-8"))
        assert set(result) >= {"notebook", "profile", "seed", "headline", "data", "weights", "metrics", "seconds"}
        assert (result["notebook"], result["profile"]) == (path.stem, "sample")
        printed = "".join(
            output.get("text", "") for output in code_cells(read(path))[-1].outputs if output.output_type == "stream"
        )
        assert result["headline"] in printed

    def test_keeps_its_expected_numbers(self, path):
        result = json.loads((FIGURES / "results" / f"{path.stem}.json").read_text(encoding="utf-8"))
        assert result["checks"], "no number of the text is held by a check"
        for check in result["checks"]:
            assert abs(check["measured"] - check["expected"]) <= check["tolerance"], check
            # The number that the check holds is the one that a reader finds in the text or in the code.
            assert f"{check['expected']:g}" in path.read_text(encoding="utf-8")

    def test_its_figures_are_there(self, path):
        result = json.loads((FIGURES / "results" / f"{path.stem}.json").read_text(encoding="utf-8"))
        assert result["figures"]
        for name in result["figures"]:
            assert (FIGURES / name).is_file()


def test_no_two_notebooks_share_their_code():
    """Copy-paste between notebooks: no run of five code lines stands in two of them, imports and parameters aside."""
    seen = {}
    for path in NOTEBOOKS:
        for cell in code_cells(read(path)):
            if "parameters" in cell.metadata.get("tags", []) or cell.source.lstrip().startswith(("import", "from")):
                continue
            lines = [
                line.strip() for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")
            ]
            for start in range(len(lines) - 4):
                run = "\n".join(lines[start : start + 5])
                assert seen.setdefault(run, path.stem) == path.stem, f"{path.stem} repeats {seen[run]}:\n{run}"


def story(stem):
    """The markdown of a lesson."""
    cells = read(course.NOTEBOOKS / f"{stem}.ipynb").cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_numbers_of_the_known_items_in_the_story_are_measured():
    table = pd.read_csv(FIGURES / "07_sift_and_orb_known_items_full.csv")
    mean = table.groupby(["kind", "method"])["recall@1"].mean()
    methods = {"SIFT": "sift votes", "ORB": "orb votes", "ResNet50": "resnet50"}
    turned, pasted = (
        ", ".join(f"{who} {mean[kind, method]:.3f}" for who, method in methods.items())
        for kind in ("rotation", "pasted")
    )
    queries = table[table["method"] == "resnet50"]["queries"].sum()
    told = f"{queries:,} queries it is the same: over all turns {turned}; pasted crops {pasted}."
    assert told in story("07_sift_and_orb")


def test_keypoints_find_what_they_are_said_to_find():
    """On the full profile's known items; tests/full asks with a part of them anew."""
    table = pd.read_csv(FIGURES / "07_sift_and_orb_known_items_full.csv")
    sift = table[table["method"] == "sift votes"].set_index(["kind", "strength"])
    assert sift["queries"].min() >= 150 and sift["queries"].sum() >= 3000
    assert sift.loc["rotation", "recall@1"].mean() >= 0.97 and len(sift.loc["rotation"]) == 23
    assert sift.loc[("crop", 0.5), "recall@1"] >= 0.93
    assert sift.loc[("scale", 0.25), "recall@1"] >= 0.93


def test_numbers_of_the_classifiers_in_the_story_are_measured():
    table = pd.read_csv(FIGURES / "08_visual_words_classifiers_full.csv").set_index(["fusion", "classifier"])
    raw, corrected = (table.loc[way, "test accuracy"] for way in ("HOG + SIFT, raw counts", "HOG + SIFT"))
    told = story("08_visual_words")
    assert f"right for {100 * raw['k nearest']:.1f} % of CIFAR-10's test pictures" in told
    assert f"length one for {100 * corrected['k nearest']:.1f} %" in told
    assert f"its test accuracy**, {100 * corrected['random forest']:.1f} %" in told
    bayes = []
    for way in (raw, corrected):
        # The table's bounds are rounded; these are not, of CIFAR-10's 1,000 test pictures.
        low, high = wilson_interval(way["naive Bayes"], 1000)
        bayes.append(f"{100 * way['naive Bayes']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    assert f"raw {bayes[0]}, corrected {bayes[1]}" in told


def test_numbers_of_the_features_in_the_story_are_measured():
    table = pd.read_csv(FIGURES / "06_features_grid_full.csv").set_index(["dataset", "version"])
    score = table["mAP"].round(3)
    told = story("06_features")
    assert (
        f"from {score['Imagenette', 'stage 1, average']:.3f} to {score['Imagenette', 'stage 4, average']:.3f}" in told
    )
    unknown = [score["faces (LFW)", version] for version in ("stage 3, rmac", "stage 4, average")]
    assert f"{unknown[0]:.3f} against {unknown[1]:.3f}" in told and unknown[0] > 1.9 * unknown[1]
    for name in ("Imagenette", "Caltech-101"):
        short, plain = score[name, "gem, 256 axes, whitened by 0.25"], score[name, "average, 2048"]
        assert f"{name} {short:.3f} against {plain:.3f}" in told
        assert table.loc[(name, "gem, 256 axes, whitened by 0.25"), ["difference low", "p"]].tolist() > [0, 0]
        assert table.loc[(name, "gem, 256 axes, whitened by 0.25"), "p"] < 0.01
    ways = ("stage 4, average", "stage 3, gem")
    sides = [score[f"Caltech-101, {which}", way] for which in ("of ImageNet", "others") for way in ways]
    assert f"mAP {sides[0]:.3f} by the last stage's average, {sides[1]:.3f} by the third's GeM" in told
    assert f"it is {sides[2]:.3f} and {sides[3]:.3f}: harder" in told
    lost = -table["difference"]
    flat = lost.xs("stage 4, flatten", level=1).round(2)
    assert (
        f"loses {flat['photographs']:.2f} on the photographs, and {flat['faces (AT&T)']:.2f} on the faces and on"
        in told
    )
    assert flat["faces (AT&T)"] == flat["Imagenette"]
    gains = [-lost[name, "stage 4, flatten"] for name in ("Caltech-101", "drawings")]
    assert f"gains: {gains[0]:.3f} on Caltech-101" in told and f"and {gains[1]:.3f} on the drawings" in told
    assert score["Caltech-101", "stage 4, rmac"] > score["Caltech-101", "stage 4, flatten"]
    assert (
        f"cost {lost['photographs', 'plain axes, 256']:.3f} there, {lost['Caltech-101', 'plain axes, 256']:.3f} on"
        in told
    )
    # Objects keep 99 hundredths with 256 axes, and all six data sets nearly everything with eight bits.
    assert all(lost[name, "plain axes, 256"] < 0.01 for name in ("photographs", "Imagenette", "Caltech-101"))
    assert len(lost.xs("int8", level=1)) == 6 and lost.xs("int8", level=1).abs().max() < 0.001


def test_numbers_of_the_ladder_in_the_story_are_measured():
    told = story("12_re_ranking")
    for suffix, tasks in (("", ("photos", "distractors")), ("_full", ("Imagenette", "Caltech-101", "CIFAR-10"))):
        table = pd.read_csv(FIGURES / f"12_re_ranking_ladder{suffix}.csv")
        rows = table[table["method"] == "k-reciprocal"].set_index("task")
        for task in tasks:
            row = rows.loc[task]
            assert (f"{row['before']:.3f} → {row['after']:.3f}" if not suffix else f"{task} {row['gain']:+.3f}") in told
            assert row["low"] > 0 and row["gain"] == table[table["task"] == task]["gain"].max()


def test_numbers_of_the_indexes_in_the_story_are_measured():
    told = story("13_indexes_at_scale")
    table = pd.read_csv(FIGURES / "13_indexes_at_scale_trade_offs_full.csv")
    assert sorted(set(table["count"])) == [10_000, 11_312, 100_000, 1_000_000]
    real, table = table[table["count"] == 11_312], table[table["count"] == 1_000_000]
    best = {name: measuring.sufficient(rows) for name, rows in table.groupby("index")}
    exact, graph = best["exact"], best["hnsw"]
    forests = [rows for name, rows in table.groupby("index") if name in ("annoy-10", "annoy-30", "annoy-100")]
    annoy = min(measuring.milliseconds_at(rows, graph["recall"]) for rows in forests)
    few = real[real["index"] == "exact"]["milliseconds"].iloc[0]
    assert f"takes {few:.2f} ms among 11,312 real vectors, and {exact['milliseconds']:.1f} ms among" in told
    time = graph["milliseconds"]
    times = [exact["milliseconds"] / time, annoy / time]
    assert f"finds {graph['recall']:.3f} of the true ten in {time:.2f} ms, {times[0]:.0f} times" in told
    assert f"takes {annoy:.2f} ms to find as much, {times[1]:.1f} times as long" in told
    assert (
        f"{best['annoy-100']['open_seconds']:.1f} s to open where the graph takes {graph['open_seconds']:.2f}" in told
    )
    assert f"built in {graph['build_seconds']:.0f} s within {graph['peak'] / 1e9:.1f} GB" in told
    assert f"bits a number stop at {table[table['index'] == 'usearch-i8']['recall'].max():.3f}" in told
    # What an index is for, among a million.
    assert graph["recall"] >= 0.95 and times[0] >= 20 and times[1] >= 5
    assert graph["peak"] <= 6e9 and graph["open_seconds"] < 2


def test_numbers_of_the_published_system_in_the_story_are_measured():
    table = pd.read_csv(FIGURES / "13_indexes_at_scale_published_full.csv")
    theirs = table[table["index"] == "published"].iloc[0]
    ours = measuring.sufficient(table[table["index"] == "hnsw-f16"])
    assert (
        f"{theirs['count']:,} vectors of 4,096 numbers it finds {theirs['recall']:.3f} of the true ten in "
        f"{theirs['milliseconds']:.2f} ms, and takes {theirs['open_seconds']:.1f} s to open; "
        f"`faiss:hnsw?storage=float16` finds {ours['recall']:.3f} in {ours['milliseconds']:.2f} ms, and takes "
        f"{ours['open_seconds']:.3f} s, in {ours['megabytes'] / theirs['megabytes']:.2f} times the memory"
    ) in story("13_indexes_at_scale")
