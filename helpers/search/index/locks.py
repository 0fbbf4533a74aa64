"""A lock that lets many readers in together, or one writer alone."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class ReadWriteLock:
    """Many readers together, or one writer alone; first come, first served, so that neither starves."""

    def __init__(self):
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._inside = 0
        self._taken = False

    def read(self) -> contextlib.AbstractContextManager:
        return self._pass(alone=False)

    def write(self) -> contextlib.AbstractContextManager:
        return self._pass(alone=True)

    @contextlib.contextmanager
    def _pass(self, alone: bool) -> Iterator[None]:
        me = object()
        with self._condition:
            self._queue.append(me)
            try:
                self._condition.wait_for(
                    lambda: self._queue[0] is me and not self._taken and not (alone and self._inside)
                )
                self._inside += 1
                self._taken = alone
            finally:
                # Also after an interrupt, or nobody behind would ever be let in.
                self._queue.remove(me)
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._taken = False
                self._condition.notify_all()
