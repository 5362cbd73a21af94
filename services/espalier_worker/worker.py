"""The worker: its book of leases, the attempts that run, and a session that is opened again for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from espalier_kit.artifacts import ArtifactStore
from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError
from espalier_kit.execution import ModelEndpoint, Task
from espalier_kit.retry import Backoff
from espalier_rpc.convert import endpoints_from_wire
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.views import TaskReport
from espalier_worker import messages
from espalier_worker.context import Abort, AttemptContext, identity
from espalier_worker.executors import Executors
from espalier_worker.health import Facts
from espalier_worker.leases import Grant, Lease, Leases
from espalier_worker.metrics import Metrics
from espalier_worker.run import Attempt, Runner
from espalier_worker.session import Client, Session

log = logging.getLogger(__name__)

RECONNECT = Backoff(first_s=0.4, longest_s=5.0)
LEAVE_S = 8.0
"""After the drain: seconds for the last results to be acked. Together with `drain_s` less than a pod's 30 s."""
TOLD_FROM_S = 1.0
"""Shorter attempts that succeed pass in silence: at thousands a second their lines would cost more than they do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is. `drain_s` seconds are what running tasks get once the worker itself is told to stop.

    A worker with tags may run tasks that require them, one with resources tasks that take some; `at_most` attempts
    end it (None: as many as there are).
    """

    worker_id: str
    job_uid: str = ""
    pool: str = ""
    capacity: int = 4
    prefetch: int = 2
    drain_s: float = 20.0
    tags: tuple[str, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    at_most: int | None = None
    namespace: str = ""
    heartbeat_s: float = 0.0


class Worker:
    """`connect` opens a fresh client per session; `artifacts` gives a namespace's store."""

    def __init__(
        self, identity: Identity, *, connect: Callable[[], Client], executors: Executors,
        artifacts: Callable[[str], ArtifactStore], clock: Clock, metrics: Metrics,
    ) -> None:
        self._identity = identity
        self._connect = connect
        self._types = executors.types
        self._version = executors.version
        self._runner = Runner(executors)
        self._artifacts = artifacts
        self._clock = clock
        self._metrics = metrics
        self._leases = Leases(capacity=identity.capacity, prefetch=identity.prefetch, at_most=identity.at_most)
        metrics.show(self._leases)
        self._attempts: dict[Lease, Attempt] = {}
        self._endpoints: dict[str, tuple[ModelEndpoint, ...]] = {}
        self._wake = asyncio.Event()
        self._rng = random.Random()  # jitter only
        self._is_connected = False
        self._is_room_heard = False
        self._is_dismissed = False
        self._tries = 0
        self._last_try = clock.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` or a Drain from the coordinator, then finish what runs, hand back the rest and return."""
        talking = asyncio.create_task(self._talk(), name="talk")
        stopping = asyncio.create_task(self._drain_at(stop), name="drain")
        try:
            await asyncio.wait({talking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if talking.done():
                talking.result()
        finally:
            for attempt in self._attempts.values():
                attempt.abandon()
            for task in (talking, stopping):
                task.cancel()
            await asyncio.gather(talking, stopping, return_exceptions=True)

    def facts(self) -> Facts:
        """What health is judged by."""
        return Facts(
            is_connected=self._is_connected, is_draining=self._leases.is_draining,
            since_last_try_s=self._clock.monotonic() - self._last_try, oldest_stray_s=self._runner.oldest_stray_s(),
        )

    @property
    def is_dismissed(self) -> bool:
        """Whether the coordinator said that there is no more work for it."""
        return self._is_dismissed

    @property
    def settled(self) -> TaskReport | None:
        """The last result that is on the coordinator's disk."""
        return self._leases.settled

    # ------------------------------------------------------------ the session's desk
    def hello(self) -> pb.WorkerMessage:
        self._leases.new_session()
        return messages.hello(
            worker_id=self._identity.worker_id, job_uid=self._identity.job_uid, capacity=self._identity.capacity,
            types=self._types, in_flight=self._leases.held(), pool=self._identity.pool,
            namespace=self._identity.namespace, tags=self._identity.tags,
            prefetch=self._identity.prefetch, resources=self._identity.resources, version=self._version,
        )

    def due(self) -> tuple[pb.WorkerMessage, ...]:
        out = [*messages.results(self._leases.take_results())]
        if back := self._leases.take_hand_back():
            out.append(messages.hand_back(back))
        if n := self._leases.take_want():
            messages.ask(out, n, with_results=self._is_room_heard)
        return tuple(out)

    def heartbeat(self) -> pb.WorkerMessage:
        told = ((lease, attempt.context.take_progress()) for lease, attempt in self._attempts.items())
        return messages.heartbeat((lease, *progress) for lease, progress in told if progress is not None)

    @property
    def is_done(self) -> bool:
        return self._leases.is_draining and self._leases.is_empty

    def receive(self, message: pb.CoordinatorMessage) -> None:
        match message.WhichOneof("kind"):
            case "welcome":
                self._welcomed(message.welcome)
            case "tasks":
                self._granted(message.tasks)
            case "ack":
                self._leases.ack(messages.leases(message.ack))
            case "cancel":
                self._cancel(messages.leases(message.cancel), message.cancel.reason)
            case "revoke":
                self._leases.give_back(messages.leases(message.revoke))
            case "context":
                self._know_endpoints(message.context)
            case "drain":
                log.info("draining", extra={"reason": message.drain.reason})
                self._is_dismissed = True
                self._leases.drain()
        self._changed()

    # ------------------------------------------------------------ inside
    async def _talk(self) -> None:
        while not self.is_done:
            self._last_try = self._clock.monotonic()
            self._tries += 1
            try:
                await self._converse()
            except EspalierError as error:
                log.warning("session lost", extra={"reason": error.reason, "detail": str(error), "tries": self._tries})
                await self._clock.sleep(RECONNECT.delay_s(self._tries, self._rng))

    async def _converse(self) -> None:
        client = self._connect()
        try:
            session = Session(self, wake=self._wake, clock=self._clock, heartbeat_s=self._identity.heartbeat_s)
            await session.run(client)
        finally:
            self._is_connected = False
            self._metrics.connected.set(0)
            await client.close()

    def _welcomed(self, welcome: pb.Welcome) -> None:
        self._is_connected = True
        self._is_room_heard = welcome.hears_room
        self._tries = 0
        self._metrics.connected.set(1)
        self._metrics.sessions.inc()
        log.info("session open", extra={"epoch": welcome.epoch, "held": len(self._leases.held())})

    def _granted(self, tasks: pb.Tasks) -> None:
        grants, unreadable = messages.grants(tasks, self._clock.now())
        for report in unreadable:
            self._leases.reject(report)
        for lease in self._leases.grant(grants):
            self._abort(lease, Abort.CANCELLED)

    def _cancel(self, leases: tuple[Lease, ...], said: str) -> None:
        for lease in leases:
            self._leases.cancel_queued(lease)
            self._abort(lease, Abort.CANCELLED, said)

    def _abort(self, lease: Lease, reason: Abort, said: str = "") -> None:
        if attempt := self._attempts.get(lease):
            attempt.context.abort(reason, said)

    def _know_endpoints(self, context: pb.JobContext) -> None:
        """None: the job is over, or has none any more."""
        if endpoints := endpoints_from_wire(context.endpoints):
            self._endpoints[context.job_uid] = endpoints
        else:
            self._endpoints.pop(context.job_uid, None)

    def _endpoints_of(self, job_uid: str) -> tuple[ModelEndpoint, ...]:
        return self._endpoints.get(job_uid, ())

    def _changed(self) -> None:
        """Start what may start, and let the session say what is new."""
        for grant in self._leases.start():
            self._attempts[grant.lease] = self._begin(grant)
        self._wake.set()

    def _begin(self, grant: Grant) -> Attempt:
        task = grant.at(self._clock.now())
        endpoints = partial(self._endpoints_of, task.job_uid)
        context = AttemptContext(task, artifacts=self._artifacts(task.namespace), endpoints=endpoints)
        if log.isEnabledFor(logging.DEBUG):
            context.log.debug("attempt started")
        return self._runner.start(task, context, timeout_s=grant.timeout_s, ended=self._ended)

    def _ended(self, task: Task, report: TaskReport) -> None:
        self._metrics.attempts.labels(task.type, report.outcome, report.reason).inc()
        self._metrics.duration.labels(task.type).observe(report.execution_s)
        level = level_of(report)
        if log.isEnabledFor(level):
            log.log(level, "attempt ended", extra={
                **identity(task), "outcome": report.outcome, "reason": report.reason, "seconds": report.execution_s,
            })
        del self._attempts[Lease(task.id, task.attempt)]
        self._leases.finish(report)
        self._changed()

    async def _drain_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        log.info("draining", extra={"reason": "Stopped", "running": self._leases.running})
        self._leases.drain()
        self._changed()
        if not self._is_connected and self.is_done:
            return
        if running := [attempt.work for attempt in self._attempts.values()]:
            await asyncio.wait(running, timeout=self._identity.drain_s)
        for attempt in tuple(self._attempts.values()):
            attempt.context.abort(Abort.DRAINED)
        await self._clock.sleep(LEAVE_S)


def level_of(report: TaskReport) -> int:
    """How loud the end of an attempt is."""
    is_plain = report.outcome == "done" and report.execution_s < TOLD_FROM_S
    return logging.DEBUG if is_plain else logging.INFO
