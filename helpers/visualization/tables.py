"""Tables and boxes that a person reads in a notebook."""

import html
from collections.abc import Iterable

import pandas as pd

from helpers import extras
from helpers.evaluation.metrics import Scores

with extras.importing("notebooks", "IPython"):
    from IPython.display import HTML, Markdown

_COLORS = {"note": "#0072B2", "tip": "#009E73", "caution": "#D55E00"}


def box(text: str, kind: str = "note") -> HTML:
    """A box that can't be overlooked: ``note``, ``tip`` or ``caution``."""
    color = _COLORS[kind]
    return HTML(
        f'<div style="border-left:6px solid {color};padding:.6em 1em;background:{color}18;color:inherit">'
        f"<strong>{kind.capitalize()}.</strong> {html.escape(text)}</div>"
    )


def comparison(scores: dict[str, Scores], metrics: Iterable[str]) -> Markdown:
    """One line a method, each metric with its 95 % interval; then chance and ceiling of the protocol."""
    metrics = list(metrics)
    lines = []
    for name, score in scores.items():
        table = score.table().set_index("metric")
        lines.append([name] + [_with_interval(table.loc[metric]) for metric in metrics])
    table = next(iter(scores.values())).table().set_index("metric")
    for bound in ("chance", "ceiling"):
        lines.append([f"*{bound}*"] + [f"*{table.loc[metric, bound]:.3f}*" for metric in metrics])
    return markdown(pd.DataFrame(lines, columns=["", *metrics]))


def markdown(table: pd.DataFrame, digits: int = 3) -> Markdown:
    """A table as Markdown, which notebooks show well everywhere, GitHub included."""

    def text(value):
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value).replace("|", "\\|")

    lines = [
        "| " + " | ".join(map(str, table.columns)) + " |",
        "|" + " --- |" * len(table.columns),
        *("| " + " | ".join(text(value) for value in row) + " |" for row in table.itertuples(index=False)),
    ]
    return Markdown("\n".join(lines))


def _with_interval(row: pd.Series) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
