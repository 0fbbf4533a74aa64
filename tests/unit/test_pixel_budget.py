"""The limit on the pixels of all images that the service has in memory."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.service.batching import PixelBudget


def in_own_loop(coroutine):
    """Run a coroutine in a thread: Playwright's event loop may run in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_an_image_fits_or_not():
    budget = PixelBudget(100)
    assert budget.try_acquire(60) and not budget.try_acquire(41) and budget.try_acquire(40)
    budget.release(60)
    assert not budget.try_acquire(61) and budget.try_acquire(60)


def test_an_image_above_the_limit_has_to_be_the_only_one():
    budget = PixelBudget(100)
    assert budget.try_acquire(1)
    assert not budget.try_acquire(1000)
    budget.release(1)
    assert budget.try_acquire(1000) and not budget.try_acquire(1)


def test_no_one_overtakes_an_image_that_waits():
    async def run():
        budget = PixelBudget(100)
        await budget.acquire(60)
        order = []

        async def wait(name, pixels):
            await budget.acquire(pixels)
            order.append(name)

        waiting = [asyncio.create_task(wait("large", 80))]
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(wait("small", 10)))
        await asyncio.sleep(0)
        # The small one would fit, but the large one came first.
        assert not budget.try_acquire(10) and order == []
        budget.release(60)
        await asyncio.gather(*waiting)
        assert order == ["large", "small"]
        assert budget.try_acquire(10) and not budget.try_acquire(1)

    in_own_loop(run())


def test_a_canceled_image_no_longer_waits():
    async def run():
        budget = PixelBudget(100)
        await budget.acquire(60)
        waiting = asyncio.create_task(budget.acquire(80))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert budget.try_acquire(40)

    in_own_loop(run())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_threads_never_exceed_the_limit(sizes):
    budget = PixelBudget(100)
    with ThreadPoolExecutor(4) as pool:
        acquired = sum(size for size, fits in zip(sizes, pool.map(budget.try_acquire, sizes), strict=True) if fits)
    assert acquired <= 100
    # What was refused did not fit beside what was acquired.
    assert acquired == sum(sizes) or acquired > 50
    budget.release(acquired)
    assert budget.try_acquire(1000)
