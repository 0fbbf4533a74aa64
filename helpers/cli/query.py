"""One search of `lookalike search`: what its parts share."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from helpers.images.imageset import ImageSet
    from helpers.search.engine import Engine


@dataclass(frozen=True, eq=False)
class Search:
    """The engine and the queries of one command.

    Attributes
    ----------
    queries : None for a query of texts alone.
    k : results per query, at most the number of images that are not excluded.
    strict : raise `UnreadableImage` if a query cannot be read.
    excluded : int64 (m,), ids of images that must not be found; or None.
    """

    engine: "Engine"
    folder: Path
    queries: "ImageSet | None"
    k: int
    options: argparse.Namespace
    strict: bool
    excluded: "np.ndarray | None"
