"""Class scores of a saved engine's images: the likeliest classes of each, for searches by words."""

import sqlite3
from collections.abc import Sequence

import numpy as np

from helpers.search.persist.content_table import ContentTable

#: The number of classes that are stored per image, as many as ConSE averages.
DEPTH = 50

TABLE = ContentTable(
    "class_scores", ("classes blob not null", "probabilities blob not null"),
    "classifier", ("name not null", "fingerprint not null"),
)  # fmt: skip


def rows_of(contents: Sequence[bytes | None], scores: np.ndarray) -> list[tuple]:
    """The rows of class scores (n, classes) for `ContentTable.write`."""
    classes, probabilities = likeliest(scores)
    rows = zip(contents, classes.astype("<i2"), probabilities.astype("<f4"), strict=True)
    return [(content, one.tobytes(), other.tobytes()) for content, one, other in rows]


def likeliest(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `DEPTH` likeliest classes of (n, classes): int16 (n, depth), and their probabilities, float32 (n, depth)."""
    classes = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return classes.astype(np.int16), np.take_along_axis(scores, classes, axis=1).astype(np.float32)


def read(connection: sqlite3.Connection, after: int = 0) -> tuple[list[bytes], np.ndarray, np.ndarray, int]:
    """The scores with a number above ``after``.

    Returns
    -------
    The contents (n), the likeliest classes of each, most likely first, int16 (n, `DEPTH` or fewer), their
    probabilities, float32, and the number of the last row.
    """
    rows = TABLE.read(connection, after)
    depth = len(rows[0][2]) // 2 if rows else DEPTH
    classes = np.frombuffer(b"".join(row[2] for row in rows), "<i2").reshape(-1, depth)
    probabilities = np.frombuffer(b"".join(row[3] for row in rows), "<f4").reshape(-1, depth)
    return [row[1] for row in rows], classes, probabilities, rows[-1][0] if rows else after
