"""What an executor sees, so that grading, benchmark and worker meet without importing each other.

An executor is `async def run(task: Task, context: Context) -> Result`. It is idempotent: the same task may run again
after a crash, and only the first accepted result counts. Faults come in three kinds and are raised, never returned:

- `UserFault`: the input's own fault (a file that is no notebook). Final, no retry, no score.
- `EvaluatorFault`: the fault of whoever set the task up (a rubric that does not add up). Final, no retry.
- `PlatformFault`: ours (a server that is away, a full disk). Retried with back-off, then failed as PlatformFault.

Any other exception counts as a PlatformFault: a bug of ours is never somebody's grade.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from espalier_kit.artifacts import ArtifactStore
from espalier_kit.errors import Permanent, Retryable

MAX_INLINE_BYTES = 64 * 1024
"""Largest JSON value of a result; more goes to the artifact store and the value carries its digest."""


class UserFault(Permanent):
    """The subject's own fault; `reason` and message go to the person who handed it in."""


class EvaluatorFault(Permanent):
    """The evaluation's own fault; goes to the person who set the job up."""


class PlatformFault(Retryable):
    """The platform's fault; never a number."""


class TaskState(StrEnum):
    """Where a task stands. The last four are final."""

    BLOCKED = "blocked"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class When(StrEnum):
    """What a dependency must have come to before its dependent may run."""

    DONE = "done"
    """It succeeded; if it fails, is skipped or cancelled, the dependent is skipped."""
    FINISHED = "finished"
    """It ended, however."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """An edge of the DAG: the key of another task of the same job."""

    key: str
    when: When = When.DONE


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as submitted. `key` is unique within its job and decides the task's identity."""

    key: str
    type: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[Dependency, ...] = ()
    timeout_s: float | None = None
    retries: int | None = None
    tags: tuple[str, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    """What it takes of its worker's, e.g. `{"gpu": 1}`."""
    cache: str = ""
    """`read-write`: an equal task's result answers for it; empty: never."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a dependency ended, for its dependents."""

    state: TaskState
    value: Mapping[str, Any] | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt, as an executor gets it. `inputs` holds the outcome of each dependency by key."""

    id: str
    job_uid: str
    job_name: str
    namespace: str
    key: str
    type: str
    payload: Mapping[str, Any]
    inputs: Mapping[str, Outcome]
    attempt: int
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Result:
    """A success. `tallies` are summed per job by the coordinator; `children` are submitted with this very commit."""

    value: Mapping[str, Any] = field(default_factory=dict)
    tallies: Mapping[str, float] = field(default_factory=dict)
    children: tuple[TaskSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """One model server that this job may call. `role` is `code`, `feedback` or `fallback`; secrets stay in memory."""

    role: str
    url: str
    model: str
    name: str = ""
    """The server's name in reports, e.g. `mac-studio-1/qwen`."""
    node: str = ""
    ready: bool = True
    server_name: str | None = None
    """The name its certificate carries, where it differs from the address dialled."""
    ca_pem: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)


class Context(Protocol):
    """What the worker lends an executor for one attempt."""

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when the attempt should stop; the worker also cancels the executor's asyncio task."""
        ...

    @property
    def artifacts(self) -> ArtifactStore:
        """The namespace's artifact store."""
        ...

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that carries the task's identity. Never submission text or secrets."""
        ...

    def endpoints(self) -> tuple[ModelEndpoint, ...]:
        """The job's model endpoints as last pushed; ask again before each call, they change."""
        ...

    async def progress(self, fraction: float, message: str = "") -> None:
        """Report 0..1; cheap, sent with the next heartbeat."""
        ...


Executor = Callable[[Task, Context], Awaitable[Result]]
