"""Results: what a query finds, as images with their scores and classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.images.reading import read_image
from helpers.search.ranking import Ranking


@dataclass(frozen=True)
class Result:
    """One answer: its place (1 is best), id, score (higher is better), file and class (-1 and "–" for none)."""

    rank: int
    id: int
    score: float
    path: Path
    label: int
    class_name: str

    def read(self) -> np.ndarray:
        """The image itself, uint8 (height, width, 3).

        Raises
        ------
        UnreadableImage : it is no longer where it was.
        """
        return read_image(self.path)


@dataclass(frozen=True, eq=False)
class Results(Sequence):
    """The answers to one query, best first.

    ``ranking`` holds the same ids and scores, as one row without padding. ``note`` says in words why there are
    fewer answers than were asked for; it is empty where there are not.
    """

    results: tuple[Result, ...]
    ranking: Ranking
    note: str = ""

    def __getitem__(self, place):
        return self.results[place]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __repr__(self) -> str:
        lines = [f"{result.rank:4}  {result.score:8.4f}  {result.class_name:<20}  {result.path}" for result in self]
        return "\n".join([*lines, *([self.note] if self.note else [])])
