"""Errors as clients get them: a status, a sentence for a person, and never a stack trace."""

import logging
import secrets

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

log = logging.getLogger("lookalike.service")

#: Seconds after which a client that was sent away may come back.
RETRY_AFTER = 1


class ApiError(HTTPException):
    """A request that is answered by a status and a reason."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None):
        super().__init__(status, detail, headers)


class TooManyRequests(ApiError):
    """Too much to do already; the answer says when to come back."""

    def __init__(self, detail: str = "Too many requests wait already. Try again in a moment."):
        super().__init__(429, detail, {"Retry-After": str(RETRY_AFTER)})


class RequestTimedOut(ApiError):
    """It took too long, or is not possible yet."""

    def __init__(self, detail: str):
        super().__init__(503, detail, {"Retry-After": str(RETRY_AFTER)})


class Mistake(BaseModel):
    """What is wrong with one part of a request."""

    loc: list[str | int] = Field(description="where in the request")
    msg: str = Field(description="what is wrong, for a person")
    type: str = Field(description="what is wrong, for a program")


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str = Field(description="for a person")


class Invalid(BaseModel):
    """What does not fit the description of this interface."""

    detail: str | list[Mistake] = Field(description="for a person, or for each part of the request that is wrong")


_WORDS = {
    400: "not a request or an image that can be read",
    401: "the key is missing or wrong",
    403: "not allowed here",
    404: "not there",
    405: "not this way",
    408: "the request came in too slowly",
    411: "the length of the body is missing",
    413: "the body is too large",
    415: "not an image by its content, or not one that is taken",
    422: "a parameter is missing or can't be",
    429: "too many requests wait already",
    500: "an error of the service itself; its log has the number that the answer names",
    503: "not ready yet, or too slow at the moment",
}
_WAITING = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}


def declared(*statuses: int) -> dict[int, dict]:
    """The errors of a route, for its description."""
    results: dict[int, dict] = {}
    # Whatever was asked for: another site's page, a request that breaks off, an error of our own.
    for status in sorted({*statuses, 400, 403, 408, 413, 429, 500, 503}):
        results[status] = {"model": Invalid if status == 422 else Problem, "description": _WORDS[status]}
        if status in (429, 503):
            results[status]["headers"] = _WAITING
    return results


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as a response."""
    return JSONResponse({"detail": detail}, status, headers)


def unexpected(error: BaseException) -> JSONResponse:
    """The answer to an error that nobody foresaw: its number is in the log, beside what happened."""
    number = secrets.token_hex(6)
    log.error("error %s", number, exc_info=error)
    return problem(500, f"The service failed. Its log says why, under number {number}.")


def install(app: FastAPI) -> None:
    """Answer what FastAPI raises in our way."""

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without what was sent: it may be large, and may hold what JSON can't.
        parts = [
            {"loc": [each if isinstance(each, int) else str(each) for each in part["loc"]]}
            | {name: str(part[name]) for name in ("msg", "type")}
            for part in error.errors()
        ]
        return JSONResponse({"detail": parts}, 422)
