"""Feature extraction for requests, with limits on time, memory and the number of waiting requests."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.features.composite import Projected
from helpers.features.extractor import FeatureExtractor
from helpers.features.keypoints import shrink
from helpers.images.reading import resize
from helpers.search.rerank import RERANKERS
from helpers.service.batching import Batcher, PixelBudget
from helpers.service.content import ImageInfo, inspect
from helpers.service.errors import unavailable
from helpers.service.settings import Settings
from helpers.service.thread_pool import CallLimit
from helpers.service.uploads import Crop, decode

#: Longest side in pixels of the query image that the re-ranker geometry compares.
_GEOMETRY_SIDE = int(RERANKERS["geometry"].settings["longest"])


class RequestExtraction:
    """A feature extractor that many requests share.

    Parameters
    ----------
    on_batch : called with the size of each batch.

    Attributes
    ----------
    ready : whether the extractor has been prepared.
    failure : the error message if it cannot be prepared, else "".
    """

    def __init__(self, extractor: FeatureExtractor, settings: Settings, on_batch: Callable[[int], object]):
        self._extractor, self._settings = extractor, settings
        self._admitted = CallLimit(settings.queue)
        self._batches = Batcher(extractor.extract_arrays, settings.batch, settings.batch_seconds, on_batch)
        self._decoders = ThreadPoolExecutor(settings.decoders, "decode")
        self._pixels = PixelBudget(settings.max_pixels)
        self.ready, self.failure = False, ""

    def __len__(self) -> int:
        """Waiting requests."""
        return len(self._admitted)

    async def prepare(self) -> None:
        """Extract the features of a blank image, so that the first request does not wait for a network to be built."""
        side = getattr(self._extractor, "size", 64)
        blank = np.full((side, side, 3), 255, np.uint8)
        try:
            await self._batches.in_thread(lambda: self._extractor.extract_arrays([blank]))
        except Exception as error:
            self.failure = str(error) or type(error).__name__
            raise
        self.ready = True

    async def vector(self, content: bytes, crop: Crop | None = None) -> tuple[np.ndarray, ImageInfo]:
        """float32 (dim,) of an image or a part of it, and the image's format and size.

        Raises
        ------
        ApiError : 400 or 415, see `inspect` and `decode`; 429, the queue is full; 503, it took too long.
        """
        with self._admitted:
            try:
                async with asyncio.timeout(self._settings.request_seconds):
                    return await self._vector(content, crop)
            except TimeoutError as error:
                raise unavailable(
                    f"Feature extraction took longer than {self._settings.request_seconds:g} seconds."
                ) from error

    async def _vector(self, content: bytes, crop: Crop | None) -> tuple[np.ndarray, ImageInfo]:
        loop = asyncio.get_running_loop()
        info = await loop.run_in_executor(self._decoders, inspect, content, self._settings.max_pixels)
        await self._pixels.acquire(info.pixels)
        held = info.pixels
        decoding = self._decoders.submit(lambda: reduced(decode(content, info, crop), self._extractor))
        try:
            image = await asyncio.wrap_future(decoding)
            held = image.shape[0] * image.shape[1]
            self._pixels.release(info.pixels - held)
            return await self._batches(image), info
        finally:
            # After a disconnect or a time-out the thread continues to decode, and occupies memory until it is done.
            decoding.add_done_callback(lambda _: self._release(loop, held))

    async def image(self, content: bytes, info: ImageInfo, crop: Crop | None = None) -> np.ndarray:
        """uint8 (height, width, 3): the image or a part of it, at the size that the re-ranker geometry compares.

        Raises
        ------
        ApiError : 400, it cannot be decoded.
        """
        loop = asyncio.get_running_loop()
        await self._pixels.acquire(info.pixels)
        decoding = self._decoders.submit(lambda: shrink(decode(content, info, crop), _GEOMETRY_SIDE))
        decoding.add_done_callback(lambda _: self._release(loop, info.pixels))
        return await asyncio.wrap_future(decoding)

    def _release(self, loop: asyncio.AbstractEventLoop, pixels: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(self._pixels.release, pixels)

    async def close(self) -> None:
        await self._batches.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)


def reduced(image: np.ndarray, extractor: FeatureExtractor) -> np.ndarray:
    """An image resized to the extractor's input size, if that does not change its vector.

    Resizing in the decoding thread does not delay the network, and waiting images take little memory. The extractor
    resizes again, which changes nothing: a square of the right size stays as it is, except with the rule "crop".
    """
    while isinstance(extractor, Projected):
        extractor = extractor.of
    # An extractor with its own `extract_arrays`, such as a combination of several, gets the original image.
    overridden = type(extractor).extract_arrays is not FeatureExtractor.extract_arrays
    if overridden or extractor.resize_rule not in ("squash", "pad"):
        return image
    return resize(image, extractor.size, extractor.resize_rule)
