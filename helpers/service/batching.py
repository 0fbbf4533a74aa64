"""Batching: features of images that arrive in separate requests are extracted together.

A network processes a batch of 16 images in less time than 16 single images, and two batches that are computed at once
slow each other down. Therefore all images go through one queue. One thread takes up to a batch of them at a
time; while it computes, other threads decode the next images.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Batcher:
    """Extracts the features of images of many requests in batches. It belongs to one event loop.

    Images whose request was canceled are skipped.

    Parameters
    ----------
    extract : images → float32 (b, dim); called in a thread of its own, one batch at a time.
    size : images per batch.
    seconds : how long an incomplete batch waits for more images.
    on_batch : called with the size of each batch.
    expected : the number of requests whose images are waiting or still to come. A batch that has all of them does not
        wait. If it is None, an incomplete batch always waits.
    """

    def __init__(
        self,
        extract: Callable[[Sequence[np.ndarray]], np.ndarray],
        size: int,
        seconds: float,
        on_batch: Callable[[int], object],
        expected: Callable[[], int] | None = None,
    ):
        self._extract, self._size, self._seconds = extract, size, seconds
        self._on_batch, self._expected = on_batch, expected
        self._thread = ThreadPoolExecutor(1, "extract")
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()
        self._task: asyncio.Task | None = None

    async def __call__(self, image: np.ndarray) -> np.ndarray:
        """float32 (dim,) of uint8 (height, width, 3). An error of the extractor is raised here."""
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="batches")
        future = loop.create_future()
        self._waiting.put_nowait((image, future))
        return await future

    def extract_here(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (b, dim). Only work of `in_thread` may call it."""
        self._on_batch(len(images))
        return self._extract(images)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Call a function in the thread that extracts, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Stop, and cancel waiting requests."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while not self._waiting.empty():
            self._waiting.get_nowait()[1].cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            waiting = [await self._waiting.get()]
            try:
                coming = self._size if self._expected is None else min(self._size, self._expected())
                if self._waiting.qsize() + 1 < coming:
                    await asyncio.sleep(self._seconds)
                while not self._waiting.empty() and len(waiting) < self._size:
                    waiting.append(self._waiting.get_nowait())
                batch = [(image, future) for image, future in waiting if not future.done()]
                if not batch:
                    continue
                self._on_batch(len(batch))
                results = await self._extract_batch([image for image, _ in batch])
            except asyncio.CancelledError:
                for _, future in waiting:
                    future.cancel()
                raise
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _extract_batch(self, images: list[np.ndarray]) -> list[np.ndarray | Exception]:
        """One vector or error per image. If a batch fails, each image is tried alone, so that only bad ones fail."""
        try:
            vectors = await self.in_thread(lambda: self._extract(images))
            if len(vectors) != len(images):
                raise ValueError(f"the extractor returned {len(vectors)} vectors for {len(images)} images")
            return list(vectors)
        except Exception as error:
            if len(images) == 1:
                return [error]
            return [(await self._extract_batch([image]))[0] for image in images]


class PixelBudget:
    """Limits the pixels of all images that are in memory or being decoded; first come, first served.

    limit : a larger image has to wait until it is the only one.
    """

    def __init__(self, limit: int):
        self._limit, self._used, self._waiting = limit, 0, 0
        self._mutex = threading.RLock()
        self._turn, self._released = asyncio.Lock(), asyncio.Event()

    def try_acquire(self, pixels: int) -> bool:
        """Acquire pixels if they fit and no one waits for others. Any thread may call it."""
        with self._mutex:
            return not self._waiting and self._take(pixels)

    async def acquire(self, pixels: int) -> None:
        """Wait until this many pixels fit."""
        with self._mutex:
            self._waiting += 1
        try:
            async with self._turn:
                while not self._take(pixels):
                    self._released.clear()
                    await self._released.wait()
        finally:
            with self._mutex:
                self._waiting -= 1

    def release(self, pixels: int) -> None:
        """Free some of the acquired pixels. Only the thread of the event loop may call it."""
        with self._mutex:
            self._used -= pixels
        self._released.set()

    def _take(self, pixels: int) -> bool:
        with self._mutex:
            fits = not self._used or self._used + pixels <= self._limit
            self._used += pixels if fits else 0
        return fits
