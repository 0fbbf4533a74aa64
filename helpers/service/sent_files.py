"""Image files in the bodies of requests: a file of a form, or the body itself."""

from typing import Annotated

from fastapi import Depends, File, Query, Request, UploadFile
from starlette.datastructures import Headers

from helpers.service.content import UploadedImage
from helpers.service.errors import ApiError, ErrorDetail

#: Types of a body that is an image file itself. The bytes tell the format of the image, not this type.
FILE_TYPES = ("image/*", "application/octet-stream")

_BINARY = {"schema": {"type": "string", "format": "binary"}}

#: The addition to the OpenAPI description of a route with a file; and of one that requires it.
OPTIONAL_FILE: dict = {"requestBody": {"content": dict.fromkeys(FILE_TYPES, _BINARY)}}
REQUIRED_FILE: dict = {"requestBody": OPTIONAL_FILE["requestBody"] | {"required": True}}

_FORMATS = "JPEG, PNG, GIF (its first frame), WebP, BMP or TIFF."


def file_response(media_type: str, description: str) -> dict[int | str, dict]:
    """The OpenAPI description of a response that is a file."""
    return {200: {"content": {media_type: _BINARY}, "description": description}}


def content_type(headers: Headers) -> str:
    """The type of a body without its parameters, in lower case, such as ``image/jpeg``; "" without one."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_file(kind: str) -> bool:
    """Whether a body of this content type is an image file itself."""
    return kind.startswith("image/") or kind in FILE_TYPES


async def optional_file(
    request: Request, image: Annotated[UploadFile | None, File(description=_FORMATS)] = None
) -> UploadedImage | None:
    """The file of a request, in a form or as its body; None if there is no file."""
    if image is not None:
        return UploadedImage(await image.read(), image.filename)
    if is_file(content_type(request.headers)):
        return UploadedImage(await request.body())
    return None


async def required_file(file: Annotated[UploadedImage | None, Depends(optional_file)]) -> UploadedImage:
    """The file of a request. Raises ApiError: 422, there is none."""
    if file is None:
        missing = ErrorDetail(location=["body", "image"], message="Field required", type="missing")
        raise ApiError(
            422, "The request has no image. Send it as the field image of a form, or as the body with a Content-Type.",
            details=[missing],
        )  # fmt: skip
    return file


async def named_file(
    file: Annotated[UploadedImage, Depends(required_file)],
    name: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=255,
            description="Name of the file, if the body is the file itself.",
            examples=["dunes.jpg"],
        ),
    ] = None,
) -> UploadedImage:
    """The file of a request, with the name that the form or the parameter gives."""
    return UploadedImage(file.content, file.name or name)


async def several_files(
    image: Annotated[list[UploadFile], File(min_length=1, max_length=32, description=f"Up to 32 files: {_FORMATS}")],
) -> list[UploadedImage]:
    """The files of a form."""
    return [UploadedImage(await each.read(), each.filename) for each in image]
