"""Routes: every address of the service, what it takes and what it answers."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, File, Path, Query, Request, Response, Security, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from fastapi.security import APIKeyHeader

from helpers.images import thumbnails
from helpers.images.reading import UnreadableImage
from helpers.service import access
from helpers.service.errors import ApiError, RequestTimedOut, declared
from helpers.service.interface import as_page
from helpers.service.metrics import CONTENT_TYPE
from helpers.service.schemas import (
    ClassName,
    ClassOut,
    CropIn,
    Fraction,
    HealthOut,
    Id,
    ImageOut,
    ImagesOut,
    InfoOut,
    K,
    LimitsOut,
    NewClassName,
    Offset,
    Part,
    RerankerName,
    SearchOut,
    VectorQuery,
    from_text,
)
from helpers.service.settings import MAX_K, THUMBNAIL_SIDES
from helpers.service.uploads import Crop

if TYPE_CHECKING:
    from helpers.service.application import Service

#: The page for people and its files.
PAGE = FilePath(__file__).parent / "page"

#: Longest side in pixels of an image that is shown large.
_LARGE = 2048

#: How long a browser may show a thumbnail without asking again, in seconds.
_FRESH = 300

_JPEG = {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "the image"}
_UNCHANGED = {"description": "the browser has it already"}

_ImageId = Annotated[Id, Path(description="of an image of the gallery")]
_Upload = Annotated[UploadFile, File(description="JPEG, PNG, GIF (its first frame), WebP, BMP or TIFF")]


async def _crop(
    left: Annotated[Fraction | None, Query(description="crop: left edge, as a fraction of the upright width")] = None,
    top: Annotated[Fraction | None, Query(description="crop: top edge, as a fraction of the upright height")] = None,
    width: Annotated[Part | None, Query(description="crop: width, as a fraction; all four or none")] = None,
    height: Annotated[Part | None, Query(description="crop: height, as a fraction; all four or none")] = None,
) -> Crop | None:
    """The part of an uploaded image to search by."""
    given = [left, top, width, height]
    if all(value is None for value in given):
        return None
    if any(value is None for value in given):
        raise ApiError(422, "A crop needs left, top, width and height.")
    try:
        return CropIn(left=left, top=top, width=width, height=height).crop()
    except ValueError as error:
        raise ApiError(422, "The crop leads out of the image.") from error


def searching(service: "Service") -> APIRouter:
    """Three ways to search, one kind of answer."""
    router = APIRouter(prefix="/api/search", tags=["search"])

    @router.post("", response_model=SearchOut, responses=declared(404, 415, 422))
    async def search_by_upload(
        request: Request,
        image: _Upload,
        crop: Annotated[Crop | None, Depends(_crop)],
        k: Annotated[K, Query()] = 20,
        offset: Annotated[Offset, Query()] = 0,
        class_name: Annotated[ClassName | None, Query()] = None,
        rerank: Annotated[RerankerName, Query()] = "none",
    ):
        """Search by an image that is sent, or by a part of it."""
        return await service.search(request, await image.read(), crop, k, offset, class_name, rerank)

    @router.post("/vector", response_model=SearchOut, responses=declared(404, 422))
    async def search_by_vector(query: VectorQuery):
        """Search on by the vector of an earlier answer, without sending the image again."""
        start = time.perf_counter()
        vector = from_text(query.vector)
        return await service.search_vector(vector, query.k, query.offset, query.class_name, start, query.rerank)

    @router.get("/id/{id}", response_model=SearchOut, responses=declared(404, 422))
    async def search_by_id(
        id: _ImageId,
        k: Annotated[K, Query()] = 20,
        offset: Annotated[Offset, Query()] = 0,
        class_name: Annotated[ClassName | None, Query()] = None,
        rerank: Annotated[RerankerName, Query()] = "none",
    ):
        """Search by an image of the gallery; it is not among its own answers."""
        start = time.perf_counter()
        page, vector = await service.searches(service.gallery_search.search_id, id, k, offset, class_name, rerank)
        return SearchOut.of(page, vector, k, offset, time.perf_counter() - start)

    return router


def images(service: "Service") -> APIRouter:
    """The gallery, and changes of it."""
    router = APIRouter(prefix="/api/images", tags=["images"])
    gallery_search, settings = service.gallery_search, service.settings

    async def may_change(request: Request) -> None:
        # The guard has asked already, before the body came in; this is where it counts.
        access.check_change(access.by_name(request.scope["headers"]), settings)

    change = {"dependencies": [Depends(may_change)]}
    if settings.changes == "key":
        key = APIKeyHeader(name=access.KEY_HEADER, auto_error=False, description="LOOKALIKE_API_KEY of the service")
        change["dependencies"].append(Security(key))

    @router.get("", response_model=ImagesOut, responses=declared(404, 422))
    async def list_images(
        offset: Annotated[int, Query(ge=0, le=2**31, description="how many images to pass over")] = 0,
        limit: Annotated[int, Query(ge=1, le=100, description="how many images")] = 50,
        class_name: Annotated[ClassName | None, Query()] = None,
    ):
        """The images of the gallery, in its order."""
        entries, total = await service.searches(gallery_search.entries, offset, limit, class_name)
        return ImagesOut(images=[ImageOut.of(entry) for entry in entries], total=total, offset=offset)

    @router.post("", response_model=ImageOut, status_code=201, responses=declared(401, 415, 422), **change)
    async def add_image(request: Request, image: _Upload, class_name: Annotated[NewClassName | None, Query()] = None):
        """Add an image for good: once this is answered, neither a kill nor a power cut loses it."""
        return ImageOut.of(await service.add(request, await image.read(), class_name))

    @router.get("/{id}", response_model=ImageOut, responses=declared(404, 422))
    async def get_image(id: _ImageId):
        """One image's name and class."""
        return ImageOut.of(await service.searches(gallery_search.entry, id))

    @router.delete("/{id}", status_code=204, responses=declared(401, 404, 422), **change)
    async def remove_image(id: _ImageId) -> Response:
        """Take an image out of the index for good; its file is deleted only if it came in over this interface."""
        await service.remove(id)
        return Response(status_code=204)

    @router.get(
        "/{id}/thumbnail",
        response_class=Response,
        responses={200: _JPEG, 304: _UNCHANGED} | declared(404, 422),
    )
    async def get_thumbnail(
        request: Request,
        id: _ImageId,
        side: Annotated[int, Query(ge=32, le=512, description="longest side; may be rounded up")] = 256,
    ):
        """A small JPEG of an image."""
        side = next(each for each in THUMBNAIL_SIDES if each >= side)
        return await _jpeg(request, service, id, side, thumbnails.get)

    @router.get("/{id}/file", response_class=Response, responses={200: _JPEG, 304: _UNCHANGED} | declared(404, 422))
    async def get_file(request: Request, id: _ImageId):
        """An image to look at: upright, as JPEG, at most 2048 pixels wide and high."""
        return await _jpeg(request, service, id, _LARGE, partial(thumbnails.render, quality=90))

    return router


def _tagged(service: "Service", id: int, longest: int) -> tuple[FilePath, str]:
    path = service.gallery_search.path(id)
    return path, thumbnails.tag(path, longest)


async def _jpeg(
    request: Request, service: "Service", id: int, longest: int, make: Callable[[FilePath, int], bytes]
) -> Response:
    """What ``make`` gives for an image's file, or 304 if the browser has it."""
    try:
        path, tag = await service.images(_tagged, service, id, longest)
        headers = {"ETag": f'"{tag}"', "Cache-Control": f"private, max-age={_FRESH}"}
        if f'"{tag}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = await service.images(make, path, longest)
    except UnreadableImage as error:
        raise ApiError(404, "The image's file is not there any more, or can't be read.") from error
    return Response(content, media_type="image/jpeg", headers=headers)


def about(service: "Service") -> APIRouter:
    """The page, and what machines ask."""
    router = APIRouter()
    settings = service.settings

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", media_type="text/html", headers={"Cache-Control": "no-cache"})

    @router.get("/docs", include_in_schema=False)
    async def interface(request: Request) -> HTMLResponse:
        return HTMLResponse(as_page(request.app.openapi()))

    @router.get("/api/info", response_model=InfoOut, responses=declared(), tags=["about"])
    async def info():
        """What is searched, and what may be done."""
        told = await service.searches(service.gallery_search.about)
        classes = [ClassOut(name=name, count=count) for name, count in told.pop("classes")]
        return InfoOut(
            **told,
            classes=classes,
            max_k=MAX_K,
            changes=settings.changes,
            limits=LimitsOut(body_bytes=settings.max_body, pixels=settings.max_pixels),
        )

    @router.get("/health", response_model=HealthOut, responses=declared(), tags=["about"])
    async def health():
        """Whether the process is there."""
        return HealthOut()

    @router.get("/ready", response_model=HealthOut, responses=declared(), tags=["about"])
    async def ready():
        """Whether a search would be answered at once."""
        if not service.ready:
            raise RequestTimedOut("The extractor is not ready yet.")
        return HealthOut()

    @router.get("/metrics", response_class=PlainTextResponse, responses=declared(), tags=["about"])
    async def metrics() -> Response:
        """Numbers for Prometheus; of all workers, whichever is asked."""
        return Response(await service.searches(service.metrics.text), media_type=CONTENT_TYPE)

    return router
