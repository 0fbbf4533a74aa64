"""Optional tables of ``engine.sqlite``: what was computed from images, stored by the identity of an image's content.

Rows stay valid when images get other ids, and copies of an image share one row.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from helpers.search.gallery import GalleryTable
from helpers.search.persist.engine_file import EngineFile, has_table


class StoredSource(NamedTuple):
    """What computed the rows of a table.

    name, fingerprint : of a `helpers.features.deep.ClassScores` or a `helpers.features.regions.RegionSource`.
    detector, labels : the files of the user's own detector; None for the pretrained one and for other sources.
    """

    name: str
    fingerprint: str
    detector: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class ContentTable:
    """A table with one row for each content, and a table of one row with their source.

    name, source : of the two tables. columns, source_columns : their declarations.
    """

    name: str
    columns: tuple[str, ...]
    source: str
    source_columns: tuple[str, ...]

    def source_of(self, connection: sqlite3.Connection) -> StoredSource | None:
        """The source of the rows; None if there is none."""
        if not has_table(connection, self.source):
            return None
        row = connection.execute(f"select * from {self.source}").fetchone()
        return None if row is None else StoredSource(*row)

    def source_in(self, folder: str | Path) -> StoredSource | None:
        """`source_of` in the file of a saved engine."""
        with EngineFile(folder) as file, file.reading() as connection:
            return self.source_of(connection)

    def start(self, connection: sqlite3.Connection, source: StoredSource) -> None:
        """Prepare the tables for rows of a source, in a transaction; those of another one are deleted."""
        columns = ("number integer primary key autoincrement", "content blob not null unique", *self.columns)
        for name, declared in ((self.name, columns), (self.source, self.source_columns)):
            connection.execute(f"create table if not exists {name} ({', '.join(declared)})")
        stored = self.source_of(connection)
        if stored is None or stored.fingerprint != source.fingerprint:
            connection.execute(f"delete from {self.name}")
        if stored != source:
            connection.execute(f"delete from {self.source}")
            values = source[: len(self.source_columns)]
            connection.execute(f"insert into {self.source} values ({_marks(values)})", values)

    def clear(self, connection: sqlite3.Connection) -> None:
        """Delete the source and all rows, in a transaction."""
        if has_table(connection, self.source):
            connection.execute(f"delete from {self.source}")
            connection.execute(f"delete from {self.name}")

    def write(self, connection: sqlite3.Connection, rows: Iterable[tuple], replace: bool = False) -> None:
        """Add rows of content and values, in a transaction; those of contents that are stored already are ignored.

        replace : replace them instead.
        """
        names = ("content", *(column.split()[0] for column in self.columns))
        verb = "replace" if replace else "ignore"
        query = f"insert or {verb} into {self.name} ({', '.join(names)}) values ({_marks(names)})"
        connection.executemany(query, rows)

    def read(self, connection: sqlite3.Connection, after: int) -> list[tuple]:
        """The rows with a number above ``after``: number, content and values, in the order of the numbers."""
        if not has_table(connection, self.name):
            return []
        query = f"select * from {self.name} where number > ? order by number"
        return connection.execute(query, (after,)).fetchall()

    def compute_missing(
        self, file: EngineFile, source: StoredSource, images: Mapping[bytes, int],
        compute: Callable[[list[int]], Collection[tuple]], step: int, progress: Callable[[int], object] | None,
    ) -> tuple[int, int]:  # fmt: skip
        """Compute and write the missing rows of a source; returns the number of images, and of those without a row.

        An interrupted call continues where it stopped.

        images : an image of each content, see `images_by_content`. compute : ids → the rows of those that can be read.
        step : images at a time. progress : called with the number of images after each step.
        """
        with file.writing() as connection:
            self.start(connection, source)
            query = f"select 1 from {self.name} where content = ?"
            todo = [id for content, id in images.items() if connection.execute(query, (content,)).fetchone() is None]
        skipped = 0
        for start in range(0, len(todo), step):
            part = todo[start : start + step]
            rows = compute(part)
            with file.writing() as connection:
                self.write(connection, rows)
            skipped += len(part) - len(rows)
            if progress is not None:
                progress(len(part))
        return len(todo), skipped


def images_by_content(table: GalleryTable, ids: list[int]) -> dict[bytes, int]:
    """The first image of each content, of those whose content is known."""
    return {content: id for id in reversed(ids) if (content := table.content(id)) is not None}


def _marks(values: Collection) -> str:
    return ", ".join("?" * len(values))
