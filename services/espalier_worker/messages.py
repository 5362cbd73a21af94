"""Messages of a session, built and read. Nothing else in the worker sees the generated types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from espalier_kit.errors import Permanent
from espalier_kit.execution import Task
from espalier_rpc.convert import assignment_from_wire, task_report_to_wire
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.views import DEFAULT_TASK_TIMEOUT_S, TaskReport
from espalier_worker.leases import Grant, Lease

MAX_RESULTS_BYTES = 4 * 1024 * 1024
"""A long message would keep heartbeats waiting."""


def hello(
    *, worker_id: str, job_uid: str, capacity: int, types: tuple[str, ...], in_flight: Iterable[Lease],
    pool: str = "", tags: Iterable[str] = (), prefetch: int = 0, resources: Mapping[str, float] | None = None,
    version: str = "", namespace: str = "",
) -> pb.WorkerMessage:
    return pb.WorkerMessage(
        hello=pb.Hello(
            worker_id=worker_id, capacity=capacity, types=types, job_uid=job_uid, pool=pool, tags=tags,
            prefetch=prefetch, resources=resources, version=version, namespace=namespace,
            in_flight=[_lease_to_wire(lease) for lease in in_flight],
        )
    )


def ask(out: list[pb.WorkerMessage], n: int, *, with_results: bool) -> None:
    """For `n` more tasks; `with_results`, in the last message if that tells results: a message costs more than a task.
    """
    if with_results and out and out[-1].HasField("results"):
        out[-1].results.want = n
    else:
        out.append(pb.WorkerMessage(want=pb.Want(n=n)))


def results(reports: Iterable[TaskReport]) -> Iterator[pb.WorkerMessage]:
    """As few messages as keep each, of more than one result, below `MAX_RESULTS_BYTES`."""
    batch, size = pb.Results(), 0
    for result in map(task_report_to_wire, reports):
        size += result.ByteSize()
        if batch.results and size > MAX_RESULTS_BYTES:
            yield pb.WorkerMessage(results=batch)
            batch, size = pb.Results(), result.ByteSize()
        batch.results.append(result)
    if batch.results:
        yield pb.WorkerMessage(results=batch)


def hand_back(leases: Iterable[Lease]) -> pb.WorkerMessage:
    return pb.WorkerMessage(hand_back=pb.HandBack(leases=[_lease_to_wire(lease) for lease in leases]))


def heartbeat(progress: Iterable[tuple[Lease, float, str]]) -> pb.WorkerMessage:
    told = [pb.Progress(lease=_lease_to_wire(lease), fraction=part, message=text) for lease, part, text in progress]
    return pb.WorkerMessage(heartbeat=pb.Heartbeat(progress=told))


def leases(message: pb.Ack | pb.Cancel | pb.Revoke) -> tuple[Lease, ...]:
    return tuple(Lease(lease.task_id, lease.attempt) for lease in message.leases)


def grants(message: pb.Tasks, now: datetime) -> tuple[tuple[Grant, ...], tuple[TaskReport, ...]]:
    """The tasks granted, and a fault for each assignment that cannot be read."""
    good: list[Grant] = []
    bad: list[TaskReport] = []
    for assignment in message.tasks:
        try:
            task: Task = assignment_from_wire(assignment, now)
            good.append(Grant(Lease(task.id, task.attempt), task, assignment.timeout_s or DEFAULT_TASK_TIMEOUT_S))
        except (Permanent, ValueError) as error:
            bad.append(
                TaskReport(
                    task_id=assignment.lease.task_id, attempt=assignment.lease.attempt, outcome="platformFault",
                    reason="BadAssignment", message=str(error),
                )
            )
    return tuple(good), tuple(bad)


def _lease_to_wire(lease: Lease) -> pb.Lease:
    return pb.Lease(task_id=lease.task_id, attempt=lease.attempt)
