"""What the outside sees of jobs and tasks: frozen pictures of the engine's memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from espalier_coordinator.completed import Summary, ToldTask
from espalier_coordinator.engine import Engine
from espalier_coordinator.model import Ending, Job, JobState
from espalier_coordinator.scheduling import is_of_pool
from espalier_coordinator.state import JobEntry, TaskEntry, WorkerEntry
from espalier_coordinator.store import DeadLetter
from espalier_kit.execution import TaskState

_PENDING = (TaskState.BLOCKED, TaskState.READY)


@dataclass(frozen=True, slots=True)
class TaskPicture:
    """A task as told to a caller; `state` spells `TaskState`."""

    id: str
    key: str
    type: str
    state: str
    attempts: int
    worker: str
    reason: str
    message: str
    value: bytes
    job_uid: str = ""
    fraction: float = 0.0
    execution_s: float = 0.0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobPicture:
    """A job as told to a caller."""

    job: Job
    state: JobState
    counts: Mapping[str, int]
    tallies: Mapping[str, float]
    outcomes: tuple[TaskPicture, ...]
    workers: int
    epoch: str
    lost_leases: int
    fraction: float = 1.0
    message: str = ""


def job_picture(engine: Engine, entry: JobEntry) -> JobPicture:
    """The job now: counts by the words of `Counts`, failed tasks and those that nobody waits for."""
    counts = {state.value: entry.counts[state] for state in TaskState if state not in _PENDING}
    counts["pending"] = sum(entry.counts[state] for state in _PENDING)
    return JobPicture(
        entry.job, entry.state, counts, dict(entry.tallies), tuple(task_picture(t) for t in entry.told),
        _count_workers(engine.workers.values(), entry), engine.epoch, entry.lost_leases, entry.fraction, entry.message,
    )


def archived_picture(summary: Summary, epoch: str) -> JobPicture:
    """A job that only the store has; all of its tasks have ended."""
    counts = {state.value: summary.counts.get(state, 0) for state in TaskState if state not in _PENDING}
    return JobPicture(
        summary.job, summary.state, {**counts, "pending": 0}, summary.tallies,
        tuple(_told_picture(t, summary.job.uid) for t in summary.outcomes), 0, epoch, summary.lost_leases,
        message=summary.job.cancel_reason,
    )


def letter_picture(letter: DeadLetter) -> TaskPicture:
    """A failed task, of whatever job."""
    record, ending = letter.task.record, letter.task.ending
    assert ending is not None
    return TaskPicture(
        record.id, record.key, record.type, ending.state.value, ending.attempts, ending.worker.partition("/")[2],
        ending.reason, ending.message, ending.value, record.job_uid, 1.0, ending.execution_s, record.tags,
    )


def _told_picture(told: ToldTask, job_uid: str) -> TaskPicture:
    return TaskPicture(
        told.id, told.key, told.type, told.state, told.attempts, told.worker.partition("/")[2], told.reason,
        told.message, told.value, job_uid, 1.0,
    )


def task_picture(task: TaskEntry, fraction: float = 0.0) -> TaskPicture:
    """The task now; `fraction` is what it last said of itself."""
    ending = task.ending or Ending(task.state, task.spent.faults + (task.lease is not None))
    worker = task.lease.worker if task.lease else ending.worker
    return TaskPicture(
        task.record.id, task.record.key, task.record.type, task.state.value, ending.attempts,
        worker.partition("/")[2], ending.reason, ending.message, ending.value, task.record.job_uid,
        1.0 if task.is_final else fraction, ending.execution_s, task.record.tags,
    )


def task_pictures(entry: JobEntry, state: str = "") -> list[TaskPicture]:
    """All tasks of a job, or those in one state, in the order they were submitted."""
    said = entry.progress
    return [task_picture(t, said.get(key, 0.0)) for key, t in entry.tasks.items() if not state or t.state == state]


def _count_workers(workers: Iterable[WorkerEntry], entry: JobEntry) -> int:
    return sum(
        w.session is not None and not w.is_draining
        and is_of_pool(w.profile, entry.job.pool, entry.job.uid)
        and w.profile.job_uid in ("", entry.job.uid)
        and w.profile.namespace in (None, entry.job.namespace)
        and bool(w.profile.types & entry.types)
        for w in workers
    )
