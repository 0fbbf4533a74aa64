"""Watching: work that ends when nobody waits for it any more."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.requests import Request

from helpers.service.errors import ApiError

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[object, object, T]) -> T:
    """What ``work`` gives; it is cancelled as soon as the client hangs up.

    request : its body has been read.

    Raises
    ------
    Refused : 499, which nobody gets to see.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "The client has gone.")
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
