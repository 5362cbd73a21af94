"""What the coordinator keeps: frozen values, and the one table of a task's life.

What is made for every task is a named tuple: it costs half of what a frozen data class does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from espalier_kit.digest import task_id
from espalier_kit.execution import Dependency, TaskState

MAX_PAYLOAD_BYTES = 256 * 1024
"""Largest payload of a task; more belongs into the artifact store."""

READ_WRITE = "read-write"
"""The one way of using the result cache, as `TaskSpec.cache` spells it; empty: not at all."""

CACHED = "Cached"
"""Reason of a task that ended with the result of an equal one."""

Resources = tuple[tuple[str, float], ...]
"""Amounts by name, sorted by name: what a task takes of its worker's, e.g. (("gpu", 1.0),)."""

NO_TALLIES: Mapping[str, float] = MappingProxyType({})


class JobState(StrEnum):
    """Where a job stands, as `JobView.state` spells it."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    COMPLETE = "complete"


class Event(StrEnum):
    """What can happen to a task."""

    UNBLOCKED = "unblocked"
    GRANTED = "granted"
    RETURNED = "returned"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    REOPENED = "reopened"
    """Somebody asked for it again: a failed task, or one that was skipped because of it."""


TRANSITIONS: Mapping[tuple[TaskState, Event], TaskState] = MappingProxyType({
    (TaskState.BLOCKED, Event.UNBLOCKED): TaskState.READY,
    (TaskState.BLOCKED, Event.SKIPPED): TaskState.SKIPPED,
    (TaskState.BLOCKED, Event.CANCELLED): TaskState.CANCELLED,
    (TaskState.READY, Event.GRANTED): TaskState.RUNNING,
    (TaskState.READY, Event.SUCCEEDED): TaskState.DONE,
    (TaskState.READY, Event.FAILED): TaskState.FAILED,
    (TaskState.READY, Event.CANCELLED): TaskState.CANCELLED,
    (TaskState.RUNNING, Event.RETURNED): TaskState.READY,
    (TaskState.RUNNING, Event.SUCCEEDED): TaskState.DONE,
    (TaskState.RUNNING, Event.FAILED): TaskState.FAILED,
    (TaskState.RUNNING, Event.CANCELLED): TaskState.CANCELLED,
    (TaskState.FAILED, Event.REOPENED): TaskState.BLOCKED,
    (TaskState.SKIPPED, Event.REOPENED): TaskState.BLOCKED,
})

FINAL = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})

ENDED_BY: Mapping[TaskState, Event] = MappingProxyType({
    TaskState.DONE: Event.SUCCEEDED,
    TaskState.FAILED: Event.FAILED,
    TaskState.SKIPPED: Event.SKIPPED,
    TaskState.CANCELLED: Event.CANCELLED,
})


def step(state: TaskState, event: Event) -> TaskState:
    """The next state; KeyError is a bug of the engine, never an input's."""
    return TRANSITIONS[state, event]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as submitted and since steered. Times are seconds since 1970; `finished_at` is 0 while it runs."""

    uid: str
    namespace: str
    name: str
    kind: str = ""
    priority: int = 0
    suspended: bool = False
    cancelled: bool = False
    retries: int = 3
    task_timeout_s: float = 0.0
    submitted_at: float = 0.0
    finished_at: float = 0.0
    has_endpoints: bool = False
    """Whether its submitter pushed model endpoints: they hold secrets, so only this survives a restart."""
    pool: str = ""
    """The shared pool whose workers alone run it; empty: dedicated workers and those of its namespace."""
    weight: float = 1.0
    """Its share under weighted fairness."""
    max_tasks_per_s: float = 0.0
    """Attempts granted per second at most; 0: no limit."""
    max_running: int = 0
    """Attempts that run at once at most; 0: no limit."""
    tags: tuple[str, ...] = ()
    """Labels to list by; they have nothing to do with the tags of workers."""
    cancel_reason: str = ""


def ended_status(*, is_cancelled: bool, has_failed: bool) -> str:
    """completed | failed | cancelled: how a job ended, in one word of a small client."""
    if is_cancelled:
        return "cancelled"
    return "failed" if has_failed else "completed"


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What memory keeps of an archived job; `status` is `ended_status`."""

    namespace: str
    finished_at: float
    status: str


def ended_job(job: Job, *, has_failed: bool) -> EndedJob:
    """Of a job all of whose tasks have ended, one of them failed or none."""
    return EndedJob(job.namespace, job.finished_at, ended_status(is_cancelled=job.cancelled, has_failed=has_failed))


class NewTask(NamedTuple):
    """A task as it comes in: `espalier_kit.execution.TaskSpec` with its payload still bytes."""

    key: str
    type: str
    payload: bytes = b""
    depends_on: tuple[Dependency, ...] = ()
    timeout_s: float = 0.0
    retries: int | None = None
    tags: tuple[str, ...] = ()
    resources: Resources = ()
    cache: str = ""


class TaskRecord(NamedTuple):
    """A task as stored. `sequence` orders tasks of one priority; it is given once and never reused."""

    id: str
    job_uid: str
    sequence: int
    key: str
    type: str
    payload: bytes
    depends_on: tuple[Dependency, ...]
    timeout_s: float
    retries: int | None
    tags: tuple[str, ...]
    resources: Resources = ()
    cache: str = ""


def record_of(job_uid: str, task: NewTask, sequence: int) -> TaskRecord:
    """Give a new task its identity and its place in the queue."""
    return TaskRecord(
        task_id(job_uid, task.key), job_uid, sequence, task.key, task.type, task.payload, task.depends_on,
        task.timeout_s, task.retries, task.tags, task.resources, task.cache,
    )


class Attempt(NamedTuple):
    """A lease: this worker runs the task under this number until `deadline_at` (monotonic seconds)."""

    number: int
    worker: str
    deadline_at: float


class Spent(NamedTuple):
    """What a task has behind it. The attempts up to `attempt` are closed for ever, on disk; the only number that may
    be out there unwritten is `attempt + 1`, since the next is granted after the one before was closed durably."""

    attempt: int = 0
    faults: int = 0
    lost: int = 0


class Ending(NamedTuple):
    """How a task ended: the accepted result, of which there is exactly one."""

    state: TaskState
    attempts: int
    reason: str = ""
    message: str = ""
    value: bytes = b""
    tallies: Mapping[str, float] = NO_TALLIES
    worker: str = ""
    execution_s: float = 0.0
    finished_at: float = 0.0
