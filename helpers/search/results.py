"""Results: what a query finds, as images with their scores and classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.images.reading import read_picture
from helpers.search.ranking import Ranking


@dataclass(frozen=True)
class Answer:
    """One answer: its place (1 is best), id, score (higher is better), file and class (-1 and "–" for none)."""

    rank: int
    id: int
    score: float
    path: Path
    label: int
    class_name: str

    def read(self) -> np.ndarray:
        """The picture itself, uint8 (height, width, 3).

        Raises
        ------
        UnreadablePicture : it is no longer where it was.
        """
        return read_picture(self.path)


@dataclass(frozen=True, eq=False)
class Answers(Sequence):
    """The answers to one query, best first.

    ``ranking`` holds the same ids and scores, as one row without padding. ``note`` says in words why there are
    fewer answers than were asked for; it is empty where there are not.
    """

    answers: tuple[Answer, ...]
    ranking: Ranking
    note: str = ""

    def __getitem__(self, place):
        return self.answers[place]

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    def __repr__(self) -> str:
        lines = [f"{answer.rank:4}  {answer.score:8.4f}  {answer.class_name:<20}  {answer.path}" for answer in self]
        return "\n".join([*lines, *([self.note] if self.note else [])])
