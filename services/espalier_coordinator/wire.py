"""The engine's messages and pictures as protobuf, and back. The only module besides the servicers that knows `_pb2`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

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
    Report,
    Tasks,
    Verdict,
    Welcome,
)
from espalier_coordinator.model import NO_TALLIES, Job, NewTask
from espalier_coordinator.views import JobPicture, TaskPicture
from espalier_kit.errors import Permanent
from espalier_rpc.convert import dependency_from_wire, endpoints_to_wire
from espalier_rpc.v1 import coordinator_pb2 as pb

MAX_TASKS_BYTES = 4 * 1024 * 1024
"""A message with several tasks stays below this: no stream is blocked for long."""


NUL = "\0"
"""PostgreSQL stores no such character in text: refused in names, replaced in messages."""


def _readable(text: str) -> str:
    return text.replace(NUL, "\N{REPLACEMENT CHARACTER}")


def hello_from_wire(message: pb.Hello, namespace: str | None) -> Hello:
    """Raises `Permanent` with a sentence."""
    if not message.worker_id or message.capacity < 1 or not message.types:
        raise Permanent("Hello needs worker_id, capacity of at least 1 and the task types it can run",
                        reason="InvalidHello")
    if NUL in message.worker_id:
        raise Permanent("worker_id cannot contain the character NUL", reason="InvalidHello")
    return Hello(
        message.worker_id, namespace, message.capacity, frozenset(message.types), frozenset(message.tags),
        message.job_uid, leases_from_wire(message.in_flight), message.pool,
    )


def leases_from_wire(leases: Iterable[pb.Lease]) -> tuple[Lease, ...]:
    return tuple(Lease(x.task_id, x.attempt) for x in leases)


def task_from_wire(message: pb.TaskSpec) -> NewTask:
    return NewTask(
        message.key, message.type, message.payload, tuple(dependency_from_wire(d) for d in message.depends_on),
        message.timeout_s, message.retries if message.HasField("retries") else None, tuple(message.tags),
    )


def report_from_wire(message: pb.TaskResult) -> Report:
    """A result; what nobody could have meant counts as a fault of the platform and keeps its sentence."""
    lease = Lease(message.lease.task_id, message.lease.attempt)
    try:
        return Report(
            lease, Verdict(message.outcome), _readable(message.reason), _readable(message.message), message.value,
            dict(message.tallies) if message.tallies else NO_TALLIES,
            tuple(task_from_wire(c) for c in message.children), message.execution_s,
        )
    except (Permanent, ValueError) as error:
        return Report(lease, Verdict.PLATFORM_FAULT, "InvalidResult", str(error))


def job_from_wire(message: pb.SubmitJobRequest) -> Job:
    """Raises `Permanent` with a sentence."""
    if not (message.uid and message.namespace and message.name):
        raise Permanent("SubmitJob needs uid, namespace and name", reason="InvalidJob")
    if any(NUL in text for text in (message.uid, message.namespace, message.name, message.kind)):
        raise Permanent("uid, namespace, name and kind cannot contain the character NUL", reason="InvalidJob")
    if message.retries < 0 or message.task_timeout_s < 0:
        raise Permanent("retries and task_timeout_s cannot be negative", reason="InvalidJob")
    return Job(
        message.uid, message.namespace, message.name, message.kind, message.priority, message.suspended,
        retries=message.retries, task_timeout_s=message.task_timeout_s, pool=message.pool,
    )


def to_wire(messages: Iterable[Message]) -> Iterator[pb.CoordinatorMessage]:
    """In order; neighbours of one kind travel together. Stops before a `Close`, which is the stream's own end."""
    for kind, group in groupby(messages, type):
        if kind is Close:
            return
        if kind is Ack:
            leases = [lease for ack in group if isinstance(ack, Ack) for lease in ack.leases]
            yield pb.CoordinatorMessage(ack=pb.Ack(leases=_leases(leases)))
        elif kind is Tasks:
            yield from _tasks(a for tasks in group if isinstance(tasks, Tasks) for a in tasks.tasks)
        else:
            yield from map(_single, group)


def _tasks(assignments: Iterable[Assignment]) -> Iterator[pb.CoordinatorMessage]:
    tasks, size = pb.Tasks(), 0
    for assignment in assignments:
        _add_assignment(tasks, assignment)
        size += len(assignment.record.payload) + sum(len(i.value) for i in assignment.inputs)
        if size > MAX_TASKS_BYTES:
            yield pb.CoordinatorMessage(tasks=tasks)
            tasks, size = pb.Tasks(), 0
    if tasks.tasks:
        yield pb.CoordinatorMessage(tasks=tasks)


def _single(message: Message) -> pb.CoordinatorMessage:
    match message:
        case Welcome(epoch, heartbeat_s):
            return pb.CoordinatorMessage(welcome=pb.Welcome(epoch=epoch, heartbeat_s=heartbeat_s))
        case Cancel(leases):
            return pb.CoordinatorMessage(cancel=pb.Cancel(leases=_leases(leases)))
        case Drain(reason):
            return pb.CoordinatorMessage(drain=pb.Drain(reason=reason))
        case JobContext(job_uid, endpoints):
            context = pb.JobContext(job_uid=job_uid, endpoints=endpoints_to_wire(endpoints))
            return pb.CoordinatorMessage(context=context)
    raise TypeError(f"not a single message: {type(message).__name__}")


def _leases(leases: Iterable[Lease]) -> list[pb.Lease]:
    return [pb.Lease(task_id=x.task_id, attempt=x.attempt) for x in leases]


def _add_assignment(tasks: pb.Tasks, a: Assignment) -> None:
    r = a.record
    added = tasks.tasks.add(
        job_uid=r.job_uid, job_name=a.job_name, namespace=a.namespace, key=r.key, type=r.type, payload=r.payload,
        timeout_s=a.timeout_s,
    )
    added.lease.task_id = r.id
    added.lease.attempt = a.attempt
    for i in a.inputs:
        added.inputs.add(key=i.key, state=i.state.value, reason=i.reason, message=i.message, value=i.value)


def job_to_wire(picture: JobPicture) -> pb.JobView:
    job = picture.job
    return pb.JobView(
        uid=job.uid, namespace=job.namespace, name=job.name, kind=job.kind, state=picture.state,
        counts=pb.Counts(**{name: picture.counts[name] for name in _COUNTS}), tallies=picture.tallies,
        outcomes=[_outcome(t) for t in picture.outcomes], workers=picture.workers, submitted_at=job.submitted_at,
        finished_at=job.finished_at, priority=job.priority, epoch=picture.epoch, lost_leases=picture.lost_leases,
        pool=job.pool,
    )


_COUNTS = ("pending", "running", "done", "failed", "skipped", "cancelled")


def _outcome(t: TaskPicture) -> pb.TaskOutcome:
    return pb.TaskOutcome(key=t.key, type=t.type, state=t.state, reason=t.reason, message=t.message, value=t.value,
                          attempts=t.attempts)


def task_to_wire(t: TaskPicture) -> pb.TaskView:
    return pb.TaskView(id=t.id, key=t.key, type=t.type, state=t.state, attempts=t.attempts, worker=t.worker,
                       reason=t.reason, message=t.message, value=t.value)
