"""A store that forgets with its process: for tests, under the same contract suite as the durable ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from espalier_coordinator.cache import Cached
from espalier_coordinator.model import EndedJob, Job, Spent, ended_job
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.store import (
    Archived,
    ArchiveJob,
    Contents,
    DeadLetter,
    Deposed,
    DropCached,
    DropJob,
    DropReservation,
    DropTemplate,
    DropWorker,
    PutCached,
    PutEnding,
    PutJob,
    PutReopened,
    PutReservation,
    PutSpent,
    PutTasks,
    PutTemplate,
    PutWorker,
    Snapshot,
    StoredTask,
    Write,
)
from espalier_coordinator.templates import Template
from espalier_kit.execution import TaskState


@dataclass
class Tables:
    """What several stores on one database share."""

    epoch: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, StoredTask] = field(default_factory=dict)
    workers: dict[str, None] = field(default_factory=dict)
    templates: dict[tuple[str, str], Template] = field(default_factory=dict)
    reservations: dict[tuple[str, str], Reservation] = field(default_factory=dict)
    cached: dict[str, Cached] = field(default_factory=dict)


class MemoryStore:
    """Dictionaries; survives `close` so that a test may open it again."""

    def __init__(self, tables: Tables | None = None) -> None:
        """Another store's `tables` make a second coordinator on the same database."""
        self.tables = tables or Tables()
        self._epoch = self.tables.epoch

    def begin_epoch(self) -> int:
        self.tables.epoch += 1
        self._epoch = self.tables.epoch
        return self._epoch

    def load(self) -> Snapshot:
        tables = self.tables
        tasks = self._tasks_of(uid for uid in tables.jobs if uid not in tables.summaries)
        return Snapshot(
            tuple(job for uid, job in tables.jobs.items() if uid not in tables.summaries), tasks,
            tuple(tables.workers), tuple(tables.templates.values()), tuple(tables.reservations.values()),
            tuple(sorted(tables.cached.values(), key=lambda c: (c.created_at, c.key))),
            tuple((uid, self._ended(uid)) for uid in sorted(tables.summaries)),
            max((t.record.sequence for t in tables.tasks.values()), default=0),
        )

    def job(self, uid: str) -> Snapshot:
        job = self.tables.jobs.get(uid)
        return Snapshot((job,), self._tasks_of([uid])) if job else Snapshot()

    def archived(self, uids: Sequence[str]) -> tuple[Archived, ...]:
        summaries = self.tables.summaries
        return tuple(Archived(self.tables.jobs[uid], summaries[uid]) for uid in uids if uid in summaries)

    def dead_letters(
        self, namespace: str | None, *, job_uid: str = "", after: int = 0, limit: int = 1000
    ) -> tuple[DeadLetter, ...]:
        jobs = self.tables.jobs
        found = [
            DeadLetter(jobs[t.record.job_uid].namespace, t)
            for t in self._tasks_of([job_uid] if job_uid else jobs)
            if t.ending and t.ending.state is TaskState.FAILED and t.record.sequence > after
            and namespace in (None, jobs[t.record.job_uid].namespace)
        ]
        return tuple(found[:limit])

    def contents(self, *, after: int = 0, limit: int = 1000) -> tuple[Contents, ...]:
        found = [
            (t.record.sequence, (t.record.payload, *((t.ending.value,) if t.ending else ())))
            for t in self._tasks_of(self.tables.jobs) if t.record.sequence > after
        ]
        return tuple(found[:limit])

    def commit(self, writes: Sequence[Write]) -> None:
        if self._epoch != self.tables.epoch:
            raise Deposed(f"epoch {self.tables.epoch}, mine was {self._epoch}")
        for write in writes:
            self._do(write)

    def close(self) -> None:
        """Nothing to release."""

    def _ended(self, uid: str) -> EndedJob:
        endings = [t.ending for t in self._tasks_of([uid])]
        has_failed = any(ending is not None and ending.state is TaskState.FAILED for ending in endings)
        return ended_job(self.tables.jobs[uid], has_failed=has_failed)

    def _tasks_of(self, uids: Iterable[str]) -> tuple[StoredTask, ...]:
        wanted = frozenset(uids)
        tasks = (t for t in self.tables.tasks.values() if t.record.job_uid in wanted)
        return tuple(sorted(tasks, key=lambda t: t.record.sequence))

    def _do(self, write: Write) -> None:
        tables = self.tables
        match write:
            case PutJob() | ArchiveJob() | DropJob():
                self._do_to_job(write)
            case PutWorker(key):
                tables.workers[key] = None
            case DropWorker(key):
                tables.workers.pop(key, None)
            case PutTasks() | PutSpent() | PutEnding() | PutReopened():
                self._do_to_task(write)
            case _:
                self._do_to_named(write)

    def _do_to_named(self, write: Write) -> None:
        tables = self.tables
        match write:
            case PutTemplate(template):
                tables.templates[template.namespace, template.name] = template
            case DropTemplate(namespace, name):
                tables.templates.pop((namespace, name), None)
            case PutReservation(reservation):
                tables.reservations[reservation.namespace, reservation.name] = reservation
            case DropReservation(namespace, name):
                tables.reservations.pop((namespace, name), None)
            case PutCached(cached):
                tables.cached.setdefault(cached.key, cached)
            case DropCached(keys):
                for key in keys:
                    tables.cached.pop(key, None)

    def _do_to_job(self, write: PutJob | ArchiveJob | DropJob) -> None:
        tables = self.tables
        match write:
            case PutJob(job):
                tables.jobs[job.uid] = job
                tables.summaries.pop(job.uid, None)
            case ArchiveJob(uid, summary):
                if uid in tables.jobs:
                    tables.summaries[uid] = summary
            case DropJob(uid):
                tables.jobs.pop(uid, None)
                tables.summaries.pop(uid, None)
                tables.tasks = {k: t for k, t in tables.tasks.items() if t.record.job_uid != uid}

    def _do_to_task(self, write: PutTasks | PutSpent | PutEnding | PutReopened) -> None:
        tasks = self.tables.tasks
        if isinstance(write, PutTasks):
            for record in write.records:
                tasks.setdefault(record.id, StoredTask(record, Spent(), None))
        elif isinstance(write, PutEnding):
            task = tasks.get(write.record.id)
            if task and task.ending is None and task.record.sequence == write.record.sequence:
                tasks[write.record.id] = replace(task, ending=write.ending)
        elif task := tasks.get(write.task_id):
            if isinstance(write, PutSpent):
                tasks[write.task_id] = replace(task, spent=write.spent)
            else:
                tasks[write.task_id] = replace(task, spent=write.spent, ending=None)
