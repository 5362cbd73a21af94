"""Workers that speak by calls: silence, cancelled pulls, drained and revoked ones. Time stands still unless moved."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from espalier_coordinator.access import Identity
from espalier_coordinator.calls.book import Calls, calls_of
from espalier_coordinator.engine import Engine, Limits
from espalier_coordinator.health import Health
from espalier_coordinator.host import Host
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.errors import NotFound
from espalier_kit.retry import Backoff
from espalier_rpc.v1 import coordinator_pb2 as pb
from tests.support.coordination import Hands

ADMIN, WORKER = Identity("admin", None, is_admin=True), Identity("w", "default")
LEASE_S, HEARTBEAT_S = 30.0, 5.0


class Desk:
    """A coordinator without a transport, and a clock to move."""

    def __init__(self) -> None:
        self.clock = Hands()
        limits = Limits(lease_s=LEASE_S, backoff=Backoff(0.001, 0.001))
        self.host = Host(Engine(self.clock, random.Random(1), epoch="1-x", limits=limits), MemoryStore(), self.clock)
        self.host.writer.start()
        self.receipts: list[str] = []
        """Of every answer to a pull."""
        self.calls: Calls = calls_of(self.host, Health(self.host, self.clock), self.clock)

    async def submit(self, *keys: str) -> None:
        tasks = [pb.TaskSpec(key=key, type="t") for key in keys]
        await self.calls.jobs.submit(ADMIN, pb.SubmitJobRequest(uid="job", namespace="default", tasks=tasks))

    async def register(self, name: str, capacity: int = 1) -> None:
        await self.calls.workers.register(WORKER, pb.RegisterWorkerRequest(
            worker_id=name, capacity=capacity, types=["t"]
        ))

    async def pull(self, name: str, count: int = 1, wait_s: float = 0.0) -> list[pb.Assignment]:
        request = pb.PullTasksRequest(worker_id=name, max_tasks=count, wait_s=wait_s)
        answer = await self.calls.workers.pull(WORKER, request)
        self.receipts.append(answer.receipt)
        return list(answer.tasks)

    async def beat(self, name: str, receipt: str, *held: pb.Assignment) -> None:
        await self.calls.workers.heartbeat(WORKER, pb.HeartbeatRequest(
            worker_id=name, in_flight=[task.lease for task in held], receipt=receipt
        ))
        await self.host.settle(self.host.engine.tick())

    async def report(self, name: str, task: pb.Assignment) -> pb.ReportResultResponse:
        return await self.calls.workers.report(WORKER, pb.ReportResultRequest(
            worker_id=name, task_id=task.lease.task_id, attempt=task.lease.attempt, success=True
        ))

    async def pass_time(self, seconds: float, *alive: str) -> None:
        for _ in range(round(seconds)):
            self.clock.move(1)
            for name in alive:
                await self.calls.workers.heartbeat(WORKER, pb.HeartbeatRequest(worker_id=name))
            await self.host.settle(self.host.engine.tick())

    async def view(self) -> pb.JobView:
        return await self.calls.jobs.get(ADMIN, pb.GetJobRequest(uid="job"))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    made.host.writer.stop(5)


async def test_a_silent_worker_loses_what_it_leased_and_one_that_is_heard_does_not(desk: Desk) -> None:
    await desk.submit("a", "b")
    await desk.register("silent")
    await desk.register("heard")
    (lost,), (kept,) = await desk.pull("silent"), await desk.pull("heard")
    await desk.pass_time(LEASE_S + 1, "heard")
    with pytest.raises(NotFound, match="no worker 'silent' is registered"):
        await desk.pull("silent")
    assert (await desk.report("heard", kept)).accepted
    await desk.pass_time(1, "heard")
    (again,) = await desk.pull("heard")
    assert (again.key, again.lease.attempt) == (lost.key, 2)
    await desk.register("silent")
    late = await desk.report("silent", lost)
    assert (late.accepted, late.reason) == (False, "attempt 1 is not leased to silent")
    assert (await desk.report("heard", again)).accepted
    view = await desk.view()
    assert (view.state, view.counts.done, view.lost_leases) == ("complete", 2, 1)


async def test_a_cancelled_pull_gives_back_what_came_in_the_same_moment(desk: Desk) -> None:
    await desk.register("fickle")
    waiting = asyncio.create_task(desk.pull("fickle", wait_s=20))
    await asyncio.sleep(0)
    async with desk.host.watch() as watch:
        submitted = asyncio.create_task(desk.submit("a"))
        await watch.take()  # the very moment in which the task was leased: nothing else has run since
        assert desk.host.engine.workers["default/fickle"].leases
    waiting.cancel()
    await asyncio.gather(waiting, submitted, return_exceptions=True)
    assert waiting.cancelled()
    assert (await desk.view()).counts.pending == 1
    assert [t.key for t in await desk.pull("fickle")] == ["a"]


async def test_an_answer_that_was_lost_strands_nothing(desk: Desk) -> None:
    await desk.submit("a", "b")
    await desk.register("w", capacity=2)
    (kept,) = await desk.pull("w")
    (lost,) = await desk.pull("w")
    receipt = desk.receipts[-2]
    for _ in range(2):
        await desk.beat("w", receipt, kept)
        assert await desk.pull("w") == [], "its answer may still be under way"
        desk.clock.move(HEARTBEAT_S)
    await desk.beat("w", receipt, kept)
    (again,) = await desk.pull("w")
    assert (again.key, again.lease.attempt) == (lost.key, lost.lease.attempt + 1)
    assert not (await desk.report("w", lost)).accepted
    assert (await desk.report("w", again)).accepted
    assert (await desk.report("w", kept)).accepted
    view = await desk.view()
    assert (view.state, view.counts.done, view.lost_leases) == ("complete", 2, 0)
    assert {t.attempts for t in view.outcomes} == {1}, "no retry was spent"


async def test_a_heartbeat_without_a_receipt_takes_nothing_from_a_client_that_lists_nothing(desk: Desk) -> None:
    await desk.submit("a")
    await desk.register("simple")
    (held,) = await desk.pull("simple")
    await desk.pass_time(2 * LEASE_S, "simple")
    assert (await desk.report("simple", held)).accepted


async def test_a_worker_never_holds_more_than_its_capacity(desk: Desk) -> None:
    await desk.submit(*"abcdef")
    await desk.register("w", capacity=4)
    first = await desk.pull("w", 3)
    assert len(first) == 3
    assert len(await desk.pull("w", 3)) == 1
    assert await desk.pull("w", 3) == []
    await desk.report("w", first[0])
    assert len(await desk.pull("w", 3)) == 1


async def test_a_drained_worker_gets_nothing_more_and_hears_of_it(desk: Desk) -> None:
    await desk.submit("a")
    await desk.register("w")
    waiting = asyncio.create_task(desk.calls.workers.pull(
        WORKER, pb.PullTasksRequest(worker_id="other", max_tasks=1)
    ))
    with pytest.raises(NotFound):
        await waiting
    await desk.calls.fleet.drain(ADMIN, pb.DrainWorkerRequest(worker_id="w"))
    answer = await desk.calls.workers.pull(WORKER, pb.PullTasksRequest(worker_id="w", max_tasks=1, wait_s=20))
    assert (answer.drain, list(answer.tasks)) == (True, [])
    beat = await desk.calls.workers.heartbeat(WORKER, pb.HeartbeatRequest(worker_id="w"))
    assert beat.drain


async def test_a_session_that_takes_the_name_over_ends_the_calls(desk: Desk) -> None:
    await desk.register("w")
    first = desk.host.engine.workers["default/w"].session
    await desk.register("w")
    assert desk.host.engine.workers["default/w"].session != first
    assert (await desk.calls.workers.heartbeat(WORKER, pb.HeartbeatRequest(worker_id="w"))).epoch == "1-x"
