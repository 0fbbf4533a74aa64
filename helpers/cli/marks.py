"""Results of an earlier search that the user marks as good or bad, which move the query."""

import argparse
from typing import TYPE_CHECKING

from helpers.cli.common import USAGE, CommandError
from helpers.cli.naming import ids_marked

if TYPE_CHECKING:
    import numpy as np

    from helpers.search.combined import QueryPart
    from helpers.search.engine import Engine


def add_mark_options(parser: argparse.ArgumentParser) -> None:
    """Add --good and --bad."""
    for name, direction in (("good", "towards"), ("bad", "away from")):
        text = f"a {name} result: the query is moved {direction} it; an id, key or path; can be repeated"
        parser.add_argument(f"--{name}", metavar="NAME", action="append", default=[], help=text)


def moved(engine: "Engine", vectors: "np.ndarray", options: argparse.Namespace) -> "np.ndarray":
    """float32 (n, dim): the vectors of queries, each moved by the marks."""
    import numpy as np

    from helpers.search.rerank import rocchio

    good, bad = _vectors(engine, options)
    if not len(good) and not len(bad):
        return vectors
    try:
        return np.stack([rocchio(vector, good, bad, metric=engine.index.metric) for vector in vectors])
    except ValueError as error:
        raise CommandError(f"--bad: {error}", USAGE) from error


def parts(engine: "Engine", options: argparse.Namespace) -> list["QueryPart"]:
    """The marked results as parts of a combined query."""
    from helpers.search.combined import marked_parts

    return marked_parts(*_vectors(engine, options))


def _vectors(engine: "Engine", options: argparse.Namespace) -> tuple["np.ndarray", "np.ndarray"]:
    """float32 (n, dim) and (m, dim): the vectors of the good and of the bad results."""
    good, bad = (ids_marked(engine, getattr(options, name), f"--{name}") for name in ("good", "bad"))
    if both := set(good) & set(bad):
        raise CommandError(f"image {min(both)} has both marks, --good and --bad", USAGE)
    return engine.index.vectors(good), engine.index.vectors(bad)
