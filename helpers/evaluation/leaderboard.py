"""The leaderboard: scores and costs of each method under each protocol.

The committed table is ``figures/leaderboard.csv``. A run that is not saved writes its rows to ``leaderboard.csv`` in
`paths.figures_dir`, and `load` shows them instead of the committed ones.
"""

import csv
from collections.abc import Sequence
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from helpers import paths
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.files import write_text

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "dataset", "protocol", "profile", "extractor", "weights", "dim", "index", "n_queries", "n_gallery", "n_distractors",
    "metric", "value", "low", "high", "chance", "ceiling", "extract_ips", "query_ms", "index_bytes",
)  # fmt: skip

#: The columns that identify a row. A new run replaces the row with the same values.
KEY = ("dataset", "protocol", "profile", "extractor", "weights", "dim", "index", "metric")

#: The columns that identify a method, and those that share the rate of its extractor.
_METHOD = tuple(column for column in KEY if column != "metric")
_EXTRACTOR = ("dataset", "profile", "extractor", "weights", "dim")

_NAME = "leaderboard.csv"
_SCORES = ("value", "low", "high", "chance", "ceiling")
#: Significant digits of a score. Tables show three decimals; a score that was rounded to four before would be rounded
#: twice: 0.84146 to 0.8415 to 0.842. Rows of earlier versions have four decimals.
_SIGNIFICANT = 6
_DECIMALS = {"extract_ips": 1, "query_ms": 3}
_WHOLE = ("dim", "n_queries", "n_gallery", "n_distractors", "index_bytes")
_SHOWN = ("top-1", "top-5", "top-10", "mAP")


class LeaderboardError(ValueError):
    """The table on disk is damaged; it was not changed."""


def record(
    scores: Scores, protocol: Protocol, *, profile: str, extractor: str, weights: str, dim: int, index: str,
    extract_ips: float | None = None, query_ms: float | None = None, index_bytes: int | None = None,
    path: str | Path | None = None,
) -> "pd.DataFrame":  # fmt: skip
    """Write the scores of a method, one row per metric. They replace the rows of an earlier run of this method.

    Parameters
    ----------
    extract_ips : images per second from file to vector. All protocols and indexes of a data set share the last value
        that was measured. A cost of None (not measured, because all vectors were in the cache) keeps its earlier value.
    query_ms : milliseconds per query. index_bytes : size of the index in memory.
    path : the table, by default that of this run. ``leaderboard.md`` in the same folder is updated.

    Returns
    -------
    The rows that were written.

    Raises LeaderboardError: the table on disk is damaged; it is not changed.
    """
    own, path = path is None, paths.figures_dir() / _NAME if path is None else Path(path)
    names = {"profile": profile, "extractor": extractor, "weights": weights, "index": index}
    for what, name in names.items():
        if not isinstance(name, str) or not name.strip() or len(name.splitlines()) > 1:
            raise ValueError(f"{what} must be a name on one line, got {name!r}")
    if not np.array_equal(scores.rows, np.flatnonzero(protocol.has_relevant)):
        raise ValueError(f"the scores do not belong to the queries of {protocol.name}, but to another protocol")
    method = names | {
        "dataset": protocol.dataset, "protocol": protocol.name, "dim": dim, "n_queries": scores.n_queries,
        "n_gallery": len(protocol.gallery), "n_distractors": protocol.n_distractors, "extract_ips": extract_ips,
        "query_ms": query_ms, "index_bytes": index_bytes,
    }  # fmt: skip
    rows = _typed(scores.table().assign(**method)[list(COLUMNS)])
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = paths.cache_dir() / "leaderboard.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        board = load(path)
        rows = _with_known_costs(rows, board)
        if own and paths.IN_CHECKOUT:
            rows = _with_known_costs(rows, load(paths.committed_figures_dir() / _NAME))
        board.loc[_same(board, rows, _EXTRACTOR), "extract_ips"] = rows["extract_ips"].iloc[0]
        board = _overlaid(board, rows)
        write_text(path, _csv(board))
        write_text(path.with_suffix(".md"), _markdown(board))
    return rows


def _with_known_costs(rows: "pd.DataFrame", known: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a method, with the costs that only an earlier run measured."""
    rows = rows.copy()
    same, same_extractor = _same(known, rows, _METHOD), _same(known, rows, _EXTRACTOR)
    for cost, where in (("extract_ips", same_extractor), ("query_ms", same), ("index_bytes", same)):
        earlier = known.loc[where, cost].dropna()
        if rows[cost].isna().all() and len(earlier):
            rows[cost] = earlier.iloc[0]
    return rows


def _same(board: "pd.DataFrame", rows: "pd.DataFrame", columns: Sequence[str]) -> np.ndarray:
    """bool (n,): which rows of the table have the first row's values in these columns."""
    found = np.ones(len(board), bool)
    for column in columns:
        found &= (board[column] == rows[column].iloc[0]).to_numpy(bool)
    return found


def load(path: str | Path | None = None) -> "pd.DataFrame":
    """Read the table; it is empty if there is no file.

    path : by default the committed table, with the rows of runs that were not saved in place of its own.

    Raises LeaderboardError: the columns differ, a row is incomplete or repeated, or a number is invalid.
    """
    import pandas as pd

    if path is None:
        own = load(paths.figures_dir() / _NAME)
        return _overlaid(load(paths.committed_figures_dir() / _NAME), own) if paths.IN_CHECKOUT else own
    path = Path(path)
    if not path.is_file():
        return _typed(pd.DataFrame(columns=list(COLUMNS)))
    found = path.stat()
    return _parsed(path, (found.st_ino, found.st_mtime_ns, found.st_size)).copy()


# A notebook records many methods, and reading the table takes longer than writing a row. `record` needs two files.
@lru_cache(maxsize=4)
def _parsed(path: Path, state: tuple[int, int, int]) -> "pd.DataFrame":
    """The table in a file. state : changes when the file does."""
    import pandas as pd

    remedy = "Restore it (git checkout) or move it away; the notebooks write a new one."
    try:
        # pandas' reader would fill up missing fields.
        board = _typed(pd.DataFrame(_lines(path.read_text(encoding="utf-8")), columns=list(COLUMNS)))
        if board[["value", "dim"]].isna().any(axis=None):
            raise ValueError("a row has no value or no dim")
        twice = board.duplicated(list(KEY))
        if twice.any():
            raise ValueError(f"line {int(twice.argmax()) + 2} repeats a row, perhaps after a merge")
        return board
    except ValueError as error:
        raise LeaderboardError(f"{path} is not the leaderboard: {error}. {remedy}") from error


def _overlaid(board: "pd.DataFrame", rows: "pd.DataFrame") -> "pd.DataFrame":
    """The table with these rows in place of all earlier ones of their methods, also of other metrics."""
    import pandas as pd

    methods = set(rows[list(_METHOD)].itertuples(index=False, name=None))
    kept = [row not in methods for row in board[list(_METHOD)].itertuples(index=False, name=None)]
    parts = [part for part in (board[np.array(kept, bool)], rows) if len(part)]
    joined = pd.concat(parts) if parts else rows
    return joined.sort_values(list(KEY), key=lambda column: column.astype(str), kind="stable", ignore_index=True)


def _lines(text: str) -> list[list[str]]:
    """The fields of each line, after a check of their number and of the header."""
    lines = list(csv.reader(StringIO(text)))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise ValueError(f"its columns are {', '.join(lines[0]) if lines else '(none)'}")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(COLUMNS):
            raise ValueError(f"line {number} has {len(line)} fields instead of {len(COLUMNS)}: is it truncated?")
    if not text.endswith("\n"):
        raise ValueError("the last line is truncated")
    return lines[1:]


def _typed(board: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    board = board.copy()
    for column in _WHOLE:
        board[column] = pd.array(pd.to_numeric(board[column]).round(), dtype="Int64")
    for column in _SCORES:
        numbers = pd.to_numeric(board[column]).astype(np.float64)
        board[column] = [float(f"{number:.{_SIGNIFICANT}g}") for number in numbers]
    for column, decimals in _DECIMALS.items():
        board[column] = pd.to_numeric(board[column]).astype(np.float64).round(decimals)
    return board.reset_index(drop=True)


def _csv(board: "pd.DataFrame") -> str:
    import pandas as pd

    text = board.copy()
    for column in _SCORES:
        text[column] = ["" if pd.isna(number) else _score_text(number) for number in board[column]]
    for column, decimals in _DECIMALS.items():
        text[column] = ["" if pd.isna(number) else f"{number:.{decimals}f}" for number in board[column]]
    return text.to_csv(index=False, lineterminator="\n")


def _score_text(number: float) -> str:
    """All digits of a score, and at least four decimals, as in rows of earlier versions; these do not change."""
    text = f"{number:.4f}"
    return text if float(text) == number else np.format_float_positional(number)


def _markdown(board: "pd.DataFrame") -> str:
    parts = [
        "# Leaderboard\n",
        "Made from `leaderboard.csv` by `helpers.evaluation.leaderboard`; do not edit. In brackets: 95 % intervals by "
        "bootstrap over queries. Bold: the best of a column. Definitions: `helpers/evaluation/metrics.py`.\n",
    ]
    # Scores for other numbers of queries or images cannot be compared: they are in a separate table.
    setting = ["profile", "dataset", "protocol", "n_queries", "n_gallery", "n_distractors"]
    # Plain dictionaries, because `record` writes all tables each time, and pandas' groups take ten times as long.
    rows_of = _grouped(board.to_dict("records"), setting)
    groups = sorted(rows_of.items(), key=lambda g: (g[0][0] != "sample", *g[0][1:], g[0][0]))
    for (profile, dataset, protocol, n_queries, n_gallery, n_distractors), rows in groups:
        parts.append(f"## {dataset}: {protocol}\n")
        parts.append(
            f"{n_queries} queries, gallery of {n_gallery}, {n_distractors} of them distractors; profile {profile}.\n"
        )
        parts.append(_table(rows))
    return "\n".join(parts)


def _grouped(rows: list[dict], names: list[str]) -> dict[tuple, list[dict]]:
    """Values of some columns → the rows with these values."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def _table(rows: list[dict]) -> str:
    metrics = [metric for metric in _SHOWN if metric in {row["metric"] for row in rows}]
    best = {metric: max(row["value"] for row in rows if row["metric"] == metric) for metric in metrics}
    groups = _grouped(rows, ["extractor", "weights", "dim", "index"])
    methods = [(key, {row["metric"]: row for row in group}, group[0]) for key, group in sorted(groups.items())]
    if metrics:
        # The best of the last metric comes first, a method without that metric last.
        methods.sort(key=lambda method: -method[1].get(metrics[-1], {"value": -np.inf})["value"])
    lines = [
        "| extractor | weights | dim | index | " + " | ".join(metrics) + " | images/s | ms/query |",
        "| --- | --- | --- | --- |" + " --- |" * (len(metrics) + 2),
    ]
    for (extractor, weights, dim, index), by_metric, first in methods:
        cells = [_cell(by_metric[metric], best[metric]) if metric in by_metric else "" for metric in metrics]
        costs = ["" if np.isnan(first[cost]) else f"{first[cost]:g}" for cost in ("extract_ips", "query_ms")]
        # An unescaped bar would end the cell.
        names = [str(name).replace("|", "\\|") for name in (extractor, weights, dim, index)]
        lines.append("| " + " | ".join(names + cells + costs) + " |")
    for bound in ("chance", "ceiling"):
        values = [next(row[bound] for row in rows if row["metric"] == metric) for metric in metrics]
        lines.append(f"| *{bound}* | | | | " + " | ".join(f"*{value:.3f}*" for value in values) + " | | |")
    return "\n".join(lines) + "\n"


def _cell(row: dict, best: float) -> str:
    value = f"{row['value']:.3f}"
    shown = f"**{value}**" if row["value"] == best else value
    return shown if np.isnan(row["low"]) else f"{shown} [{row['low']:.3f}, {row['high']:.3f}]"
