"""Disconnects: work stops when its client closes the connection."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.requests import Request

from helpers.service.errors import ApiError

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[object, object, T]) -> T:
    """The result of ``work``, which is canceled as soon as the client disconnects.

    request : its body must have been read.

    Raises ApiError: 499, the client disconnected; only the metrics show this status.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "The client disconnected.")
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
