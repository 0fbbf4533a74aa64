"""The regions of a saved engine's images: their boxes, classes and scores, and the source that found them.

They are rows of ``engine.sqlite``, stored by the identity of an image's content, as class scores are
(`helpers.search.persist.class_scores`). An image without regions has a row, too.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from helpers.features.regions import Regions, whole_pixels
from helpers.search.persist.engine_file import has_table

_SCHEMA = """
create table if not exists region_source (name not null, fingerprint not null, detector, labels);
create table if not exists region_boxes (
    number integer primary key autoincrement,
    content blob not null unique,
    boxes blob not null,
    class_names text not null,
    scores blob not null
);
"""


class StoredSource(NamedTuple):
    """What found the stored regions.

    name, fingerprint : of the `helpers.features.regions.RegionSource`.
    detector, labels : the files of a detector of the reader's own; None for the pretrained one and for other sources.
    """

    name: str
    fingerprint: str
    detector: str | None = None
    labels: str | None = None


def source_of(connection: sqlite3.Connection) -> StoredSource | None:
    """The source of the stored regions; None if there are none."""
    if not has_table(connection, "region_source"):
        return None
    row = connection.execute("select name, fingerprint, detector, labels from region_source").fetchone()
    return None if row is None else StoredSource(*row)


def start(connection: sqlite3.Connection, source: StoredSource) -> None:
    """Prepare the tables for regions of a source, in a transaction; those of another one are deleted."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    stored = source_of(connection)
    if stored is None or stored.fingerprint != source.fingerprint:
        connection.execute("delete from region_boxes")
    connection.execute("delete from region_source")
    connection.execute("insert into region_source values (?, ?, ?, ?)", source)


def clear(connection: sqlite3.Connection) -> None:
    """Delete the source and all regions, in a transaction."""
    if source_of(connection) is not None:
        connection.execute("delete from region_source")
        connection.execute("delete from region_boxes")


def write(
    connection: sqlite3.Connection, contents: Sequence[bytes], regions: Sequence[Regions], replace: bool = False
) -> None:
    """Add the regions of images, in a transaction; those of contents that are stored already are ignored.

    replace : replace them instead.
    """
    connection.executemany(
        f"insert or {'replace' if replace else 'ignore'} into region_boxes (content, boxes, class_names, scores) "
        "values (?, ?, ?, ?)",
        (
            (
                content,
                # Sources find whole pixels; the regions may come from elsewhere.
                whole_pixels(one.boxes).astype("<i4").tobytes(),
                json.dumps(one.class_names),
                one.scores.astype("<f4").tobytes(),
            )
            for content, one in zip(contents, regions, strict=True)
        ),
    )


def read(connection: sqlite3.Connection, after: int = 0) -> tuple[dict[bytes, Regions], int]:
    """The regions with a number above ``after``, by content, and the number of the last one."""
    if source_of(connection) is None:
        return {}, after
    rows = connection.execute(
        "select number, content, boxes, class_names, scores from region_boxes where number > ? order by number",
        (after,),
    )
    found = {}
    for number, content, boxes, class_names, scores in rows:
        found[content] = Regions(
            np.frombuffer(boxes, "<i4").reshape(-1, 4).astype(np.float32),
            tuple(json.loads(class_names)),
            np.frombuffer(scores, "<f4"),
        )
        after = number
    return found, after
