"""The regions of a saved engine's images: their boxes, classes and scores. Images without regions have a row, too."""

import json
import sqlite3
from collections.abc import Iterable

import numpy as np

from helpers.features.regions import Regions, whole_pixels
from helpers.search.persist.content_table import ContentTable

TABLE = ContentTable(
    "region_boxes", ("boxes blob not null", "class_names text not null", "scores blob not null"),
    "region_source", ("name not null", "fingerprint not null", "detector", "labels"),
)  # fmt: skip


def row_of(content: bytes | None, regions: Regions) -> tuple:
    """The row of an image's regions for `ContentTable.write`."""
    # Sources find whole pixels; the regions may come from elsewhere.
    boxes = whole_pixels(regions.boxes).astype("<i4")
    return content, boxes.tobytes(), json.dumps(regions.class_names), regions.scores.astype("<f4").tobytes()


def read_of(connection: sqlite3.Connection, contents: Iterable[bytes]) -> dict[bytes, Regions]:
    """The regions of those of some contents that have a row."""
    query = f"select * from {TABLE.name} where content = ?"
    rows = (connection.execute(query, (content,)).fetchone() for content in contents)
    return {row[1]: _regions(row) for row in rows if row is not None}


def read(connection: sqlite3.Connection, after: int = 0) -> tuple[dict[bytes, Regions], int]:
    """The regions with a number above ``after``, by content, and the number of the last one."""
    rows = TABLE.read(connection, after)
    return {row[1]: _regions(row) for row in rows}, rows[-1][0] if rows else after


def _regions(row: tuple) -> Regions:
    """The regions in a row of the table."""
    _, _, boxes, class_names, scores = row
    return Regions(
        np.frombuffer(boxes, "<i4").reshape(-1, 4).astype(np.float32),
        tuple(json.loads(class_names)),
        np.frombuffer(scores, "<f4"),
    )
