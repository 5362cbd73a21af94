"""The engine's working memory. Nobody but the engine changes it; views read it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from espalier_coordinator.graph import Graph
from espalier_coordinator.messages import Hello, Lease
from espalier_coordinator.model import FINAL, Attempt, Ending, Event, Job, JobState, Spent, TaskRecord, step
from espalier_coordinator.rules import Bucket
from espalier_coordinator.scheduling import Lane, Profile
from espalier_kit.execution import ModelEndpoint, TaskState
from espalier_rpc.views import DEFAULT_TASK_TIMEOUT_S

MAX_OUTCOMES = 20
"""Failed tasks, and ended tasks without dependents, that a job's view carries."""


NOTHING_SPENT = Spent()


@dataclass(slots=True, eq=False)
class TaskEntry:
    """A task now. While `is_settling` something about it is on its way to the disk, and it stays as it is."""

    record: TaskRecord
    lane: Lane
    state: TaskState = TaskState.BLOCKED
    spent: Spent = NOTHING_SPENT
    lease: Attempt | None = None
    ending: Ending | None = None
    is_settling: bool = False
    waiting_acks: list[tuple[str, Lease]] = field(default_factory=list)
    """(worker, lease) of results that are answered once the one being written is on disk."""
    revoked_at: float | None = None
    """Monotonic time at which its holder was asked to hand this lease back."""
    ready_since: float = 0.0
    """Monotonic time at which it last began to wait for a worker."""
    cache_key: str = ""
    """Under which its result may answer for others; empty: under none."""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


@dataclass(slots=True, eq=False)
class JobEntry:
    """A job now."""

    job: Job
    written: Job
    """The same with changes that are still on their way to the disk: the next change starts from here."""
    graph: Graph = field(default_factory=Graph)
    tasks: dict[str, TaskEntry] = field(default_factory=dict)
    counts: Counter[TaskState] = field(default_factory=Counter)
    tallies: dict[str, float] = field(default_factory=dict)
    types: set[str] = field(default_factory=set)
    lanes: dict[tuple[object, ...], Lane] = field(default_factory=dict)
    failed: list[TaskEntry] = field(default_factory=list)
    leaves: deque[TaskEntry] = field(default_factory=lambda: deque(maxlen=MAX_OUTCOMES))
    endpoints: tuple[ModelEndpoint, ...] = ()
    endpoints_version: int = 0
    """0: never pushed to this process."""
    endpoints_due_at: float | None = None
    """After a restart: until then nothing starts, since its endpoints are still to be pushed again."""
    lost_leases: int = 0
    progress: dict[str, float] = field(default_factory=dict)
    """What running tasks said of themselves, 0..1, by key."""
    message: str = ""
    """The last line that a running task said, or why the job was cancelled."""
    bucket: Bucket | None = None
    """Where the job has a limit per second."""
    is_archiving: bool = False

    @property
    def fraction(self) -> float:
        """How much of the tasks is behind it, 0..1; running ones count by what they reported."""
        if not self.tasks:
            return 1.0 if self.job.finished_at else 0.0
        ended = sum(self.counts[state] for state in FINAL)
        return min(1.0, (ended + sum(self.progress.values())) / len(self.tasks))

    @property
    def told(self) -> tuple[TaskEntry, ...]:
        """The tasks that a submitter hears of: failed ones, then those that nobody waits for."""
        leaves = (task for task in self.leaves if not self.graph.is_needed(task.record.key))
        return tuple(dict.fromkeys([*self.failed, *leaves]))

    @property
    def is_finished(self) -> bool:
        counts = self.counts
        return not (counts[TaskState.BLOCKED] or counts[TaskState.READY] or counts[TaskState.RUNNING])

    @property
    def has_ended(self) -> bool:
        """Whether it is finished and nothing that is on its way to the disk opens it again."""
        return self.is_finished and bool(self.written.finished_at)

    @property
    def is_held(self) -> bool:
        return self.job.suspended or self.job.cancelled or self.endpoints_due_at is not None

    @property
    def state(self) -> JobState:
        if self.job.cancelled:
            return JobState.CANCELLED if self.is_finished else JobState.CANCELLING
        if self.is_finished:
            return JobState.COMPLETE
        return JobState.SUSPENDED if self.job.suspended else JobState.RUNNING

    def enter(self, task: TaskEntry) -> None:
        """Count a task that was just added, in the state it has."""
        self.tasks[task.record.key] = task
        self.types.add(task.record.type)
        self.counts[task.state] += 1

    def move(self, task: TaskEntry, event: Event) -> None:
        """Take a task to its next state."""
        if self.progress:
            self.progress.pop(task.record.key, None)
        self.counts[task.state] -= 1
        task.state = step(task.state, event)
        self.counts[task.state] += 1

    def final_state(self, key: str) -> TaskState | None:
        """How a task ended; None while it is open or not there."""
        known = self.tasks.get(key)
        return known.state if known and known.is_final else None

    def retries_of(self, task: TaskEntry) -> int:
        """How many faults of the platform a task survives."""
        return self.job.retries if task.record.retries is None else task.record.retries

    def timeout_s_of(self, task: TaskEntry) -> float:
        """Longest time of one attempt: the task's, the job's, or the default; there is no attempt without end."""
        return task.record.timeout_s or self.job.task_timeout_s or DEFAULT_TASK_TIMEOUT_S


@dataclass(slots=True, eq=False)
class Submission:
    """A job that is on its way to the disk and not known yet; `open` submissions of it have not arrived there."""

    job: Job
    open: int = 0


@dataclass(slots=True, eq=False)
class WorkerEntry:
    """A worker that may hold leases; it outlives its stream for a while, so that a reconnect keeps them."""

    key: str
    profile: Profile
    capacity: int
    session: int | None
    expires_at: float
    heard_at: float = 0.0
    """Monotonic seconds of its last message; 0 before the first to this process."""
    hello: Hello | None = None
    """How it last introduced itself; None while it is awaited."""
    is_awaited: bool = False
    """Known from before a restart and not yet back."""
    is_registered: bool = False
    """Written to disk, so that a restart will wait for it: only now may it get tasks."""
    is_draining: bool = False
    wants: int = 0
    leases: dict[str, TaskEntry] = field(default_factory=dict)
    contexts: dict[str, int] = field(default_factory=dict)
    """Version of each job's endpoints that this session was sent."""


@dataclass(slots=True)
class Statistics:
    """What happened since the start, for metrics."""

    granted: int = 0
    accepted: int = 0
    duplicates: int = 0
    fenced: int = 0
    lost_leases: int = 0
    retries: int = 0
    timeouts: int = 0
    handed_back: int = 0
    adopted: int = 0
    revoked: int = 0
    cache_hits: int = 0
    reopened: int = 0
    archived: int = 0
    ended: Counter[TaskState] = field(default_factory=Counter)
    """By final state."""
