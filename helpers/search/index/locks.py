"""A lock that admits many readers together, or one writer alone."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class ReadWriteLock:
    """Many readers together, or one writer alone; in order of arrival, so that neither starves."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._holders = 0
        self._exclusive = False

    def read(self) -> contextlib.AbstractContextManager[object]:
        return self._hold(exclusive=False)

    def write(self) -> contextlib.AbstractContextManager[object]:
        return self._hold(exclusive=True)

    @contextlib.contextmanager
    def _hold(self, exclusive: bool) -> Iterator[None]:
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            try:
                self._condition.wait_for(
                    lambda: self._queue[0] is ticket and not self._exclusive and not (exclusive and self._holders)
                )
                self._holders += 1
                self._exclusive = exclusive
            finally:
                # Also after an interrupt, which would otherwise block all later threads.
                self._queue.remove(ticket)
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._holders -= 1
                self._exclusive = False
                self._condition.notify_all()
