"""The write-ahead log: images added to a saved engine and removed from it since its index file was written."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

#: SQLite never repeats ``number``, not even after the row was deleted.
SCHEMA = """
create table log (
    number integer primary key autoincrement,
    id integer not null,
    path,
    place integer,
    class_name,
    vector blob,
    content blob,
    name
);
"""


@dataclass(frozen=True, eq=False)
class Change:
    """One image that was added or removed.

    Attributes
    ----------
    number : rises with every change.
    id : of the image.
    path, place : as `helpers.search.persist.roots.Roots` encodes them; empty and 0 for a removal.
    class_name : None for an image of no class.
    vector : float32 (dim,); None for a removal.
    content, name : the identity of the file's content, and a name that differs from that of the file; or None.
    """

    number: int
    id: int
    path: str
    place: int
    class_name: str | None
    vector: np.ndarray | None
    content: bytes | None = None
    name: str | None = None


def read(connection: sqlite3.Connection, after: int) -> list[Change]:
    """The changes with a number above ``after``, in their order."""
    rows = connection.execute(
        "select number, id, path, place, class_name, vector, content, name from log where number > ? order by number",
        (after,),
    )
    return [
        Change(
            number, id, to_str(path) or "", place or 0, to_str(class_name), vector and np.frombuffer(vector, "<f4"),
            content, to_str(name),
        )
        for number, id, path, place, class_name, vector, content, name in rows
    ]  # fmt: skip


def last_number(connection: sqlite3.Connection) -> int:
    """The number of the last change ever made, 0 before the first."""
    row = connection.execute("select seq from sqlite_sequence where name = 'log'").fetchone()
    return 0 if row is None else row[0]


def add(
    connection: sqlite3.Connection,
    ids: Iterable[int],
    paths: Iterable[tuple[str, int]],
    class_names: Sequence[str | None],
    vectors: np.ndarray,
    contents: Sequence[bytes | None],
    names: Sequence[str | None],
) -> None:
    """Write additions.

    paths : pairs of path and place. vectors : float32 (n, dim). contents, names : see `Change`.
    """
    rows = zip(ids, paths, class_names, np.ascontiguousarray(vectors, "<f4"), contents, names, strict=True)
    connection.executemany(
        "insert into log (id, path, place, class_name, vector, content, name) values (?, ?, ?, ?, ?, ?, ?)",
        (
            (int(id), to_sql(path), place, to_sql(class_name), row.tobytes(), content, to_sql(name))
            for id, (path, place), class_name, row, content, name in rows
        ),
    )


def remove(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Write removals."""
    connection.executemany("insert into log (id) values (?)", ((int(id),) for id in ids))


def to_sql(text: str | None) -> str | bytes | None:
    """A text in the form that SQLite accepts: file names that are not valid UTF-8 become bytes."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


@overload
def to_str(stored: str | bytes) -> str: ...
@overload
def to_str(stored: None) -> None: ...
def to_str(stored: str | bytes | None) -> str | None:
    """The text of `to_sql`."""
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored
