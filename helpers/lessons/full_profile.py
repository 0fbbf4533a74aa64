"""Shows results of the full profile, which are committed in ``figures/``, in the notebooks.

They are read from the project's ``figures`` folder. ``LOOKALIKE_FIGURES`` changes only where a run writes.
"""

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.figure import Figure

from helpers import extras, paths
from helpers.evaluation import leaderboard
from helpers.evaluation.metrics import Scores
from helpers.visualization import tables
from helpers.visualization.curves import top_k_curves

with extras.importing("notebooks", "IPython"):
    from IPython.display import Markdown

FIGURES = paths.committed_figures_dir()
LEADERBOARD = "leaderboard.csv"
PROFILE = "full"
#: The metrics of the curves, those of the leaderboard.
TOP_KS = ("top-1", "top-3", "top-5", "top-10")


def table(name: str) -> pd.DataFrame:
    """Read ``figures/<name>_full.csv``, which a lesson wrote in its last full-profile run.

    Raises FileNotFoundError: the file does not exist; the message lists the existing ones.
    """
    path = FIGURES / f"{name}_full.csv"
    if not path.is_file():
        known = sorted(each.name.removesuffix("_full.csv") for each in FIGURES.glob("*_full.csv"))
        raise FileNotFoundError(f"no table {path.name} in figures/; available: {', '.join(known)}")
    return pd.read_csv(path)


def show(rows: pd.DataFrame, name: str, digits: int = 3) -> Markdown:
    """Format rows of the table ``name`` as Markdown, with a caption that names its file. Missing values are dashes."""
    shown = tables.markdown(rows.astype(object).where(rows.notna(), "–"), digits)
    return Markdown(f"Full profile, from `figures/{name}_full.csv`:\n\n{shown.data}")


def scores(
    protocol: str,
    extractors: Iterable[str],
    metrics: Iterable[str] = ("top-1", "mAP"),
    indexes: Iterable[str] = ("exact:cosine",),
) -> Markdown:
    """Format full-profile scores of the leaderboard as Markdown: one row per method, then chance and ceiling.

    Parameters
    ----------
    protocol : name of a frozen protocol, e.g. ``"imagenette-val-train"``.
    extractors : names of the extractors, in the order of the rows.
    metrics : names of the metrics, in the order of the columns; each is shown with its 95 % interval.
    indexes : specs of the indexes. With more than one, a column has the index of each row.

    Raises ValueError: the leaderboard does not have exactly one row for a metric of a method.
    """
    metrics, indexes, board = list(metrics), list(indexes), _board(protocol)
    known = set(zip(board["extractor"], board["index"], strict=True))
    rows = pd.DataFrame(
        _only(board, protocol, extractor, metric, index)
        for extractor in extractors
        for index in [each for each in indexes if (extractor, each) in known] or indexes[:1]
        for metric in metrics
    )
    table = tables.by_metric(rows, metrics, ("extractor", "index") if len(indexes) > 1 else ("extractor",))
    size = f"{rows['n_queries'].iloc[0]:,} queries, gallery of {rows['n_gallery'].iloc[0]:,}"
    return Markdown(f"Full profile, `{protocol}`, {size}; from `figures/{LEADERBOARD}`:\n\n{table.data}")


def curves(
    protocol: str, extractors: Iterable[str], run: Mapping[str, Scores] | None = None, title: str = ""
) -> Figure:
    """Plot full-profile top-k accuracy over k = 1, 3, 5, 10, with 95 % intervals, chance and ceiling.

    Parameters
    ----------
    protocol : name of a frozen protocol. extractors : names of the extractors, searched with exact cosine similarity.
    run : name → scores of this run, for a panel on the left.
    title : of that panel.

    Raises ValueError: the leaderboard does not have exactly one such row for each extractor and *k*.
    """
    panels, board = {}, _board(protocol)
    if run:
        measured = pd.concat([scores.table().assign(name=name) for name, scores in run.items()])
        panels[title] = measured[measured["metric"].isin(TOP_KS)]
    rows = pd.DataFrame(_only(board, protocol, name, metric) for name in extractors for metric in TOP_KS)
    return top_k_curves(panels | {f"full profile, {protocol}": rows.rename(columns={"extractor": "name"})})


def score(protocol: str, extractor: str, metric: str) -> float:
    """One full-profile score of the leaderboard, with exact search by cosine similarity.

    Raises ValueError: the leaderboard does not have exactly one such row.
    """
    return float(_only(_board(protocol), protocol, extractor, metric)["value"])


def _board(protocol: str) -> pd.DataFrame:
    """The full-profile rows of a protocol."""
    board = leaderboard.load(FIGURES / LEADERBOARD)
    return board[(board["profile"] == PROFILE) & (board["protocol"] == protocol)]


def _only(board: pd.DataFrame, protocol: str, extractor: str, metric: str, index: str = "exact:cosine") -> pd.Series:
    rows = board[(board["extractor"] == extractor) & (board["metric"] == metric) & (board["index"] == index)]
    if len(rows) != 1:
        raise ValueError(
            f"the leaderboard must have one row, but it has {len(rows)} full-profile rows of {extractor!r} under "
            f"{protocol!r} with {metric!r} and {index}"
        )
    return rows.iloc[0]
