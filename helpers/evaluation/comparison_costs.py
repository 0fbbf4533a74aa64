"""The costs of a method on this computer: images per second of an extractor, and the time of a query."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helpers.features.extractor import FeatureExtractor
from helpers.images.reading import UnreadableImage


class Cost(NamedTuple):
    """A measured cost, and the number of images or searches that it was measured with."""

    value: float
    timed: int


def extraction_rate(extractor: FeatureExtractor, files: Sequence[Path], most: int = 64, seconds: float = 15.0) -> Cost:
    """Images per second from file to vector, without the cache of vectors.

    The preparation, such as loading a network, and the first batch do not count. Files may be in the memory of the
    operating system already.

    files : at least one that can be read. most : images to measure with. seconds : no batch begins after this time.
    """
    files = list(files[:most])
    failures: list[UnreadableImage] = []
    next(iter(extractor.iter_batches(files[: extractor.batch_size], failures=failures)), None)
    start, done = time.perf_counter(), 0
    spent = 0.0
    for rows, _ in extractor.iter_batches(files, failures=failures):
        done += len(rows)
        spent = time.perf_counter() - start
        if spent > seconds:
            break
    if not done:
        raise UnreadableImage(f"none of {len(files)} images can be read to measure {extractor.name}")
    return Cost(done / spent, done)


def median_milliseconds(search: Callable[[int], object], rows: Sequence[int], seconds: float = 15.0) -> Cost:
    """The median time of a search, in milliseconds.

    search : row of a query → its search; the first call is not measured. seconds : no search begins after this time.
    """
    search(rows[0])
    spent: list[float] = []
    for row in rows:
        start = time.perf_counter()
        search(row)
        spent.append(time.perf_counter() - start)
        if sum(spent) > seconds:
            break
    return Cost(1000 * float(np.median(spent)), len(spent))
