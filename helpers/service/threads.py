"""Threads: work that would keep the event loop from everybody else, with a bound on how much of it may wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from helpers.service.errors import TooManyRequests

T = TypeVar("T")


class Threads:
    """A few threads of one kind of work.

    most : calls that may run or wait; with one more `TooManyRequests` is raised.
    """

    def __init__(self, name: str, threads: int, most: int):
        self._pool, self._most, self._now = ThreadPoolExecutor(threads, name), most, 0

    async def __call__(self, work: Callable[..., T], *arguments) -> T:
        """What ``work`` gives; if this is cancelled before it began, it never begins."""
        if self._now >= self._most:
            raise TooManyRequests
        self._now += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._now -= 1

    def close(self) -> None:
        """What runs ends, what waits never begins."""
        self._pool.shutdown(wait=False, cancel_futures=True)
