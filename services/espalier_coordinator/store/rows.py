"""Values as rows of the tables that `relational` makes, and back."""

from __future__ import annotations

import json
from typing import Any

from espalier_coordinator.cache import Cached
from espalier_coordinator.model import NO_TALLIES, Ending, Job, NewTask, Resources, Spent, TaskRecord
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.store import PutEnding, StoredTask
from espalier_coordinator.templates import Template
from espalier_kit.execution import Dependency, TaskState, When

Row = tuple[Any, ...]
Rows = list[Row]

JOB = (
    "uid", "namespace", "name", "kind", "priority", "suspended", "cancelled", "retries", "task_timeout_s",
    "submitted_at", "finished_at", "has_endpoints", "pool", "weight", "max_tasks_per_s", "max_running", "tags",
    "cancel_reason",
)
TASK = (
    "sequence", "id", "job_uid", "key", "type", "payload", "depends_on", "timeout_s", "retries", "tags", "resources",
    "cache",
)
SPENT = ("attempt", "faults", "lost")
ENDING = ("state", "attempts", "reason", "message", "value", "tallies", "worker", "execution_s", "finished_at")
"""Columns in the order of the rows below."""


def job_row(job: Job) -> Row:
    return (
        job.uid, job.namespace, job.name, job.kind, job.priority, int(job.suspended), int(job.cancelled), job.retries,
        float(job.task_timeout_s), job.submitted_at, job.finished_at, int(job.has_endpoints), job.pool,
        float(job.weight), float(job.max_tasks_per_s), job.max_running, json.dumps(job.tags) if job.tags else None,
        job.cancel_reason,
    )


def job(row: Row) -> Job:
    uid, namespace, name, kind, priority, suspended, cancelled, retries, timeout_s, submitted, finished, *rest = row
    endpoints, pool, weight, per_s, running, tags, cancel_reason = rest
    return Job(uid, namespace, name, kind, priority, bool(suspended), bool(cancelled), retries, timeout_s, submitted,
               finished, bool(endpoints), pool, weight, per_s, running, tuple(json.loads(tags)) if tags else (),
               cancel_reason)


def task_row(r: TaskRecord) -> Row:
    depends_on = json.dumps([[d.key, d.when] for d in r.depends_on]) if r.depends_on else None
    tags = json.dumps(r.tags) if r.tags else None
    resources = json.dumps(dict(r.resources)) if r.resources else None
    return (r.sequence, r.id, r.job_uid, r.key, r.type, r.payload, depends_on, float(r.timeout_s), r.retries, tags,
            resources, r.cache or None)


def task(row: Row) -> StoredTask:
    """From `TASK`, `SPENT` and `ENDING`, one behind the other."""
    sequence, id_, job_uid, key, type_, payload, depends_on, timeout_s, retries, tags, resources, cache = row[:12]
    record = TaskRecord(id_, job_uid, sequence, key, type_, payload, _edges(depends_on), timeout_s, retries,
                        tuple(json.loads(tags)) if tags else (), _resources(resources), cache or "")
    return StoredTask(record, Spent(*row[12:15]), ending(row[15:24]) if row[15] is not None else None)


def ending_row(write: PutEnding) -> Row:
    e = write.ending
    tallies = json.dumps(dict(e.tallies)) if e.tallies else None
    return (write.record.sequence, e.state.value, e.attempts, e.reason, e.message, e.value, tallies, e.worker,
            float(e.execution_s), float(e.finished_at), write.record.id)


def ending(row: Row) -> Ending:
    state, attempts, reason, message, value, tallies, worker, execution_s, finished_at = row
    return Ending(TaskState(state), attempts, reason, message, value, json.loads(tallies) if tallies else NO_TALLIES,
                  worker, execution_s, finished_at)


def template_row(t: Template) -> Row:
    body = {
        "tasks": [_new_task(task) for task in t.tasks], "description": t.description, "defaults": dict(t.defaults),
        "required": t.required,
    }
    return t.namespace, t.name, t.revision, json.dumps(body)


def template(row: Row) -> Template:
    namespace, name, revision, text = row
    body = json.loads(text)
    tasks = tuple(
        NewTask(key, type_, payload.encode(), _edges(json.dumps(depends_on)), timeout_s, retries, tuple(tags),
                _resources(json.dumps(resources)), cache)
        for key, type_, payload, depends_on, timeout_s, retries, tags, resources, cache in body["tasks"]
    )
    return Template(namespace, name, tasks, body["description"], body["defaults"], tuple(body["required"]), revision)


def _new_task(t: NewTask) -> list[object]:
    edges = [[d.key, d.when] for d in t.depends_on]
    return [t.key, t.type, t.payload.decode(), edges, t.timeout_s, t.retries, t.tags, dict(t.resources), t.cache]


def reservation_row(r: Reservation) -> Row:
    return r.namespace, r.name, r.slots, json.dumps(sorted(r.tags)), r.job_uid, float(r.until)


def reservation(row: Row) -> Reservation:
    namespace, name, slots, tags, job_uid, until = row
    return Reservation(namespace, name, slots, frozenset(json.loads(tags)), job_uid, until)


def cached_row(c: Cached) -> Row:
    return c.key, c.value, json.dumps(dict(c.tallies)) if c.tallies else None, float(c.created_at)


def cached(row: Row) -> Cached:
    key, value, tallies, created_at = row
    return Cached(key, value, json.loads(tallies) if tallies else NO_TALLIES, created_at)


def _edges(text: str | None) -> tuple[Dependency, ...]:
    return tuple(Dependency(k, When(w)) for k, w in json.loads(text)) if text else ()


def _resources(text: str | None) -> Resources:
    return tuple(sorted(json.loads(text).items())) if text else ()
