"""Limits on calls that run or wait, and thread pools with such a limit for blocking work."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from helpers.service.errors import too_many_requests

T = TypeVar("T")


class CallLimit:
    """A ``with`` block for at most ``limit`` calls of one event loop at a time; another call gets status 429."""

    def __init__(self, limit: int):
        self._limit, self._calls = limit, 0

    def __len__(self) -> int:
        """Calls in the block."""
        return self._calls

    def __enter__(self) -> None:
        if self._calls >= self._limit:
            raise too_many_requests()
        self._calls += 1

    def __exit__(self, *_: object) -> None:
        self._calls -= 1


class BoundedThreadPool:
    """Threads for one kind of work.

    limit : number of calls that may run or wait.
    """

    def __init__(self, name: str, threads: int, limit: int):
        self._pool, self._calls = ThreadPoolExecutor(threads, name), CallLimit(limit)

    async def __call__(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of ``work``; a call that is canceled while it waits never runs.

        Raises ApiError: 429, the limit is reached.
        """
        with self._calls:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def close(self) -> None:
        """Cancel waiting calls; running ones finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)
