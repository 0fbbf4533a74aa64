"""Routes for single images of the gallery (details, file, class, explanation), and for exports and duplicates."""

import re
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from helpers.service.content import UploadedImage
from helpers.service.disconnects import while_connected
from helpers.service.errors import ApiError, error_responses
from helpers.service.exports import MAX_IMAGES, safe_names, zipped
from helpers.service.image_schemas import ClassChange, DetailsOut, DuplicatesOut, ExplanationOut, SizesOut
from helpers.service.query_image import QueryImage
from helpers.service.routes import (
    BODY_ERRORS,
    CHANGE_ERRORS,
    EXTRACTION_ERRORS,
    UPLOAD_ERRORS,
    ImageId,
    Parts,
    change_dependencies,
)
from helpers.service.schemas import Id, ImageOut
from helpers.service.search_service import SearchService
from helpers.service.sent_files import OPTIONAL_FILE, file_response, optional_file
from helpers.service.settings import MAX_K

_Upload = Annotated[UploadedImage | None, Depends(optional_file)]
_QueryId = Annotated[Id | None, Query(description="Id of the query, if it is an image of the gallery.")]
_Ids = Annotated[
    list[Id], Query(min_length=1, max_length=MAX_IMAGES, description="Ids of the images.", examples=[[3, 8]])
]

_SomeIds = Annotated[
    list[Id], Query(min_length=1, max_length=MAX_K, description="Ids of the images.", examples=[[3, 8]])
]

_FILE_ERRORS = ("image_not_found", "file_not_found", "invalid_request")
_EDIT_ERRORS = ("image_not_found", "invalid_request", *CHANGE_ERRORS)

_FILE = file_response("application/octet-stream", "The file.")
_ZIP = file_response("application/zip", "The ZIP.")


def single_images(service: SearchService) -> APIRouter:
    """What can be done with one image."""
    router = APIRouter(prefix="/v1/images/{id}", tags=["images"])
    change = change_dependencies(service.settings)

    @router.get("/details", responses=error_responses(*_FILE_ERRORS))
    async def get_details(id: ImageId) -> DetailsOut:
        """Return what the file of an image says about it: its size, and when and with which camera it was taken."""
        return await service.images(service.gallery_search.details, id)

    @router.get("/original", response_class=Response, responses=_FILE | error_responses(*_FILE_ERRORS))
    async def get_original(id: ImageId) -> Response:
        """Download the file of an image, as it is."""
        image = await service.searches(service.gallery_search.image, id)
        path = await service.searches(service.gallery_search.path, id)
        # Never shown in the browser: the file may be of any type.
        return FileResponse(path, media_type="application/octet-stream", filename=safe_names([image.name])[0])

    @router.patch("", responses=error_responses(*_EDIT_ERRORS, *BODY_ERRORS), dependencies=change)
    async def change_class(id: ImageId, change: ClassChange) -> ImageOut:
        """Change the class of an image. If the class differs, the image gets a new id, which the response contains."""
        return await service.edit(service.edits.set_class, id, change.class_name)

    @router.post("/restore", responses=error_responses(*_EDIT_ERRORS, "file_not_found"), dependencies=change)
    async def restore_image(id: ImageId) -> ImageOut:
        """Restore an image that was removed within the last hour. It gets a new id, which the response contains."""
        return await service.edit(service.edits.restore, id)

    why_errors = error_responses(*_FILE_ERRORS, *UPLOAD_ERRORS, *EXTRACTION_ERRORS, "not_applicable")

    @router.post("/why", responses=why_errors, openapi_extra=OPTIONAL_FILE)
    async def explain(
        request: Request, id: ImageId, parts: Parts, image: _Upload, query_id: _QueryId = None
    ) -> ExplanationOut:
        """Explain why an image is similar to a query, which is an upload or an image of the gallery."""
        query: QueryImage
        if image is not None and query_id is None:
            query = image
        elif image is None and query_id is not None:
            query = await service.gallery_image(query_id)
        else:
            raise ApiError(422, "An explanation needs a query: either an uploaded image or query_id.")
        return await while_connected(request, service.explain(id, query, parts))

    return router


def whole_gallery(service: SearchService) -> APIRouter:
    """What can be done with many images. These routes come before those with an id."""
    router = APIRouter(prefix="/v1", tags=["images"])

    @router.get("/images/export", response_class=Response, responses=_ZIP | error_responses(*_FILE_ERRORS))
    async def export(id: _Ids) -> Response:
        """Download the files of some images as one ZIP file."""

        def files() -> list[tuple[str, FilePath]]:
            images = [service.gallery_search.image(each) for each in dict.fromkeys(id)]
            # The file of an upload has a technical name.
            names = safe_names(image.key if image.key.endswith(image.name) else image.name for image in images)
            return [(name, service.gallery_search.path(image.id)) for name, image in zip(names, images, strict=True)]

        summary = await service.searches(service.gallery_search.summary)
        name = safe_names([summary.name])[0]
        # Some characters are not allowed in a header.
        name = re.sub(r"[^\w .-]", "_", name, flags=re.ASCII)
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
        return StreamingResponse(zipped(await service.searches(files)), media_type="application/zip", headers=headers)

    @router.get("/images/sizes", responses=error_responses("invalid_request"))
    async def get_sizes(id: _SomeIds) -> SizesOut:
        """Return the sizes of some images, so that a page can lay them out before it has them."""
        return await service.images(service.gallery_search.sizes, id)

    @router.get(
        "/duplicates",
        responses=error_responses(*CHANGE_ERRORS, "not_applicable"),
        dependencies=change_dependencies(service.settings),
    )
    async def find_duplicates() -> DuplicatesOut:
        """Return the near-duplicates of the gallery.

        The first request starts the search, which takes time for each image. It is for clients that may change the
        gallery.
        """
        return await service.images(service.duplicates.groups)

    return router
