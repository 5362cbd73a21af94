"""A session made of calls, against a coordinator that is asked one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest
from google.protobuf.message import Message

from espalier_kit.clock import ManualClock
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_worker.calls import CallsClient


class Desk:
    """One task in the first pull, nothing after it; each answer has its receipt."""

    def __init__(self, *, broken: str = "") -> None:
        self.broken = broken
        self.pulls = 0
        self.beats: list[pb.HeartbeatRequest] = []

    async def unary(self, name: str, request: Message, **_: float) -> Message:
        await asyncio.sleep(0)
        if name == self.broken:
            raise RuntimeError(f"{name} is broken")
        if name == "RegisterWorker":
            return pb.RegisterWorkerResponse(worker_id="w", receipt="r/0")
        if name == "PullTasks":
            self.pulls += 1
            tasks = [pb.Assignment(lease=pb.Lease(task_id="a", attempt=1))] if self.pulls == 1 else []
            return pb.PullTasksResponse(tasks=tasks, receipt=f"r/{self.pulls}")
        assert isinstance(request, pb.HeartbeatRequest)
        self.beats.append(request)
        return pb.HeartbeatResponse(cancelled=request.in_flight)


Said = asyncio.Queue[pb.WorkerMessage]


def talk(desk: Desk, messages: Said) -> AsyncGenerator[pb.CoordinatorMessage]:
    async def said() -> AsyncIterator[pb.WorkerMessage]:
        while True:
            yield await messages.get()

    client = CallsClient(desk, clock=ManualClock(), pull_interval_s=5.0)  # type: ignore[arg-type]
    return client.session(said())  # type: ignore[return-value]  # an async generator, which can be closed


async def test_a_heartbeat_says_the_last_answer_that_arrived_and_what_it_brought() -> None:
    desk, messages = Desk(), Said()
    async with aclosing(talk(desk, messages)) as heard:
        messages.put_nowait(pb.WorkerMessage(hello=pb.Hello(worker_id="w", capacity=1)))
        assert (await anext(heard)).HasField("welcome")
        messages.put_nowait(pb.WorkerMessage(want=pb.Want(n=1)))
        assert (await anext(heard)).HasField("tasks")
        messages.put_nowait(pb.WorkerMessage(heartbeat=pb.Heartbeat()))
        assert (await anext(heard)).cancel.leases[0].task_id == "a"
    (beat,) = desk.beats
    assert (beat.receipt, [lease.task_id for lease in beat.in_flight]) == ("r/1", ["a"])


@pytest.mark.parametrize("broken", ["Heartbeat", "PullTasks"])
async def test_a_session_of_which_one_half_broke_unforeseen_is_over(broken: str) -> None:
    messages = Said()
    async with asyncio.timeout(10), aclosing(talk(Desk(broken=broken), messages)) as heard:
        messages.put_nowait(pb.WorkerMessage(hello=pb.Hello(worker_id="w", capacity=1)))
        assert (await anext(heard)).HasField("welcome")
        messages.put_nowait(pb.WorkerMessage(want=pb.Want(n=1)))
        messages.put_nowait(pb.WorkerMessage(heartbeat=pb.Heartbeat()))
        with pytest.raises(RuntimeError, match=f"{broken} is broken"):
            [message async for message in heard]
