"""Time as a value: the manual clock and interruptible waits."""

from __future__ import annotations

import asyncio
import random

import pytest

from espalier_kit.clock import ManualClock, wait_or_stop
from espalier_kit.retry import Backoff


async def test_sleepers_wake_in_order_of_their_time_and_see_their_own_time() -> None:
    clock, woken = ManualClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (5, 1, 3)]
    await clock.advance(4)
    assert woken == [(1, 1), (3, 3)]
    await clock.advance(1)
    assert woken[-1] == (5, 5)
    await asyncio.gather(*tasks)


async def test_a_sleeper_that_sleeps_again_wakes_within_the_same_advance() -> None:
    clock, ticks = ManualClock(), []

    async def ticker() -> None:
        for _ in range(3):
            await clock.sleep(2)
            ticks.append(clock.monotonic())

    task = asyncio.create_task(ticker())
    await clock.advance(6)
    await task
    assert ticks == [2, 4, 6]


async def test_waiting_ends_at_once_when_stopped() -> None:
    stop = asyncio.Event()
    stop.set()
    assert await wait_or_stop(stop, 3600)
    assert not await wait_or_stop(asyncio.Event(), 0)


@pytest.mark.parametrize(("attempt", "cap"), [(1, 1), (2, 2), (3, 4), (10, 60), (10_000, 60)])
def test_backoff_doubles_up_to_its_longest(attempt: int, cap: float) -> None:
    backoff, rng = Backoff(first_s=1, longest_s=60), random.Random(7)
    delays = [backoff.delay_s(attempt, rng) for _ in range(200)]
    assert cap / 2 <= min(delays)
    assert max(delays) <= cap
    assert max(delays) > min(delays)
