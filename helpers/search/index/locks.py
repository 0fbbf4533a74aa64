"""A lock that admits many readers together, or one writer alone."""

import contextlib
import threading
from collections import deque


class ReadWriteLock:
    """Many readers together, or one writer alone; in order of arrival, so that neither starves.

    Attributes
    ----------
    read, write : enter one of them to hold the lock.
    """

    read: contextlib.AbstractContextManager[object]
    write: contextlib.AbstractContextManager[object]

    def __init__(self) -> None:
        # Entering the lock itself is faster than entering the condition.
        self._mutex = threading.Lock()
        self._condition = threading.Condition(self._mutex)
        self._queue: deque[object] = deque()
        self._holders = 0
        self._exclusive = False
        self.read, self.write = _Held(self, exclusive=False), _Held(self, exclusive=True)

    def acquire(self, exclusive: bool) -> None:
        """Wait for the lock, and take it."""
        with self._mutex:
            if self._queue or self._exclusive or (exclusive and self._holders):
                self._wait(exclusive)
            self._holders += 1
            self._exclusive = exclusive

    def release(self) -> None:
        """Give the lock back; it must be held."""
        with self._mutex:
            self._holders -= 1
            self._exclusive = False
            if self._queue:
                self._condition.notify_all()

    def _wait(self, exclusive: bool) -> None:
        """Wait in the queue until no earlier thread waits, and the lock can be taken."""
        ticket = object()
        self._queue.append(ticket)
        try:
            self._condition.wait_for(
                lambda: self._queue[0] is ticket and not self._exclusive and not (exclusive and self._holders)
            )
        finally:
            # Also after an interrupt, which would otherwise block all later threads.
            self._queue.remove(ticket)
            self._condition.notify_all()


class _Held(contextlib.AbstractContextManager[None]):
    """Holds a lock for the time of a ``with``. It has no state, so all threads can share one."""

    __slots__ = ("_exclusive", "_lock")

    def __init__(self, lock: ReadWriteLock, exclusive: bool) -> None:
        self._lock, self._exclusive = lock, exclusive

    def __enter__(self) -> None:
        self._lock.acquire(self._exclusive)

    def __exit__(self, *_: object) -> None:
        self._lock.release()
