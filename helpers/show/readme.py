"""README's tables, made from figures/: ``python -m helpers.show.readme`` writes them, a test holds them.

A table stands between ``<!-- results -->`` or ``<!-- notebooks -->`` and ``<!-- end -->``.
"""

import json
import re
from pathlib import Path

import nbformat

from helpers import paths
from helpers.evaluation import leaderboard

README = paths.ROOT / "README.md"
FIGURES = paths.ROOT / "figures"
METRICS = ("top-1", "top-5", "top-10", "mAP")


def results(csv: Path) -> str:
    """One line a protocol and describer: top-1, top-5, top-10 and mAP with 95 % intervals, chance and ceiling.

    Only the exact cosine index: the describers are compared, not the indexes.
    """
    board = leaderboard.load(csv)
    board = board[(board["index"] == "exact:cosine") & board["metric"].isin(METRICS)]
    lines = [
        "| protocol | queries / gallery | describer | " + " | ".join(METRICS) + " |",
        "| --- | --- | --- |" + " --- |" * len(METRICS),
    ]
    for (profile, protocol), rows in sorted(
        board.groupby(["profile", "protocol"]), key=lambda item: item[0] != "sample"
    ):
        table = rows.pivot_table(
            index="describer", columns="metric", values=["value", "low", "high", "chance", "ceiling"]
        )
        order = table["value"]["mAP"].sort_values(ascending=False).index
        first = rows.iloc[0]
        size = f"{first['n_queries']} / {first['n_gallery']}"
        for describer in order:
            row = table.loc[describer]
            cells = [f"{row['value', m]:.3f} [{row['low', m]:.3f}, {row['high', m]:.3f}]" for m in METRICS]
            lines.append(f"| {protocol} ({profile}) | {size} | {describer} | " + " | ".join(cells) + " |")
        row = table.loc[order[0]]
        bounds = [f"{row['chance', m]:.3f} … {row['ceiling', m]:.3f}" for m in METRICS]
        lines.append(f"| {protocol} ({profile}) | {size} | *chance … ceiling* | *" + "* | *".join(bounds) + "* |")
    return "\n".join(lines)


def notebooks(folder: Path, results_folder: Path) -> str:
    """One line a notebook: a link, its minutes in the last clean run, what one learns, its headline result."""
    lines = ["| notebook | minutes | what you learn | headline of the last run |", "| --- | --- | --- | --- |"]
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
        number, _, rest = title.partition(" · ")
        topic, _, learnt = rest.partition(": ")
        result = json.loads((results_folder / f"{path.stem}.json").read_text(encoding="utf-8"))
        minutes = f"{result['seconds'] / 60:.1f}"
        lines.append(
            f"| [{number} {topic}](notebooks/{path.name}) | {minutes} | {learnt or topic} | {result['headline']} |"
        )
    return "\n".join(lines)


def refreshed(text: str) -> str:
    """README's text with its tables made anew."""
    tables = {
        "results": results(FIGURES / "leaderboard.csv"),
        "notebooks": notebooks(paths.ROOT / "notebooks", FIGURES / "results"),
    }
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda match, table=table: match[1] + table + "\n" + match[2], text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"README.md must hold <!-- {name} --> … <!-- end --> once, found {count}")
    return text


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text(encoding="utf-8")), encoding="utf-8")
