"""Image sets from tables with a column of paths and one of class names."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from helpers.images.imageset import EmptyImageSet, ImageSet, numbered
from helpers.images.table_files import DELIMITERS, Columns, Row, TableError, read_rows
from helpers.text import printable

#: Files with these suffixes are tables.
SUFFIXES = frozenset((".csv", ".tsv", ".tab", ".txt"))

_MISSING = "does not exist"


class TableNotice(UserWarning):
    """How a table was read that is not a plain CSV file: its delimiter, its column names, its empty rows."""


class _Image(NamedTuple):
    """An image of a table, the path as it is written, the class, and the number of its line."""

    file: Path
    written: str
    class_name: str
    line: int


def from_table(table: str | Path, name: str | None = None, path: str = "path", label: str = "label") -> ImageSet:
    """A set of your own images, listed in a table with a column of paths and one of class names.

    Cells are separated by commas, semicolons or tabs; `helpers.images.table_files.read_rows` describes the format. A
    `TableNotice` says what differs from a plain CSV file. Other columns are allowed, and empty rows are ignored.

    Paths are relative to the table's folder. If a file does not exist, spaces around its path are removed, and
    backslashes are read as slashes. Spaces around class names are removed. An empty class name means no class.

    Raises
    ------
    EmptyImageSet : the table has no rows.
    TableError : the encoding or the header is not understood, or rows cannot be used: they have too few or too many
        cells, a quote that is not closed, no path, or an image that does not exist or is listed twice.
    FileNotFoundError : the table does not exist.
    """
    file = Path(table).resolve()
    columns, rows = read_rows(file, (path, label))
    while rows and rows[-1].empty:
        rows.pop()
    used = [row for row in rows if not row.empty]
    read = [(row.line, _image(row, columns, file.parent)) for row in used]
    images = [image for _, image in read if isinstance(image, _Image)]
    bad = [(line, problem) for line, problem in read if isinstance(problem, str)] + _listed_twice(images)
    if bad:
        missing = any(_MISSING in problem for _, problem in bad)
        raise TableError.of_rows(file, bad, "Paths are relative to the table's folder." if missing else "")
    if not images:
        raise EmptyImageSet(f"{printable(file)} lists no images.")
    notices = _notices(columns, (path, label), len(rows) - len(used), images, file.parent)
    if notices:
        warnings.warn(f"{file.name}: {'; '.join(notices)}", TableNotice, stacklevel=2)
    images.sort(key=lambda image: image.file.as_posix())
    class_names, labels = numbered([image.class_name for image in images])
    root = file.parent if all(image.file.is_relative_to(file.parent) for image in images) else None
    return ImageSet(name or file.stem, tuple(image.file for image in images), labels, class_names, root=root)


def _image(row: Row, columns: Columns, folder: Path) -> "_Image | str":
    """The image of a row, or what is wrong with the row."""
    if row.error:
        return row.error
    if len(row.cells) != len(columns.header):
        cells = f"{len(row.cells)} cell{'' if len(row.cells) == 1 else 's'}, but the header has {len(columns.header)}"
        if len(row.cells) < len(columns.header):
            return cells
        return f"{cells}. A cell that contains {columns.delimiter!r} must be in double quotes"
    path, label = (row.cells[position] for position in columns.positions)
    if not path.strip():
        return "no path"
    if any(re.match(r'\s+"', cell) for cell in (path, label)):
        return "a cell begins with a space before its double quote. Remove the space"
    file = _existing(path, folder)
    if file is None:
        hint = ": is a double quote not closed?" if re.search(r"[\r\n]", path) else ""
        return f"{printable(path)[:300]} {_MISSING}{hint}"
    # A quote that is not closed can end at the quote of a later row. The rows between would be lost.
    others = [cell for position, cell in enumerate(row.cells) if position != columns.positions[0]]
    for line in (line for cell in others for line in cell.splitlines()[1:]):
        if _looks_like_row(line, Path(path).suffix, columns, folder):
            return f"a cell contains another row ({printable(line)[:100]}): is a double quote not closed?"
    return _Image(file, path, label.strip(), row.line)


def _looks_like_row(line: str, suffix: str, columns: Columns, folder: Path) -> bool:
    """Whether a line has all columns and its path is a file, or ends in the suffix of images."""
    cells = line.split(columns.delimiter)
    if len(cells) < len(columns.header):
        return False
    path = cells[columns.positions[0]].strip(' "')
    return (suffix != "" and path.endswith(suffix)) or _existing(path, folder) is not None


def _existing(path: str, folder: Path) -> Path | None:
    """The file of a path: as it is written, without spaces around it, or with slashes for backslashes."""
    stripped = path.strip()
    for written in dict.fromkeys((path, stripped, stripped.replace("\\", "/"))):
        # Unlike Path.is_file, this accepts paths that are too long.
        if written and os.path.isfile(file := folder / written):  # noqa: PTH113
            return file
    return None


def _listed_twice(images: Sequence[_Image]) -> list[tuple[int, str]]:
    """(line, problem) of each image that an earlier line lists."""
    first_lines: dict[Path, int] = {}
    for image in images:
        first_lines.setdefault(image.file, image.line)
    return [
        (image.line, f"{printable(image.written)} is also in line {first_lines[image.file]}")
        for image in images
        if first_lines[image.file] != image.line
    ]


def _notices(columns: Columns, names: Sequence[str], empty: int, images: Sequence[_Image], folder: Path) -> list[str]:
    """How the table was read, in which ``empty`` rows were between others."""
    notices = []
    if columns.delimiter != ",":
        notices.append(f"separated by {DELIMITERS.get(columns.delimiter, columns.delimiter)}")
    for name, position in zip(names, columns.positions, strict=True):
        if columns.header[position] != name:
            notices.append(f"column {name} is {printable(columns.header[position])!r}")
    if empty:
        notices.append(f"empty rows between others, ignored: {empty:,}")
    slashed = sum(image.file not in (folder / image.written, folder / image.written.strip()) for image in images)
    if slashed:
        notices.append(f"paths with backslashes, read as slashes: {slashed:,}")
    return notices
