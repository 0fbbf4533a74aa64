"""The regions of a saved engine's images: their boxes, classes and scores. Images without regions have a row, too."""

import json
import sqlite3

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


def read(connection: sqlite3.Connection, after: int = 0) -> tuple[dict[bytes, Regions], int]:
    """The regions with a number above ``after``, by content, and the number of the last one."""
    found = {}
    for number, content, boxes, class_names, scores in TABLE.read(connection, after):
        found[content] = Regions(
            np.frombuffer(boxes, "<i4").reshape(-1, 4).astype(np.float32),
            tuple(json.loads(class_names)),
            np.frombuffer(scores, "<f4"),
        )
        after = number
    return found, after
