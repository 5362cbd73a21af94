"""Frozen values ↔ messages. `X_to_wire` builds a message; `X_from_wire` reads one, `Permanent` where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast, get_args

from espalier_kit.digest import canonical_json
from espalier_kit.errors import Permanent
from espalier_kit.execution import Dependency, ModelEndpoint, Outcome, Task, TaskSpec, TaskState, When
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.views import (
    DEFAULT_TASK_TIMEOUT_S,
    Counts,
    JobList,
    JobRequest,
    JobUpdate,
    JobView,
    ResultOutcome,
    TaskOutcome,
    TaskReport,
    TaskView,
)

_OUTCOMES: frozenset[str] = frozenset(get_args(ResultOutcome))


# ---------------------------------------------------------------- JSON
def value_to_wire(value: Mapping[str, Any] | None) -> bytes:
    """Canonical JSON; nothing for None."""
    return b"" if value is None else canonical_json(value)


def value_from_wire(data: bytes, what: str = "the value") -> dict[str, Any] | None:
    """A JSON object, or None for no bytes; `what` names it in the error."""
    if not data:
        return None
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _invalid(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _invalid(f"{what} must be a JSON object, not {type(value).__name__}")
    return value


# ---------------------------------------------------------------- jobs
def task_to_wire(spec: TaskSpec) -> pb.TaskSpec:
    """A task to submit; without a time limit or retries of its own it gets the job's."""
    return pb.TaskSpec(
        key=spec.key, type=spec.type, payload=value_to_wire(spec.payload),
        depends_on=[pb.Dependency(key=d.key, when=d.when.value) for d in spec.depends_on],
        timeout_s=spec.timeout_s or 0.0, retries=spec.retries, tags=spec.tags,
        resources=dict(spec.resources), cache=spec.cache,
    )


def spec_from_wire(message: pb.TaskSpec) -> TaskSpec:
    if not message.key or not message.type:
        raise _invalid(f"task {message.key!r} of type {message.type!r}: key and type must be set")
    return TaskSpec(
        key=message.key, type=message.type,
        payload=value_from_wire(message.payload, f"payload of task {message.key!r}") or {},
        depends_on=tuple(dependency_from_wire(d) for d in message.depends_on),
        timeout_s=message.timeout_s or None, retries=message.retries if message.HasField("retries") else None,
        tags=tuple(message.tags), resources=dict(message.resources), cache=message.cache,
    )


def dependency_from_wire(message: pb.Dependency) -> Dependency:
    """An edge; an absent condition is `done`."""
    try:
        return Dependency(message.key, When(message.when or When.DONE))
    except ValueError as error:
        raise _invalid(f"dependency on {message.key!r}: when must be done or finished, not {message.when!r}") from error


def endpoint_to_wire(endpoint: ModelEndpoint) -> pb.Endpoint:
    """A model endpoint with its secrets: only ever sent over TLS."""
    return pb.Endpoint(
        role=endpoint.role, url=endpoint.url, model=endpoint.model, name=endpoint.name, node=endpoint.node,
        ready=endpoint.ready, server_name=endpoint.server_name or "", ca_pem=endpoint.ca_pem or "",
        api_key=endpoint.api_key or "",
    )


def endpoint_from_wire(message: pb.Endpoint) -> ModelEndpoint:
    """The endpoint; empty names, certificates and keys are absent ones."""
    return ModelEndpoint(
        role=message.role, url=message.url, model=message.model, name=message.name, node=message.node,
        ready=message.ready, server_name=message.server_name or None, ca_pem=message.ca_pem or None,
        api_key=message.api_key or None,
    )


def endpoints_to_wire(endpoints: Iterable[ModelEndpoint]) -> pb.EndpointList:
    return pb.EndpointList(endpoints=[endpoint_to_wire(e) for e in endpoints])


def endpoints_from_wire(message: pb.EndpointList) -> tuple[ModelEndpoint, ...]:
    return tuple(endpoint_from_wire(e) for e in message.endpoints)


def job_request_to_wire(job: JobRequest) -> pb.SubmitJobRequest:
    return pb.SubmitJobRequest(
        uid=job.uid, namespace=job.namespace, name=job.name, kind=job.kind, priority=job.priority,
        suspended=job.suspended, retries=job.retries, task_timeout_s=job.task_timeout_s,
        tasks=[task_to_wire(t) for t in job.tasks], endpoints=endpoints_to_wire(job.endpoints), pool=job.pool,
        tags=job.tags, template=job.template, parameters=dict(job.parameters),
    )


def job_request_from_wire(message: pb.SubmitJobRequest) -> JobRequest:
    """A zero `task_timeout_s` becomes the default."""
    return JobRequest(
        uid=message.uid, namespace=message.namespace, name=message.name, kind=message.kind, priority=message.priority,
        suspended=message.suspended, retries=message.retries,
        task_timeout_s=message.task_timeout_s or DEFAULT_TASK_TIMEOUT_S,
        tasks=tuple(spec_from_wire(t) for t in message.tasks), endpoints=endpoints_from_wire(message.endpoints),
        pool=message.pool, tags=tuple(message.tags), template=message.template, parameters=dict(message.parameters),
    )


def job_update_to_wire(update: JobUpdate) -> pb.UpdateJobRequest:
    return pb.UpdateJobRequest(
        uid=update.uid, priority=update.priority, suspended=update.suspended, cancel=update.cancel,
        endpoints=None if update.endpoints is None else endpoints_to_wire(update.endpoints),
    )


def job_update_from_wire(message: pb.UpdateJobRequest) -> JobUpdate:
    return JobUpdate(
        uid=message.uid, cancel=message.cancel,
        priority=message.priority if message.HasField("priority") else None,
        suspended=message.suspended if message.HasField("suspended") else None,
        endpoints=endpoints_from_wire(message.endpoints) if message.HasField("endpoints") else None,
    )


def job_view_to_wire(view: JobView) -> pb.JobView:
    counts = view.counts
    return pb.JobView(
        uid=view.uid, namespace=view.namespace, name=view.name, kind=view.kind, state=view.state,
        counts=pb.Counts(
            pending=counts.pending, running=counts.running, done=counts.done,
            failed=counts.failed, skipped=counts.skipped, cancelled=counts.cancelled,
        ),
        tallies=dict(view.tallies), outcomes=[task_outcome_to_wire(o) for o in view.outcomes], workers=view.workers,
        submitted_at=view.submitted_at, finished_at=view.finished_at, priority=view.priority, epoch=view.epoch,
        lost_leases=view.lost_leases, pool=view.pool, fraction=view.fraction, message=view.message,
    )


def job_view_from_wire(message: pb.JobView) -> JobView:
    counts = message.counts
    return JobView(
        uid=message.uid, namespace=message.namespace, name=message.name, kind=message.kind, state=message.state,
        counts=Counts(
            pending=counts.pending, running=counts.running, done=counts.done,
            failed=counts.failed, skipped=counts.skipped, cancelled=counts.cancelled,
        ),
        tallies=dict(message.tallies), outcomes=tuple(task_outcome_from_wire(o) for o in message.outcomes),
        workers=message.workers, submitted_at=message.submitted_at, finished_at=message.finished_at,
        priority=message.priority, epoch=message.epoch, lost_leases=message.lost_leases, pool=message.pool,
        fraction=message.fraction, message=message.message,
    )


def job_list_from_wire(message: pb.ListJobsResponse) -> JobList:
    return JobList(jobs=tuple(job_view_from_wire(j) for j in message.jobs), epoch=message.epoch)


def task_outcome_to_wire(outcome: TaskOutcome) -> pb.TaskOutcome:
    return pb.TaskOutcome(
        key=outcome.key, type=outcome.type, state=outcome.state, reason=outcome.reason, message=outcome.message,
        value=value_to_wire(outcome.value), attempts=outcome.attempts,
    )


def task_outcome_from_wire(message: pb.TaskOutcome) -> TaskOutcome:
    return TaskOutcome(
        key=message.key, type=message.type, state=message.state, reason=message.reason, message=message.message,
        value=value_from_wire(message.value, f"value of task {message.key!r}"), attempts=message.attempts,
    )


def task_view_to_wire(view: TaskView) -> pb.TaskView:
    return pb.TaskView(
        id=view.id, key=view.key, type=view.type, state=view.state, attempts=view.attempts, worker=view.worker,
        reason=view.reason, message=view.message, value=value_to_wire(view.value),
    )


def task_view_from_wire(message: pb.TaskView) -> TaskView:
    return TaskView(
        id=message.id, key=message.key, type=message.type, state=message.state, attempts=message.attempts,
        worker=message.worker, reason=message.reason, message=message.message,
        value=value_from_wire(message.value, f"value of task {message.key!r}"),
    )


# ---------------------------------------------------------------- session
def outcome_to_wire(key: str, outcome: Outcome) -> pb.Outcome:
    return pb.Outcome(
        key=key, state=outcome.state.value, reason=outcome.reason, message=outcome.message,
        value=value_to_wire(outcome.value),
    )


def outcome_from_wire(message: pb.Outcome) -> Outcome:
    return Outcome(
        state=TaskState(message.state), reason=message.reason, message=message.message,
        value=value_from_wire(message.value, f"outcome of {message.key!r}"),
    )


def assignment_from_wire(message: pb.Assignment, now: datetime) -> Task:
    """One attempt as an executor gets it; its deadline counts from `now`."""
    return Task(
        id=message.lease.task_id, attempt=message.lease.attempt, job_uid=message.job_uid, job_name=message.job_name,
        namespace=message.namespace, key=message.key, type=message.type,
        payload=value_from_wire(message.payload, f"payload of task {message.key!r}") or {},
        inputs={i.key: outcome_from_wire(i) for i in message.inputs},
        deadline=now + timedelta(seconds=message.timeout_s),
    )


def task_report_to_wire(report: TaskReport) -> pb.TaskResult:
    return pb.TaskResult(
        lease=pb.Lease(task_id=report.task_id, attempt=report.attempt), outcome=report.outcome, reason=report.reason,
        message=report.message, value=value_to_wire(report.value), tallies=dict(report.tallies),
        children=[task_to_wire(c) for c in report.children], execution_s=report.execution_s,
    )


def task_report_from_wire(message: pb.TaskResult) -> TaskReport:
    if message.outcome not in _OUTCOMES:
        raise _invalid(f"outcome {message.outcome!r} is none of {', '.join(sorted(_OUTCOMES))}")
    return TaskReport(
        task_id=message.lease.task_id, attempt=message.lease.attempt, outcome=cast(ResultOutcome, message.outcome),
        reason=message.reason, message=message.message,
        value=value_from_wire(message.value, f"value of task {message.lease.task_id}") or {},
        tallies=dict(message.tallies), children=tuple(spec_from_wire(c) for c in message.children),
        execution_s=message.execution_s,
    )


def _invalid(message: str) -> Permanent:
    return Permanent(message, reason="InvalidArgument")
