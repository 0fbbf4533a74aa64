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
#: The *k* of the curves, those of the leaderboard.
KS = (1, 3, 5, 10)


def table(name: str) -> pd.DataFrame:
    """Read ``figures/<name>_full.csv``, which a lesson wrote in its last full-profile run.

    Raises
    ------
    FileNotFoundError : the file does not exist; the message lists the existing ones.
    """
    path = FIGURES / _file(name)
    if not path.is_file():
        known = sorted(each.name.removesuffix("_full.csv") for each in FIGURES.glob("*_full.csv"))
        raise FileNotFoundError(f"no table {path.name} in figures/; available: {', '.join(known)}")
    return pd.read_csv(path)


def show(rows: pd.DataFrame, name: str, digits: int = 3) -> Markdown:
    """Format rows of the table ``name`` as Markdown, with a caption that names its file. Missing values are dashes."""
    return _captioned(rows.astype(object).where(rows.notna(), "–"), f"from `figures/{_file(name)}`", digits)


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
    """
    extractors, metrics, indexes = list(extractors), list(metrics), list(indexes)
    board = leaderboard.load(FIGURES / LEADERBOARD)
    board = board[(board["profile"] == PROFILE) & (board["protocol"] == protocol) & board["metric"].isin(metrics)]
    methods = {method: rows.set_index("metric") for method, rows in board.groupby(["extractor", "index"])}
    lines = []
    for extractor in extractors:
        measured = [index for index in indexes if (extractor, index) in methods]
        if not measured:
            raise ValueError(
                f"the leaderboard has no full-profile row of {extractor!r} under {protocol!r} with {indexes}"
            )
        for index in measured:
            rows = methods[extractor, index]
            if sorted(rows.index) != sorted(metrics):
                method = f"{extractor!r} under {protocol!r} with {index!r}"
                expected, found = ", ".join(metrics), ", ".join(rows.index)
                raise ValueError(f"expected one row per metric ({expected}) of {method}, got {found}")
            spans = rows.loc[metrics, ["value", "low", "high"]].itertuples(index=False)
            lines.append([extractor, index, *(tables.interval_text(*span) for span in spans)])
    first = board[board["extractor"] == extractors[0]].drop_duplicates("metric").set_index("metric")
    for bound in ("chance", "ceiling"):
        lines.append([f"*{bound}*", "", *(f"*{first.loc[metric, bound]:.3f}*" for metric in metrics)])
    table = pd.DataFrame(lines, columns=["", "index", *metrics])
    if len(indexes) == 1:
        table = table.drop(columns="index")
    size = f"{first['n_queries'].iloc[0]:,} queries, gallery of {first['n_gallery'].iloc[0]:,}"
    return _captioned(table, f"`{protocol}`, {size}; from `figures/{LEADERBOARD}`")


def curves(
    protocol: str, extractors: Iterable[str], run: Mapping[str, Scores] | None = None, title: str = ""
) -> Figure:
    """Plot full-profile top-k accuracy over k = 1, 3, 5, 10, with 95 % intervals, chance and ceiling.

    Parameters
    ----------
    protocol : name of a frozen protocol. extractors : names of the extractors, searched with exact cosine similarity.
    run : name → scores of this run, for a panel on the left.
    title : of that panel.

    Raises
    ------
    ValueError : the leaderboard has not exactly one such row for each extractor and *k*.
    """
    panels, board = {}, _exact(protocol)
    if run:
        measured = {name: scores.table().set_index("metric") for name, scores in run.items()}
        panels[title] = _top_k((name, k, table.loc[f"top-{k}"]) for name, table in measured.items() for k in KS)
    rows = [(name, k, _only(board, protocol, name, f"top-{k}")) for name in extractors for k in KS]
    return top_k_curves(panels | {f"full profile, {protocol}": _top_k(rows)})


def score(protocol: str, extractor: str, metric: str) -> float:
    """One full-profile score of the leaderboard, with exact search by cosine similarity.

    Raises
    ------
    ValueError : the leaderboard does not have exactly one such row.
    """
    return float(_only(_exact(protocol), protocol, extractor, metric)["value"])


def _exact(protocol: str) -> pd.DataFrame:
    """The full-profile rows of a protocol with exact search by cosine similarity."""
    board = leaderboard.load(FIGURES / LEADERBOARD)
    return board[(board["profile"] == PROFILE) & (board["protocol"] == protocol) & (board["index"] == "exact:cosine")]


def _only(board: pd.DataFrame, protocol: str, extractor: str, metric: str) -> pd.Series:
    rows = board[(board["extractor"] == extractor) & (board["metric"] == metric)]
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} full-profile rows of {extractor!r} under {protocol!r} with {metric!r}")
    return rows.iloc[0]


def _top_k(rows: Iterable[tuple[str, int, pd.Series]]) -> pd.DataFrame:
    """The table of `top_k_curves` from (name, k, row with value and bounds)."""
    columns = ["value", "low", "high", "chance", "ceiling"]
    return pd.DataFrame([(name, k, *row[columns]) for name, k, row in rows], columns=["name", "k", *columns])


def _file(name: str) -> str:
    return f"{name}_full.csv"


def _captioned(rows: pd.DataFrame, source: str, digits: int = 3) -> Markdown:
    return Markdown(f"Full profile, {source}:\n\n{tables.markdown(rows, digits).data}")
