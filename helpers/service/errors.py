"""Errors as clients receive them: a status, a code and a sentence, never a stack trace."""

import contextlib
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from helpers.images.reading import UnreadableImage
from helpers.text import printable

log = logging.getLogger("lookalike.service")

#: ``Retry-After`` of 429 and 503, in seconds.
RETRY_AFTER = 1

#: All codes, with their status and meaning. Programs depend on them. The first one of a status is its default.
CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The body cannot be parsed."),
    "image_damaged": (400, "The image is empty or damaged, or costs too much to decode."),
    "image_too_large": (400, "The image has too many pixels."),
    "key_required": (401, "The request has no key."),
    "key_wrong": (401, "The key is wrong."),
    "changes_off": (403, "The service does not allow changes."),
    "host_not_allowed": (403, "The service does not accept requests for this host name."),
    "other_site": (403, "A page of another site sent the request."),
    "not_found": (404, "There is no such path."),
    "image_not_found": (404, "The index has no such image."),
    "file_not_found": (404, "The file of the image is missing or cannot be read."),
    "class_not_found": (404, "The gallery has no such class."),
    "method_not_allowed": (405, "The path does not support the method."),
    "request_timeout": (408, "The request arrived too slowly."),
    "body_too_large": (413, "The body is too large."),
    "unsupported_image": (415, "The file is not an image, or its format is not supported."),
    "unsupported_content_type": (415, "The body has a Content-Type that the path does not support."),
    "invalid_request": (422, "A parameter or a field is missing or invalid. The details name it."),
    "unknown_parameter": (422, "A parameter, a field or a body is not known, is repeated, or is in the wrong place."),
    "not_applicable": (422, "The request is valid, but this engine does not support it."),
    "too_many_requests": (429, "Too many requests are waiting."),
    "internal_error": (500, "The message contains a number that identifies the error in the log of the service."),
    "not_ready": (503, "The feature extractor is not ready, or does not work."),
    "extraction_timeout": (503, "Feature extraction took too long."),
}

#: Every route can return these.
_COMMON = (
    "host_not_allowed", "body_too_large", "unknown_parameter", "too_many_requests", "internal_error",
)  # fmt: skip


def default_code(status: int) -> str:
    """The first code of a status; that of 400 or 500 if the status has none."""
    return next(
        (code for code, (each, _) in CODES.items() if each == status),
        "bad_request" if status < 500 else "internal_error",
    )


class ErrorDetail(BaseModel):
    """What is wrong with one part of a request."""

    location: list[str | int] = Field(description='Position in the request, such as ["query", "k"].')
    message: str = Field(description="The problem, for people.")
    type: str = Field(description="The problem, for programs.")


class ErrorOut(BaseModel):
    """The reason for an error."""

    code: str = Field(description="The error, for programs.", json_schema_extra={"enum": list(CODES)})
    message: str = Field(description="The error, for people: a sentence.")
    details: list[ErrorDetail] = Field(description="The invalid parts of the request. Empty for most codes.")


class ApiError(HTTPException):
    """An error response; with 429 and 503, it tells when to try again.

    code : a key of `CODES`; by default the first one of the status.
    """

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, *, code: str | None = None,
        details: Sequence[ErrorDetail] = (),
    ):  # fmt: skip
        retry = {"Retry-After": str(RETRY_AFTER)} if status in (429, 503) else {}
        super().__init__(status, message, {**retry, **(headers or {})})
        self.code = code or default_code(status)
        self.details = tuple(details)


def too_many_requests() -> ApiError:
    """429: a queue is full."""
    return ApiError(429, "Too many requests are waiting. Try again in a moment.")


def no_image(id: int) -> ApiError:
    """404: the index has no such image."""
    return ApiError(404, f"There is no image {id} in the index.", code="image_not_found")


@contextlib.contextmanager
def readable(id: int) -> Iterator[None]:
    """404 if the block cannot read the file of this image."""
    try:
        yield
    except UnreadableImage as error:
        raise ApiError(404, f"The file of image {id} cannot be read.", code="file_not_found") from error


#: `helpers.service.description` adds it. FastAPI would describe an error of a JPEG route as a JPEG.
_SCHEMA = {"$ref": f"#/components/schemas/{ErrorOut.__name__}"}
_RETRY_AFTER_HEADER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def error_responses(*codes: str) -> dict[int | str, dict]:
    """The OpenAPI description of a route's errors, by their codes, and of the errors that all routes have."""
    responses: dict[int | str, dict] = {}
    for code in sorted({*codes, *_COMMON}, key=list(CODES).index):
        status, meaning = CODES[code]
        response = responses.setdefault(
            status, {"description": "", "content": {"application/json": {"schema": _SCHEMA, "examples": {}}}}
        )
        response["description"] += f"{' ' if response['description'] else ''}`{code}`: {meaning}"
        response["content"]["application/json"]["examples"][code] = {
            "value": {"code": code, "message": meaning, "details": []}
        }
        if status in (429, 503):
            response["headers"] = _RETRY_AFTER_HEADER
    return responses


def error_out(error: HTTPException) -> ErrorOut:
    """An error in the form that clients receive."""
    if not isinstance(error, ApiError):
        # Of Starlette, with texts such as "Not Found"; only those about bodies say more.
        meaning = CODES[default_code(error.status_code)][1]
        message = f"{meaning[:-1]}: {error.detail}" if error.status_code == 400 else meaning
        error = ApiError(error.status_code, message, error.headers)
    return ErrorOut(code=error.code, message=printable(str(error.detail)), details=list(error.details))


def error_response(error: HTTPException) -> JSONResponse:
    """The response to an error."""
    return JSONResponse(error_out(error).model_dump(), error.status_code, error.headers)


def internal_error(error: BaseException) -> JSONResponse:
    """Log an unexpected exception under a random number, and return a response that contains only the number."""
    number = secrets.token_hex(6)
    log.error("error %s", number, exc_info=error)
    return error_response(ApiError(500, f"The service failed. Its log describes the error under number {number}."))


async def invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """The response to a request that does not match the description.

    It does not repeat the input, which may be large and may not be valid JSON.
    """
    details = [
        ErrorDetail(
            location=[each if isinstance(each, int) else printable(each) for each in part["loc"]],
            message=printable(part["msg"]),
            type=printable(part["type"]),
        )
        for part in error.errors()
    ]
    unknown = details and all(each.type == "extra_forbidden" for each in details)
    sentences = [f"{' '.join(map(str, each.location))}: {each.message}" for each in details[:3]]
    message = f"The request is not valid. {'; '.join(sentences)}{'; …' if len(details) > 3 else ''}"
    code = "unknown_parameter" if unknown else "invalid_request"
    return error_response(ApiError(422, message, code=code, details=details))
