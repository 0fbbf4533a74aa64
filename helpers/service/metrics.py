"""Metrics for Prometheus, summed over all workers."""

from collections.abc import Callable
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from helpers import paths

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one service.

    Several workers keep their numbers in files of a shared folder (`helpers.paths.metrics_dir`), so that the counts of
    a killed worker are not lost.

    images, queue : return the current numbers.
    """

    def __init__(self, images: Callable[[], int], queue: Callable[[], int]):
        self._registry = registry = CollectorRegistry()
        self._read_images, self._read_queue = images, queue
        self._folder = paths.metrics_dir()
        if self._folder is not None:
            _remove_dead_workers(self._folder)
        self.requests = Counter(
            "lookalike_requests_total", "Requests by method, route and status.", ["route", "method", "status"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "lookalike_request_seconds", "Time from a request to the end of its response, by route.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batches = Histogram(
            "lookalike_batch_images", "Images per batch of the extractor.", buckets=_BATCH_SIZES, registry=registry
        )
        self._images = Gauge(
            "lookalike_images", "Images in the index.", registry=registry, multiprocess_mode="mostrecent"
        )
        self._queue = Gauge(
            "lookalike_queue", "Requests waiting for the extractor.", registry=registry, multiprocess_mode="livesum"
        )
        self.workers = Gauge(
            "lookalike_workers", "Workers with a prepared extractor.", registry=registry, multiprocess_mode="livesum"
        )

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        self._images.set(self._read_images())
        self._queue.set(self._read_queue())
        if self._folder is None:
            return generate_latest(self._registry)
        all_workers = CollectorRegistry()
        multiprocess.MultiProcessCollector(all_workers, str(self._folder))
        return generate_latest(all_workers)


def _remove_dead_workers(folder: Path) -> None:
    """Remove killed workers from the gauges of living workers."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            multiprocess.mark_process_dead(int(pid), str(folder))
