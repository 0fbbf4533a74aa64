"""Which copy of an image to keep: one rule."""

from collections.abc import Iterable
from pathlib import Path

from helpers.images.file_details import FileDetails, file_details
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage

#: The rule of `preference`, for people.
RULE = (
    "the one with the most pixels; of these the largest file, then the oldest one, then the one with the shortest path"
)


def details_of(path: Path) -> FileDetails | None:
    """`file_details`, or None for a file that is gone or damaged."""
    try:
        return file_details(path)
    except UnreadableImage:
        return None


def describe(details: FileDetails | None) -> str:
    """Such as "640 × 480, 123.4 kB"."""
    if details is None:
        return "no longer readable"
    size = f"{details.bytes / 1e6:,.1f} MB" if details.bytes >= 1e6 else f"{details.bytes / 1e3:,.1f} kB"
    return f"{details.width:,} × {details.height:,}, {size}"


def preference(path: Path, details: FileDetails | None) -> tuple:
    """A key to sort copies by `RULE`, the best first; files that cannot be read come last."""
    if details is None:
        return 1, 0, 0, "", len(str(path))
    return 0, -details.width * details.height, -details.bytes, details.modified, len(str(path))


def best_copy(images: ImageSet, rows: Iterable[int]) -> int:
    """The row of the copy to keep, by `RULE`. An enlarged copy has most pixels too, so a person should look at it."""
    return min(rows, key=lambda row: (*preference(images.paths[row], details_of(images.paths[row])), row))
