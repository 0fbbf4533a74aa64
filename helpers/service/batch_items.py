"""Results of batches: a query that fails does not fail the others."""

import time
from collections.abc import Awaitable, Sequence

from helpers.service.errors import ApiError, error_out
from helpers.service.schemas import BatchOut, ItemOut, SearchOut


async def outcome(search: Awaitable[SearchOut]) -> SearchOut | ApiError:
    """The results of a search, or its error."""
    try:
        return await search
    except ApiError as error:
        return error


def batch_out(outcomes: Sequence[SearchOut | ApiError], start: float) -> BatchOut:
    """One item for each outcome. start : of the batch, from `time.perf_counter`.

    Raises
    ------
    ApiError : all searches failed with this code.
    """
    errors = [each for each in outcomes if isinstance(each, ApiError)]
    if len(errors) == len(outcomes) and len({error.code for error in errors}) == 1:
        raise errors[0]
    items = [
        ItemOut(search=None, error=error_out(each)) if isinstance(each, ApiError) else ItemOut(search=each, error=None)
        for each in outcomes
    ]
    return BatchOut(items=items, milliseconds=round(1000 * (time.perf_counter() - start), 3))
