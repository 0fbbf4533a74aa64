"""The routes of the HTTP interface."""

from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response, Security, params
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer

from helpers.features.region_vectors import Crop
from helpers.images import thumbnails
from helpers.images.reading import UnreadableImage
from helpers.paths import package_version
from helpers.service import access
from helpers.service.content import UploadedImage
from helpers.service.disconnects import while_connected
from helpers.service.errors import ApiError, error_responses
from helpers.service.metrics import CONTENT_TYPE
from helpers.service.query_image import ImagePart
from helpers.service.schemas import (
    BAD_MARKS,
    GOOD_MARKS,
    MAX_PARTS,
    BatchOut,
    BatchQuery,
    BoxText,
    ClassName,
    CombinedQuery,
    Excluded,
    Fraction,
    HealthOut,
    Id,
    ImageOut,
    ImagesOut,
    InfoOut,
    K,
    LimitsOut,
    Marks,
    NewClassName,
    NoClass,
    Offset,
    Part,
    RegionSourceName,
    RegionsOut,
    RerankerName,
    SearchOptions,
    SearchOut,
    SortName,
    Threshold,
    VectorQuery,
    VersionOut,
    box_numbers,
)
from helpers.service.search_service import SearchService, timed
from helpers.service.sent_files import REQUIRED_FILE, file_response, named_file, required_file, several_files
from helpers.service.settings import MAX_K, THUMBNAIL_SIDES, Settings

#: Longest side in pixels of a full-size image.
_LARGE = 2048

#: How long browsers may reuse an image without a request, in seconds.
_MAX_AGE = 300

#: Clients compute crops from pixels and round the fractions.
_CROP_TOLERANCE = 1e-4

_JPEG = file_response("image/jpeg", "The image.") | {304: {"description": "The browser's copy is up to date."}}

_KNOWN: dict[int | str, dict] = {200: {"model": ImageOut, "description": "The image was added before."}}

#: Errors of kinds of routes, in addition to those of all routes.
_ID = ("image_not_found", "invalid_request")
_FILE = ("file_not_found",)
_CHOICES = ("invalid_request", "not_applicable")
BODY_ERRORS = ("bad_request", "request_timeout", "unsupported_content_type")
_JSON = (*BODY_ERRORS, *_CHOICES)
UPLOAD_ERRORS = (*BODY_ERRORS, "image_damaged", "image_too_large", "unsupported_image", "invalid_request")
EXTRACTION_ERRORS = ("not_ready", "extraction_timeout")
CHANGE_ERRORS = ("changes_off", "other_site", "key_required", "key_wrong")

_BOX = "A part of the image: x,y,width,height in pixels of the upright image. If several are given, all are searched."

_BOXES = Query(max_length=MAX_PARTS - 1, description=_BOX, examples=[["40,60,120,90", "200,80,64,150"]])

ImageId = Annotated[Id, Path(description="Id of an image of the gallery.")]
_Upload = Annotated[UploadedImage, Depends(required_file)]
_NamedUpload = Annotated[UploadedImage, Depends(named_file)]
_Uploads = Annotated[list[UploadedImage], Depends(several_files)]


async def _options(
    k: Annotated[K, Query()] = 20,
    offset: Annotated[Offset, Query()] = 0,
    class_name: Annotated[ClassName | None, Query()] = None,
    no_class: Annotated[NoClass, Query()] = False,
    rerank: Annotated[RerankerName, Query()] = "none",
    good: Annotated[Marks, Query(description=GOOD_MARKS)] = [],  # noqa: B006
    bad: Annotated[Marks, Query(description=BAD_MARKS)] = [],  # noqa: B006
    threshold: Annotated[Threshold | None, Query()] = None,
    exclude: Annotated[Excluded, Query()] = [],  # noqa: B006
    vectors: Annotated[bool, Query(description="Return the vector of the query, for `/v1/search/vector`.")] = False,
) -> SearchOptions:
    return SearchOptions(k, offset, class_name, no_class, rerank, good, bad, threshold, exclude, vectors)


_Options = Annotated[SearchOptions, Depends(_options)]


async def _query_parts(
    left: Annotated[Fraction | None, Query(description="Left edge of a crop, divided by the upright width.")] = None,
    top: Annotated[Fraction | None, Query(description="Top edge of a crop, divided by the upright height.")] = None,
    width: Annotated[Part | None, Query(description="Width of a crop, divided by the upright width.")] = None,
    height: Annotated[Part | None, Query(description="Height of a crop, divided by the upright height.")] = None,
    box: Annotated[list[BoxText], _BOXES] = [],  # noqa: B006
) -> list[ImagePart]:
    """The parts of an image that are the query; none for the whole image."""
    boxes = [box_numbers(text) for text in box]
    if left is None and top is None and width is None and height is None:
        return [*boxes]
    if left is None or top is None or width is None or height is None:
        raise ApiError(422, "A crop needs left, top, width and height.")
    if max(left + width, top + height) > 1 + _CROP_TOLERANCE:
        raise ApiError(422, "The crop extends beyond the image.")
    return [Crop(left, top, width, height), *boxes]


Parts = Annotated[list[ImagePart], Depends(_query_parts)]
_Source = Annotated[RegionSourceName, Query()]


def searches(service: SearchService) -> APIRouter:
    """Four kinds of queries with the same kind of response, and batches of queries."""
    router = APIRouter(prefix="/v1/search", tags=["search"])
    gallery_search = service.gallery_search

    found = error_responses(*UPLOAD_ERRORS, *EXTRACTION_ERRORS, "image_not_found", "class_not_found", "not_applicable")

    @router.post("", responses=found, openapi_extra=REQUIRED_FILE)
    async def search_by_upload(request: Request, image: _Upload, parts: Parts, options: _Options) -> SearchOut:
        """Search by an uploaded image, or by parts of it.

        If the index has regions, the score of an image for one part of the query is that of its best region, and
        several parts are matched with different regions. Otherwise whole images are compared; for several parts, the
        score is the mean. Re-ranking compares whole images.
        """
        return await while_connected(request, timed(service.search(image, parts, options)))

    @router.post("/batch", responses=error_responses(*_ID, *_FILE, *_JSON, "class_not_found"))
    async def search_by_batch(request: Request, batch: BatchQuery) -> BatchOut:
        """Search by several images of the gallery or vectors of earlier responses, each on its own.

        A query that fails has an error in its place, and the others have results. If all fail for the same reason, so
        does the request.
        """
        return await while_connected(request, timed(service.search_batch(batch.queries, batch.options)))

    @router.post("/batch/upload", responses=found)
    async def search_by_uploads(request: Request, image: _Uploads, options: _Options) -> BatchOut:
        """Search by several uploaded images, each on its own. Their features are extracted together.

        An image that cannot be used has an error in its place, as in `/v1/search/batch`.
        """
        return await while_connected(request, timed(service.search_uploads(image, options)))

    @router.post("/vector", responses=error_responses("image_not_found", "class_not_found", *_JSON))
    async def search_by_vector(query: VectorQuery) -> SearchOut:
        """Search by the vector of an earlier search: for its next page or for one class, without another upload.

        The response to a search contains the vector if its parameter `vectors` is true.
        """
        return await timed(service.searches(gallery_search.search, query.vectors, query.options))

    @router.get("/id/{id}", responses=error_responses(*_ID, *_FILE, *_CHOICES, *EXTRACTION_ERRORS, "class_not_found"))
    async def search_by_id(request: Request, id: ImageId, parts: Parts, options: _Options) -> SearchOut:
        """Search by an image of the gallery, or by parts of it. The image itself is not among the results."""
        if not parts:
            return await timed(service.searches(gallery_search.search_id, id, options))
        image = await service.gallery_image(id)
        return await while_connected(request, timed(service.search(image, parts, options, id)))

    @router.post("/combined", responses=error_responses("image_not_found", "class_not_found", *_JSON))
    async def search_by_parts(query: CombinedQuery) -> SearchOut:
        """Search by texts, images of the gallery and vectors of earlier responses, each with a weight.

        The score is the weighted mean of the cosines with the parts. Images that are parts are not among the results.
        """
        return await timed(service.searches(gallery_search.search_parts, query.parts, query.options))

    return router


def regions(service: SearchService) -> APIRouter:
    """The objects in images, which are parts to search with."""
    router = APIRouter(prefix="/v1", tags=["regions"])

    upload_errors = error_responses(*UPLOAD_ERRORS, "not_applicable", "extraction_timeout")

    @router.post("/regions", responses=upload_errors, openapi_extra=REQUIRED_FILE)
    async def find_regions(request: Request, image: _Upload, source: _Source = "detector") -> RegionsOut:
        """Find the objects in an uploaded image."""
        return await while_connected(request, service.regions(image, source))

    @router.get("/images/{id}/regions", responses=error_responses(*_ID, *_FILE, "not_applicable", "extraction_timeout"))
    async def get_regions(request: Request, id: ImageId, source: _Source = "detector") -> RegionsOut:
        """Return the objects in an image of the gallery. They are computed only if the index does not have them."""
        return await while_connected(request, service.regions_of(id, source))

    return router


_BEARER = HTTPBearer(auto_error=False, description="A key of the service. It may also be in the header X-API-Key.")


def change_dependencies(settings: Settings) -> list[params.Depends]:
    """What the routes that change the gallery depend on."""

    async def may_change(request: Request) -> None:
        # The middleware has checked this before it read the body. This check does not depend on the path.
        access.check_change(request.headers, settings)

    return [Depends(may_change), *([Security(_BEARER)] if settings.changes == "key" else [])]


def read_dependencies(settings: Settings) -> list[params.Depends]:
    """What the routes that show something of the gallery depend on."""
    if settings.read_key is None:
        return []

    async def may_read(request: Request) -> None:
        # The middleware has checked this by the path of the request. This is the path of the route.
        access.check_read(request.headers, request.scope["route"].path, settings)

    return [Depends(may_read), Security(_BEARER)]


def images(service: SearchService) -> APIRouter:
    """The gallery and its changes."""
    router = APIRouter(prefix="/v1/images", tags=["images"])
    gallery_search, settings = service.gallery_search, service.settings
    change = change_dependencies(settings)

    @router.get("", responses=error_responses("class_not_found", "invalid_request"))
    async def list_images(
        offset: Annotated[int, Query(ge=0, le=2**31, description="Number of images to skip.", examples=[50])] = 0,
        limit: Annotated[int, Query(ge=1, le=100, description="Number of images.", examples=[50])] = 50,
        class_name: Annotated[ClassName | None, Query()] = None,
        no_class: Annotated[NoClass, Query()] = False,
        sort: Annotated[SortName, Query()] = "id",
    ) -> ImagesOut:
        """List the images of the gallery."""
        return await service.searches(
            gallery_search.images, SearchOptions(limit, offset, class_name, no_class), sort
        )  # fmt: skip

    added = _KNOWN | error_responses(*UPLOAD_ERRORS, *EXTRACTION_ERRORS, *CHANGE_ERRORS)

    @router.post("", status_code=201, responses=added, dependencies=change, openapi_extra=REQUIRED_FILE)
    async def add_image(
        request: Request, response: Response, image: _NamedUpload,
        class_name: Annotated[NewClassName | None, Query()] = None,
    ) -> ImageOut:  # fmt: skip
        """Add an image. The change is flushed to the disk before the response, so a killed process does not lose it.

        The same file is added only once: a second request returns 200 and the image that is there, with its class.
        """
        added, new = await service.add(request, image, class_name)
        if not new:
            response.status_code = 200
        return added

    @router.get("/{id}", responses=error_responses(*_ID))
    async def get_image(id: ImageId) -> ImageOut:
        """Return the name and class of an image."""
        return await service.searches(gallery_search.image, id)

    @router.delete("/{id}", status_code=204, responses=error_responses(*_ID, *CHANGE_ERRORS), dependencies=change)
    async def remove_image(id: ImageId) -> Response:
        """Remove an image from the index. It can be restored for an hour.

        After that hour, its file is deleted if it was added over HTTP. Other files are kept.
        """
        await service.changes(service.remove, id)
        return Response(status_code=204)

    return router


def image_files(service: SearchService) -> APIRouter:
    """The images of the gallery as JPEG files."""
    router = APIRouter(prefix="/v1/images/{id}", tags=["images"])
    failed = error_responses(*_ID, *_FILE)

    @router.get("/thumbnail", response_class=Response, responses=_JPEG | failed)
    async def get_thumbnail(
        request: Request,
        id: ImageId,
        side: Annotated[
            int, Query(ge=32, le=512, description="Longest side in pixels; may be rounded up.", examples=[256])
        ] = 256,
    ) -> Response:
        """Return a small JPEG of an image."""
        side = next(each for each in THUMBNAIL_SIDES if each >= side)
        return await _jpeg(request, service, id, side, thumbnails.get)

    @router.get("/file", response_class=Response, responses=_JPEG | failed)
    async def get_file(request: Request, id: ImageId) -> Response:
        """Return an image as an upright JPEG of at most 2048 × 2048 pixels."""
        return await _jpeg(request, service, id, _LARGE, partial(thumbnails.render, quality=90))

    return router


async def _jpeg(
    request: Request, service: SearchService, id: int, longest: int, make: Callable[[FilePath, int], bytes]
) -> Response:
    """The JPEG that ``make`` returns for an image's file, or 304 if the browser has it."""

    def response() -> Response:
        path = service.gallery_search.path(id)
        headers = {"ETag": f'"{thumbnails.tag(path, longest)}"', "Cache-Control": f"private, max-age={_MAX_AGE}"}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(make(path, longest), media_type="image/jpeg", headers=headers)

    try:
        return await service.images(response)
    except UnreadableImage as error:
        raise ApiError(404, "The file of the image is missing or cannot be read.", code="file_not_found") from error


def about(service: SearchService) -> APIRouter:
    """Information about the gallery."""
    router = APIRouter(tags=["about"])
    settings = service.settings

    @router.get("/v1/info", responses=error_responses())
    async def info() -> InfoOut:
        """Return the gallery's name, size and classes, and the limits of the service."""
        return InfoOut(
            **vars(await service.searches(service.gallery_search.summary)),
            max_k=MAX_K,
            changes=settings.changes,
            limits=LimitsOut(body_bytes=settings.max_body, pixels=settings.max_pixels),
        )

    @router.get("/metrics", response_class=PlainTextResponse, responses=error_responses())
    async def metrics() -> Response:
        """Return metrics of all workers in Prometheus text format."""
        return Response(await service.searches(service.metrics.text), media_type=CONTENT_TYPE)

    if settings.read_key is not None:
        cookie = access.session(settings.read_key)

        @router.post("/v1/session", status_code=204, responses=error_responses())
        async def start_session(request: Request) -> Response:
            """Start a session of a browser: a cookie takes the place of the key, for pages and their images."""
            response = Response(status_code=204)
            is_encrypted = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
            response.set_cookie(
                access.COOKIE, cookie, path=f"{settings.root_path}/", secure=is_encrypted, httponly=True,
                samesite="strict",
            )  # fmt: skip
            return response

    return router


def state(service: SearchService) -> APIRouter:
    """Information about the service, which needs no key."""
    router = APIRouter(tags=["about"])
    version_out = VersionOut(version=package_version())

    @router.get("/version", responses=error_responses())
    async def version() -> VersionOut:
        """Return the version of the service."""
        return version_out

    @router.get("/health", responses=error_responses())
    async def health() -> HealthOut:
        """Return 200 while the process runs."""
        return HealthOut()

    @router.get("/ready", responses=error_responses("not_ready"))
    async def ready() -> HealthOut:
        """Return 200 once the feature extractor has been prepared, else 503."""
        if not service.ready:
            raise ApiError(503, "The feature extractor is not ready yet.")
        return HealthOut()

    return router
