"""A worker's life, one call at a time; the same engine and the same rules as a Session."""

from __future__ import annotations

import math
import uuid

from espalier_coordinator.access import Identity
from espalier_coordinator.calls.remote import RemoteWorker, unknown_worker
from espalier_coordinator.host import Host
from espalier_coordinator.messages import Hello, Lease, Report
from espalier_coordinator.state import TaskEntry
from espalier_coordinator.wire import (
    assignments_to_wire,
    check_namespace,
    context_to_wire,
    hello_from_wire,
    leases_from_wire,
    leases_to_wire,
    progress_from_wire,
    report_from_wire,
)
from espalier_kit.clock import Clock
from espalier_kit.errors import Permanent
from espalier_rpc.jsonform import embedded
from espalier_rpc.v1 import coordinator_pb2 as pb

MAX_WAIT_S = 30.0
"""Longest time that a pull may wait for its first task."""


def introduced(caller: Identity, message: pb.Hello, *, address: str = "") -> Hello:
    """A worker's introduction, in the namespace or pool that its account may work for. Raises `Forbidden`."""
    reach = caller.reach_for(message.pool)
    namespace = None if message.pool else message.namespace or reach
    if not message.pool:
        caller.require_work(namespace)
        if namespace is not None:
            check_namespace(namespace)
    return hello_from_wire(message, namespace, address=address)


class WorkerCalls:
    """Registered workers that speak by calls. Each acts only as itself, in its own namespace."""

    def __init__(self, host: Host, clock: Clock, *, heartbeat_s: float) -> None:
        self._host = host
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._workers: dict[str, RemoteWorker] = {}

    async def register(self, caller: Identity, request: pb.RegisterWorkerRequest) -> pb.RegisterWorkerResponse:
        """Register a worker. Registering again under the same id keeps what `in_flight` names and frees the rest."""
        hello = introduced(caller, pb.Hello(
            worker_id=request.worker_id or str(uuid.uuid4()), capacity=request.capacity, tags=request.tags,
            types=request.types, job_uid=request.job_uid, pool=request.pool, namespace=request.namespace,
            in_flight=request.in_flight, resources=request.resources, version=request.version,
        ), address=request.address)
        worker = RemoteWorker(self._host, hello, self._clock, heartbeat_s=self._heartbeat_s)
        self._workers[hello.key] = worker
        await worker.start(self._forget)
        return pb.RegisterWorkerResponse(
            worker_id=hello.worker_id, epoch=self._host.engine.epoch, heartbeat_s=self._heartbeat_s,
            receipt=worker.receipt,
        )

    async def deregister(self, caller: Identity, request: pb.DeregisterWorkerRequest) -> pb.DeregisterWorkerResponse:
        """Leave; what it holds is queued again at once."""
        returned = await self._find(caller, request.worker_id).leave()
        return pb.DeregisterWorkerResponse(returned_tasks=returned)

    async def heartbeat(self, caller: Identity, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        """Renews every lease; says what to stop. With a receipt, what never arrived is queued again."""
        worker = self._find(caller, request.worker_id)
        cancelled = await worker.heartbeat(
            leases_from_wire(request.in_flight), progress_from_wire(request.progress), request.receipt
        )
        return pb.HeartbeatResponse(
            epoch=self._host.engine.epoch, cancelled=leases_to_wire(cancelled), drain=worker.is_draining
        )

    async def pull(self, caller: Identity, request: pb.PullTasksRequest) -> pb.PullTasksResponse:
        """Tasks to run, as many as asked for and as capacity allows."""
        if request.max_tasks < 1:
            raise Permanent("max_tasks must be at least 1", reason="InvalidPull")
        if not 0 <= request.wait_s <= MAX_WAIT_S:
            raise Permanent(f"wait_s must be between 0 and {MAX_WAIT_S:g} seconds", reason="InvalidPull")
        worker = self._find(caller, request.worker_id)
        assignments, contexts = await worker.pull(request.max_tasks, request.wait_s)
        return pb.PullTasksResponse(
            tasks=assignments_to_wire(assignments), contexts=[context_to_wire(c) for c in contexts],
            drain=worker.is_draining, receipt=worker.receipt,
        )

    async def report(self, caller: Identity, request: pb.ReportResultRequest) -> pb.ReportResultResponse:
        """Report an attempt's end. Not accepted: not leased to this worker, or another result was first."""
        worker = self._find(caller, request.worker_id)
        report = _report(request)
        before = self._refusal(worker, report.lease)
        await worker.report(report)
        return pb.ReportResultResponse(accepted=not before, reason=before)

    # ------------------------------------------------------------ inside

    def _find(self, caller: Identity, worker_id: str) -> RemoteWorker:
        """The caller's worker of that id: nobody finds one that is another namespace's."""
        for worker in self._workers.values():
            hello = worker.hello
            if hello.worker_id == worker_id and _is_own(caller, hello):
                return worker
        raise unknown_worker(worker_id)

    def _forget(self, worker: RemoteWorker) -> None:
        if self._workers.get(worker.hello.key) is worker:
            del self._workers[worker.hello.key]

    def _refusal(self, worker: RemoteWorker, lease: Lease) -> str:
        """Why a result of this lease will not count; empty where it will, or did already."""
        task = self._host.engine.task(lease.task_id)
        if task is None:
            return "there is no such task: its job was deleted"
        if worker.holds(lease) or _was_accepted(task, worker.hello.key, lease):
            return ""
        return f"attempt {lease.attempt} is not leased to {worker.hello.worker_id}"


def _was_accepted(task: TaskEntry, key: str, lease: Lease) -> bool:
    return task.is_final and task.ending is not None and task.ending.worker == key and (
        lease.attempt == task.spent.attempt + 1
    )


def _is_own(caller: Identity, hello: Hello) -> bool:
    if caller.is_admin:
        return True
    if hello.pool:
        return hello.pool == caller.pool
    if not caller.may_work:
        return False
    return caller.reach is None or (hello.namespace is not None and caller.may_see(hello.namespace))


def _report(request: pb.ReportResultRequest) -> Report:
    if not request.task_id or request.attempt < 1:
        raise Permanent("a result needs task_id and attempt, as the pull gave them", reason="InvalidResult")
    if not math.isfinite(request.execution_time_ms) or request.execution_time_ms < 0:
        raise Permanent("execution_time_ms must be a number that is not negative", reason="InvalidResult")
    if request.result and not isinstance(embedded(request.result), dict):
        raise Permanent('result must be a JSON object, such as {"score": 1}', reason="InvalidResult")
    return report_from_wire(pb.TaskResult(
        lease=pb.Lease(task_id=request.task_id, attempt=request.attempt),
        outcome=request.outcome or ("done" if request.success else "platformFault"), reason=request.reason,
        message=request.error, value=request.result, tallies=request.tallies, children=request.children,
        execution_s=request.execution_time_ms / 1000,
    ))
