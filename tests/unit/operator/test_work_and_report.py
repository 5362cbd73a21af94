"""The coordinator's port, and how things are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from espalier_kit.clock import ManualClock
from espalier_kit.errors import Permanent, Retryable
from espalier_kit.execution import ModelEndpoint
from espalier_kube.cluster import EVENT, GRADING_JOB
from espalier_kube.fake import FakeCluster
from espalier_operator.cache import Cache
from espalier_operator.plan.models import endpoints_digest
from espalier_operator.plan.outcome import Notice
from espalier_operator.report import Reporter
from espalier_operator.watching import Intake
from espalier_operator.work import Work
from espalier_operator.work_fake import FakeCoordinator
from espalier_rpc.views import JobRequest, JobUpdate, JobView
from tests.support.operator_world import grading_job

ENDPOINT = ModelEndpoint("code", "https://127.9.2.1:8100", "tiny", api_key="k")


def request(uid: str = "u-1") -> JobRequest:
    return JobRequest(uid, "course", "week-1", "GradingJob", tasks=(), endpoints=(ENDPOINT,))


class Follower:
    """A `Work` that follows a FakeCoordinator, and what it was told."""

    def __init__(self) -> None:
        self.clock, self.coordinator = ManualClock(), FakeCoordinator()
        self.views: list[JobView] = []
        self.comings_and_goings = 0
        self.work = Work(self.coordinator, on_view=self._view, on_away=self._count, clock=self.clock)
        self.stop, self._told = asyncio.Event(), asyncio.Event()

    def _view(self, view: JobView) -> None:
        self.views.append(view)
        self._told.set()

    def _count(self) -> None:
        self.comings_and_goings += 1
        self._told.set()

    async def until(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not predicate():
                self._told.clear()
                await self._told.wait()


async def test_views_are_followed_and_absence_is_timed() -> None:
    follower = Follower()
    running = asyncio.create_task(follower.work.run(follower.stop))
    await follower.until(lambda: follower.work.is_synced)
    await follower.coordinator.submit(request())
    await follower.until(lambda: follower.work.view("u-1") is not None)
    assert (follower.work.away_s, follower.comings_and_goings) == (None, 1)
    follower.coordinator.leave()
    await follower.until(lambda: follower.work.away_s is not None)
    await follower.clock.advance(12)
    assert follower.work.away_s == 12
    assert follower.comings_and_goings == 2
    follower.coordinator.restart()
    await follower.until(lambda: follower.work.away_s is None)
    assert follower.views[-1].epoch == "2"
    running.cancel()


async def test_what_was_pushed_is_known_until_the_coordinator_starts_again() -> None:
    follower = Follower()
    await follower.work.perform(request())
    assert follower.work.pushed("u-1") == endpoints_digest((ENDPOINT,))
    follower.coordinator.epoch = "2"
    follower.work._take(follower.coordinator.move("u-1", epoch="2"))
    assert follower.work.pushed("u-1") == ""


async def test_a_job_that_the_coordinator_lost_is_handed_over_again() -> None:
    follower = Follower()
    await follower.work.perform(request())
    await follower.coordinator.delete("u-1")
    with pytest.raises(Retryable, match="handed over again"):
        await follower.work.perform(JobUpdate("u-1", suspended=True))
    assert follower.work.view("u-1") is None


async def test_orphans_are_swept() -> None:
    follower = Follower()
    for uid in ("keep", "orphan"):
        await follower.work.perform(request(uid))
    assert await follower.work.sweep(lambda view: view.uid == "keep") == 1
    assert follower.coordinator.deleted == ["orphan"]
    assert {v.uid for v in follower.work.views_named("GradingJob", "course", "week-1")} == {"keep"}


def test_digests_of_endpoints_change_with_everything_a_judge_must_know() -> None:
    changes = ({"ready": False}, {"url": "https://x"}, {"api_key": "other"}, {"server_name": "n"}, {"node": "n"})
    digests = {endpoints_digest((replace(ENDPOINT, **change),)) for change in changes}
    assert len(digests | {endpoints_digest((ENDPOINT,))}) == len(changes) + 1


async def told(cluster: FakeCluster) -> list[tuple[str, int]]:
    return [(e["message"], e["count"]) for e in (await cluster.list(EVENT)).items]


async def test_the_same_thing_is_one_event_counted_up() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    reporter = Reporter(cluster, Intake(Cache(), lambda _key: None, clock), clock)
    job = await cluster.create(grading_job())
    for text in ("first", "second"):
        await reporter.tell(job, Notice("WorkerLost", text, key="lease", type="Warning"))
    assert await told(cluster) == [("second", 2)]
    for _ in range(2):
        await reporter.tell(job, Notice("WorkerLost", "pod", key="p-1", once=True))
    assert sorted(await told(cluster)) == [("pod", 1), ("second", 2)]


async def test_long_messages_fit_into_an_event() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    reporter = Reporter(cluster, Intake(Cache(), lambda _key: None, clock), clock)
    await reporter.tell(await cluster.create(grading_job()), Notice("BundleRejected", "x" * 5000))
    ((message, _),) = await told(cluster)
    assert len(message) <= 1024


async def test_a_reason_nobody_documented_cannot_be_written() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    reporter = Reporter(cluster, Intake(Cache(), lambda _key: None, clock), clock)
    with pytest.raises(Permanent, match="MadeUp"):
        await reporter.tell(await cluster.create(grading_job()), Notice("MadeUp", ""))
    assert (await cluster.list(GRADING_JOB)).items


async def test_an_event_that_cannot_be_written_costs_only_the_event() -> None:
    clock = ManualClock()
    cluster = FakeCluster(clock=clock)
    job = await cluster.create(grading_job())
    cluster.faults = lambda _verb, kind: Retryable("busy") if kind == "Event" else None
    await Reporter(cluster, Intake(Cache(), lambda _key: None, clock), clock).tell(job, Notice("Finished", "done"))
