"""The results of a query: images with their scores and classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from helpers.images.reading import read_image
from helpers.search.ranking import Ranking


@dataclass(frozen=True)
class Result:
    """One result: rank (1 is best), id, score (higher is better), file and class (-1 and "–" for no class)."""

    rank: int
    id: int
    score: float
    path: Path
    label: int
    class_name: str

    def read(self) -> np.ndarray:
        """The image, uint8 (height, width, 3). Raises UnreadableImage if the file is missing or damaged."""
        return read_image(self.path)


@dataclass(frozen=True, eq=False)
class Results(Sequence[Result]):
    """The results of one query, best first.

    Attributes
    ----------
    ranking : the same ids and scores, as one row without padding.
    note : why there are fewer results than requested; empty otherwise.
    """

    results: tuple[Result, ...]
    ranking: Ranking
    note: str = ""

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        lines = [f"{result.rank:4}  {result.score:8.4f}  {result.class_name:<20}  {result.path}" for result in self]
        return "\n".join([*lines, *([self.note] if self.note else [])])
