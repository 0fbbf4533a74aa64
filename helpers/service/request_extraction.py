"""Describing: from the bytes of a request to a vector, with bounds on time, memory and the number of those who wait."""

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
from helpers.service.errors import RequestTimedOut
from helpers.service.settings import Settings
from helpers.service.uploads import Crop, decode

#: Longest side in pixels of the query image that geometry compares.
LONGEST = RERANKERS["geometry"].settings["longest"]


class RequestExtraction:
    """An extractor that many requests share.

    Parameters
    ----------
    noticed : called with the size of every batch.

    Attributes
    ----------
    ready : whether the extractor can start at once.
    failed : why it can't and never will, in words; None as long as it may.
    """

    def __init__(self, extractor: FeatureExtractor, settings: Settings, noticed: Callable[[int], object]):
        self._extractor, self._settings = extractor, settings
        self._batches = Batcher(
            extractor.extract_arrays, settings.batch, settings.queue, settings.batch_seconds, noticed
        )
        self._decoders = ThreadPoolExecutor(settings.decoders, "decode")
        self._pixels = PixelBudget(settings.max_pixels)
        self.ready, self.failed = False, None

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._batches)

    async def prepare(self) -> None:
        """Build what the first image needs, and describe one, so that it does not wait for either."""
        side = getattr(self._extractor, "size", 64)
        blank = np.full((side, side, 3), 255, np.uint8)
        try:
            await self._batches.in_thread(lambda: self._extractor.extract_arrays([blank]))
        except Exception as error:
            self.failed = str(error)
            raise
        self.ready = True

    async def vector(self, content: bytes, crop: Crop | None = None) -> tuple[np.ndarray, ImageInfo]:
        """float32 (dim,) of an image, or of a part of it, and what kind of image it was.

        Raises
        ------
        Refused : the image is not taken, see `inspect` and `decode`.
        Busy : too many wait already.
        Late : it took longer than it may.
        """
        with self._batches.place():
            try:
                async with asyncio.timeout(self._settings.request_seconds):
                    return await self._vector(content, crop)
            except TimeoutError as error:
                raise RequestTimedOut(
                    f"The image could not be described within {self._settings.request_seconds:g} seconds."
                ) from error

    async def _vector(self, content: bytes, crop: Crop | None) -> tuple[np.ndarray, ImageInfo]:
        loop = asyncio.get_running_loop()
        info = await loop.run_in_executor(self._decoders, inspect, content, self._settings.max_pixels)
        await self._pixels.take(info.pixels)
        held = info.pixels
        decoding = self._decoders.submit(self._readied, content, info, crop)
        try:
            image = await asyncio.wrap_future(decoding)
            held = image.shape[0] * image.shape[1]
            self._pixels.give(info.pixels - held)
            return await self._batches(image), info
        finally:
            # Whoever has gone or waited too long leaves a thread that decodes on, and holds memory until it is done.
            decoding.add_done_callback(lambda _: self._give_back(loop, held))

    async def image(self, content: bytes, info: ImageInfo, crop: Crop | None = None) -> np.ndarray:
        """uint8 (height, width, 3): the image, or a part of it, as small as geometry compares it.

        Raises
        ------
        Refused : it can't be decoded.
        """
        loop = asyncio.get_running_loop()
        await self._pixels.take(info.pixels)
        decoding = self._decoders.submit(lambda: shrink(decode(content, info, crop), LONGEST))
        decoding.add_done_callback(lambda _: self._give_back(loop, info.pixels))
        return await asyncio.wrap_future(decoding)

    def _give_back(self, loop: asyncio.AbstractEventLoop, pixels: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(self._pixels.give, pixels)

    async def close(self) -> None:
        await self._batches.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _readied(self, content: bytes, info: ImageInfo, crop: Crop | None) -> np.ndarray:
        return shrunk(decode(content, info, crop), self._extractor)


def shrunk(image: np.ndarray, extractor: FeatureExtractor) -> np.ndarray:
    """An image as small as may be for an extractor to give the same vector.

    So resizing is done beside the network's work, and not before it, and what waits takes little memory. It is done a
    second time by the extractor itself, which changes nothing: a square of the wanted size stays as it is, except where
    the rule is to cut its middle out.
    """
    while isinstance(extractor, Projected):
        extractor = extractor.of
    # One that describes images in its own way, such as by several extractors, gets all there is.
    own = getattr(type(extractor), "describe_arrays", None) is not FeatureExtractor.extract_arrays
    if own or extractor.resize_rule not in ("squash", "pad"):
        return image
    return resize(image, extractor.size, extractor.resize_rule)
