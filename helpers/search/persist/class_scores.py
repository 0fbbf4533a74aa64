"""Class scores of a saved engine's images: the likeliest classes of each, for searches by words and for tags.

They are rows of ``engine.sqlite``, stored by the identity of an image's content. They stay valid when images get other
ids, and copies of an image share one row.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

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


@dataclass(frozen=True, eq=False)
class StoredScores:
    """The likeliest classes of images, most likely first.

    Attributes
    ----------
    contents : the identities of the images' contents (n).
    classes : int16 (n, `DEPTH`). probabilities : float32 (n, `DEPTH`). Both may have fewer columns.
    last : number of the last row, for the next `read`.
    """

    contents: list[bytes] = field(default_factory=list)
    classes: np.ndarray = field(default_factory=lambda: np.empty((0, DEPTH), np.int16))
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, DEPTH), np.float32))
    last: int = 0

    def __len__(self) -> int:
        return len(self.contents)

    def dense(self, rows: slice, n_classes: int) -> np.ndarray:
        """float32 (m, n_classes): the probabilities of some images; 0 for the classes that are not stored."""
        classes = self.classes[rows].astype(np.int64)
        scores = np.zeros((len(classes), n_classes), np.float32)
        np.put_along_axis(scores, classes, self.probabilities[rows], axis=1)
        return scores


def likeliest(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `DEPTH` likeliest classes of (n, classes): int16 (n, depth), and their probabilities, float32 (n, depth)."""
    classes = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return classes.astype(np.int16), np.take_along_axis(scores, classes, axis=1).astype(np.float32)


def classifier_of(connection: sqlite3.Connection) -> Classifier | None:
    """The classifier of the stored scores; None if there are none."""
    if connection.execute("select 1 from sqlite_master where name = 'classifier'").fetchone() is None:
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
    if classifier_of(connection) is None:
        return StoredScores(last=after)
    rows = connection.execute(
        "select number, content, classes, probabilities from class_scores where number > ? order by number", (after,)
    ).fetchall()
    if not rows:
        return StoredScores(last=after)
    depth = len(rows[0][2]) // 2
    return StoredScores(
        [content for _, content, _, _ in rows],
        np.frombuffer(b"".join(row[2] for row in rows), "<i2").reshape(-1, depth),
        np.frombuffer(b"".join(row[3] for row in rows), "<f4").reshape(-1, depth),
        rows[-1][0],
    )


def missing(connection: sqlite3.Connection, contents: Iterable[bytes]) -> list[bytes]:
    """Those of ``contents`` without scores, each once, in their order."""
    unique = dict.fromkeys(contents)
    if classifier_of(connection) is None:
        return list(unique)
    return [
        content
        for content in unique
        if connection.execute("select 1 from class_scores where content = ?", (content,)).fetchone() is None
    ]


def prune(connection: sqlite3.Connection) -> None:
    """Delete the scores of contents that the gallery table does not hold, in a transaction."""
    if classifier_of(connection) is not None:
        connection.execute(
            "delete from class_scores where content not in (select content from gallery where content is not null)"
        )
