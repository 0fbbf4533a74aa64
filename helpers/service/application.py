"""The service: what the routes share, and the application that is served."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import numpy as np
from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles

from helpers.images import thumbnails
from helpers.images.reading import UnreadableImage
from helpers.search.persist.live import LiveEngine
from helpers.search.rerank import RERANKERS
from helpers.service import errors, routes, uploads
from helpers.service.content import ImageInfo
from helpers.service.disconnects import while_connected
from helpers.service.errors import ApiError, RequestTimedOut
from helpers.service.gallery_search import Entry, GallerySearch
from helpers.service.metrics import Metrics
from helpers.service.request_extraction import RequestExtraction
from helpers.service.schemas import SearchOut
from helpers.service.security import SecurityMiddleware
from helpers.service.settings import THUMBNAIL_SIDES, Settings
from helpers.service.threads import Threads
from helpers.service.uploads import Crop

log = logging.getLogger("lookalike.service")

_DESCRIPTION = """
Finds the images of a gallery that look most like a given one: by upload, by an image of the gallery, or by the
vector of an earlier search; page by page, and by class.

Errors are a status and a sentence. `429` and `503` come with `Retry-After`.
"""


class Service:
    """One engine folder, and the threads and limits with which it is searched and changed.

    The arguments and what is raised: see `create_app`.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self._live = LiveEngine.open(settings.folder, root=settings.root)
        self.gallery_search = GallerySearch(self._live)
        self.metrics = Metrics(lambda: len(self.gallery_search), lambda: len(self._extraction))
        self._extraction = RequestExtraction(self.gallery_search.extractor, settings, self.metrics.batches.observe)
        # Apart from each other, so that a flood of one kind of request does not hold up the others.
        self.searches = Threads("search", 4, 8 * settings.queue)
        self.images = Threads("image", 2, 8 * settings.queue)
        self.changes = Threads("change", 1, settings.queue)

    @property
    def ready(self) -> bool:
        """Whether an image can be described at once."""
        return self._extraction.ready

    async def prepare(self) -> None:
        """Get the extractor ready; what goes wrong is logged, and stands in the answers to searches."""
        try:
            await self._extraction.prepare()
            self.metrics.workers.set(1)
        except Exception:
            log.exception("%s can't describe images", self.gallery_search.extractor.name)

    async def close(self) -> None:
        """Let go of everything."""
        await self._extraction.close()
        for threads in (self.searches, self.images, self.changes):
            threads.close()
        self._live.close()

    async def extract(self, request: Request, content: bytes, crop: Crop | None = None) -> tuple[np.ndarray, ImageInfo]:
        """`RequestExtraction.vector`, for as long as the client waits for it."""
        if self._extraction.failed:
            raise RequestTimedOut("The service can't describe images at present; its log says why.")
        return await while_connected(request, self._extraction.vector(content, crop))

    async def search(
        self,
        request: Request,
        content: bytes,
        crop: Crop | None,
        k: int,
        offset: int,
        class_name: str | None,
        reranker: str = "none",
    ) -> SearchOut:
        """The answers to an image that was sent."""
        start = time.perf_counter()
        vector, info = await self.extract(request, content, crop)
        image = None
        if RERANKERS[reranker].needs_image:
            image = await while_connected(request, self._extraction.image(content, info, crop))
        return await self.search_vector(vector, k, offset, class_name, start, reranker, image)

    async def search_vector(
        self,
        vector: np.ndarray,
        k: int,
        offset: int,
        class_name: str | None,
        start: float,
        reranker: str = "none",
        image: np.ndarray | None = None,
    ) -> SearchOut:
        """The answers to a vector; ``start`` is when the request came, by `time.perf_counter`."""
        page = await self.searches(self.gallery_search.search, vector, k, offset, class_name, reranker, image)
        return SearchOut.of(page, vector, k, offset, time.perf_counter() - start)

    async def add(self, request: Request, content: bytes, class_name: str | None) -> Entry:
        """Describe an image and put it in for good; once it is described, the client's going changes nothing."""
        vector, info = await self.extract(request, content)
        # Only what was encoded here is stored and sent to others.
        content, suffix = await self.images(uploads.reencode, content, info)
        return await self.changes(self.gallery_search.add, content, suffix, vector, class_name)

    async def remove(self, id: int) -> None:
        """Take an image out for good, and what was made of it."""
        await self.changes(self._remove, id)

    def _remove(self, id: int) -> None:
        tags = []
        # Before its file goes. One that has gone already leaves nothing to go by.
        with contextlib.suppress(ApiError, UnreadableImage):
            path = self.gallery_search.path(id)
            tags = [thumbnails.tag(path, side) for side in THUMBNAIL_SIDES]
        self.gallery_search.remove(id)
        thumbnails.forget(tags)


def create_app(settings: Settings) -> FastAPI:
    """The application for one engine folder, ready to be served.

    Raises
    ------
    EngineFolderError, IndexFileError : the folder holds no engine that can be opened.
    WeightsUnavailable : its extractor needs weights that can't be had.
    """
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        preparing = asyncio.create_task(service.prepare())
        try:
            yield
        finally:
            preparing.cancel()
            await service.close()

    app = FastAPI(
        title="Lookalike",
        summary="Search images by images.",
        description=_DESCRIPTION,
        version="1",
        lifespan=lifespan,
        # Both load scripts from another host, which the page may not.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    errors.install(app)
    app.add_middleware(SecurityMiddleware, settings=settings, metrics=service.metrics)
    for router in (routes.searching(service), routes.images(service), routes.about(service)):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=routes.PAGE), name="static")
    return app
