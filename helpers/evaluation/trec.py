"""Reads and writes rankings and protocols as TREC files, to check the scores with `trec_eval`.

Run file: ``query Q0 document rank score tag``; qrels file: ``query 0 document relevance``
(https://github.com/usnistgov/trec_eval). Image keys are percent-encoded, because a name must not contain a space.
trec_eval ignores the rank column, sorts by score and breaks ties by name from Z to A. A Ranking breaks ties by id. To
keep its order, the score column has the numbers k, k - 1, … 1 instead of the similarities.
"""

import math
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from helpers.evaluation.protocol import Protocol
from helpers.evaluation.runner import check_rows
from helpers.files import write_text
from helpers.search.ranking import PAD, Ranking


class TrecFileError(ValueError):
    """A line has a wrong format, or names an image that is not in the protocol."""


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


def read_run(path: str | Path, protocol: Protocol) -> Ranking:
    """Read a run file as Ranking, row *j* for ``protocol.queries[j]``; a query without a line has padding only.

    The order is trec_eval's: by decreasing score, equal scores by name from Z to A. The returned scores are the numbers
    k, k - 1, … 1.

    Raises
    ------
    TrecFileError : a line is malformed, has a score of NaN, names an unknown image, or repeats one.
    """
    ids = {name: i for i, name in enumerate(_names(protocol))}
    row_of = {int(query): row for row, query in enumerate(protocol.queries)}
    found: list[list[tuple[float, str, int]]] = [[] for _ in protocol.queries]
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        query, result, score = _run_line(line, f"{path}, line {number}")
        for name in (query, result):
            if name not in ids:
                raise TrecFileError(f"{path}, line {number}: {protocol.name} has no image {unquote(name)!r}")
        if ids[query] not in row_of:
            raise TrecFileError(f"{path}, line {number}: {unquote(query)!r} is not a query of {protocol.name}")
        found[row_of[ids[query]]].append((score, result, ids[result]))
    width = max(map(len, found), default=0)
    rows = np.full((len(found), width), PAD, dtype=np.int64)
    for row, results in enumerate(found):
        order = [i for _, _, i in sorted(results, reverse=True)]
        if len(set(order)) != len(order):
            raise TrecFileError(f"{path}: query {protocol.keys[protocol.queries[row]]!r} has a result twice")
        rows[row, : len(order)] = order
    return Ranking(rows, np.broadcast_to(np.arange(width, 0, -1, dtype=np.float64), rows.shape))


def _run_line(line: str, where: str) -> tuple[str, str, float]:
    """(query, document, score) of a line."""
    try:
        query, _, result, _, text, _ = line.split()
        score = float(text)
    except ValueError as error:
        raise TrecFileError(f"{where}: expected 'query Q0 document rank score tag', got {line!r}") from error
    if math.isnan(score):
        raise TrecFileError(f"{where}: the score is NaN in {line!r}")
    return query, result, score


def _names(protocol: Protocol) -> list[str]:
    return [quote(key, safe="/", errors="surrogateescape") for key in protocol.keys]
