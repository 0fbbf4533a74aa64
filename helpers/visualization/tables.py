"""Tables and boxes for notebooks."""

import html
from collections.abc import Iterable, Sequence

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
    return by_metric(pd.concat([score.table().assign(method=name) for name, score in scores.items()]), metrics)


def by_metric(rows: pd.DataFrame, metrics: Iterable[str], names: Sequence[str] = ("method",)) -> Markdown:
    """One line per method with the interval of each metric, then chance and ceiling.

    rows : with the columns ``names``, metric, value, low, high, chance and ceiling, one row per method and metric.
    names : the columns that name a method. The first one is shown without its title.
    """
    metrics, spans = list(metrics), ["value", "low", "high"]
    lines = [
        [*method, *(interval_text(*span) for span in part.set_index("metric").loc[metrics, spans].to_numpy())]
        for method, part in rows.groupby(list(names), sort=False)
    ]
    first, rest = rows.drop_duplicates("metric").set_index("metric").loc[metrics], [""] * (len(names) - 1)
    lines += [[f"*{bound}*", *rest, *(f"*{value:.3f}*" for value in first[bound])] for bound in ("chance", "ceiling")]
    return markdown(pd.DataFrame(lines, columns=["", *names[1:], *metrics]))


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
