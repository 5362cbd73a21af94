"""Workers that do nothing but follow the protocol: they keep each result until it is acked and reconnect for ever."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import grpc.aio

from bench.coordinator_process import Reachable, stub
from espalier_rpc.v1 import coordinator_pb2 as pb

Call = grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.CoordinatorMessage]

TYPE = "bench.nothing"
BULK, PIECES = 20_000, 2_500
"""Tasks in one request: as much as is handy, or so many that workers begin while others are still on their way."""
RECONNECT_S = 0.2
VIEW_S = 60.0


@dataclass(slots=True)
class Book:
    """What all workers of a load saw."""

    executions: Counter[str] = field(default_factory=Counter)
    acked: int = 0
    last_ack: float = 0.0
    acked_after: dict[int, asyncio.Event] = field(default_factory=dict)
    """Events set once so many results were acked."""

    def ack(self, count: int) -> None:
        self.acked += count
        self.last_ack = time.monotonic()
        for threshold, event in self.acked_after.items():
            if self.acked >= threshold:
                event.set()


class NoOpWorker:
    """One session with `window` tasks on their way."""

    def __init__(self, process: Reachable, book: Book, *, name: str, job_uid: str = "", window: int) -> None:
        self._process = process
        self._book = book
        self._name = name
        self._job_uid = job_uid
        self._window = window
        self._unacked: dict[tuple[str, int], pb.TaskResult] = {}

    async def run(self) -> None:
        """Work until the coordinator says Drain."""
        while True:
            if await self._session():
                return
            await asyncio.sleep(RECONNECT_S)

    async def _session(self) -> bool:
        async with self._process.channel("worker") as channel:
            call = stub(channel).Session()
            try:
                await self._greet(call)
                async for message in call:
                    if await self._receive(call, message):
                        call.cancel()
                        return True
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the latter: it ended while we wrote
                return False  # it is away: come back with what is not acked
        return False

    async def _greet(self, call: Call) -> None:
        await call.write(pb.WorkerMessage(hello=pb.Hello(
            worker_id=self._name, capacity=self._window, types=[TYPE], job_uid=self._job_uid,
            in_flight=[result.lease for result in self._unacked.values()],
        )))
        if self._unacked:
            await call.write(pb.WorkerMessage(results=pb.Results(results=self._unacked.values())))
        await call.write(pb.WorkerMessage(want=pb.Want(n=self._window)))

    async def _receive(self, call: Call, message: pb.CoordinatorMessage) -> bool:
        match message.WhichOneof("kind"):
            case "tasks":
                results = [self._result(task) for task in message.tasks.tasks]
                await call.write(pb.WorkerMessage(results=pb.Results(results=results, want=len(results))))
            case "ack":
                known = [self._unacked.pop((x.task_id, x.attempt), None) for x in message.ack.leases]
                self._book.ack(sum(result is not None for result in known))
            case "drain":
                return True
        return False

    def _result(self, task: pb.Assignment) -> pb.TaskResult:
        self._book.executions[task.lease.task_id] += 1
        result = pb.TaskResult(lease=task.lease, outcome="done", value=b'{"ok":true}', tallies={"n": 1})
        self._unacked[task.lease.task_id, task.lease.attempt] = result
        return result


async def submit(process: Reachable, uid: str, tasks: Sequence[pb.TaskSpec], *, batch: int = BULK) -> None:
    """Submit a job in as many requests as it needs."""
    async with process.channel("admin") as channel:
        calls = stub(channel)
        for start in range(0, len(tasks), batch):
            await calls.SubmitJob(pb.SubmitJobRequest(
                uid=uid, namespace="default", name=uid, kind="Bench", retries=3, tasks=tasks[start:start + batch]
            ))


async def view(process: Reachable, uid: str) -> pb.JobView:
    """The job now."""
    async with process.channel("admin") as channel:
        return await stub(channel).GetJob(pb.GetJobRequest(uid=uid), timeout=VIEW_S)


async def work(workers: Iterable[NoOpWorker]) -> None:
    """Run them all until each was drained."""
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run())
