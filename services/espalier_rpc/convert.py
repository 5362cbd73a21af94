"""Frozen values ↔ messages, as a client needs them: what it sends is built, what it gets is read.

The other half is `espalier_coordinator.wire`; endpoints and edges, which go both ways, are here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from espalier_kit.digest import canonical_json
from espalier_kit.errors import Permanent
from espalier_kit.execution import Dependency, ModelEndpoint, Outcome, Task, TaskSpec, TaskState, When
from espalier_rpc.v1 import coordinator_pb2 as pb
from espalier_rpc.views import (
    Counts,
    JobList,
    JobRequest,
    JobUpdate,
    JobView,
    TaskOutcome,
    TaskReport,
    TaskView,
)


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


def job_update_to_wire(update: JobUpdate) -> pb.UpdateJobRequest:
    return pb.UpdateJobRequest(
        uid=update.uid, priority=update.priority, suspended=update.suspended, cancel=update.cancel,
        endpoints=None if update.endpoints is None else endpoints_to_wire(update.endpoints),
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


def task_outcome_from_wire(message: pb.TaskOutcome) -> TaskOutcome:
    return TaskOutcome(
        key=message.key, type=message.type, state=message.state, reason=message.reason, message=message.message,
        value=value_from_wire(message.value, f"value of task {message.key!r}"), attempts=message.attempts,
    )


def task_view_from_wire(message: pb.TaskView) -> TaskView:
    return TaskView(
        id=message.id, key=message.key, type=message.type, state=message.state, attempts=message.attempts,
        worker=message.worker, reason=message.reason, message=message.message,
        value=value_from_wire(message.value, f"value of task {message.key!r}"),
    )


# ---------------------------------------------------------------- session
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
    message = pb.TaskResult(outcome=report.outcome, value=report.value, execution_s=report.execution_s)
    message.lease.task_id, message.lease.attempt = report.task_id, report.attempt
    if report.reason or report.message:
        message.reason, message.message = report.reason, report.message
    if report.tallies:
        message.tallies.update(report.tallies)
    if report.children:
        message.children.extend(map(task_to_wire, report.children))
    return message


def _invalid(message: str) -> Permanent:
    return Permanent(message, reason="InvalidArgument")
