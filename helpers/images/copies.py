"""Which copy of an image to keep: facts about the files of copies, and one rule."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage, upright_size

#: The rule of `best_copy`, for people.
RULE = (
    "the one with the most pixels; of these the largest file, then the oldest one, then the one with the shortest path"
)


@dataclass(frozen=True)
class FileFacts:
    """Facts about an image file.

    Attributes
    ----------
    width, height : in pixels, upright; 0 for a file that cannot be read.
    size : in bytes. modified : seconds since 1970.
    """

    width: int
    height: int
    size: int
    modified: float

    @classmethod
    def of(cls, path: Path) -> "FileFacts":
        """Read the header of a file. A file that is gone or damaged has zeros."""
        try:
            state = path.stat()
            width, height = upright_size(path)
        except (UnreadableImage, OSError):
            return cls(0, 0, 0, 0.0)
        return cls(width, height, state.st_size, state.st_mtime)

    def describe(self) -> str:
        """Such as "640 × 480, 123.4 kB"."""
        if not self.width:
            return "no longer readable"
        size = f"{self.size / 1e6:,.1f} MB" if self.size >= 1e6 else f"{self.size / 1e3:,.1f} kB"
        return f"{self.width:,} × {self.height:,}, {size}"


def best_copy(images: ImageSet, rows: Iterable[int]) -> int:
    """The row of the copy to keep, by `RULE`. An enlarged copy has most pixels too, so a person should look at it."""

    def rank(row: int) -> tuple:
        path = images.paths[row]
        facts = FileFacts.of(path)
        return -facts.width * facts.height, -facts.size, facts.modified, len(str(path)), row

    return min(rows, key=rank)
