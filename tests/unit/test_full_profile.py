"""Results of the full profile in the notebooks."""

import pandas as pd
import pytest

from helpers import paths
from helpers.evaluation import leaderboard
from helpers.lessons import full_profile


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
    with pytest.raises(ValueError, match="no full-profile row of 'words' under 'val-train'"):
        full_profile.scores("val-train", ["pixels", "words"], ["mAP"])
    with pytest.raises(ValueError, match=r"expected one row per metric \(mAP\) of 'network'"):
        full_profile.scores("val-train", ["network"], ["mAP"])
    with pytest.raises(ValueError, match=r"expected one row per metric \(mAP, top-1\) of 'pixels'"):
        full_profile.scores("val-train", ["pixels"], ["mAP", "top-1"])


def test_one_score_of_the_full_profile(figures):
    others = [row("cnn", "top-1", 0.5, **other) for other in ({"index": "exact:manhattan"}, {"profile": "sample"})]
    write(figures, row("cnn", "top-1", 0.3), row("cnn", "mAP", 0.2), row("hog", "top-1", 0.1), *others)
    assert full_profile.score("val-train", "cnn", "top-1") == 0.3
    with pytest.raises(ValueError, match="0 full-profile rows of 'hog' under 'val-train' with 'mAP'"):
        full_profile.score("val-train", "hog", "mAP")
