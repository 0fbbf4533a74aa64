"""When the images of a saved engine were added.

The dates are an optional table of ``engine.sqlite``. Ids rise with time, so one row stands for all images from an id up
to the next row. Engines that were made by earlier versions have no dates for their first images.
"""

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from helpers.search.persist.engine_file import EngineFile, has_table

_SCHEMA = "create table if not exists added_dates (start integer primary key, seconds integer)"

#: What identifies an image: its stored path, the number of its root, and its content.
Key = tuple[str | bytes | None, int, bytes | None]


def note_addition(connection: sqlite3.Connection, first: int) -> None:
    """Store that the images from an id on are added now, in a transaction."""
    connection.execute(_SCHEMA)
    connection.execute("insert or replace into added_dates values (?, ?)", (int(first), int(time.time())))


def known_dates(connection: sqlite3.Connection) -> dict[Key, int | None]:
    """The dates of an engine's images, to be passed to `replace` after a save has replaced their rows."""
    rows = connection.execute(
        "select id, path, place, content from gallery union all "
        "select id, path, place, content from log where vector is not null"
    ).fetchall()
    dates = _dates(connection, np.array([row[0] for row in rows], np.int64))
    return {tuple(row[1:]): date for row, date in zip(rows, dates, strict=True)}


def replace(connection: sqlite3.Connection, keys: Iterable[Key], known: dict[Key, int | None]) -> None:
    """Store the dates of all images of a new snapshot, in the order of their ids. Unknown images are added now."""
    connection.execute(_SCHEMA)
    connection.execute("delete from added_dates")
    now, last = int(time.time()), None
    for id, key in enumerate(keys):
        date = known.get(key, now)
        if date != last:
            connection.execute("insert into added_dates values (?, ?)", (id, date))
        last = date


def added_dates(folder: str | Path, ids: np.ndarray) -> list[int | None]:
    """When images were added, in seconds since 1970; None for those of which this is not known.

    folder : of a saved engine. Raises EngineFolderError and IndexFileError: it cannot be read.
    """
    with EngineFile(folder) as file, file.reading() as connection:
        return _dates(connection, ids)


def _dates(connection: sqlite3.Connection, ids: np.ndarray) -> list[int | None]:
    starts: list[tuple[int, int | None]] = []
    if has_table(connection, "added_dates"):
        starts = connection.execute("select start, seconds from added_dates order by start").fetchall()
    rows = np.searchsorted([start for start, _ in starts], ids, side="right") - 1
    return [starts[row][1] if row >= 0 else None for row in rows.tolist()]
