"""The election: who may write, when, and what a lost Lease means."""

from __future__ import annotations

import asyncio

from espalier_kit.clock import ManualClock
from espalier_kit.errors import Retryable
from espalier_kube.cluster import LEASE
from espalier_kube.fake import FakeCluster
from espalier_kube.lease import Election


def candidate(cluster: FakeCluster, clock: ManualClock, identity: str) -> Election:
    return Election(cluster, name="leader", namespace="ns", identity=identity, clock=clock)


async def test_nobody_may_write_before_the_lease_is_theirs() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    first, second = (candidate(cluster, clock, name) for name in "ab")
    assert not first.held
    assert await first.acquire(asyncio.Event())
    assert first.held
    assert not await second._attempt()
    assert not second.held


async def test_a_holder_that_cannot_renew_stops_writing_before_another_may_take_over() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    first, second = (candidate(cluster, clock, name) for name in "ab")
    await first.acquire(asyncio.Event())
    assert not await second._attempt(), "sees the record for the first time"
    await clock.advance(9)
    assert first.held
    await clock.advance(1)
    assert not first.held
    assert not await second._attempt(), "the record must stand still for the whole lease"
    await clock.advance(6)
    assert await second._attempt()
    assert (second.held, second.previous_holder) == (True, "a")


async def test_a_renewed_lease_cannot_be_taken() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    first, second = (candidate(cluster, clock, name) for name in "ab")
    await first.acquire(asyncio.Event())
    for _ in range(20):
        assert await first._attempt()
        assert not await second._attempt()
        await clock.advance(2)
    assert first.held


async def test_keeping_ends_false_when_somebody_else_has_it() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    first = candidate(cluster, clock, "a")
    await first.acquire(asyncio.Event())
    lease = await cluster.get(LEASE, "leader", "ns")
    await cluster.replace({**lease, "spec": {**lease["spec"], "holderIdentity": "b"}})
    assert not await first._attempt()
    assert not first.held


async def test_an_unreachable_server_leaves_the_lease_until_it_runs_out() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    first = candidate(cluster, clock, "a")
    await first.acquire(asyncio.Event())
    cluster.faults = lambda _verb, _kind: Retryable("away")
    await clock.advance(4)
    assert not await first._attempt()
    assert first.held
    await clock.advance(6)
    assert not first.held


async def test_a_released_lease_is_free_at_once() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    first, second = (candidate(cluster, clock, name) for name in "ab")
    await first.acquire(asyncio.Event())
    await first.release()
    assert not first.held
    assert await second._attempt()
    assert (second.took_over, second.previous_holder) == (True, "")
