"""The FastAPI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from helpers.service import access, errors, image_routes, page_routes, routes
from helpers.service.cors import CrossSiteMiddleware
from helpers.service.description import describe
from helpers.service.parameters import check_parameters, known_parameters
from helpers.service.search_service import SearchService
from helpers.service.security import SecurityMiddleware
from helpers.service.settings import Settings

_DESCRIPTION = """
Finds the images of a gallery that are most similar to a query. The query is an uploaded image, an image of the gallery,
or the vector of an earlier search. A combined query has several parts, each with a weight: images of the gallery,
vectors, and texts (if `text` of `/v1/info` is true). Results come page by page, and can be limited to a class.

A query may be one or more parts of an image. If the index has regions (`regions` of `/v1/info`), parts are compared
with the parts of the gallery's images, and each result tells which of its parts matches.

Every error has the same form: a `code` for programs, a `message` for people, and `details` about invalid parts of the
request. `429` and `503` come with `Retry-After`. Unknown parameters and fields are errors.
"""


def create_app(settings: Settings) -> FastAPI:
    """The application for one engine folder.

    Raises
    ------
    EngineFolderError, IndexFileError : the folder contains no engine that can be opened.
    WeightsUnavailable : the weights of its feature extractor are not available.
    """
    service = SearchService(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # It takes half a second, for which the first request would wait.
        known_parameters(app)
        tasks = [asyncio.create_task(service.prepare()), asyncio.create_task(service.sweep())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await service.close()

    app = FastAPI(
        title="Lookalike",
        summary="Image search by image.",
        description=_DESCRIPTION,
        version="1",
        lifespan=lifespan,
        # FastAPI's own pages load Swagger UI from another host, which the policy forbids; see `page_routes`.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(check_parameters)],
        # FastAPI's own handlers fail for text that is not valid Unicode, such as some file names.
        exception_handlers={
            HTTPException: page_routes.http_error(settings),
            RequestValidationError: errors.invalid_request,
        },
    )
    app.state.service = service
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    app.add_middleware(SecurityMiddleware, settings=settings, metrics=service.metrics)
    # Swagger UI. Before the route of the page's own files, which are below /static too.
    app.mount("/static/swagger", StaticFiles(packages=[("fastapi_offline", "static")]), name="swagger")
    for router in (
        routes.searches(service), routes.regions(service), image_routes.whole_gallery(service), routes.images(service),
        routes.image_files(service), image_routes.single_images(service), routes.about(service),
    ):  # fmt: skip
        app.include_router(router, dependencies=routes.read_dependencies(settings))
    for router in (routes.state(service), page_routes.page(service)):
        app.include_router(router)
    if settings.origins:
        # Outside of the other middleware, so that scripts of other sites can also read errors.
        app.add_middleware(
            CrossSiteMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", access.KEY_HEADER], max_age=600,
            expose_headers=["Content-Disposition", "ETag", "Retry-After"],
        )  # fmt: skip
    return app
