"""A query image from standard input, which a command line names by a hyphen."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from helpers.cli.common import USAGE, CommandError, log

#: Its name in a command line and in results.
NAME = "-"


@contextlib.contextmanager
def as_file(names: Sequence[str]) -> Iterator[tuple[list[str], str | None]]:
    """The names with the path of a temporary file in place of a hyphen, and this path; None if there is no hyphen.

    Raises CommandError: there are several hyphens, or standard input has no image.
    """
    if NAME not in names:
        yield list(names), None
        return
    if names.count(NAME) > 1:
        raise CommandError("standard input (-) can be named once only", USAGE)
    content = _read()
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        file = Path(folder).resolve() / "standard input"
        file.write_bytes(content)
        yield [str(file) if name == NAME else name for name in names], str(file)


def _read() -> bytes:
    from helpers.images.reading import UnreadableImage, read_image

    if sys.stdin.isatty():
        log("reading an image from standard input; press Ctrl-D at its end")
    content = sys.stdin.buffer.read()
    if not content:
        raise CommandError("standard input is empty: send the bytes of an image, as in `lookalike search - < a.jpg`")
    try:
        # At a reduced size, which is enough to see whether it is an image.
        read_image(content, at_least=64)
    except UnreadableImage as error:
        raise CommandError(f"standard input: {error}") from error
    return content
