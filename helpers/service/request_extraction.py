"""Feature extraction for requests, with limits on time, memory and the number of waiting requests."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from helpers.features.composite import Projected
from helpers.features.explain import Explanation, explain
from helpers.features.extractor import FeatureExtractor
from helpers.features.keypoints import shrink
from helpers.features.regions import Regions, RegionSource, region_source
from helpers.images.reading import resize
from helpers.networks.detector_files import DetectorFileError
from helpers.networks.weights import WeightsUnavailable
from helpers.search.region_index import NoRegions
from helpers.search.rerank import RERANKERS
from helpers.service.batching import Batcher, PixelBudget
from helpers.service.content import ImageInfo
from helpers.service.errors import ApiError
from helpers.service.query_image import ImagePart, QueryImage, cut, full_size, scale
from helpers.service.settings import Settings
from helpers.service.thread_pool import CallLimit

log = logging.getLogger("lookalike.service")

#: Longest side in pixels of the query image that the re-ranker geometry compares.
_GEOMETRY_SIDE = int(RERANKERS["geometry"].settings["longest"])

#: Longest side in pixels of images that are explained, and how many explanations may wait: each holds two images.
_EXPLAINED_SIDE, _MOST_EXPLAINED = 2048, 8

#: Pixels of an image that is decoded in the thread that extracts, if no other request is in progress.
_SMALL_PIXELS = 2**21

#: The images that a request needs of a decoded image, uint8 (height, width, 3).
_Load = Callable[[np.ndarray, ImageInfo], list[np.ndarray]]


class RequestExtraction:
    """A feature extractor that many requests share.

    Parameters
    ----------
    on_batch : called with the size of each batch.
    open_source : opens a source of regions by its name; called once for each.

    Attributes
    ----------
    ready : whether the extractor has been prepared.
    """

    def __init__(
        self, extractor: FeatureExtractor, settings: Settings, on_batch: Callable[[int], object],
        open_source: Callable[[str], RegionSource] = region_source,
    ):  # fmt: skip
        self._extractor, self._settings = extractor, settings
        self._open_source = functools.cache(open_source)
        self._admitted = CallLimit(settings.queue)
        self._explaining = CallLimit(_MOST_EXPLAINED)
        self._batches = Batcher(
            extractor.extract_arrays, settings.batch, settings.batch_seconds, on_batch, lambda: len(self._admitted)
        )  # fmt: skip
        self._decoders = ThreadPoolExecutor(settings.decoders, "decode")
        self._opener = ThreadPoolExecutor(1, "detector")
        self._pixels = PixelBudget(settings.max_pixels)
        self.ready = self._failed = False

    def __len__(self) -> int:
        """Waiting requests."""
        return len(self._admitted)

    async def prepare(self) -> None:
        """Extract the features of blank images, so that the first request does not wait for a network to be built."""
        side = getattr(self._extractor, "size", 64)
        blank = np.full((side, side, 3), 255, np.uint8)

        def extract() -> None:
            self._extractor.expect_single_images()
            # A single image and several may be computed by separate networks.
            for count in (1, 2):
                self._extractor.extract_arrays([blank] * count)

        try:
            await self._batches.in_thread(extract)
        except Exception:
            self._failed = True
            raise
        self.ready = True

    async def vectors(self, image: QueryImage, parts: Sequence[ImagePart] = ()) -> tuple[np.ndarray, ImageInfo]:
        """float32 (p, dim) of the parts of an image, or (1, dim) of the whole; and the image's format and size.

        Raises ApiError: see `UploadedImage` and `GalleryImage`; 422, a box is not in the image; 429, the queue is full;
        503, it took too long, or the extractor does not work.
        """

        def load(pixels: np.ndarray, info: ImageInfo) -> list[np.ndarray]:
            return [reduced(part, self._extractor) for part in cut(pixels, info, parts)]

        self._check_extractor()
        async with self._limited():
            if len(self._admitted) == 1 and (done := await self._alone(image, load)) is not None:
                return done
            async with self._loaded(image, load) as (inputs, info):
                return np.stack(await asyncio.gather(*map(self._batches, inputs))), info

    async def regions(self, image: QueryImage, source: str) -> tuple[Regions, tuple[int, int]]:
        """The regions of an image, and its width and height. source : a name for `region_source`.

        Raises ApiError: see `vectors`; 422, the source needs a detector that is not available.
        """
        async with self._limited(), self._loaded(image, lambda pixels, _: [pixels]) as ((pixels,), info):
            # Its first use may load a network. Meanwhile, the thread that extracts must not wait.
            opened = await asyncio.get_running_loop().run_in_executor(self._opener, self._source, source)
            (found,) = await self._batches.in_thread(lambda: opened.find([pixels]))
            assert found is not None, "pixels can be read"
            boxes = (found.boxes * scale(pixels, info)).astype(np.float32)
            return Regions(boxes, found.class_names, found.scores), full_size(pixels, info)

    async def geometry_image(self, image: QueryImage, parts: Sequence[ImagePart] = ()) -> np.ndarray:
        """uint8 (height, width, 3): the image or its only part, at the size that the re-ranker geometry compares.

        Raises ApiError: see `vectors`.
        """
        async with self._loaded(image, _shrunk(parts, _GEOMETRY_SIDE)) as ((pixels,), _):
            return pixels

    async def explanation(
        self, image: QueryImage, parts: Sequence[ImagePart], result: QueryImage, metric: str
    ) -> tuple[Explanation, list[np.ndarray]]:
        """Why an image is similar to a query, and both as uint8 (height, width, 3), at most 2048 pixels long.

        Raises ApiError: see `vectors`.
        """
        self._check_extractor()
        images = []
        with self._explaining:
            async with self._limited():
                # One after the other: two that wait for each other's pixels would wait forever.
                for each, shown in ((image, parts), (result, ())):
                    async with self._loaded(each, _shrunk(shown, _EXPLAINED_SIDE)) as ((pixels,), _):
                        images.append(pixels)
                why = await self._batches.in_thread(lambda: explain(self._extractor, images[0], images[1], metric))
        return why, images

    @contextlib.asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        """Around a request: limits on its time, and on the number of waiting requests."""
        with self._admitted:
            try:
                async with asyncio.timeout(self._settings.request_seconds):
                    yield
            except TimeoutError as error:
                message = f"Feature extraction took longer than {self._settings.request_seconds:g} seconds."
                raise ApiError(503, message, code="extraction_timeout") from error

    @contextlib.asynccontextmanager
    async def _loaded(self, image: QueryImage, load: _Load) -> AsyncIterator[tuple[list[np.ndarray], ImageInfo]]:
        """The images that ``load`` makes of the decoded image. Their pixels count until the end of the block."""
        # Pixels that this request has acquired.
        loop, held = asyncio.get_running_loop(), 0

        def start() -> tuple[ImageInfo, list[np.ndarray] | None]:
            nonlocal held
            info = image.inspect(self._settings.max_pixels)
            if not self._pixels.try_acquire(info.pixels):
                return info, None
            held = info.pixels
            return info, load(image.decode(info), info)

        decoding: Future = self._decoders.submit(start)
        try:
            info, loaded = await asyncio.wrap_future(decoding)
            if loaded is None:
                await self._pixels.acquire(info.pixels)
                held = info.pixels
                decoding = self._decoders.submit(lambda: load(image.decode(info), info))
                loaded = await asyncio.wrap_future(decoding)
            kept = sum(each.shape[0] * each.shape[1] for each in loaded)
            self._pixels.release(held - kept)
            held = kept
            yield loaded, info
        finally:
            # After a disconnect or a time-out the thread continues to decode, and occupies memory until it is done.
            decoding.add_done_callback(lambda _: self._release(loop, held))

    async def _alone(self, image: QueryImage, load: _Load) -> tuple[np.ndarray, ImageInfo] | None:
        """`vectors` of a small image in one step, for the only request: each change of threads takes time.

        None if the image is large, so that decoding it would delay the requests that come meanwhile.
        """
        loop = asyncio.get_running_loop()

        def work() -> tuple[np.ndarray, ImageInfo] | None:
            info = image.inspect(self._settings.max_pixels)
            if info.pixels > _SMALL_PIXELS or not self._pixels.try_acquire(info.pixels):
                return None
            try:
                return self._batches.extract_here(load(image.decode(info), info)), info
            finally:
                self._release(loop, info.pixels)

        return await self._batches.in_thread(work)

    def _check_extractor(self) -> None:
        if self._failed:
            raise ApiError(503, "The feature extractor of the service does not work. Its log describes the error.")

    def _source(self, name: str) -> RegionSource:
        try:
            return self._open_source(name)
        except (ImportError, WeightsUnavailable, DetectorFileError, NoRegions) as error:
            log.warning("Objects cannot be found: %s", error)
            detail = "Objects cannot be found, because the detector is not available. The service's log tells why."
            raise ApiError(422, detail, code="not_applicable") from error

    def _release(self, loop: asyncio.AbstractEventLoop, pixels: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(self._pixels.release, pixels)

    async def close(self) -> None:
        await self._batches.close()
        for pool in (self._decoders, self._opener):
            pool.shutdown(wait=False, cancel_futures=True)


def _shrunk(parts: Sequence[ImagePart], side: int) -> _Load:
    """Loads an image or its only part, at most ``side`` pixels long."""
    return lambda pixels, info: [shrink(cut(pixels, info, parts)[0], side)]


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
