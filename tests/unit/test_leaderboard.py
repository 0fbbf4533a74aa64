"""The leaderboard: rows are replaced, not repeated; damage is detected; two writers lose no row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import leaderboard
from helpers.evaluation.builders import leave_one_out, query_gallery
from helpers.evaluation.leaderboard import COLUMNS, LeaderboardError, _markdown, load, record
from helpers.evaluation.metrics import evaluate
from helpers.images.imageset import ImageSet
from helpers.search.ranking import rank


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(paths, "committed_figures_dir", lambda: tmp_path / "committed")


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "leaderboard.csv"


def images(n: int = 12) -> ImageSet:
    labels = np.append(np.arange(n - 1) % 3, -1)
    return ImageSet("toy", tuple(Path(f"{i}.jpg") for i in range(n)), labels, ("a", "b", "c"))


TOY = leave_one_out(images(), "toy-leave-one-out")


def scores(seed: int = 0, k: int | None = None, protocol=TOY):
    rng = np.random.default_rng(seed)
    rows = np.stack([np.setdiff1d(protocol.gallery, [query]) for query in protocol.queries])
    return evaluate(rank(rows, rng.random(rows.shape), k), protocol)


def write(table, extractor="resnet50", seed=0, k=None, protocol=TOY, **changes):
    method = {"profile": "sample", "weights": "imagenet", "dim": 2048, "index": "exact:cosine"} | changes
    return record(scores(seed, k, protocol), protocol, extractor=extractor, path=table, **method)


# ---- rows ------------------------------------------------------------------------------------------


def test_one_row_per_metric_with_all_columns(table):
    rows = write(table, extract_ips=13.06, query_ms=0.12345, index_bytes=98304)
    measured = scores()
    header = (
        "dataset,protocol,profile,extractor,weights,dim,index,n_queries,n_gallery,n_distractors,metric,value,low,high"
    )
    assert table.read_text().splitlines()[0] == header + ",chance,ceiling,extract_ips,query_ms,index_bytes"
    assert ",".join(COLUMNS) == table.read_text().splitlines()[0]
    board = load(table).set_index("metric")
    assert set(board.index) == set(rows["metric"]) == set(measured.metrics)
    line = board.loc["mAP"]
    assert (line["dataset"], line["protocol"], line["n_queries"], line["n_gallery"]) == ("toy", TOY.name, 11, 12)
    assert line["n_distractors"] == 1
    assert line["value"] == pytest.approx(measured.mean("mAP"), rel=5e-6)
    assert line["chance"] == pytest.approx(measured.mean_chance("mAP"), rel=5e-6)
    assert line["low"] < line["value"] < line["high"] <= line["ceiling"] == 1
    text = next(line for line in table.read_text().splitlines() if ",mAP," in line)
    assert text.endswith(",1.0000,13.1,0.123,98304") or text.endswith(",1.0000,13.1,0.124,98304")


def test_a_rerun_replaces_its_rows_and_changes_no_byte(table):
    write(table, "resnet50")
    write(table, "color", seed=1)
    before = table.read_bytes(), table.with_suffix(".md").read_bytes()
    write(table, "resnet50")
    assert (table.read_bytes(), table.with_suffix(".md").read_bytes()) == before
    write(table, "resnet50", seed=2)
    assert table.read_bytes() != before[0]
    assert len(load(table)) == 2 * len(scores().metrics)


def test_a_score_is_rounded_once(table):
    """207 of 246 queries are 0.841463…: 0.841 to three decimals, but 0.842 after rounding to four."""
    protocol = leave_one_out(images(247), "toy-247")
    rows = np.stack([np.setdiff1d(protocol.gallery, [query]) for query in protocol.queries])
    relevant = protocol.labels[rows] == protocol.labels[protocol.queries][:, None]
    right = np.arange(len(rows)) < 207
    measured = evaluate(rank(rows, np.where(right[:, None], relevant, ~relevant).astype(float)), protocol)
    method = {"profile": "sample", "extractor": "e", "weights": "w", "dim": 1, "index": "i"}
    record(measured, protocol, path=table, **method)
    top1 = load(table).set_index("metric").loc["top-1"]
    assert top1["value"] == 0.841463 and f"{top1['value']:.3f}" == f"{measured.mean('top-1'):.3f}" == "0.841"
    assert ",top-1,0.841463," in table.read_text()
    assert "0.841** [" in table.with_suffix(".md").read_text()


def test_a_small_score_has_six_significant_digits(table):
    protocol = replace(leave_one_out(images(400), "toy-400"), queries=[0, 3])
    ranked = np.stack([np.setdiff1d(protocol.gallery, [query]) for query in protocol.queries])
    record(
        evaluate(rank(ranked, np.zeros(ranked.shape), 1), protocol, map_ks=(1,)), protocol, path=table,
        profile="sample", extractor="e", weights="w", dim=1, index="i",
    )  # fmt: skip
    chance = load(table).set_index("metric")["chance"]["mAP@1"]
    assert 1e-3 < chance < 1e-2 and chance == float(f"{chance:.6g}") != round(chance, 6)


def test_rows_with_four_decimals_keep_their_text(table):
    write(table, "old")
    header, *old = table.read_text().splitlines()
    four = [[f"{float(cell):.4f}" if 11 <= i <= 15 and cell else cell for i, cell in enumerate(line.split(","))]
            for line in old]  # fmt: skip
    before = [",".join(cells) for cells in four]
    table.write_text("\n".join([header, *before]) + "\n")
    write(table, "new", seed=1)
    assert set(before) <= set(table.read_text().splitlines())
    assert any(len(line.split(",")[11]) == 8 for line in table.read_text().splitlines() if ",new," in line)


def test_the_committed_table_is_written_as_it_is():
    path = paths.ROOT / "figures" / "leaderboard.csv"
    assert leaderboard._csv(load(path)) == path.read_text(encoding="utf-8")


def test_the_order_of_recording_does_not_matter(tmp_path):
    for name, order in (("a.csv", (0, 1, 2)), ("b.csv", (2, 0, 1))):
        for i in order:
            write(tmp_path / name, f"method{i}", seed=i)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"profile": "full"}, {"weights": "none"}, {"dim": 256}, {"index": "exact:euclidean"}, {"extractor": "vgg"}],
)
def test_another_key_is_another_row(table, change):
    write(table)
    write(table, **change)
    assert len(load(table)) == 2 * len(scores().metrics)


@pytest.mark.parametrize("name", ["None", "NA", "nan", "007", "1.0", "a, b", 'say "x"', "a | b", "Zoë"])
def test_names_stay_text(table, name):
    for _ in range(2):
        write(table, extractor=name, weights=name)
    board = load(table)
    assert len(board) == len(scores().metrics)
    assert set(board["extractor"]) == set(board["weights"]) == {name}


def test_a_cost_not_measured_this_time_keeps_its_value(table):
    write(table, extract_ips=13.0, query_ms=0.5)
    rows = write(table, query_ms=0.75)
    assert set(rows["extract_ips"]) == {13.0}
    assert set(load(table)["query_ms"]) == {0.75}
    assert load(table)["index_bytes"].isna().all()


def test_extraction_cost_is_shared_by_protocols_and_indexes_of_a_data_set(table):
    other = leave_one_out(images(), "toy-other")
    write(table, extract_ips=0.2, query_ms=0.5)
    rows = write(table, protocol=other, index="exact:euclidean")
    assert set(rows["extract_ips"]) == {0.2} and rows["query_ms"].isna().all()
    write(table, protocol=other, extract_ips=13.0)
    write(table, "pixels", extract_ips=4000.0)
    write(table, profile="full")
    board = load(table)
    mine = board[(board["extractor"] == "resnet50") & (board["profile"] == "sample")]
    assert set(mine["extract_ips"]) == {13.0} and len(mine) == 3 * len(scores().metrics)
    assert set(board.loc[board["extractor"] == "pixels", "extract_ips"]) == {4000.0}
    assert board.loc[board["profile"] == "full", "extract_ips"].isna().all()


def test_one_query_has_a_row_without_an_interval(table):
    write(table, protocol=query_gallery(images(), [0], [3, 4, 6], "one"))
    board = load(table)
    assert board["low"].isna().all()
    assert board["value"].notna().all()


@pytest.mark.parametrize("change", [{"weights": ""}, {"weights": None}, {"index": " "}, {"extractor": "two\nlines"}])
def test_an_invalid_name_is_refused(table, change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be a name on one line"):
        write(table, **change)
    assert not table.exists()


def test_scores_of_another_protocol_are_refused(table):
    other = query_gallery(images(), [0, 1], [3, 4, 6, 7], "other")
    with pytest.raises(ValueError, match="do not belong to the queries of other"):
        record(scores(), other, profile="sample", extractor="x", weights="none", dim=4, index="i", path=table)
    assert not table.exists()


def test_the_default_is_the_figures_folder(table):
    write(None)
    assert (paths.figures_dir() / "leaderboard.csv").is_file()
    assert (paths.figures_dir() / "leaderboard.md").is_file()
    assert len(load()) == len(scores().metrics)
    write(str(table))
    assert load(str(table)).equals(load())


def test_no_other_file_is_left(table):
    table = table.parent / "out" / table.name
    write(table)
    assert sorted(file.name for file in table.parent.iterdir()) == ["leaderboard.csv", "leaderboard.md"]


# ---- damage ----------------------------------------------------------------------------------------


def test_a_missing_table_is_empty(table):
    assert len(load(table)) == 0
    assert tuple(load(table).columns) == COLUMNS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "its columns are"),
        (lambda text: "a,b\n1,2\n", "its columns are a, b"),
        (lambda text: text.replace("chance,", "", 1), "its columns are"),
        (lambda text: text[:-25], "truncated"),
        (lambda text: text[:-1], "truncated"),  # perhaps in the middle of its last number
        (lambda text: text + "<<<<<<< HEAD\n", "has 1 fields instead of 19"),
        (lambda text: text.rstrip("\n") + ",more\n", "has 20 fields instead of 19"),
        (lambda text: text + text.splitlines()[-1] + "\n", "repeats a row"),
        (lambda text: text.replace(",2048,", ",many,", 1), "many"),
        (lambda text: text.replace(",2048,", ",,", 1), "no value or no dim"),
    ],
)
def test_a_damaged_table_is_named_and_not_overwritten(table, damage, message):
    write(table)
    damaged = damage(table.read_text())
    assert damaged != table.read_text()
    table.write_text(damaged)
    for attempt in (lambda: load(table), lambda: write(table, seed=1)):
        with pytest.raises(LeaderboardError, match=message) as raised:
            attempt()
        assert str(table) in str(raised.value)
        assert "git checkout" in str(raised.value)
    assert table.read_text() == damaged


def test_a_binary_file_is_damage_too(table):
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LeaderboardError, match="is not the leaderboard"):
        load(table)


# ---- two writers -----------------------------------------------------------------------------------


# ---- Markdown --------------------------------------------------------------------------------------


def test_the_markdown_table(table):
    for name, seed in (("one", 0), ("two", 1)):
        write(table, name, seed, extract_ips=13.04, query_ms=0.5)
    text = table.with_suffix(".md").read_text()
    lines = text.splitlines()
    assert "## toy: toy-leave-one-out" in lines
    assert "11 queries, gallery of 12, 1 of them distractors; profile sample." in lines
    assert "| extractor | weights | dim | index | top-1 | top-5 | top-10 | mAP | images/s | ms/query |" in lines
    board = load(table)
    of_map = board[board["metric"] == "mAP"].set_index("extractor")
    best, other = of_map["value"].idxmax(), of_map["value"].idxmin()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    rows = {line[0]: line for line in cells}
    row = of_map.loc[best]
    assert rows[best][7] == f"**{row['value']:.3f}** [{row['low']:.3f}, {row['high']:.3f}]"
    assert rows[other][7].startswith(f"{of_map.loc[other, 'value']:.3f} [")
    assert rows[best][8] == "13"
    assert rows["*chance*"][7] == f"*{row['chance']:.3f}*"
    assert rows["*ceiling*"][7] == "*1.000*"
    # Best first, by mAP.
    assert list(rows).index(best) < list(rows).index(other) < list(rows).index("*chance*")
    assert _markdown(board) == text


def test_a_method_without_map_comes_last_and_has_an_empty_cell(table):
    write(table, "deep")
    write(table, "a-shallow", k=10)
    lines = table.with_suffix(".md").read_text().splitlines()
    cells = [line for line in lines if line.startswith(("| deep", "| a-shallow"))]
    assert cells[0].startswith("| deep")
    assert cells[1].split(" | ")[7] == ""


def test_other_images_have_another_table(table):
    write(table, "now")
    write(table, "before", protocol=leave_one_out(images(15), TOY.name))
    text = table.with_suffix(".md").read_text()
    assert "11 queries, gallery of 12, 1 of them" in text
    assert "14 queries, gallery of 15, 1 of them" in text


def test_a_bar_does_not_end_a_cell(table):
    write(table, "a | b")
    line = next(line for line in table.with_suffix(".md").read_text().splitlines() if line.startswith("| a"))
    assert line.startswith(r"| a \| b | imagenet |")


def test_key_columns_are_columns():
    assert set(leaderboard.KEY) <= set(COLUMNS)


# ---- committed rows and those of this computer ---------------------------------------------------------------------


def test_rows_of_a_run_that_was_not_saved_are_shown_instead_of_the_committed_ones(tmp_path):
    committed = tmp_path / "committed" / "leaderboard.csv"
    for extractor in ("resnet50", "hog"):
        write(committed, extractor, seed=1, extract_ips=20.0)
    before = committed.read_bytes()
    assert load().equals(load(committed))
    rows = write(None, "hog", seed=2)
    board = load()
    assert len(board) == len(load(committed)) and committed.read_bytes() == before
    assert set(load(paths.figures_dir() / "leaderboard.csv")["extractor"]) == {"hog"}
    own = board[board["extractor"] == "hog"].set_index("metric")["value"]
    assert own.to_dict() == rows.set_index("metric")["value"].to_dict()
    assert board[board["extractor"] == "resnet50"]["value"].tolist() == (
        load(committed).query("extractor == 'resnet50'")["value"].tolist()
    )
    # A cost that this run did not measure is the committed one.
    assert set(board[board["extractor"] == "hog"]["extract_ips"]) == {20.0}
