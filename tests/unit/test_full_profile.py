"""Results of the full profile in the notebooks."""

import numpy as np
import pandas as pd
import pytest

from helpers import paths
from helpers.evaluation import builders, leaderboard, metrics
from helpers.images.imageset import ImageSet
from helpers.lessons import full_profile
from helpers.search.ranking import Ranking


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """An empty folder in place of the committed figures."""
    monkeypatch.setattr(full_profile, "FIGURES", tmp_path)
    return tmp_path


def row(extractor, metric, value, *, index="exact:cosine", profile="full", protocol="val-train"):
    """A line of the leaderboard."""
    numbers = {"dim": 4, "n_queries": 1200, "n_gallery": 5000, "n_distractors": 0, "value": value}
    numbers |= {"low": value - 0.1, "high": value + 0.1, "chance": 0.05, "ceiling": 1.0}
    names = {"dataset": "things", "protocol": protocol, "profile": profile, "extractor": extractor}
    line = names | numbers | {"weights": "none", "index": index, "metric": metric}
    return {column: line.get(column, "") for column in leaderboard.COLUMNS}


def write(figures, *rows):
    """Write a leaderboard of these lines."""
    pd.DataFrame(rows, columns=leaderboard.COLUMNS).to_csv(figures / "leaderboard.csv", index=False)


def test_a_table_is_read_as_it_was_written(figures):
    (figures / "06_grid_full.csv").write_text("dataset,mAP\nfaces,0.25\nthings,0.5\n")
    assert full_profile.table("06_grid").to_dict("list") == {"dataset": ["faces", "things"], "mAP": [0.25, 0.5]}


def test_tables_come_from_the_project_wherever_a_run_writes(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path))
    assert paths.figures_dir() == tmp_path
    assert len(full_profile.table("06_features_grid")) > 200
    assert "0.975" in full_profile.scores("imagenette-val-train", ["resnet50"]).data


def test_a_missing_table_names_those_that_exist(figures):
    (figures / "07_items_full.csv").write_text("a\n1\n")
    (figures / "07_items.csv").write_text("a\n1\n")
    with pytest.raises(FileNotFoundError, match=r"no table 08_words_full.csv.*: 07_items$"):
        full_profile.table("08_words")


def test_rows_are_shown_with_the_name_of_their_file():
    rows = pd.DataFrame({"method": ["one", "two"], "queries": [400, 1000], "mAP": [0.12345, float("nan")]})
    assert full_profile.show(rows, "06_grid").data.splitlines() == [
        "Full profile, from `figures/06_grid_full.csv`:",
        "",
        "| method | queries | mAP |",
        "| --- | --- | --- |",
        "| one | 400 | 0.123 |",
        "| two | 1000 | – |",
    ]
    assert "0.12 |" in full_profile.show(rows, "06_grid", digits=2).data


def test_scores_are_those_of_the_full_profile_in_the_given_order(figures):
    write(
        figures,
        row("pixels", "mAP", 0.2),
        row("pixels", "top-1", 0.3),
        row("network", "mAP", 0.6),
        row("network", "top-1", 0.7),
        row("network", "mAP", 0.8, index="votes"),
        row("network", "mAP", 0.4, profile="sample"),
        row("network", "mAP", 0.5, protocol="leave-one-out"),
    )
    assert full_profile.scores("val-train", ["network", "pixels"]).data.splitlines() == [
        "Full profile, `val-train`, 1,200 queries, gallery of 5,000; from `figures/leaderboard.csv`:",
        "",
        "|  | top-1 | mAP |",
        "| --- | --- | --- |",
        "| network | 0.700 [0.600, 0.800] | 0.600 [0.500, 0.700] |",
        "| pixels | 0.300 [0.200, 0.400] | 0.200 [0.100, 0.300] |",
        "| *chance* | *0.050* | *0.050* |",
        "| *ceiling* | *1.000* | *1.000* |",
    ]
    both = full_profile.scores("val-train", ["pixels", "network"], ["mAP"], ["exact:cosine", "votes"]).data
    assert [line.split(" |")[:3] for line in both.splitlines()[4:7]] == [
        ["| pixels", " exact:cosine", " 0.200 [0.100, 0.300]"],
        ["| network", " exact:cosine", " 0.600 [0.500, 0.700]"],
        ["| network", " votes", " 0.800 [0.700, 0.900]"],
    ]


def test_scores_that_are_missing_or_ambiguous_are_refused(figures):
    trained = row("network", "mAP", 0.6)
    write(figures, trained, trained | {"weights": "other"}, row("pixels", "mAP", 0.2))
    with pytest.raises(
        ValueError, match="0 full-profile rows of 'words' under 'val-train' with 'mAP' and exact:cosine"
    ):
        full_profile.scores("val-train", ["pixels", "words"], ["mAP"])
    with pytest.raises(ValueError, match="2 full-profile rows of 'network' under 'val-train' with 'mAP'"):
        full_profile.scores("val-train", ["network"], ["mAP"])
    with pytest.raises(ValueError, match="0 full-profile rows of 'pixels' under 'val-train' with 'top-1'"):
        full_profile.scores("val-train", ["pixels"], ["mAP", "top-1"])


def test_one_score_of_the_full_profile(figures):
    others = [row("cnn", "top-1", 0.5, **other) for other in ({"index": "exact:manhattan"}, {"profile": "sample"})]
    write(figures, row("cnn", "top-1", 0.3), row("cnn", "mAP", 0.2), row("hog", "top-1", 0.1), *others)
    assert full_profile.score("val-train", "cnn", "top-1") == 0.3
    with pytest.raises(ValueError, match="0 full-profile rows of 'hog' under 'val-train' with 'mAP'"):
        full_profile.score("val-train", "hog", "mAP")


def test_curves_show_all_values_with_intervals_chance_and_ceiling(figures):
    values = {"network": (0.5, 0.6, 0.7, 0.8), "pixels": (0.2, 0.3, 0.4, 0.5)}
    rows = [
        row(name, f"top-{k}", value)
        for name, each in values.items()
        for k, value in zip((1, 3, 5, 10), each, strict=True)
    ]
    others = [row("network", "top-1", 0.9, **other) for other in ({"index": "votes"}, {"profile": "sample"})]
    write(figures, *rows, *others, row("network", "mAP", 0.1))
    (panel,) = full_profile.curves("val-train", ["pixels", "network"]).axes
    lines = {line.get_label(): line.get_xydata().T.tolist() for line in panel.lines}
    assert list(lines) == ["pixels", "network", "chance", "ceiling"]
    assert lines["network"] == [[1, 3, 5, 10], [0.5, 0.6, 0.7, 0.8]]
    assert lines["chance"][1] == [0.05] * 4 and lines["ceiling"][1] == [1] * 4
    band = panel.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.4) and band[:, 1].max() == pytest.approx(0.9)
    assert panel.get_title() == "full profile, val-train"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "3", "5", "10"]
    with pytest.raises(ValueError, match="0 full-profile rows of 'hog' under 'val-train' with 'top-1'"):
        full_profile.curves("val-train", ["hog"])


def test_curves_of_a_run_are_beside_those_of_the_full_profile(figures):
    write(figures, *(row("network", f"top-{k}", 0.5) for k in (1, 3, 5, 10)))
    six = ImageSet("six", [f"{name}.jpg" for name in "abcdef"], [0, 0, 0, 1, 1, 1], ("one", "two"))
    protocol = builders.query_gallery(six, [0, 3], [1, 2, 4, 5], "small")
    ids = np.array([[1, 4, 2, 5], [1, 4, 2, 5]])
    scores = metrics.evaluate(Ranking(ids, -np.arange(8.0).reshape(2, 4)), protocol)
    left, right = full_profile.curves("val-train", ["network"], {"pixels": scores}, "this run").axes
    assert [panel.get_title() for panel in (left, right)] == ["this run", "full profile, val-train"]
    assert left.lines[0].get_ydata().tolist() == [0.5, 1, 1, 1]
    assert left.lines[0].get_color() != right.lines[0].get_color()
