"""Text of users in every output: file names, classes and messages as valid Unicode, and CSV.

A file name on Linux is a sequence of bytes. Python decodes bytes that are not UTF-8 to lone surrogates, which no UTF-8
output can hold.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

#: What JSON, CSV and XML cannot hold, or hold for Python only: lone surrogates and NUL.
_INVALID = re.compile("[\0\ud800-\udfff]")

#: What changes how a line is displayed: control characters, line and paragraph separators, embeddings, overrides and
#: isolates of the writing direction. Noncharacters are not allowed in XML, and so not in SVG. Matplotlib 3.11 cannot
#: write a byte order mark (U+FEFF) into a PDF.
_NOT_PRINTABLE = re.compile(
    "[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]"
)


def clean_text(text: str) -> str:
    r"""The text as valid Unicode, for programs that read JSON or CSV.

    A byte of a file name that is not UTF-8 becomes an escape sequence such as ``\xe9``, NUL becomes ``\x00``, and any
    other lone surrogate ``\ud83d``. All other characters are kept, also line breaks.
    """
    return _INVALID.sub(_escaped, text)


def printable(text: object) -> str:
    r"""The text on one line, for people: like `clean_text`, and control characters become ``\n``, ``\x1b`` and so on.

    Characters that change the writing direction of what follows are escaped too. Letters of all scripts are kept.
    """
    return _NOT_PRINTABLE.sub(_escaped, str(text))


def printable_lines(text: str) -> str:
    """`printable`, with the line breaks of a message or title kept."""
    return "\n".join(map(printable, text.split("\n")))


def pluralize(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "1,000 images", "2 classes", "3 queries"."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {plural}"


def clean_values(value: object, clean: Callable[[str], str] = clean_text) -> object:
    """A value of JSON, with a function of this module applied to every string in its lists and dictionaries."""
    match value:
        case str():
            return clean(value)
        case list() | tuple():
            return [clean_values(each, clean) for each in value]
        case dict():
            return {clean_values(key, clean): clean_values(each, clean) for key, each in value.items()}
    return value


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    r"""Write CSV with a header, which pandas reads back exactly with ``keep_default_na=False``.

    Lines end with ``\n``. None becomes an empty cell, and strings are passed through `clean_text`.
    """
    # The writer quotes line breaks of its own terminator only (until Python 3.13), and a cell may contain "\r".
    unix_lines = SimpleNamespace(write=lambda row: file.write(row.removesuffix("\r\n") + "\n"))
    table = csv.writer(unix_lines, lineterminator="\r\n")
    table.writerow(columns)
    for row in rows:
        table.writerow([clean_text(cell) if isinstance(cell, str) else cell for cell in row])


def read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8, by the columns of its header."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    # Python decodes an invalid byte to 0xDC00 plus its value.
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else repr(character)[1:-1]
