"""A session made of unary calls: for networks that let no stream through, and to show that both mean the same.

It takes the worker's messages and gives the coordinator's, as `CoordinatorClient.session` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from espalier_kit.clock import Clock, wait_or_stop
from espalier_rpc.client import CoordinatorClient
from espalier_rpc.v1 import coordinator_pb2 as pb

Heard = pb.CoordinatorMessage | Exception | None
"""A message, what a part of the session broke on, or its end."""


class CallsClient:
    """Asks for tasks every `pull_interval_s` seconds while there is room; each ask waits as long for the first."""

    def __init__(
        self, client: CoordinatorClient, *, clock: Clock, pull_interval_s: float, address: str = ""
    ) -> None:
        self._client = client
        self._clock = clock
        self._interval_s = pull_interval_s
        self._address = address
        self._worker_id = ""
        self._wanted = 0
        self._wake = asyncio.Event()
        self._held: set[tuple[str, int]] = set()
        self._receipt = ""
        """Of the last answer that arrived: what it brought is in `_held`."""
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()

    async def session(self, messages: AsyncIterator[pb.WorkerMessage]) -> AsyncIterator[pb.CoordinatorMessage]:
        """The conversation; raises the errors of `espalier_kit.errors`, and whatever else a part of it broke on: half a
        session would wait for ever.
        """
        parts = [asyncio.create_task(self._guarded(part)) for part in (self._speak(messages), self._pull())]
        try:
            while (heard := await self._heard.get()) is not None:
                if isinstance(heard, Exception):
                    raise heard
                yield heard
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    # ------------------------------------------------------------ inside

    async def _guarded(self, part: AsyncIterator[pb.CoordinatorMessage | None]) -> None:
        try:
            async for message in part:
                self._heard.put_nowait(message)
        except Exception as error:  # raised by `session`, which alone is waited for
            self._heard.put_nowait(error)

    async def _speak(self, messages: AsyncIterator[pb.WorkerMessage]) -> AsyncIterator[pb.CoordinatorMessage | None]:
        """Each message as its call; at the end of them the worker is gone."""
        async for message in messages:
            match message.WhichOneof("kind"):
                case "hello":
                    yield await self._register(message.hello)
                case "want":
                    self._want(message.want.n)
                case "results":
                    self._want(message.results.want)
                    yield await self._report(message.results.results)
                case "hand_back":
                    yield await self._report(_given_back(message.hand_back.leases))
                case "heartbeat":
                    async for told in self._beat(message.heartbeat):
                        yield told
        await self._client.unary("DeregisterWorker", pb.DeregisterWorkerRequest(worker_id=self._worker_id))
        yield None

    def _want(self, n: int) -> None:
        self._wanted += n
        self._wake.set()

    async def _register(self, hello: pb.Hello) -> pb.CoordinatorMessage:
        self._worker_id = hello.worker_id
        self._held = {(lease.task_id, lease.attempt) for lease in hello.in_flight}
        answer = await self._client.unary("RegisterWorker", pb.RegisterWorkerRequest(
            worker_id=hello.worker_id, capacity=hello.capacity, tags=hello.tags, types=hello.types,
            namespace=hello.namespace, job_uid=hello.job_uid, pool=hello.pool, resources=hello.resources,
            address=self._address, in_flight=hello.in_flight, version=hello.version,
        ))
        self._receipt = answer.receipt
        return pb.CoordinatorMessage(
            welcome=pb.Welcome(epoch=answer.epoch, heartbeat_s=answer.heartbeat_s, hears_room=True)
        )

    async def _report(self, results: Iterable[pb.TaskResult]) -> pb.CoordinatorMessage:
        """Each is on disk, or was refused for good, once its answer is here."""
        acked = pb.Ack()
        for result in results:
            await self._client.unary("ReportResult", pb.ReportResultRequest(
                worker_id=self._worker_id, task_id=result.lease.task_id, attempt=result.lease.attempt,
                success=result.outcome == "done", outcome=result.outcome, result=result.value, error=result.message,
                reason=result.reason, tallies=result.tallies, children=result.children,
                execution_time_ms=result.execution_s * 1000,
            ))
            self._held.discard((result.lease.task_id, result.lease.attempt))
            acked.leases.append(result.lease)
        return pb.CoordinatorMessage(ack=acked)

    async def _beat(self, beat: pb.Heartbeat) -> AsyncIterator[pb.CoordinatorMessage]:
        answer = await self._client.unary("Heartbeat", pb.HeartbeatRequest(
            worker_id=self._worker_id, progress=beat.progress, receipt=self._receipt,
            in_flight=[pb.Lease(task_id=task_id, attempt=attempt) for task_id, attempt in sorted(self._held)],
        ))
        if answer.cancelled:
            yield pb.CoordinatorMessage(cancel=pb.Cancel(leases=answer.cancelled))
        if answer.drain:
            yield pb.CoordinatorMessage(drain=pb.Drain(reason="the coordinator says so"))

    async def _pull(self) -> AsyncIterator[pb.CoordinatorMessage]:
        is_draining = False
        while not is_draining:
            if not self._wanted:
                self._wake.clear()
                await self._wake.wait()
            answer = await self._client.unary("PullTasks", pb.PullTasksRequest(
                worker_id=self._worker_id, max_tasks=self._wanted, wait_s=min(self._interval_s, 30.0)
            ), wait_s=self._interval_s)
            self._wanted -= len(answer.tasks)
            self._held.update((task.lease.task_id, task.lease.attempt) for task in answer.tasks)
            self._receipt = answer.receipt
            for context in answer.contexts:
                yield pb.CoordinatorMessage(context=context)
            if answer.tasks:
                yield pb.CoordinatorMessage(tasks=pb.Tasks(tasks=answer.tasks))
            else:
                self._wake.clear()
                await wait_or_stop(self._wake, self._interval_s)
            if is_draining := answer.drain:
                yield pb.CoordinatorMessage(drain=pb.Drain(reason="the coordinator says so"))


def _given_back(leases: Iterable[pb.Lease]) -> list[pb.TaskResult]:
    """Unstarted tasks go back as attempts that were cancelled: queued again, no fault counted."""
    return [pb.TaskResult(lease=lease, outcome="cancelled", reason="HandedBack") for lease in leases]
