"""What the coordinator keeps on disk: the writes it knows, and the protocol every store fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from espalier_coordinator.cache import Cached
from espalier_coordinator.model import EndedJob, Ending, Job, Spent, TaskRecord
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.templates import Template
from espalier_kit.errors import Permanent


@dataclass(frozen=True, slots=True)
class PutJob:
    """Insert a job or replace what is known of it."""

    job: Job


@dataclass(frozen=True, slots=True)
class PutTasks:
    """Insert tasks; one whose id is there already is left as it is."""

    records: tuple[TaskRecord, ...]


@dataclass(frozen=True, slots=True)
class PutSpent:
    """An open task's attempts so far."""

    task_id: str
    spent: Spent


class PutEnding(NamedTuple):
    """A task's result; the first one of a task is kept, whatever comes later."""

    record: TaskRecord
    ending: Ending


@dataclass(frozen=True, slots=True)
class PutReopened:
    """An ended task is open again, with these attempts behind it: its result goes."""

    task_id: str
    spent: Spent


@dataclass(frozen=True, slots=True)
class ArchiveJob:
    """A completed job that `load` passes over from now on; `summary` is what lists show of it. `PutJob` undoes it."""

    uid: str
    summary: str


@dataclass(frozen=True, slots=True)
class DropJob:
    """Forget a job with its tasks and results."""

    uid: str


@dataclass(frozen=True, slots=True)
class PutWorker:
    """This worker may hold leases from now on."""

    key: str


@dataclass(frozen=True, slots=True)
class DropWorker:
    """This worker holds none any more."""

    key: str


@dataclass(frozen=True, slots=True)
class PutTemplate:
    """Insert a job template or replace it."""

    template: Template


@dataclass(frozen=True, slots=True)
class DropTemplate:
    """Forget a template."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class PutReservation:
    """Insert a reservation or replace it."""

    reservation: Reservation


@dataclass(frozen=True, slots=True)
class DropReservation:
    """Forget a reservation."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class PutCached:
    """Keep a result for equal tasks, the first of its key."""

    cached: Cached


@dataclass(frozen=True, slots=True)
class DropCached:
    """Forget these."""

    keys: tuple[str, ...]


Write = (
    PutJob | PutTasks | PutSpent | PutEnding | PutReopened | ArchiveJob | DropJob | PutWorker | DropWorker
    | PutTemplate | DropTemplate | PutReservation | DropReservation | PutCached | DropCached
)


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task with all that is known of it; `ending` is None while it is open."""

    record: TaskRecord
    spent: Spent
    ending: Ending | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything but archived jobs, as a restart finds it: jobs by submission, tasks by sequence."""

    jobs: tuple[Job, ...] = ()
    tasks: tuple[StoredTask, ...] = ()
    workers: tuple[str, ...] = ()
    templates: tuple[Template, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    cached: tuple[Cached, ...] = ()
    """Oldest first."""
    archived: tuple[tuple[str, EndedJob], ...] = ()
    """Of each job that was archived, by uid."""
    last_sequence: int = 0
    """The highest that any task has, archived ones too."""


@dataclass(frozen=True, slots=True)
class Archived:
    """An archived job in a list; `summary` is what `ArchiveJob` said."""

    job: Job
    summary: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failed task, of whatever job."""

    namespace: str
    task: StoredTask


Contents = tuple[int, tuple[bytes, ...]]
"""A task's sequence, its payload and, where it has ended, its value."""


class Deposed(Permanent):
    """Another coordinator has begun a later epoch in the same database: this one may not write any more."""

    def __init__(self, how_known: str) -> None:
        super().__init__(f"another coordinator has taken over this database ({how_known}): this one ends; every result "
                         "that it acknowledged is kept", reason="Deposed")


class TaskStore(Protocol):
    """Durable state. Used by one thread at a time; every method may block."""

    def begin_epoch(self) -> int:
        """Count this start, durably: 1 at the first, one more each time. From then on no earlier one can commit."""
        ...

    def load(self) -> Snapshot:
        """All that was committed, without archived jobs and their tasks."""
        ...

    def job(self, uid: str) -> Snapshot:
        """One job with its tasks, archived or not; nothing where there is none."""
        ...

    def archived(self, uids: Sequence[str]) -> tuple[Archived, ...]:
        """Those of these jobs that are archived, in any order."""
        ...

    def dead_letters(
        self, namespace: str | None, *, job_uid: str = "", after: int = 0, limit: int = 1000
    ) -> tuple[DeadLetter, ...]:
        """Failed tasks by sequence, those behind `after`, of archived jobs too; None: of every namespace."""
        ...

    def contents(self, *, after: int = 0, limit: int = 1000) -> tuple[Contents, ...]:
        """What all tasks carry, by sequence, those behind `after`, of archived jobs too."""
        ...

    def commit(self, writes: Sequence[Write]) -> None:
        """Do all of it or nothing; on return it survives a kill -9 and a power cut.

        Raises `Retryable` when the disk is full or the server away: call again with the same writes, until it returns;
        a group that had been written all the same changes nothing by being written twice. Raises `Deposed` once another
        store on the same database has begun a later epoch: nothing is written then.
        """
        ...

    def close(self) -> None:
        """Release the files."""
        ...
