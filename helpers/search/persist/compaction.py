"""Compaction: writes the log of an engine into a new index file, while others search and change the engine."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.search.persist import snapshot, wal
from helpers.search.persist.delta import apply_changes
from helpers.search.persist.engine_file import EngineFile

log = logging.getLogger("lookalike.engine")

#: The log is compacted when it has more changes than this number, and than this share of the vectors.
LEAST_CHANGES = 1000
SHARE = 0.1


class Cancelled(Exception):
    """A compaction was cancelled; nothing was changed."""


def is_due(changes: int, indexed: int) -> bool:
    """Whether the log is long enough for a compaction."""
    return changes > max(LEAST_CHANGES, SHARE * indexed)


def compact(folder: Path, wait: bool = True, cancelled: Callable[[], bool] = lambda: False) -> int:
    """Write an engine's log into a new index file; returns the number of changes in it.

    Other processes may search, add and remove meanwhile; only one at a time compacts or saves. It takes memory for a
    second index, but no feature extractor.

    Parameters
    ----------
    wait : for another process that compacts or saves; otherwise 0 is returned at once.
    cancelled : called between the steps.

    Raises
    ------
    EngineFolderError, IndexFileError : the folder cannot be read or written; nothing was changed.
    Cancelled : ``cancelled`` returned True.
    """
    try:
        with FileLock(folder / snapshot.LOCK, timeout=-1 if wait else 0), EngineFile(folder) as file:
            return _compact(file, cancelled)
    except Timeout:
        return 0


def _compact(file: EngineFile, cancelled: Callable[[], bool]) -> int:
    folder = file.folder
    with file.reading() as connection:
        before = snapshot.read_manifest(connection, folder)
        changes = wal.read(connection, before.log_position)
    if not changes:
        return 0
    _stop_if(cancelled)
    # Not mapped, because it is changed in place.
    base = snapshot.open_base(folder, before, False, changes)
    _stop_if(cancelled)
    index = apply_changes(base, changes).compacted()
    _stop_if(cancelled)
    try:
        index_file, checksum = snapshot.write_index(folder, index)
        after = replace(
            before,
            index_file=index_file,
            index_sha256=checksum,
            images=before.images + sum(change.vector is not None for change in changes),
            indexed=len(index),
            log_position=changes[-1].number,
        )
        with file.writing() as connection:
            snapshot.extend_snapshot(connection, before, after, folder)
    finally:
        snapshot.delete_leftovers(file)
    return len(changes)


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled


class BackgroundCompaction:
    """Compacts in a background thread, one run at a time.

    Parameters
    ----------
    folder : of the engine.
    done : called in that thread after each run.

    Attributes
    ----------
    written : the number of changes that all runs wrote into the index.
    error : the error of the last run, or None. It is logged as well.
    """

    def __init__(self, folder: Path, done: Callable[[], object]):
        self._folder, self._done = folder, done
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        #: After a failure, the log must double before the next attempt.
        self._retry_above = 0
        self.written = 0
        self.error: Exception | None = None

    @property
    def running(self) -> bool:
        """Whether a run is active."""
        return self._thread is not None and self._thread.is_alive()

    def start_if_due(self, changes: int, indexed: int) -> None:
        """Start a run if the log is long enough and no run is active."""
        with self._lock:
            due = is_due(changes, indexed) and changes > self._retry_above
            if due and not self.running and not self._cancelled.is_set():
                self._thread = threading.Thread(target=self._run, args=(changes,), name="compaction", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until no run is active."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Cancel the active run, wait for its end, and prevent further runs."""
        with self._lock:
            self._cancelled.set()
        self.wait()

    def _run(self, changes: int) -> None:
        try:
            self.written += compact(self._folder, wait=False, cancelled=self._cancelled.is_set)
            self._done()
            self.error, self._retry_above = None, 0
        except Cancelled:
            log.info("The compaction of %s was cancelled.", self._folder)
        except Exception as error:
            log.exception("%s could not be compacted.", self._folder)
            self.error, self._retry_above = error, 2 * changes
