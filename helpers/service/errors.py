"""Errors as clients receive them: a status code and a sentence, never a stack trace."""

import logging
import secrets
from collections.abc import Mapping

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from helpers.text import printable

log = logging.getLogger("lookalike.service")

#: ``Retry-After`` of 429 and 503, in seconds.
RETRY_AFTER = 1


class ApiError(HTTPException):
    """An error response: ``ApiError(status, detail, headers=None)``."""


def too_many_requests() -> ApiError:
    """429: a queue is full."""
    return ApiError(
        429, "Too many requests are waiting. Try again in a moment.", headers={"Retry-After": str(RETRY_AFTER)}
    )


def unavailable(detail: str) -> ApiError:
    """503: the service is not ready yet, or the request took too long."""
    return ApiError(503, detail, headers={"Retry-After": str(RETRY_AFTER)})


class ValidationProblem(BaseModel):
    """What is wrong with one part of a request."""

    loc: list[str | int] = Field(description="Position in the request.")
    msg: str = Field(description="The problem, for people.")
    type: str = Field(description="The problem, for programs.")


class Problem(BaseModel):
    """The reason for an error."""

    detail: str = Field(description="A sentence for people.")


class InvalidRequest(BaseModel):
    """A request that does not match this description."""

    detail: str | list[ValidationProblem] = Field(description="A sentence, or one entry for each invalid part.")


_DESCRIPTIONS = {
    400: "The request or the image cannot be read.",
    401: "The key is missing or wrong.",
    403: "The request is not allowed.",
    404: "Not found.",
    408: "The request arrived too slowly.",
    413: "The body is too large.",
    415: "The file is not an image, or its format is not supported.",
    422: "A parameter is missing or invalid.",
    429: "Too many requests are waiting.",
    500: "Internal error. The response contains a number that identifies the error in the log of the service.",
    503: "The service is not ready, or took too long.",
}
_RETRY_AFTER_HEADER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}

#: Any route can return these.
_COMMON = (400, 403, 408, 413, 429, 500, 503)


def error_responses(*statuses: int) -> dict[int | str, dict]:
    """The OpenAPI description of a route's errors: ``statuses`` and those that all routes share."""
    responses: dict[int | str, dict] = {}
    for status in sorted({*statuses, *_COMMON}):
        responses[status] = {
            "model": InvalidRequest if status == 422 else Problem,
            "description": _DESCRIPTIONS[status],
        }
        if status in (429, 503):
            responses[status]["headers"] = _RETRY_AFTER_HEADER
    return responses


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response to an error."""
    return JSONResponse({"detail": printable(detail)}, status, headers)


def internal_error(error: BaseException) -> JSONResponse:
    """Log an unexpected exception under a random number, and return a response that contains only the number."""
    number = secrets.token_hex(6)
    log.error("error %s", number, exc_info=error)
    return problem(500, f"The service failed. Its log describes the error under number {number}.")


async def http_error(_: Request, error: HTTPException) -> JSONResponse:
    """The response to an `HTTPException`, such as an `ApiError`."""
    return problem(error.status_code, str(error.detail), error.headers)


async def invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """The response to a request that does not match the description.

    It does not repeat the input, which may be large and may not be valid JSON.
    """
    parts = [
        {"loc": [each if isinstance(each, int) else printable(each) for each in part["loc"]]}
        | {name: printable(part[name]) for name in ("msg", "type")}
        for part in error.errors()
    ]
    return JSONResponse({"detail": parts}, 422)
