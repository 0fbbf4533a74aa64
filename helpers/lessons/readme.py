"""Writes the tables of README.md from code and ``figures/``: ``python -m helpers.lessons.readme``. A test checks it.

Each table is between ``<!-- NAME -->`` and ``<!-- end -->``; `refreshed` has the names.
"""

import json
import re
from pathlib import Path

import pandas as pd

from helpers import extras, paths
from helpers.evaluation import leaderboard
from helpers.evaluation.intervals import wilson_interval
from helpers.files import write_text
from helpers.lessons import machine, runner
from helpers.lessons.index_measurement import sufficient
from helpers.visualization import tables

with extras.importing("notebooks", "nbformat"):
    import nbformat

README = paths.ROOT / "README.md"
FIGURES = paths.ROOT / "figures"
#: Baseline extractors, which have a column in the results table.
EXTRACTORS = ("pixels", "hsv-histogram", "sift-fisher", "efficientnet-lite0", "resnet50")


def results(csv: Path) -> str:
    """One row per protocol: top-1 of `EXTRACTORS`, mAP of the last of them and of the best extractor.

    Scores have 95 % intervals, chance and ceiling; a dash means "not measured". Only searches with the exact cosine
    index are used.

    Raises ValueError: a score that the table shows has several rows, such as those of two dimensions.
    """
    board = leaderboard.load(csv)
    board = board[board["index"] == "exact:cosine"]
    head = ["protocol", "queries / gallery", *(f"{name}: top-1" for name in EXTRACTORS), "chance … ceiling"]
    head += [f"{EXTRACTORS[-1]}: mAP", "best of all: mAP", "chance … ceiling"]
    lines = []
    groups = board.groupby(["profile", "protocol"])
    for (profile, protocol), rows in sorted(groups, key=lambda group: (group[0][0] != "sample", group[0][1])):
        top1 = rows[rows["metric"] == "top-1"].set_index("extractor")
        mean_ap = rows[rows["metric"] == "mAP"].set_index("extractor")
        best = mean_ap["value"].idxmax()
        cells = [f"{protocol} ({profile})", f"{rows['n_queries'].iloc[0]} / {rows['n_gallery'].iloc[0]}"]
        cells += [_interval(top1, name) for name in EXTRACTORS]
        cells += [_bounds(top1.iloc[0]), _interval(mean_ap, EXTRACTORS[-1])]
        lines.append([*cells, f"{best}: {_interval(mean_ap, best)}", _bounds(mean_ap.loc[best])])
    return _markdown(lines, head)


def known_items(csv: Path) -> str:
    """One row per change, over all its strengths: recall@1 of each method, with Wilson's 95 % interval by originals."""
    table = pd.read_csv(csv)
    methods = list(dict.fromkeys(table["method"]))
    lines = []
    for kind, rows in table.groupby("kind", sort=False):
        own = rows[rows["method"] == methods[0]]
        strengths = own["strength"].tolist()
        cells = [kind, f"{strengths[0]:g} … {strengths[-1]:g}", str(own["queries"].sum())]
        for method in methods:
            one = rows[rows["method"] == method]
            # Each original has one query per strength, so the mean over strengths is the mean over queries.
            recall = one["recall@1"].mean()
            cells.append(tables.interval_text(recall, *wilson_interval(recall, int(one["queries"].iloc[0]))))
        lines.append(cells)
    return _markdown(lines, ["change", "strengths", "queries", *methods])


def indexes(csv: Path) -> str:
    """One row per index: for each gallery, the setting of least effort with a recall@10 of 0.95, or of the best recall.

    Recall has a 95 % interval over queries; the time is that of one query. Memory and build time are those of the last
    gallery.
    """
    table = pd.read_csv(csv)
    galleries = list(dict.fromkeys(table["gallery"]))
    lines = []
    for name, rows in table.groupby("index", sort=False):
        cells = [f"{name}: `{sufficient(rows)['spec'].partition('?')[0]}`"]
        for gallery in galleries:
            last = sufficient(rows[rows["gallery"] == gallery])
            cells.append(f"{last['recall']:.3f} ± {1.96 * last['recall_error']:.3f}, {last['milliseconds']:.2f} ms")
        lines.append([*cells, f"{last['bytes'] / last['count']:,.0f}", f"{last['build_seconds']:,.0f} s"])
    return _markdown(lines, ["index", *galleries, "bytes a vector", "built in"])


def _interval(table: pd.DataFrame, name: str) -> str:
    rows = table[table.index == name]
    if not len(rows):
        return "–"
    if len(rows) > 1:
        row = rows.iloc[0]
        raise ValueError(
            f"{len(rows)} rows of {name!r} under {row['protocol']!r} ({row['profile']}) with {row['metric']!r}: the "
            "table has room for one"
        )
    return tables.interval_text(*rows.iloc[0][["value", "low", "high"]])


def _bounds(row: pd.Series) -> str:
    return f"*{row['chance']:.3f} … {row['ceiling']:.3f}*"


def notebooks(folder: Path, results_folder: Path, full_results_folder: Path) -> str:
    """One row per notebook: a link, the minutes and the headline of the last run, and its topic.

    The minutes of the full profile have a column if one of its runs was saved.
    """
    full = {path.stem: _minutes(path) for path in full_results_folder.glob("*.json")}
    head = ["notebook", "minutes", *(["full profile"] if full else []), "what you learn", "headline of the last run"]
    lines = []
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
        number, _, rest = title.partition(" · ")
        topic, _, learned = rest.partition(": ")
        result = results_folder / f"{path.stem}.json"
        cells = [f"[{number} {topic}](notebooks/{path.name})", _minutes(result)]
        cells += [full.get(path.stem, "–")] if full else []
        lines.append([*cells, learned or topic, json.loads(result.read_text(encoding="utf-8"))["headline"]])
    return _markdown(lines, head)


def _minutes(result: Path) -> str:
    return f"{json.loads(result.read_text(encoding='utf-8'))['seconds'] / 60:.1f}"


def downloads() -> str:
    """One row per data set of the full profile: file, megabytes, host; and their sum."""
    table = machine.downloads()
    return f"{tables.markdown(table).data}\n| all | | {table['MB'].sum()} | |"


def _markdown(lines: list[list[str]], columns: list[str]) -> str:
    return tables.markdown(pd.DataFrame(lines, columns=columns)).data


def refreshed(text: str) -> str:
    """README's text with new tables."""
    parts = {
        "results": results(FIGURES / "leaderboard.csv"),
        "known items": known_items(FIGURES / "07_sift_and_orb_known_items_full.csv"),
        "indexes": indexes(FIGURES / "13_indexes_at_scale_trade_offs_full.csv"),
        "downloads": downloads(),
        "notebooks": notebooks(paths.ROOT / "notebooks", FIGURES / "results", FIGURES / runner.FULL_RESULTS),
    }
    for name, table in parts.items():
        around = re.split(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", text, flags=re.DOTALL)
        if len(around) != 2:
            raise ValueError(f"README.md must contain <!-- {name} --> … <!-- end --> once, found {len(around) - 1}")
        text = f"{table}\n".join(around)
    return text


if __name__ == "__main__":
    write_text(README, refreshed(README.read_text(encoding="utf-8")))
