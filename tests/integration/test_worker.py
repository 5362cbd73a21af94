"""The worker against a scripted coordinator over real gRPC with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from espalier_kit.clock import SystemClock
from espalier_kit.execution import Context, Executor, PlatformFault, Result, Task, TaskSpec, UserFault
from espalier_rpc.client import CoordinatorClient
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_worker.executors import GivenExecutors
from espalier_worker.metrics import Metrics
from espalier_worker.worker import Identity, Worker
from tests.support.coordinator import ScriptedCoordinator, Serving, Talk, assignment, serve


@pytest.fixture(autouse=True)
def _all_log_lines_are_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


class Stage:
    """Executors that a test steers: `test.wait` runs until released."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.release = asyncio.Event()
        self.contexts: dict[str, Context] = {}

    async def echo(self, task: Task, context: Context) -> Result:
        child = TaskSpec(key=f"{task.key}/child", type="test.echo")
        return Result(value={"got": task.payload["n"]}, tallies={"graded": 1.0}, children=(child,))

    async def wait(self, task: Task, context: Context) -> Result:
        self.started.append(task.key)
        self.contexts[task.key] = context
        await context.progress(0.5, "half")
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(task.key)
            raise
        return Result(value={"endpoints": [e.url for e in context.endpoints()]})

    async def user_fault(self, task: Task, context: Context) -> Result:
        raise UserFault("no notebook in the folder", reason="NoNotebook")

    async def platform_fault(self, task: Task, context: Context) -> Result:
        raise PlatformFault("the disk is full", reason="DiskFull")

    async def bug(self, task: Task, context: Context) -> Result:
        raise ZeroDivisionError("division by zero")

    def executors(self) -> GivenExecutors:
        named: dict[str, Executor] = {
            "test.echo": self.echo, "test.wait": self.wait, "test.user": self.user_fault,
            "test.platform": self.platform_fault, "test.bug": self.bug,
        }
        return GivenExecutors(named)


@asynccontextmanager
async def working(
    connect: Callable[[], CoordinatorClient], stage: Stage, *,
    capacity: int = 2, prefetch: int = 1, drain_s: float = 5.0,
) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Event]]:
    identity = Identity(worker_id="worker-0", job_uid="job-1", capacity=capacity, prefetch=prefetch, drain_s=drain_s)
    worker = Worker(
        identity, connect=connect, executors=stage.executors(), artifacts=lambda _: None,  # type: ignore[arg-type, return-value]
        clock=SystemClock(), metrics=Metrics(),
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield running, stop
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def scripted() -> ScriptedCoordinator:
    return ScriptedCoordinator()


@pytest.fixture
async def serving(scripted: ScriptedCoordinator, tmp_path: Path) -> AsyncIterator[Serving]:
    serving = await serve(scripted, tmp_path)
    yield serving
    await serving.server.stop(0)


def grant(talk: Talk, *tasks: pb.Assignment) -> None:
    talk.tell(tasks=pb.Tasks(tasks=tasks))


def ack(talk: Talk) -> None:
    talk.tell(ack=pb.Ack(leases=[r.lease for r in talk.results()]))


async def first_talk(scripted: ScriptedCoordinator, *, number: int = 1) -> Talk:
    talks = scripted.talks
    await scripted.until(lambda: len(talks) >= number and bool(talks[number - 1].wanted()), "a worker wants")
    return scripted.talks[number - 1]


async def test_says_who_it_is_and_wants_its_window(scripted: ScriptedCoordinator, serving: Serving) -> None:
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
    assert talk.token == "secret"
    assert (talk.hello().worker_id, talk.hello().job_uid, talk.hello().capacity) == ("worker-0", "job-1", 2)
    assert "test.echo" in talk.hello().types
    assert talk.wanted() == 3


@pytest.mark.parametrize("hears_room", [True, False])
async def test_asks_for_more_in_a_way_that_this_coordinator_hears(hears_room: bool, tmp_path: Path) -> None:
    scripted = ScriptedCoordinator(hears_room=hears_room)
    serving = await serve(scripted, tmp_path)
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
        grant(talk, assignment("a"), assignment("b"), assignment("c"))
        await scripted.until(lambda: len(talk.results()) == 3 and talk.wanted() == 6, "room for as many more")
    assert any(message.results.want for message in talk.said) is hears_room
    await serving.server.stop(0)


async def test_result_with_value_tallies_and_children(scripted: ScriptedCoordinator, serving: Serving) -> None:
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
        grant(talk, assignment("a"))
        await scripted.until(lambda: len(talk.results()) == 1, "a result")
    result = talk.results()[0]
    assert (result.outcome, json.loads(result.value), dict(result.tallies)) == ("done", {"got": 1}, {"graded": 1.0})
    assert [child.key for child in result.children] == ["a/child"]
    assert result.execution_s > 0


@pytest.mark.parametrize(
    ("type_", "outcome", "reason"),
    [
        ("test.user", "userFault", "NoNotebook"),
        ("test.platform", "platformFault", "DiskFull"),
        ("test.bug", "platformFault", "ZeroDivisionError"),
        ("test.nobody", "platformFault", "UnknownTaskType"),
    ],
)
async def test_faults_by_kind(
    scripted: ScriptedCoordinator, serving: Serving, type_: str, outcome: str, reason: str
) -> None:
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", type_))
        await scripted.until(lambda: len(talk.results()) == 1, "a result")
    result = talk.results()[0]
    assert (result.outcome, result.reason) == (outcome, reason)
    assert result.message


async def test_unreadable_assignment_is_reported(scripted: ScriptedCoordinator, serving: Serving) -> None:
    broken = assignment("a")
    broken.payload = b"{"
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
        grant(talk, broken)
        await scripted.until(lambda: len(talk.results()) == 1, "a result")
    assert (talk.results()[0].outcome, talk.results()[0].reason) == ("platformFault", "BadAssignment")


async def test_deadline_of_the_attempt(scripted: ScriptedCoordinator, serving: Serving) -> None:
    stage = Stage()
    async with working(serving.client, stage):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", "test.wait", timeout_s=0.1))
        await scripted.until(lambda: len(talk.results()) == 1, "a result")
    assert (talk.results()[0].outcome, talk.results()[0].reason) == ("platformFault", "Deadline")
    assert stage.cancelled == ["a"]


async def test_cancel_reaches_running_and_queued(scripted: ScriptedCoordinator, serving: Serving) -> None:
    stage = Stage()
    async with working(serving.client, stage, capacity=1, prefetch=1):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", "test.wait"), assignment("b", "test.wait"))
        await scripted.until(lambda: bool(talk.progress()), "progress of a")
        leases = [pb.Lease(task_id=t, attempt=1) for t in ("a", "b")]
        talk.tell(cancel=pb.Cancel(leases=leases, reason="wrong rubric"))
        await scripted.until(lambda: len(talk.results()) == 2, "two results")
    assert "the attempt was cancelled: wrong rubric" in {r.message for r in talk.results()}
    assert {r.lease.task_id: r.outcome for r in talk.results()} == {"a": "cancelled", "b": "cancelled"}
    assert stage.started == ["a"]


async def test_revoke_gives_back_what_has_not_started(scripted: ScriptedCoordinator, serving: Serving) -> None:
    stage = Stage()
    async with working(serving.client, stage, capacity=1, prefetch=1):
        talk = await first_talk(scripted)
        assert talk.hello().prefetch == 1
        grant(talk, assignment("a", "test.wait"), assignment("b", "test.wait"))
        await scripted.until(lambda: bool(talk.progress()), "progress of a")
        talk.tell(revoke=pb.Revoke(leases=[pb.Lease(task_id=t, attempt=1) for t in ("a", "b", "unknown")]))
        await scripted.until(lambda: bool(talk.handed_back()), "a hand-back")
    assert talk.handed_back() == ["b"]
    assert stage.started == ["a"]


async def test_progress_rides_on_heartbeats(scripted: ScriptedCoordinator, serving: Serving) -> None:
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", "test.wait"))
        await scripted.until(lambda: bool(talk.progress()), "progress")
    told = talk.progress()[0]
    assert (told.lease.task_id, told.fraction, told.message) == ("a", 0.5, "half")


async def test_newest_endpoints_reach_a_running_attempt(scripted: ScriptedCoordinator, serving: Serving) -> None:
    stage = Stage()
    async with working(serving.client, stage):
        talk = await first_talk(scripted)
        for url in ("https://old", "https://new"):
            endpoints = pb.EndpointList(endpoints=[pb.Endpoint(role="code", url=url, model="m", ready=True)])
            talk.tell(context=pb.JobContext(job_uid="job-1", endpoints=endpoints))
            if url == "https://old":
                grant(talk, assignment("a", "test.wait"))
                await scripted.until(lambda: bool(talk.progress()), "a runs")
                assert stage.contexts["a"].endpoints()[0].url == "https://old"
        grant(talk, assignment("b", "test.echo"))
        await scripted.until(lambda: len(talk.results()) == 1, "b is done, so the new endpoints are known")
        stage.release.set()
        await scripted.until(lambda: len(talk.results()) == 2, "a is done")
    assert json.loads(talk.results()[1].value) == {"endpoints": ["https://new"]}


async def test_room_for_more_is_told_with_the_results(scripted: ScriptedCoordinator, serving: Serving) -> None:
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
        grant(talk, assignment("a"), assignment("b"))
        await scripted.until(lambda: len(talk.results()) == 2, "two results")
        await scripted.until(lambda: talk.wanted() == 5, "the window again")
    assert [m.want.n for m in talk.said if m.HasField("want")] == [3]


async def test_result_is_sent_again_until_acked(scripted: ScriptedCoordinator, serving: Serving) -> None:
    async with working(serving.client, Stage()):
        talk = await first_talk(scripted)
        grant(talk, assignment("a"))
        await scripted.until(lambda: len(talk.results()) == 1, "a result")
        talk.hang_up()
        second = await first_talk(scripted, number=2)
        await scripted.until(lambda: len(second.results()) == 1, "the result again")
        assert [lease.task_id for lease in second.hello().in_flight] == ["a"]
        ack(second)
        second.hang_up()
        third = await first_talk(scripted, number=3)
    assert not third.hello().in_flight
    assert not third.results()


async def test_running_attempt_survives_a_restart_of_the_coordinator(
    scripted: ScriptedCoordinator, serving: Serving
) -> None:
    stage = Stage()
    async with working(serving.client, stage):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", "test.wait"))
        await scripted.until(lambda: bool(talk.progress()), "a runs")
        await serving.server.stop(0)
        successor = ScriptedCoordinator()
        restarted = await serve(successor, serving.folder, port=serving.port)
        try:
            again = await first_talk(successor)
            assert [(lease.task_id, lease.attempt) for lease in again.hello().in_flight] == [("a", 1)]
            assert again.wanted() == 2
            stage.release.set()
            await successor.until(lambda: len(again.results()) == 1, "the result")
        finally:
            await restarted.server.stop(0)
    assert stage.started == ["a"]


async def test_drain_message_finishes_hands_back_and_returns(scripted: ScriptedCoordinator, serving: Serving) -> None:
    stage = Stage()
    async with working(serving.client, stage, capacity=1, prefetch=2) as (running, _):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", "test.wait"), assignment("b"), assignment("c"))
        await scripted.until(lambda: bool(talk.progress()), "a runs")
        talk.tell(drain=pb.Drain(reason="JobFinished"))
        await scripted.until(lambda: len(talk.handed_back()) == 2, "two handed back")
        stage.release.set()
        await scripted.until(lambda: len(talk.results()) == 1, "the last result")
        assert not running.done()
        ack(talk)
        await asyncio.wait_for(running, 10)
    assert sorted(talk.handed_back()) == ["b", "c"]
    assert talk.results()[0].outcome == "done"


async def test_stop_gives_running_tasks_their_time_then_ends_them(
    scripted: ScriptedCoordinator, serving: Serving
) -> None:
    stage = Stage()
    async with working(serving.client, stage, capacity=1, drain_s=0.2) as (running, stop):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", "test.wait"))
        await scripted.until(lambda: bool(talk.progress()), "a runs")
        stop.set()
        await scripted.until(lambda: len(talk.results()) == 1, "the attempt was ended")
        ack(talk)
        await asyncio.wait_for(running, 10)
    assert (talk.results()[0].outcome, talk.results()[0].reason) == ("cancelled", "WorkerStopped")


async def test_stop_without_a_coordinator_returns_at_once(scripted: ScriptedCoordinator, serving: Serving) -> None:
    await serving.server.stop(0)
    async with working(serving.client, Stage()) as (running, stop):
        stop.set()
        await asyncio.wait_for(running, 3)


async def test_a_session_that_the_coordinator_cancels_is_opened_again(
    scripted: ScriptedCoordinator, serving: Serving
) -> None:
    async with working(serving.client, Stage()) as (running, _):
        talk = await first_talk(scripted)
        talk.fail(grpc.StatusCode.CANCELLED)
        await first_talk(scripted, number=2)
        assert not running.done()


async def test_token_is_read_anew_for_each_session(scripted: ScriptedCoordinator, serving: Serving) -> None:
    tokens = iter(["first", "second", "third"])
    async with working(lambda: serving.client(lambda: next(tokens)), Stage()):
        (await first_talk(scripted)).hang_up()
        await first_talk(scripted, number=2)
    assert [talk.token for talk in scripted.talks[:2]] == ["first", "second"]


async def test_newer_attempt_replaces_the_older_one(scripted: ScriptedCoordinator, serving: Serving) -> None:
    stage = Stage()
    async with working(serving.client, stage):
        talk = await first_talk(scripted)
        grant(talk, assignment("a", "test.wait"))
        await scripted.until(lambda: bool(talk.progress()), "attempt 1 runs")
        grant(talk, assignment("a", "test.wait", attempt=2))
        await scripted.until(lambda: any(p.lease.attempt == 2 for p in talk.progress()), "attempt 2 runs")
        stage.release.set()
        await scripted.until(lambda: len(talk.results()) == 1, "one result")
    assert [r.lease.attempt for r in talk.results()] == [2]
