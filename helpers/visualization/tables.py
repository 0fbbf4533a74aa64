"""Tables and boxes for notebooks."""

import html
from collections.abc import Iterable

import pandas as pd

from helpers import extras
from helpers.evaluation.intervals import format_p_value
from helpers.evaluation.metrics import Scores
from helpers.text import printable

with extras.importing("notebooks", "IPython"):
    from IPython.display import HTML, Markdown

_COLORS = {"note": "#0072B2", "tip": "#009E73", "caution": "#D55E00"}


def box(text: str, kind: str = "note") -> HTML:
    """A colored box of a kind: ``note``, ``tip`` or ``caution``."""
    color = _COLORS[kind]
    return HTML(
        f'<div style="border-left:6px solid {color};padding:.6em 1em;background:{color}18;color:inherit">'
        f"<strong>{kind.capitalize()}.</strong> {html.escape(text)}</div>"
    )


def comparison(scores: dict[str, Scores], metrics: Iterable[str]) -> Markdown:
    """One line per method with the 95 % interval of each metric, then chance and ceiling of the protocol."""
    metrics = list(metrics)
    tables = {name: score.table().set_index("metric").loc[metrics] for name, score in scores.items()}
    lines = [
        [name, *(interval_text(row.value, row.low, row.high) for row in table.itertuples())]
        for name, table in tables.items()
    ]
    first = next(iter(tables.values()))
    lines += [[f"*{bound}*", *(f"*{value:.3f}*" for value in first[bound])] for bound in ("chance", "ceiling")]
    return markdown(pd.DataFrame(lines, columns=["", *metrics]))


def interval_text(value: float, low: float, high: float) -> str:
    """A value with its interval, such as "0.500 [0.400, 0.600]"."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def markdown(table: pd.DataFrame, digits: int = 3) -> Markdown:
    """A table as Markdown, which JupyterLab and GitHub both show well.

    digits : decimals of float values. Columns "p" and "p …" have p-values, see `format_p_value`.
    """

    def text(value: object, column: object) -> str:
        if isinstance(value, float) and str(column).partition(" ")[0] == "p":
            return format_p_value(value, digits)
        return f"{value:.{digits}f}" if isinstance(value, float) else printable(value).replace("|", "\\|")

    lines = [
        "| " + " | ".join(map(str, table.columns)) + " |",
        "|" + " --- |" * len(table.columns),
        *("| " + " | ".join(map(text, row, table.columns)) + " |" for row in table.itertuples(index=False)),
    ]
    return Markdown("\n".join(lines))
