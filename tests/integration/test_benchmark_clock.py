"""The generator's own clock on the real machine: no sleeper wakes early, and all of them wake."""

from __future__ import annotations

import asyncio
import time

from espalier_benchmark.precise import precise_clock


async def test_sleepers_wake_in_the_order_of_their_time_and_never_early() -> None:
    woke: list[float] = []
    with precise_clock() as clock:
        begun = time.monotonic()

        async def sleeper(seconds: float) -> None:
            await clock.sleep(seconds)
            assert time.monotonic() - begun >= seconds
            woke.append(seconds)

        await asyncio.gather(*(sleeper(seconds) for seconds in (0.03, 0.0, 0.0101, 0.0105, 0.02)))
    assert woke == sorted(woke)


async def test_a_cancelled_sleeper_keeps_nobody_else_waiting() -> None:
    with precise_clock() as clock:
        first, second = asyncio.create_task(clock.sleep(0.01)), asyncio.create_task(clock.sleep(0.02))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(second, 5)
    assert first.cancelled()
