"""One search of `lookalike search`: what its parts share, and what it finds."""

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli.common import USAGE, CommandError
from helpers.cli.naming import ids_marked

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine, Results
    from helpers.search.region_search import RegionMatch

#: The matches of one result, one for each part of the query.
Matches = tuple["RegionMatch | None", ...]


@dataclass(frozen=True, eq=False)
class Search:
    """The engine and the queries of one command.

    Attributes
    ----------
    queries : empty for a query of texts alone.
    k : results per query, at most the number of images that are not excluded.
    strict : raise `UnreadableImage` if a query cannot be read.
    excluded : ids of images that must not be found; or None.
    """

    engine: "Engine"
    folder: Path
    queries: "ImageSet"
    k: int
    options: argparse.Namespace
    strict: bool
    excluded: list[int] | None

    def extracted(self) -> tuple[list[Path], "np.ndarray"]:
        """The queries that can be read, and their feature vectors, float32 (n, dim)."""
        import numpy as np

        vectors = self.engine.extractor.extract(self.queries, strict=self.strict)
        rows = np.flatnonzero(~np.isnan(vectors).all(axis=1))
        return [self.queries.paths[row] for row in rows], vectors[rows]

    @cached_property
    def marked(self) -> tuple["np.ndarray", "np.ndarray"]:
        """float32 (n, dim) and (m, dim): the vectors of the results of an earlier search marked as good, and as bad."""
        good, bad = (ids_marked(self.engine, getattr(self.options, name), f"--{name}") for name in ("good", "bad"))
        if both := set(good) & set(bad):
            raise CommandError(f"image {min(both)} has both marks, --good and --bad", USAGE)
        return self.engine.index.vectors(good), self.engine.index.vectors(bad)

    def moved(self, vectors: "np.ndarray") -> "np.ndarray":
        """float32 (n, dim): the vectors of queries, each moved by the marks."""
        import numpy as np

        from helpers.search.rerank import rocchio

        good, bad = self.marked
        if not len(good) and not len(bad):
            return vectors
        try:
            return np.stack([rocchio(vector, good, bad, metric=self.engine.index.metric) for vector in vectors])
        except ValueError as error:
            raise CommandError(f"--bad: {error}", USAGE) from error


@dataclass(frozen=True, eq=False)
class Found:
    """The results of one query.

    Attributes
    ----------
    name : the images and texts of the query.
    image : the first of its images; None for texts alone.
    matches : the matched parts of each result; None if whole images were compared.
    """

    name: str
    image: Path | None
    results: "Results"
    matches: list[Matches] | None = None
