"""A worker without a stream: a session of the engine whose other half is calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable

from espalier_coordinator.calls.deliveries import Deliveries
from espalier_coordinator.host import Host, Outbox
from espalier_coordinator.messages import (
    Ack,
    Assignment,
    Cancel,
    Close,
    Drain,
    Hello,
    JobContext,
    Lease,
    Message,
    Progress,
    Report,
    Revoke,
    Tasks,
    Verdict,
)
from espalier_kit.clock import Clock
from espalier_kit.errors import NotFound


class RemoteWorker:
    """What the engine has said to the worker and no call has fetched yet. `pump` ends with the session."""

    def __init__(self, host: Host, hello: Hello, clock: Clock, *, heartbeat_s: float) -> None:
        self.hello = hello
        self.is_draining = False
        self._host = host
        self._clock = clock
        self._outbox: Outbox = host.open_session()
        self._deliveries = Deliveries(f"{host.engine.epoch}/{self._outbox.number}", patience_s=2 * heartbeat_s)
        self._tasks: deque[Assignment] = deque()
        self._contexts: dict[str, JobContext] = {}
        self._cancelled: dict[Lease, None] = {}
        self._acks: dict[Lease, asyncio.Future[None]] = {}
        self._arrived = asyncio.Event()
        self._pulling = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None
        self._why_over = ""

    async def start(self, when_over: Callable[[RemoteWorker], None]) -> None:
        """Introduce it to the engine; raises what the engine refuses. `when_over` hears of the session's end."""
        try:
            effects = self._host.engine.hello(self._outbox.number, self.hello)
        except Exception:
            self._host.close_session(self._outbox)
            raise
        self._pump = asyncio.create_task(self._run(when_over), name=f"worker {self.hello.key}")
        await self._host.settle(effects)

    async def pull(self, count: int, wait_s: float) -> tuple[list[Assignment], list[JobContext]]:
        """Up to `count` tasks that fit into its capacity; waits `wait_s` seconds for the first. One pull at a time."""
        async with self._pulling:
            self._require_session()
            wanted = min(count, self.hello.capacity - len(self._leases()))
            if wanted > 0 and not self._tasks:
                self._host.do(self._host.engine.want(self._outbox.number, wanted))
                await self._wait_for_tasks(wait_s)
            self._require_session()
            taken = [self._tasks.popleft() for _ in range(min(len(self._tasks), max(count, 0)))]
            contexts, self._contexts = list(self._contexts.values()), {}
            self._deliveries.gave([Lease(a.record.id, a.attempt) for a in taken], self._clock.monotonic())
            return taken, contexts

    @property
    def receipt(self) -> str:
        """What the worker is to say in its heartbeats from now on."""
        return self._deliveries.receipt

    async def heartbeat(
        self, in_flight: tuple[Lease, ...], progress: Iterable[Progress], receipt: str = ""
    ) -> tuple[Lease, ...]:
        """It is alive; returns what it should stop: cancelled, or no longer its own.

        What it was given and never got is queued again; the number of that attempt is closed, as one that was
        cancelled: should the answer come after all, it is refused.
        """
        self._require_session()
        self._host.do(self._host.engine.heartbeat(self._outbox.number, progress))
        if lost := self._deliveries.lost(receipt, in_flight, self._leases(), self._clock.monotonic()):
            reports = [Report(lease, Verdict.CANCELLED, "NeverArrived") for lease in lost]
            await self._host.settle(self._host.engine.results(self._outbox.number, reports))
        held = self._leases()
        cancelled, self._cancelled = self._cancelled, {}
        return tuple(dict.fromkeys([*cancelled, *(lease for lease in in_flight if lease not in held)]))

    async def report(self, report: Report) -> None:
        """Hand in a result; returns once its effect, or the one that won over it, is on disk."""
        self._require_session()
        acked = self._acks.setdefault(report.lease, asyncio.get_running_loop().create_future())
        self._host.do(self._host.engine.results(self._outbox.number, [report]))
        await asyncio.shield(acked)

    def holds(self, lease: Lease) -> bool:
        """Whether this very attempt is leased to it."""
        return lease in self._leases()

    async def leave(self) -> int:
        """Hand everything back and end the session; returns how many tasks that were."""
        self._require_session()
        leases = tuple(self._leases())
        self._host.do(self._host.engine.hand_back(self._outbox.number, leases))
        self._outbox.close()
        await self.over()
        return len(leases)

    async def over(self) -> None:
        """Wait for the end of its session."""
        if self._pump is not None:
            await asyncio.shield(self._pump)

    # ------------------------------------------------------------ inside

    async def _run(self, when_over: Callable[[RemoteWorker], None]) -> None:
        try:
            while not self._why_over and (messages := await self._outbox.take()):
                for message in messages:
                    self._take(message)
        finally:
            self._why_over = self._why_over or "its session has ended"
            self._host.close_session(self._outbox)
            self._arrived.set()
            for future in self._acks.values():
                if not future.done():
                    future.set_exception(self._gone())
                    future.exception()  # seen: nobody may be waiting
            when_over(self)

    def _take(self, message: Message) -> None:
        match message:
            case Tasks(tasks):
                self._tasks.extend(tasks)
                self._arrived.set()
            case JobContext(job_uid):
                self._contexts[job_uid] = message
            case Ack(leases):
                for lease in leases:
                    if (future := self._acks.pop(lease, None)) and not future.done():
                        future.set_result(None)
            case Cancel(leases):
                self._cancelled.update(dict.fromkeys(leases))
            case Revoke(leases):
                self._give_back(leases)
            case Drain():
                self.is_draining = True
                self._arrived.set()
            case Close(reason):
                self._why_over = reason
                self._outbox.close()
                self._arrived.set()

    def _give_back(self, leases: tuple[Lease, ...]) -> None:
        """What no call has fetched yet was certainly not started."""
        asked = frozenset(leases)
        unfetched = [a for a in self._tasks if Lease(a.record.id, a.attempt) in asked]
        for assignment in unfetched:
            self._tasks.remove(assignment)
        back = [Lease(a.record.id, a.attempt) for a in unfetched]
        self._host.do(self._host.engine.hand_back(self._outbox.number, back))

    async def _wait_for_tasks(self, wait_s: float) -> None:
        """Until there are some, or none can come; a caller that has gone away in the meantime leaves none behind."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while not self._has_news():
                        self._arrived.clear()
                        await self._arrived.wait()
        except asyncio.CancelledError:
            if not self._why_over:
                self._give_back(tuple(Lease(a.record.id, a.attempt) for a in self._tasks))
            raise
        finally:
            if not self._why_over:
                self._host.engine.withdraw(self._outbox.number)

    def _has_news(self) -> bool:
        self._absorb()
        return bool(self._tasks or self.is_draining or self._why_over)

    def _absorb(self) -> None:
        for message in self._outbox.take_now():
            self._take(message)

    def _leases(self) -> frozenset[Lease]:
        worker = self._host.engine.workers.get(self.hello.key)
        if worker is None:
            return frozenset()
        return frozenset(Lease(t.record.id, t.lease.number) for t in worker.leases.values() if t.lease)

    def _require_session(self) -> None:
        self._absorb()
        if self._why_over:
            raise self._gone()

    def _gone(self) -> NotFound:
        return unknown_worker(self.hello.worker_id, self._why_over)


def unknown_worker(worker_id: str, why: str = "") -> NotFound:
    """What a call by or about a worker that is not registered is answered with."""
    because = f" ({why})" if why else ""
    return NotFound(f"no worker {worker_id!r} is registered{because}: register it, naming what it still runs",
                    reason="UnknownWorker")
