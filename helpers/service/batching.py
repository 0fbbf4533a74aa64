"""Batching: requests that come one by one are described together.

A network describes sixteen pictures in less time than sixteen times one, and two requests that compute at once are in
each other's way. So all pictures go through one queue of bounded length, and one thread takes from it as many as are
there, up to a batch; while it computes, other threads decode what comes next.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.service.errors import Busy


class Batcher:
    """Describes pictures of many requests in batches; for one event loop.

    Parameters
    ----------
    describe : pictures → float32 (b, dim), called in a thread of its own, never twice at a time.
    size : pictures in a batch.
    queue : pictures that may wait; with one more `Busy` is raised.
    seconds : how long a batch that is not full waits for more.
    noticed : called with the size of every batch.

    A picture whose request was cancelled meanwhile is left out.
    """

    def __init__(
        self,
        describe: Callable[[Sequence[np.ndarray]], np.ndarray],
        size: int,
        queue: int,
        seconds: float,
        noticed: Callable[[int], object] = lambda size: None,
    ):
        self._describe, self._size, self._most, self._seconds, self._noticed = describe, size, queue, seconds, noticed
        self._thread = ThreadPoolExecutor(1, "describe")
        self._waiting: deque[tuple[np.ndarray, asyncio.Future]] = deque()
        self._admitted = 0
        self._filled = asyncio.Event()
        self._task: asyncio.Task | None = None

    def __len__(self) -> int:
        """Requests that are let in and not described yet."""
        return self._admitted

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, taken before a picture is decoded.

        Raises
        ------
        Busy : none is left.
        """
        if self._admitted >= self._most:
            raise Busy
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def __call__(self, picture: np.ndarray) -> np.ndarray:
        """float32 (dim,) of uint8 (height, width, 3); what the describer raises for it is raised here."""
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="batches")
        future = loop.create_future()
        self._waiting.append((picture, future))
        self._filled.set()
        return await future

    async def in_thread(self, work: Callable[[], object]):
        """Something else that the describing thread has to do between batches, such as getting ready."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Stop; whoever still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for _, future in self._waiting:
            future.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            if len(self._waiting) < self._size:
                await asyncio.sleep(self._seconds)
            batch = []
            while self._waiting and len(batch) < self._size:
                picture, future = self._waiting.popleft()
                if not future.done():
                    batch.append((picture, future))
            if not self._waiting:
                self._filled.clear()
            if not batch:
                continue
            self._noticed(len(batch))
            try:
                found = await self._described([picture for picture, _ in batch])
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            for (_, future), vector in zip(batch, found, strict=True):
                if future.done():
                    continue
                if isinstance(vector, Exception):
                    future.set_exception(vector)
                else:
                    future.set_result(vector)

    async def _described(self, pictures: list[np.ndarray]) -> list[np.ndarray | Exception]:
        """One vector each; where a batch fails each by itself, so that one picture fails nobody else's request."""
        try:
            vectors = await self.in_thread(lambda: self._describe(pictures))
            if len(vectors) != len(pictures):
                raise ValueError(f"{len(pictures)} pictures were described by {len(vectors)} vectors")
            return list(vectors)
        except Exception as error:
            if len(pictures) == 1:
                return [error]
            return [(await self._described([picture]))[0] for picture in pictures]


class PixelBudget:
    """How many pixels may be in memory at a time, decoded or being decoded; who comes first is served first.

    most : a picture that has more is let in when it is the only one.
    """

    def __init__(self, most: int):
        self._most, self._used = most, 0
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    async def take(self, pixels: int) -> None:
        """Wait until there is room for so many more."""
        async with self._turn:
            while self._used and self._used + pixels > self._most:
                self._freed.clear()
                await self._freed.wait()
            self._used += pixels

    def give(self, pixels: int) -> None:
        """So many of those taken are free again."""
        self._used -= pixels
        self._freed.set()
