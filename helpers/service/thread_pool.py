"""Thread pools for blocking work, each with a limit on waiting calls."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from helpers.service.errors import too_many_requests

T = TypeVar("T")


class BoundedThreadPool:
    """Threads for one kind of work.

    limit : number of calls that may run or wait.
    """

    def __init__(self, name: str, threads: int, limit: int):
        self._pool, self._limit, self._calls = ThreadPoolExecutor(threads, name), limit, 0

    async def __call__(self, work: Callable[..., T], *arguments) -> T:
        """The result of ``work``; a call that is canceled while it waits never runs.

        Raises
        ------
        ApiError : 429, the limit is reached.
        """
        if self._calls >= self._limit:
            raise too_many_requests()
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._calls -= 1

    def close(self) -> None:
        """Cancel waiting calls; running ones finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)
