"""`espalier-worker --once` against a scripted coordinator over real gRPC with TLS: its one task, and how it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from espalier_kit.clock import SystemClock
from espalier_kit.execution import Context, PlatformFault, Result, Task
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_worker import once
from espalier_worker.executors import GivenExecutors
from espalier_worker.metrics import Metrics
from espalier_worker.worker import Identity, Worker
from tests.support.coordinator import ScriptedCoordinator, Serving, Talk, assignment, serve


async def echo(task: Task, context: Context) -> Result:
    return Result(value={"attempt": task.attempt})


async def broken(task: Task, context: Context) -> Result:
    raise PlatformFault("the sandbox did not start", reason="SandboxFailed")


@pytest.fixture
async def scripted() -> ScriptedCoordinator:
    return ScriptedCoordinator()


@pytest.fixture
async def serving(scripted: ScriptedCoordinator, tmp_path: Path) -> AsyncIterator[Serving]:
    serving = await serve(scripted, tmp_path)
    yield serving
    await serving.server.stop(0)


class OneShot:
    """A worker that runs until it leaves by itself."""

    def __init__(self, serving: Serving) -> None:
        identity = Identity("pod-1", job_uid="job-1", capacity=1, prefetch=0, tags=("sandbox/container",), at_most=1)
        self.worker = Worker(
            identity, connect=serving.client, executors=GivenExecutors({"test.echo": echo, "test.broken": broken}),
            artifacts=lambda _: None, clock=SystemClock(), metrics=Metrics(),  # type: ignore[arg-type, return-value]
        )  # fmt: skip
        self.stop = asyncio.Event()
        self.running = asyncio.create_task(self.worker.run(self.stop))

    async def code(self) -> int:
        await asyncio.wait_for(self.running, 15)
        return once.exit_code(self.worker.settled, is_dismissed=self.worker.is_dismissed)


async def wanting(scripted: ScriptedCoordinator) -> Talk:
    await scripted.until(lambda: bool(scripted.talks) and scripted.talks[0].wanted() > 0, "the pod wants a task")
    return scripted.talks[0]


@pytest.mark.parametrize(("type_", "code"), [("test.echo", 0), ("test.broken", once.EXIT_AGAIN)])
async def test_it_leaves_when_its_result_is_on_disk_and_never_asks_for_a_second(
    scripted: ScriptedCoordinator, serving: Serving, type_: str, code: int
) -> None:
    pod = OneShot(serving)
    talk = await wanting(scripted)
    assert (list(talk.hello().tags), talk.hello().capacity, talk.wanted()) == (["sandbox/container"], 1, 1)
    talk.tell(tasks=pb.Tasks(tasks=[assignment("a", type_)]))
    await scripted.until(lambda: len(talk.results()) == 1, "a result")
    assert not pod.running.done(), "not acked yet"
    talk.tell(ack=pb.Ack(leases=[r.lease for r in talk.results()]))
    assert await pod.code() == code
    assert talk.wanted() == 1


async def test_a_coordinator_without_work_dismisses_it(scripted: ScriptedCoordinator, serving: Serving) -> None:
    pod = OneShot(serving)
    talk = await wanting(scripted)
    talk.tell(drain=pb.Drain(reason="the job has ended"))
    assert await pod.code() == 0


async def test_stopped_before_it_had_a_task_it_asks_to_be_replaced(
    scripted: ScriptedCoordinator, serving: Serving
) -> None:
    pod = OneShot(serving)
    await wanting(scripted)
    pod.stop.set()
    assert await pod.code() == 143
