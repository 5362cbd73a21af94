"""The engine's messages and pictures as protobuf, and back. The only module besides the servicers that knows `_pb2`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

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
    Welcome,
)
from espalier_coordinator.model import NO_TALLIES, Job, NewTask, Resources
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.standing import Stats, WorkerPicture
from espalier_coordinator.templates import Template
from espalier_coordinator.views import JobPicture, TaskPicture
from espalier_kit.digest import canonical_json
from espalier_kit.errors import Permanent
from espalier_kit.execution import TaskState
from espalier_rpc.convert import dependency_from_wire, endpoints_to_wire
from espalier_rpc.jsonform import embedded
from espalier_rpc.v1 import coordinator_pb2 as pb

if TYPE_CHECKING:  # exists for type checkers only
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

MAX_TASKS_BYTES = 4 * 1024 * 1024
"""A message with several tasks stays below this: no stream is blocked for long."""


MAX_CAPACITY = 10_000
"""Tasks at once in one worker; more would be a mistake."""
MAX_NAME = 253

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

NUL = "\0"
"""PostgreSQL stores no such character in text: refused in names, replaced in messages."""


def hello_from_wire(message: pb.Hello, namespace: str | None, *, address: str = "") -> Hello:
    """Raises `Permanent` with a sentence."""
    if not message.worker_id or message.capacity < 1 or not message.types:
        raise Permanent("Hello needs worker_id, capacity of at least 1 and the task types it can run",
                        reason="InvalidHello")
    if NUL in message.worker_id:
        raise Permanent("worker_id cannot contain the character NUL", reason="InvalidHello")
    if message.capacity > MAX_CAPACITY or len(message.worker_id) > MAX_NAME:
        raise Permanent(f"capacity can be at most {MAX_CAPACITY}, and worker_id at most {MAX_NAME} characters long",
                        reason="InvalidHello")
    for name, amount in message.resources.items():
        _finite(amount, f"resource {name!r}")
    return Hello(
        message.worker_id, namespace, message.capacity, frozenset(message.types), frozenset(message.tags),
        message.job_uid, leases_from_wire(message.in_flight), message.pool, _resources(message.resources),
        max(0, message.prefetch), message.version, address,
    )


def check_namespace(namespace: str) -> None:
    """Raise `Permanent` for what Kubernetes would not take either."""
    if not _NAMESPACE.fullmatch(namespace):
        raise Permanent(f"{namespace!r} is no namespace: lower-case letters, digits and '-', at most 63 characters",
                        reason="InvalidNamespace")


def readable(text: str) -> str:
    """With every character that no database keeps replaced."""
    return text.replace(NUL, "\N{REPLACEMENT CHARACTER}")


def _storable(texts: Iterable[str], what: str) -> None:
    """Raise `Permanent` for the character that PostgreSQL does not keep in text."""
    if any(NUL in text for text in texts):
        raise Permanent(f"{what} cannot contain the character NUL", reason="InvalidText")


def _finite(number: float, what: str) -> float:
    """Raise `Permanent` for what is no number or never ends."""
    if not math.isfinite(number):
        raise Permanent(f"{what} must be a finite number, not {number}", reason="InvalidNumber")
    return number


def _resources(amounts: Mapping[str, float]) -> Resources:
    return tuple(sorted(amounts.items()))


def lease_from_wire(message: pb.Lease) -> Lease:
    return Lease(message.task_id, message.attempt)


def leases_from_wire(leases: Iterable[pb.Lease]) -> tuple[Lease, ...]:
    return tuple(map(lease_from_wire, leases))


def task_from_wire(message: pb.TaskSpec) -> NewTask:
    """Raises `Permanent` with a sentence."""
    tags, resources, depends_on, timeout_s = message.tags, message.resources, message.depends_on, message.timeout_s
    if tags or resources:
        _storable((*tags, *resources), f"tags and resources of task {message.key!r}")
    if timeout_s:
        _finite(timeout_s, f"timeout_s of task {message.key!r}")
    return NewTask(
        message.key, message.type, message.payload,
        tuple(map(dependency_from_wire, depends_on)) if depends_on else (), timeout_s,
        message.retries if message.HasField("retries") else None, tuple(tags) if tags else (),
        _resources(resources) if resources else (), message.cache,
    )


def progress_from_wire(progress: Iterable[pb.Progress]) -> Iterator[Progress]:
    return (Progress(Lease(p.lease.task_id, p.lease.attempt), p.fraction, readable(p.message)) for p in progress)


def template_from_wire(message: pb.Template) -> Template:
    """Its revision is the coordinator's to say. Raises `Permanent` with a sentence."""
    texts = (message.namespace, message.name, message.description, *message.required)
    _storable((*texts, *message.defaults, *message.defaults.values()), "a template's texts")
    return Template(
        message.namespace, message.name, tuple(task_from_wire(t) for t in message.tasks), message.description,
        dict(message.defaults), tuple(message.required),
    )


def template_to_wire(template: Template) -> pb.Template:
    return pb.Template(
        name=template.name, namespace=template.namespace, description=template.description,
        tasks=[_spec_to_wire(t) for t in template.tasks], defaults=template.defaults, required=template.required,
        revision=template.revision,
    )


def _spec_to_wire(task: NewTask) -> pb.TaskSpec:
    return pb.TaskSpec(
        key=task.key, type=task.type, payload=task.payload,
        depends_on=[pb.Dependency(key=d.key, when=d.when.value) for d in task.depends_on], timeout_s=task.timeout_s,
        retries=task.retries, tags=task.tags, resources=dict(task.resources), cache=task.cache,
    )


def reservation_from_wire(message: pb.Reservation) -> Reservation:
    """Raises `Permanent` with a sentence."""
    _storable((message.namespace, message.name, message.job_uid, *message.tags), "a reservation's texts")
    return Reservation(
        message.namespace, message.name, message.slots, frozenset(message.tags), message.job_uid, message.until
    )


def reservation_to_wire(r: Reservation) -> pb.Reservation:
    return pb.Reservation(
        name=r.name, namespace=r.namespace, slots=r.slots, tags=sorted(r.tags), job_uid=r.job_uid, until=r.until
    )


def report_from_wire(message: pb.TaskResult) -> Report:
    """A result; what nobody could have meant counts as a fault of the platform and keeps its sentence."""
    lease = lease_from_wire(message.lease)
    tallies, children = message.tallies, message.children
    try:
        return Report(
            lease, Verdict(message.outcome), readable(message.reason), readable(message.message), message.value,
            dict(tallies) if tallies else NO_TALLIES, tuple(map(task_from_wire, children)) if children else (),
            _finite(message.execution_s, "execution_s"),
        )
    except (Permanent, ValueError) as error:
        return Report(lease, Verdict.PLATFORM_FAULT, "InvalidResult", str(error))


def job_from_wire(message: pb.SubmitJobRequest) -> Job:
    """Raises `Permanent` with a sentence."""
    if not (message.uid and message.namespace and message.name):
        raise Permanent("SubmitJob needs uid, namespace and name", reason="InvalidJob")
    _storable((message.uid, message.namespace, message.name, message.kind, *message.tags), "uid, names, kind and tags")
    check_namespace(message.namespace)
    if message.retries < 0 or _finite(message.task_timeout_s, "task_timeout_s") < 0:
        raise Permanent("retries and task_timeout_s cannot be negative", reason="InvalidJob")
    return Job(
        message.uid, message.namespace, message.name, message.kind, message.priority, message.suspended,
        retries=message.retries, task_timeout_s=message.task_timeout_s, pool=message.pool, weight=message.weight or 1.0,
        max_tasks_per_s=message.max_tasks_per_s, max_running=message.max_running, tags=tuple(message.tags),
    )


def to_wire(messages: Iterable[Message]) -> Iterator[pb.CoordinatorMessage]:
    """In order; neighbours of one kind travel together. Stops before a `Close`, which is the stream's own end."""
    for kind, group in groupby(messages, type):
        if kind is Close:
            return
        if kind is Ack:
            leases = [lease for ack in group if isinstance(ack, Ack) for lease in ack.leases]
            yield pb.CoordinatorMessage(ack=pb.Ack(leases=leases_to_wire(leases)))
        elif kind is Tasks:
            yield from _tasks(a for tasks in group if isinstance(tasks, Tasks) for a in tasks.tasks)
        else:
            yield from map(_single, group)


def _tasks(assignments: Iterable[Assignment]) -> Iterator[pb.CoordinatorMessage]:
    tasks, size = pb.Tasks(), 0
    for assignment in assignments:
        _add_assignment(tasks, assignment)
        size += len(assignment.record.payload)
        if assignment.inputs:
            size += sum(len(i.value) for i in assignment.inputs)
        if size > MAX_TASKS_BYTES:
            yield pb.CoordinatorMessage(tasks=tasks)
            tasks, size = pb.Tasks(), 0
    if tasks.tasks:
        yield pb.CoordinatorMessage(tasks=tasks)


def _single(message: Message) -> pb.CoordinatorMessage:
    match message:
        case Welcome(epoch, heartbeat_s):
            return pb.CoordinatorMessage(welcome=pb.Welcome(epoch=epoch, heartbeat_s=heartbeat_s, hears_room=True))
        case Cancel(leases, reason):
            return pb.CoordinatorMessage(cancel=pb.Cancel(leases=leases_to_wire(leases), reason=reason))
        case Revoke(leases):
            return pb.CoordinatorMessage(revoke=pb.Revoke(leases=leases_to_wire(leases)))
        case Drain(reason):
            return pb.CoordinatorMessage(drain=pb.Drain(reason=reason))
        case JobContext():
            return pb.CoordinatorMessage(context=context_to_wire(message))
    raise TypeError(f"not a single message: {type(message).__name__}")


def leases_to_wire(leases: Iterable[Lease]) -> list[pb.Lease]:
    return [pb.Lease(task_id=x.task_id, attempt=x.attempt) for x in leases]


def context_to_wire(context: JobContext) -> pb.JobContext:
    return pb.JobContext(job_uid=context.job_uid, endpoints=endpoints_to_wire(context.endpoints))


def assignments_to_wire(assignments: Iterable[Assignment]) -> RepeatedCompositeFieldContainer[pb.Assignment]:
    """All of them, however large: whoever pulls has said how many it takes."""
    tasks = pb.Tasks()
    for assignment in assignments:
        _add_assignment(tasks, assignment)
    return tasks.tasks


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
        pool=job.pool, tags=job.tags, fraction=picture.fraction, message=picture.message or job.cancel_reason,
    )


_COUNTS = ("pending", "running", "done", "failed", "skipped", "cancelled")


def status_to_wire(status: str, picture: JobPicture) -> pb.JobStatus:
    """A job in the words of a small client: its result is the value of its only task, or {key: value} of the told."""
    counts, job = picture.counts, picture.job
    total = sum(counts[name] for name in _COUNTS)
    return pb.JobStatus(
        job_id=job.uid, status=status, progress=picture.fraction,
        result=_result(picture, total), error=_error(picture), counts=pb.Counts(**{n: counts[n] for n in _COUNTS}),
        submitted_at=job.submitted_at, finished_at=job.finished_at,
    )


def _result(picture: JobPicture, total: int) -> bytes:
    done = [t for t in picture.outcomes if t.state == TaskState.DONE]
    if total == 1:
        return done[0].value if done else b""
    return canonical_json({t.key: embedded(t.value) for t in done}) if done else b""


def _error(picture: JobPicture) -> str:
    failed = [t for t in picture.outcomes if t.state == TaskState.FAILED]
    return f"{failed[0].key}: {failed[0].reason}: {failed[0].message}" if failed else ""


def _outcome(t: TaskPicture) -> pb.TaskOutcome:
    return pb.TaskOutcome(key=t.key, type=t.type, state=t.state, reason=t.reason, message=t.message, value=t.value,
                          attempts=t.attempts)


def task_to_wire(t: TaskPicture) -> pb.TaskView:
    return pb.TaskView(id=t.id, key=t.key, type=t.type, state=t.state, attempts=t.attempts, worker=t.worker,
                       reason=t.reason, message=t.message, value=t.value, job_uid=t.job_uid, fraction=t.fraction,
                       execution_s=t.execution_s, tags=t.tags)


def worker_to_wire(w: WorkerPicture) -> pb.WorkerView:
    return pb.WorkerView(
        worker_id=w.worker_id, namespace=w.namespace, status=w.status, capacity=w.capacity,
        current_tasks=w.current_tasks, load=w.load, tags=w.tags, types=w.types, pool=w.pool, job_uid=w.job_uid,
        last_heartbeat_age_s=w.last_heartbeat_age_s, resources=w.resources, address=w.address,
    )


def stats_to_wire(s: Stats) -> pb.ClusterStats:
    return pb.ClusterStats(
        total_workers=s.workers, active_workers=s.active_workers, total_capacity=s.capacity, used_capacity=s.used,
        cluster_load=s.load, total_jobs=sum(s.jobs.values()), pending_jobs=s.jobs.get("pending", 0),
        running_jobs=s.jobs.get("running", 0) + s.jobs.get("suspended", 0), completed_jobs=s.jobs.get("completed", 0),
        failed_jobs=s.jobs.get("failed", 0), cancelled_jobs=s.jobs.get("cancelled", 0),
        pending_tasks=s.pending_tasks, running_tasks=s.running_tasks, pending_by_pool=s.pending_by_pool,
        archived_jobs=s.archived,
    )
