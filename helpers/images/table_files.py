"""Rows of tables in text files as people and spreadsheet programs write them: encoding, delimiter, header and lines."""

import codecs
import csv
import io
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from helpers.text import printable

#: Delimiter → its name in messages.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

#: Byte order mark → encoding. The longer marks come first, because UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: The first line by which Excel names the delimiter.
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\r\n])"?(?:\r\n|\r|\n)')
#: A message lists this many bad rows.
_LISTED = 10
#: The module csv has one limit on the length of a cell for all threads.
_LIMIT = threading.Lock()


class TableError(ValueError):
    """A table cannot be read without losing or changing rows. The message names the lines."""

    @classmethod
    def of_rows(cls, file: Path, bad: Sequence[tuple[int, str]], remedy: str = "") -> "TableError":
        """The error for rows given as tuples of (line, problem), of which the first ten are listed."""
        lines = [f"  line {line}: {problem}" for line, problem in sorted(bad)[:_LISTED]]
        if len(bad) > _LISTED:
            lines.append(f"  and {len(bad) - _LISTED:,} more")
        rows = "1 row" if len(bad) == 1 else f"{len(bad):,} rows"
        return cls("\n".join([f"{printable(file)}: {rows} cannot be used:", *lines, *([remedy] if remedy else [])]))


class Row(NamedTuple):
    """The cells of a row, the number of its first line, and an error of the CSV syntax, or ""."""

    line: int
    cells: list[str]
    error: str

    @property
    def empty(self) -> bool:
        """Whether there is nothing but spaces."""
        return not self.error and not any(map(str.strip, self.cells))


@dataclass(frozen=True)
class Columns:
    """The delimiter, the header's cells, and the positions of the columns that were looked for."""

    delimiter: str
    header: list[str]
    positions: tuple[int, ...]


def read_rows(file: Path, names: Sequence[str]) -> tuple[Columns, list[Row]]:
    """The columns ``names`` of a table, and all rows below its header; rows with an error are among them.

    The encoding is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one. The header is the first row
    that is not empty. The delimiter is the one that gives all columns in the header, or the character that Excel's line
    ``sep=`` names. Columns are found by their exact name, or else without regard to case and spaces.

    Raises
    ------
    TableError : the encoding or the header is not understood.
    FileNotFoundError : the file does not exist.
    """
    text = _decoded(file)
    separator = _SEPARATOR_LINE.match(text)
    lines = io.StringIO(text, newline="").readlines()
    bad = [(number, "contains a NUL character") for number, line in enumerate(lines, 1) if "\0" in line]
    if bad:
        raise TableError.of_rows(file, bad, "The file is damaged, or UTF-16 without a byte order mark.")
    above = 1 if separator else 0
    while above < len(lines) and not lines[above].strip("".join(DELIMITERS) + " \r\n"):
        above += 1
    with _cells_of(len(text)):
        columns = _columns(file, lines[above:], above, names, [separator[1]] if separator else list(DELIMITERS))
        return columns, list(_rows(lines[above:], columns.delimiter, above))[1:]


def _decoded(file: Path) -> str:
    content = file.read_bytes()
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding not in ("utf-8", "utf-8-sig"):
            raise TableError(
                f"{printable(file)} is not valid {encoding.upper()}: {error}. Save it as UTF-8."
            ) from error
    bad = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            bad.append((number, f"byte 0x{line[error.start]:02x} is not UTF-8"))
    raise TableError.of_rows(file, bad, "Save the table as UTF-8; in Excel, the file type is CSV UTF-8.")


def _columns(file: Path, lines: Sequence[str], above: int, names: Sequence[str], delimiters: Sequence[str]) -> Columns:
    """The delimiter that gives all columns in the header; TableError if there is none, or several.

    above : the number of lines above the header.
    """
    at = f"line {above + 1}: {printable(lines[0].rstrip())[:200] if lines else '(empty)'}"
    missing, found = list(names), []
    for delimiter in delimiters:
        header = next(_rows(lines, delimiter, above), Row(above + 1, [], "")).cells
        positions = [_positions(header, name) for name in names]
        absent = [name for name, found_at in zip(names, positions, strict=True) if not found_at]
        missing = min(missing, absent, key=len)
        if not absent:
            found.append((delimiter, header, positions))
    if not found:
        raise TableError(f"{printable(file)} has no column {' and no column '.join(missing)}. Its header is {at}")
    if len(found) > 1:
        kinds = " or ".join(DELIMITERS[delimiter] for delimiter, *_ in found)
        raise TableError(f"{printable(file)}: the header can be separated by {kinds}. Its header is {at}")
    ((delimiter, header, positions),) = found
    for name, found_at in zip(names, positions, strict=True):
        if len(found_at) > 1:
            raise TableError(f"{printable(file)} has {len(found_at)} columns {name}. Its header is {at}")
    return Columns(delimiter, header, tuple(found_at[0] for found_at in positions))


def _positions(header: Sequence[str], name: str) -> list[int]:
    """The positions of the cells with the exact name, or else of those that differ in case or spaces around it."""
    exact = [position for position, cell in enumerate(header) if cell == name]
    wanted = name.strip().casefold()
    return exact or [position for position, cell in enumerate(header) if cell.strip().casefold() == wanted]


def _rows(lines: Sequence[str], delimiter: str, above: int) -> Iterator[Row]:
    """The rows of ``lines``, also those after a row with an error."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while reader.line_num < len(lines):
        line, cells, error = above + reader.line_num + 1, [], ""
        try:
            cells = next(reader)
        except csv.Error as problem:
            error = _explained(problem, above + reader.line_num)
        yield Row(line, cells, error)


def _explained(problem: csv.Error, line: int) -> str:
    if str(problem) == "unexpected end of data":
        return "a double quote opens a cell in this row, and is never closed"
    return f"{problem} in line {line}: is a double quote not closed, or not doubled?"


@contextmanager
def _cells_of(length: int) -> Iterator[None]:
    """Allow cells up to a length; the module csv refuses those beyond 131,072 characters."""
    with _LIMIT:
        before = csv.field_size_limit(length + 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)
