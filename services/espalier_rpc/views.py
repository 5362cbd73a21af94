"""What the coordinator tells and takes, as frozen values: callers of `client` and servicers never pass a `_pb2` on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from espalier_kit.execution import ModelEndpoint, TaskSpec

JobState = Literal["running", "suspended", "cancelling", "cancelled", "complete"]
DEFAULT_TASK_TIMEOUT_S = 600.0
FINAL_JOB_STATES: frozenset[str] = frozenset({"cancelled", "complete"})
ResultOutcome = Literal["done", "userFault", "evaluatorFault", "platformFault", "cancelled"]


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as submitted, idempotent by `uid` (the CR's).

    `retries` and `task_timeout_s` (seconds) hold for tasks that name none of their own.
    """

    uid: str
    namespace: str
    name: str
    kind: str
    tasks: tuple[TaskSpec, ...]
    endpoints: tuple[ModelEndpoint, ...] = ()
    priority: int = 0
    suspended: bool = False
    retries: int = 3
    task_timeout_s: float = DEFAULT_TASK_TIMEOUT_S
    pool: str = ""
    """The shared pool whose workers run it; empty: dedicated workers and those of its namespace."""
    tags: tuple[str, ...] = ()
    """Labels to list it by."""
    template: str = ""
    """Instead of `tasks`: those of the namespace's template of this name, with `parameters` filled in."""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """A change of a job; None leaves a field as it is, `cancel` cannot be taken back."""

    uid: str
    priority: int | None = None
    suspended: bool | None = None
    cancel: bool = False
    endpoints: tuple[ModelEndpoint, ...] | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks of a job by state; `pending` are blocked or ready."""

    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All tasks."""
        return self.pending + self.running + self.finished

    @property
    def finished(self) -> int:
        """Tasks that ended, however."""
        return self.done + self.failed + self.skipped + self.cancelled


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """A finished task that the submitter is told about: failed ones (at most 20) and those without dependents."""

    key: str
    type: str
    state: str
    reason: str = ""
    message: str = ""
    value: Mapping[str, Any] | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the coordinator sees it now. Times are seconds since 1970; `finished_at` is 0 until then."""

    uid: str
    namespace: str
    name: str
    kind: str
    state: str
    counts: Counts = Counts()
    tallies: Mapping[str, float] = field(default_factory=dict)
    outcomes: tuple[TaskOutcome, ...] = ()
    workers: int = 0
    submitted_at: float = 0.0
    finished_at: float = 0.0
    priority: int = 0
    epoch: str = ""
    lost_leases: int = 0
    pool: str = ""
    fraction: float = 0.0
    """Of its tasks, 0..1, with the progress that running tasks report."""
    message: str = ""
    """The last line of progress, or why it was cancelled."""

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL_JOB_STATES

    def outcome(self, key: str) -> TaskOutcome | None:
        """The outcome of that task, where it is among those told."""
        return next((o for o in self.outcomes if o.key == key), None)


@dataclass(frozen=True, slots=True)
class JobList:
    """Every job the caller may see, and the coordinator's epoch (it changes with each start)."""

    jobs: tuple[JobView, ...]
    epoch: str


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task of a job."""

    id: str
    key: str
    type: str
    state: str
    attempts: int = 0
    worker: str = ""
    reason: str = ""
    message: str = ""
    value: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TaskReport:
    """How one attempt ended, as a worker reports it; (`task_id`, `attempt`) names its lease."""

    task_id: str
    attempt: int
    outcome: ResultOutcome
    reason: str = ""
    message: str = ""
    value: bytes = b"{}"
    """A JSON object."""
    tallies: Mapping[str, float] = field(default_factory=dict)
    children: tuple[TaskSpec, ...] = ()
    execution_s: float = 0.0
