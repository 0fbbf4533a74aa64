"""Metrics for Prometheus; with several workers those of all of them, whichever is asked."""

import os
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from helpers import paths

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What one service counts.

    With several workers prometheus_client keeps numbers in files of a folder that they share
    (`helpers.paths.metrics_dir`), and a killed worker's requests stay counted.

    Parameters
    ----------
    images, queue : ask how many there are now.
    """

    def __init__(self, images: Callable[[], int], queue: Callable[[], int]):
        self._own = CollectorRegistry()
        self._ask = images, queue
        self._folder = paths.metrics_dir()
        if self._folder is not None:
            _bury_the_dead(self._folder)
        own = {"registry": self._own}
        self.requests = Counter(
            "lookalike_requests_total", "Requests, by route, method and status.", ["route", "method", "status"], **own
        )
        self.seconds = Histogram(
            "lookalike_request_seconds", "From a request's head to the end of its answer, by route.", ["route"],
            buckets=_SECONDS, **own,
        )  # fmt: skip
        self.batches = Histogram(
            "lookalike_batch_images", "Images that were described together.", buckets=_BATCHES, **own
        )
        self._images = Gauge(
            "lookalike_images", "Images that a search can find.", multiprocess_mode="mostrecent", **own
        )
        self._queue = Gauge(
            "lookalike_queue", "Requests that wait to be described.", multiprocess_mode="livesum", **own
        )
        self.workers = Gauge(
            "lookalike_workers", "Workers that can describe at once.", multiprocess_mode="livesum", **own
        )

    def text(self) -> bytes:
        """In Prometheus's text format."""
        images, queue = self._ask
        self._images.set(images())
        self._queue.set(queue())
        if self._folder is None:
            return generate_latest(self._own)
        everyone = CollectorRegistry()
        multiprocess.MultiProcessCollector(everyone, str(self._folder))
        return generate_latest(everyone)


def _bury_the_dead(folder: Path) -> None:
    """Take what only counts of living workers from those that were killed."""
    for file in folder.glob("gauge_live*_*.db"):
        number = file.stem.rpartition("_")[2]
        if number.isdigit() and not _alive(int(number)):
            multiprocess.mark_process_dead(int(number), str(folder))


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
