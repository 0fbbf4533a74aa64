"""The operations of the service: searches, additions and removals, in threads with bounded queues."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import Request

from helpers.features.regions import RegionSource, pretrained_detector, region_source
from helpers.features.text_encoder import embeds_text
from helpers.features.word_files import WordFileError
from helpers.images import thumbnails
from helpers.images.reading import UnreadableImage
from helpers.networks import detector_weights
from helpers.networks.weights import WeightsUnavailable
from helpers.search.persist.live import LiveEngine
from helpers.search.region_index import NoRegions, RegionIndex, open_source, stored_source
from helpers.search.rerank import RERANKERS
from helpers.search.word_index import NoClassScores, WordIndex, stored_classifier
from helpers.service import uploads
from helpers.service.content import UploadedImage
from helpers.service.disconnects import while_connected
from helpers.service.duplicate_search import DuplicateSearch
from helpers.service.errors import ApiError
from helpers.service.gallery_edits import GalleryEdits
from helpers.service.gallery_search import GallerySearch
from helpers.service.image_schemas import ExplanationOut
from helpers.service.metrics import Metrics
from helpers.service.query_image import GalleryImage, ImagePart, QueryImage
from helpers.service.request_extraction import RequestExtraction
from helpers.service.schemas import BatchOut, ImageOut, OneQuery, RegionsOut, SearchOptions, SearchOut, from_text
from helpers.service.settings import THUMBNAIL_SIDES, Settings
from helpers.service.thread_pool import BoundedThreadPool

T = TypeVar("T", SearchOut, BatchOut)

log = logging.getLogger("lookalike.service")

#: Seconds between two sweeps of the removed images.
_SWEEP_SECONDS = 600


class SearchService:
    """One engine folder, with the threads and queues that search and change it.

    Parameters and exceptions: see `helpers.service.application.create_app`.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self._live = LiveEngine.open(settings.folder, root=settings.root)
        for root in self._live.engine.saved.roots.missing:
            log.warning(
                "The images of %s are not there, so they are found but not shown. Start the service with --root "
                "NEWFOLDER, or run `lookalike relocate NEWFOLDER -e %s --from %s`.",
                root.path, settings.folder, root.stored.path,
            )  # fmt: skip
        self._words = _open_words(self._live)
        self._regions = _open_regions(self._live)
        self.gallery_search = GallerySearch(self._live, self._words, self._regions, settings.root_path)
        self.edits = GalleryEdits(self._live)
        self.duplicates = DuplicateSearch(self._live, self.gallery_search.image)
        self.metrics = Metrics(lambda: len(self._live), lambda: len(self._extraction))
        self._extraction = RequestExtraction(
            self._live.engine.extractor, settings, self.metrics.batches.observe, self._open_source
        )
        # Separate pools, so that many requests of one kind do not delay the others.
        self.searches = BoundedThreadPool("search", 4, 8 * settings.queue)
        self.images = BoundedThreadPool("image", 2, 8 * settings.queue)
        self.changes = BoundedThreadPool("change", 1, settings.queue)
        self._completing = ThreadPoolExecutor(1, "complete")

    @property
    def ready(self) -> bool:
        """Whether the extractor has been prepared."""
        return self._extraction.ready

    async def prepare(self) -> None:
        """Prepare the extractor. An error is logged, and searches by upload then return 503."""
        try:
            await self._extraction.prepare()
            self.metrics.workers.set(1)
        except Exception:
            log.exception("the feature extractor %s does not work", self._live.engine.extractor.name)

    async def close(self) -> None:
        """Stop all threads and close the engine."""
        await self._extraction.close()
        for pool in (self.searches, self.images, self.changes):
            pool.close()
        self._completing.shutdown(wait=True, cancel_futures=True)
        for stored in (self._words, self._regions):
            if stored is not None:
                stored.close()
        self._live.close()

    async def regions(self, image: QueryImage, source: str) -> RegionsOut:
        """`RequestExtraction.regions` as a response."""
        found, size = await self._extraction.regions(image, source)
        return RegionsOut.of(found, source, size, stored=False)

    async def regions_of(self, id: int, source: str) -> RegionsOut:
        """The stored regions of an image of the gallery; they are computed if there are none from this source."""
        image = await self.gallery_image(id)
        stored = await self.searches(self.gallery_search.regions, id, source)
        if stored is None:
            return await self.regions(image, source)
        return RegionsOut.of(stored, source, await self.images(image.size), stored=True)

    async def search(
        self, image: QueryImage, parts: Sequence[ImagePart], options: SearchOptions, own_id: int | None = None
    ) -> SearchOut:
        """Search by an image, or by parts of it.

        own_id : of an image of the gallery, which is left out.
        """
        vectors, _ = await self._extraction.vectors(image, parts)
        pixels = None
        if RERANKERS[options.rerank].needs_image:
            pixels = await self._extraction.geometry_image(image, parts)
        return await self.searches(self.gallery_search.search, vectors, options, pixels, own_id)

    async def search_batch(self, queries: Sequence[OneQuery], options: SearchOptions) -> BatchOut:
        """Search by each of several images of the gallery or vectors."""

        async def search(query: OneQuery) -> SearchOut:
            if query.vector is None:
                return await self.searches(self.gallery_search.search_id, query.id, options)
            return await self.searches(self.gallery_search.search, from_text(query.vector)[None], options)

        # One after the other, so that a batch occupies one thread, and other searches come in between.
        return BatchOut.of([await _outcome(timed(search(query))) for query in queries])

    async def search_uploads(self, images: Sequence[UploadedImage], options: SearchOptions) -> BatchOut:
        """Search by each of several uploaded images."""
        searches = (_outcome(timed(self.search(each, (), options))) for each in images)
        return BatchOut.of(await asyncio.gather(*searches))

    def _open_source(self, name: str) -> RegionSource:
        """The source of the engine's regions, which may be the user's own detector, or one of the library."""
        is_own = self._regions is not None and self._regions.source == name
        if name != "detector" or (is_own and stored_source(self.settings.folder).detector is not None):
            return open_source(self.settings.folder) if is_own else region_source(name)
        if not detector_weights.available():
            # A request must not wait for a download.
            raise WeightsUnavailable("the detector was not downloaded. Run: lookalike index FOLDER --regions detector")
        # With its own input size, by which it finds more objects than by the smaller one for galleries.
        return region_source(name, pretrained_detector())

    async def gallery_image(self, id: int) -> GalleryImage:
        """An image of the gallery as a query. Raises ApiError: 404, it does not exist, or its file is missing."""
        return GalleryImage(id, await self.searches(self.gallery_search.path, id))

    async def add(self, request: Request, upload: UploadedImage, class_name: str | None) -> tuple[ImageOut, bool]:
        """`GallerySearch.add`. A disconnect cancels this only until the features are extracted."""
        vectors, info = await while_connected(request, self._extraction.vectors(upload))
        # The service stores and sends only files that it encoded itself.
        encoded, suffix = await self.images(uploads.reencode, upload, info)
        added = await self.changes(self.gallery_search.add, upload, encoded, suffix, vectors[0], class_name)
        # So that words and parts find it. This is not part of the addition, and may take a while the first time.
        self._completing.submit(self._complete)
        return added

    async def edit(self, edit: Callable[..., int], *arguments: object) -> ImageOut:
        """An image after an edit, which may have given it a new id."""
        id = await self.changes(edit, *arguments)
        self._completing.submit(self._complete)
        return await self.searches(self.gallery_search.image, id)

    async def sweep(self) -> None:
        """Delete what can no longer be restored, at regular intervals."""
        while True:
            if not self.settings.read_only:
                with contextlib.suppress(ApiError, OSError):
                    await self.changes(self.edits.removed.sweep)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def explain(self, id: int, query: QueryImage, parts: Sequence[ImagePart]) -> ExplanationOut:
        """Why an image of the gallery is similar to a query."""
        if len(parts) > 1:
            raise ApiError(422, "Only a query of one part can be explained.", code="not_applicable")
        metric = self._live.engine.index.metric
        result = await self.gallery_image(id)
        why, images = await self._extraction.explanation(query, parts, result, metric)
        return await self.images(ExplanationOut.of, why, images)

    def _complete(self) -> None:
        """Compute the class scores and the regions of images that have none."""
        for missing, computed in ((self._words, "class scores"), (self._regions, "regions")):
            try:
                if isinstance(missing, WordIndex):
                    missing.classify_missing(self._live.engine)
                elif missing is not None:
                    missing.extract_missing(self._live.engine)
            except Exception:
                log.exception(
                    "the %s of added images cannot be computed, so searches by them do not find these images", computed
                )

    def remove(self, id: int) -> None:
        """Remove an image and its thumbnails. For a thread of `changes`."""
        tags = []
        # Tags depend on the file, so they are computed before it is deleted. A missing file has none.
        with contextlib.suppress(ApiError, UnreadableImage):
            path = self.gallery_search.path(id)
            tags = [thumbnails.tag(path, side) for side in THUMBNAIL_SIDES]
        self.edits.remove(id)
        self.edits.removed.sweep()
        thumbnails.forget(tags)


async def timed(work: Awaitable[T]) -> T:
    """The results of searches, with the time that they took."""
    start = time.perf_counter()
    found = await work
    found.milliseconds = round(1000 * (time.perf_counter() - start), 3)
    return found


async def _outcome(search: Awaitable[SearchOut]) -> SearchOut | ApiError:
    try:
        return await search
    except ApiError as error:
        return error


def _open_words(live: LiveEngine) -> WordIndex | None:
    """The word index of an engine with class scores; None if texts cannot be searched, or need none."""
    if embeds_text(live.engine.extractor):
        return None
    try:
        stored_classifier(live.folder)
    except NoClassScores:
        return None
    try:
        from helpers.features.text import WordVectors
        from helpers.features.word_space import Conse

        return WordIndex(live.folder, Conse(WordVectors.glove()))
    except (ImportError, WordFileError) as error:
        log.warning("Searches by text are off: %s", error)
        return None


def _open_regions(live: LiveEngine) -> RegionIndex | None:
    """The regions of an engine; None if it has none, so that only whole images are searched."""
    try:
        return RegionIndex(live.folder)
    except NoRegions:
        return None
