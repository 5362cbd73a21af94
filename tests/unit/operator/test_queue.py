"""The work queue: order, no duplicates, one worker per key, delays, back-off."""

from __future__ import annotations

import asyncio

from espalier_kit.clock import ManualClock
from espalier_kit.retry import Backoff
from espalier_operator.queue import Key, WorkQueue

A, B = Key("GradingJob", "course", "a"), Key("GradingJob", "course", "b")


def queue(clock: ManualClock | None = None) -> WorkQueue:
    return WorkQueue(clock=clock or ManualClock(), backoff=Backoff(first_s=2, longest_s=8), seed=1)


async def test_keys_come_in_order_and_once() -> None:
    work = queue()
    for key in (A, B, A):
        work.add(key)
    assert [await work.take(), await work.take()] == [A, B]
    assert work.depth == 0


async def test_a_key_that_is_worked_on_comes_again_afterwards_not_meanwhile() -> None:
    work = queue()
    work.add(A)
    await work.take()
    work.add(A)
    work.add(A)
    assert work.depth == 0
    work.done(A)
    assert work.depth == 1


async def test_a_delayed_key_comes_when_it_is_due_and_the_earliest_wish_counts() -> None:
    clock = ManualClock()
    work = queue(clock)
    work.add_after(A, 30)
    work.add_after(A, 5)
    taker = asyncio.create_task(work.take())
    await clock.advance(4)
    assert not taker.done()
    await clock.advance(2)
    assert await taker == A
    work.done(A)
    await clock.advance(40)
    assert work.depth == 0, "the later wish was for the same look"


async def test_failures_wait_longer_each_time_until_a_success() -> None:
    work = queue()
    delays = [work.failed(A) for _ in range(4)]
    assert 1 <= delays[0] <= 2 <= delays[1] <= 4 <= delays[2] <= 8
    assert delays[3] <= 8
    work.succeeded(A)
    assert work.failed(A) <= 2


async def test_the_age_of_the_oldest_key_is_known() -> None:
    clock = ManualClock()
    work = queue(clock)
    assert work.oldest_s == 0
    work.add(A)
    await clock.advance(7)
    work.add(B)
    assert work.oldest_s == 7


async def test_a_closed_queue_lets_takers_go() -> None:
    work = queue()
    taker = asyncio.create_task(work.take())
    await asyncio.sleep(0)
    work.close()
    assert await taker is None
