"""What goes between the engine and a worker's session, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from espalier_coordinator.model import NO_TALLIES, NewTask, Resources, TaskRecord
from espalier_kit.execution import ModelEndpoint, TaskState


class Lease(NamedTuple):
    """One attempt of one task."""

    task_id: str
    attempt: int


class Verdict(StrEnum):
    """How an attempt ended, as the wire spells it."""

    DONE = "done"
    USER_FAULT = "userFault"
    EVALUATOR_FAULT = "evaluatorFault"
    PLATFORM_FAULT = "platformFault"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's introduction. `namespace` is its account's; None may run every namespace's tasks.

    `pool` is the shared pool that its account belongs to; such a worker has no namespace.
    """

    worker_id: str
    namespace: str | None
    capacity: int
    types: frozenset[str]
    tags: frozenset[str] = frozenset()
    job_uid: str = ""
    in_flight: tuple[Lease, ...] = ()
    pool: str = ""
    resources: Resources = ()
    prefetch: int = 0
    """Of what it is granted, so many may wait unstarted; only these can be asked back."""
    version: str = ""
    """Of its executors: results of one version never answer for another."""
    address: str = ""
    """Where its health answers; shown, never called."""

    @property
    def key(self) -> str:
        """Its name among all workers: nobody can pass for a worker of another namespace or pool."""
        owner = f"pool:{self.pool}" if self.pool else self.namespace or "*"
        return f"{owner}/{self.worker_id}"


class Report(NamedTuple):
    """An attempt's result."""

    lease: Lease
    verdict: Verdict
    reason: str = ""
    message: str = ""
    value: bytes = b""
    tallies: Mapping[str, float] = NO_TALLIES
    children: tuple[NewTask, ...] = ()
    execution_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is, 0..1, and the last line it said."""

    lease: Lease
    fraction: float
    message: str = ""


# ---------------------------------------------------------------- to the worker


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session is accepted."""

    epoch: str
    heartbeat_s: float


@dataclass(frozen=True, slots=True)
class Input:
    """How a dependency ended."""

    key: str
    state: TaskState
    reason: str
    message: str
    value: bytes


class Assignment(NamedTuple):
    """A task to run."""

    record: TaskRecord
    attempt: int
    job_name: str
    namespace: str
    timeout_s: float
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks to run."""

    tasks: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    """These results are on disk."""

    leases: Sequence[Lease]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop these; `reason` is what the one who cancelled said."""

    leases: tuple[Lease, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Revoke:
    """Hand these back unless they were started: another worker is idle."""

    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish, hand back, leave."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobContext:
    """A job's model endpoints."""

    job_uid: str
    endpoints: tuple[ModelEndpoint, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream: another session speaks for this worker, or it was silent too long."""

    reason: str


Message = Welcome | Tasks | Ack | Cancel | Revoke | Drain | JobContext | Close
