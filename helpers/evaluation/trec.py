"""Writes rankings and protocols as TREC files, to check the scores with `trec_eval`.

Run file: ``query Q0 document rank score tag``; qrels file: ``query 0 document relevance``
(https://github.com/usnistgov/trec_eval). Image keys are percent-encoded, because a name must not contain a space.
trec_eval ignores the rank column, sorts by score and breaks ties by name from Z to A. A Ranking breaks ties by id. To
keep its order, the score column has the numbers k, k - 1, … 1 instead of the similarities.
"""

from pathlib import Path
from urllib.parse import quote

from helpers.evaluation.protocol import Protocol
from helpers.evaluation.runner import check_rows
from helpers.files import write_text
from helpers.search.ranking import PAD, Ranking


def write_run(ranking: Ranking, protocol: Protocol, path: str | Path, tag: str = "lookalike") -> Path:
    """Write a ranking whose row *j* has the results of ``protocol.queries[j]``; tag names the method."""
    check_rows(ranking, protocol)
    names = _names(protocol)
    tag = quote(tag)
    lines = [
        f"{names[query]} Q0 {names[result]} {column + 1} {ranking.k - column} {tag}\n"
        for query, row in zip(protocol.queries, ranking.ids, strict=True)
        for column, result in enumerate(row[row != PAD])
    ]
    return write_text(path, "".join(lines))


def write_qrels(protocol: Protocol, path: str | Path) -> Path:
    """Write the relevant images of each query; queries without a relevant image are left out."""
    names = _names(protocol)
    lines = [
        f"{names[query]} 0 {names[result]} 1\n"
        for row, query in enumerate(protocol.queries)
        for result in protocol.relevant(row)
    ]
    return write_text(path, "".join(lines))


def _names(protocol: Protocol) -> list[str]:
    return [quote(key, safe="/", errors="surrogateescape") for key in protocol.keys]
