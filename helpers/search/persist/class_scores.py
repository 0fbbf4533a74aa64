"""Class scores of a saved engine's images: the likeliest classes of each, for searches by words.

They are rows of ``engine.sqlite``, stored by the identity of an image's content. They stay valid when images get other
ids, and copies of an image share one row.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from helpers.search.persist.engine_file import has_table

#: The number of classes that are stored per image, as many as ConSE averages.
DEPTH = 50

_SCHEMA = """
create table if not exists classifier (name not null, fingerprint not null);
create table if not exists class_scores (
    number integer primary key autoincrement,
    content blob not null unique,
    classes blob not null,
    probabilities blob not null
);
"""


class Classifier(NamedTuple):
    """Name and fingerprint of the `helpers.features.deep.ClassScores` that computed the scores."""

    name: str
    fingerprint: str


class StoredScores(NamedTuple):
    """The likeliest classes of images, most likely first.

    contents : the identities of the images' contents (n).
    classes : int16 (n, `DEPTH`). probabilities : float32 (n, `DEPTH`). Both may have fewer columns.
    last : number of the last row, for the next `read`.
    """

    contents: list[bytes]
    classes: np.ndarray
    probabilities: np.ndarray
    last: int


def likeliest(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `DEPTH` likeliest classes of (n, classes): int16 (n, depth), and their probabilities, float32 (n, depth)."""
    classes = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return classes.astype(np.int16), np.take_along_axis(scores, classes, axis=1).astype(np.float32)


def classifier_of(connection: sqlite3.Connection) -> Classifier | None:
    """The classifier of the stored scores; None if there are none."""
    if not has_table(connection, "classifier"):
        return None
    row = connection.execute("select name, fingerprint from classifier").fetchone()
    return None if row is None else Classifier(*row)


def start(connection: sqlite3.Connection, classifier: Classifier) -> None:
    """Prepare the tables for scores of a classifier, in a transaction; those of another one are deleted."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    if classifier_of(connection) != classifier:
        connection.execute("delete from classifier")
        connection.execute("delete from class_scores")
        connection.execute("insert into classifier values (?, ?)", classifier)


def write(
    connection: sqlite3.Connection, contents: Sequence[bytes], classes: np.ndarray, probabilities: np.ndarray
) -> None:
    """Add scores, in a transaction; those of contents that are stored already are ignored.

    classes : (n, depth). probabilities : (n, depth).
    """
    rows = zip(contents, classes.astype("<i2"), probabilities.astype("<f4"), strict=True)
    connection.executemany(
        "insert or ignore into class_scores (content, classes, probabilities) values (?, ?, ?)",
        ((content, one.tobytes(), other.tobytes()) for content, one, other in rows),
    )


def read(connection: sqlite3.Connection, after: int = 0) -> StoredScores:
    """The scores with a number above ``after``."""
    rows: list[tuple] = []
    if has_table(connection, "class_scores"):
        query = "select number, content, classes, probabilities from class_scores where number > ? order by number"
        rows = connection.execute(query, (after,)).fetchall()
    depth = len(rows[0][2]) // 2 if rows else DEPTH
    return StoredScores(
        [row[1] for row in rows],
        np.frombuffer(b"".join(row[2] for row in rows), "<i2").reshape(-1, depth),
        np.frombuffer(b"".join(row[3] for row in rows), "<f4").reshape(-1, depth),
        rows[-1][0] if rows else after,
    )
