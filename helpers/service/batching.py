"""Batching: requests that come one by one are described together.

A network describes sixteen images in less time than sixteen times one, and two requests that compute at once are in
each other's way. So all images go through one queue of bounded length, and one thread takes from it as many as are
there, up to a batch; while it computes, other threads decode what comes next.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.service.errors import TooManyRequests


class Batcher:
    """Describes images of many requests in batches; for one event loop.

    Parameters
    ----------
    describe : images → float32 (b, dim), called in a thread of its own, never twice at a time.
    size : images in a batch.
    queue : images that may wait; with one more `TooManyRequests` is raised.
    seconds : how long a batch that is not full waits for more.
    noticed : called with the size of every batch.

    An image whose request was cancelled meanwhile is left out.
    """

    def __init__(
        self,
        extract: Callable[[Sequence[np.ndarray]], np.ndarray],
        size: int,
        queue: int,
        seconds: float,
        noticed: Callable[[int], object] = lambda size: None,
    ):
        self._extract, self._size, self._most, self._seconds, self._noticed = extract, size, queue, seconds, noticed
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
        """A place in the queue, taken before an image is decoded.

        Raises
        ------
        Busy : none is left.
        """
        if self._admitted >= self._most:
            raise TooManyRequests
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def __call__(self, image: np.ndarray) -> np.ndarray:
        """float32 (dim,) of uint8 (height, width, 3); what the extractor raises for it is raised here."""
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="batches")
        future = loop.create_future()
        self._waiting.append((image, future))
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
                image, future = self._waiting.popleft()
                if not future.done():
                    batch.append((image, future))
            if not self._waiting:
                self._filled.clear()
            if not batch:
                continue
            self._noticed(len(batch))
            try:
                found = await self._extracted([image for image, _ in batch])
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

    async def _extracted(self, images: list[np.ndarray]) -> list[np.ndarray | Exception]:
        """One vector each; where a batch fails each by itself, so that one image fails nobody else's request."""
        try:
            vectors = await self.in_thread(lambda: self._extract(images))
            if len(vectors) != len(images):
                raise ValueError(f"{len(images)} images were described by {len(vectors)} vectors")
            return list(vectors)
        except Exception as error:
            if len(images) == 1:
                return [error]
            return [(await self._extracted([image]))[0] for image in images]


class PixelBudget:
    """How many pixels may be in memory at a time, decoded or being decoded; who comes first is served first.

    most : an image that has more is let in when it is the only one.
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
