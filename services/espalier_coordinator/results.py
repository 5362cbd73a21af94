"""How attempts end: results, faults, retries; each takes effect when it is on disk. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from espalier_coordinator.cache import Cached
from espalier_coordinator.checks import problem_of
from espalier_coordinator.core import Core
from espalier_coordinator.messages import Lease, Progress, Report, Verdict
from espalier_coordinator.model import ENDED_BY, Ending, NewTask, Spent, TaskRecord
from espalier_coordinator.state import TaskEntry, WorkerEntry
from espalier_coordinator.store import DropCached, PutCached, PutEnding, PutSpent, PutTasks, Write
from espalier_kit.execution import TaskState

PLATFORM_FAULT = "PlatformFault"
MAX_MESSAGE = 500
"""Characters of a line of progress that a job's view shows."""

_STATES: Mapping[Verdict, TaskState] = MappingProxyType({
    Verdict.DONE: TaskState.DONE, Verdict.CANCELLED: TaskState.CANCELLED,
})
"""How a task stands after an attempt that ended it; after any other it has failed."""


class Results(Core):
    """From a report, or the lack of one, to the end of an attempt or of its task."""

    def _report(self, worker: WorkerEntry, report: Report) -> None:
        task = self._tasks.get(report.lease.task_id)
        if task is None or task.is_final:
            self.statistics.duplicates += 1
            self._ack(worker.key, report.lease)
        elif task.is_settling:
            self.statistics.duplicates += 1
            task.waiting_acks.append((worker.key, report.lease))
        elif not is_held_by(task, worker, report.lease):
            self.statistics.fenced += 1
            self._ack(worker.key, report.lease)
        else:
            task.waiting_acks.append((worker.key, report.lease))
            self._accept(task, report)

    def _accept(self, task: TaskEntry, report: Report) -> None:
        entry = self.jobs[task.record.job_uid]
        problem = problem_of(report, entry.tasks)
        if problem is not None:
            self._fail_attempt(task, problem.reason, str(problem))
        elif report.verdict is Verdict.PLATFORM_FAULT:
            self._fail_attempt(task, report.reason, report.message)
        elif report.verdict is Verdict.CANCELLED and not entry.job.cancelled:
            self._close_attempt(task, task.spent._replace(attempt=task.spent.attempt + 1))
        else:
            children = report.children if report.verdict is Verdict.DONE else ()
            self._end(task, self._ending(task, report), children)

    def _ending(self, task: TaskEntry, report: Report) -> Ending:
        state = _STATES.get(report.verdict, TaskState.FAILED)
        assert task.lease is not None
        return Ending(
            state, task.spent.faults + 1, report.reason, report.message, report.value, report.tallies,
            task.lease.worker, report.execution_s, self._clock.now().timestamp(),
        )

    def _fail_attempt(self, task: TaskEntry, reason: str, message: str, *, is_lost: bool = False) -> None:
        """A fault of the platform: try again later, or fail for good once the retries are spent."""
        entry = self.jobs[task.record.job_uid]
        assert task.lease is not None
        before = task.spent
        spent = Spent(task.lease.number, before.faults + 1, before.lost + is_lost)
        if is_lost:
            entry.lost_leases += 1
            self.statistics.lost_leases += 1
        if entry.job.cancelled or spent.faults > entry.retries_of(task):
            state = TaskState.CANCELLED if entry.job.cancelled else TaskState.FAILED
            cause = f"{reason}: {message}" if reason and reason != PLATFORM_FAULT else message
            ending = Ending(state, spent.faults, PLATFORM_FAULT, cause, worker=task.lease.worker,
                            finished_at=self._clock.now().timestamp())
            self._end(task, ending, spent=spent)
            return
        self.statistics.retries += 1
        self._close_attempt(task, spent, self._limits.backoff.delay_s(spent.faults, self._rng))

    def _close_attempt(self, task: TaskEntry, spent: Spent, delay_s: float = 0.0) -> None:
        """Write that this attempt's number is used up, then queue the task again."""
        task.is_settling = True
        self._commit([PutSpent(task.record.id, spent)], partial(self._attempt_closed, task, spent, delay_s))

    def _attempt_closed(self, task: TaskEntry, spent: Spent, delay_s: float) -> None:
        self._settled(task)
        if self._tasks.get(task.record.id) is task:
            task.spent = spent
            self._return(task, delay_s)

    def _end(
        self, task: TaskEntry, ending: Ending, children: Sequence[NewTask] = (), *, spent: Spent | None = None
    ) -> None:
        """Write the result and the tasks it submits, in one commit."""
        task.is_settling = True
        job_uid = task.record.job_uid
        known = self.jobs[job_uid].tasks
        records = self._records(job_uid, [c for c in children if c.key not in known]) if children else ()
        writes: list[Write] = [PutEnding(task.record, ending)]
        if records:
            writes.insert(0, PutTasks(records))
        if spent is not None:
            task.spent = spent
            writes.append(PutSpent(task.record.id, spent))
        cached = None
        if task.cache_key and ending.state is TaskState.DONE and not children:
            cached = Cached(task.cache_key, ending.value, ending.tallies, ending.finished_at)
            writes.append(PutCached(cached))
        self._commit(writes, partial(self._ended, task, ending, records, cached))

    def _ended(
        self, task: TaskEntry, ending: Ending, children: tuple[TaskRecord, ...], cached: Cached | None
    ) -> None:
        self._settled(task)
        if cached:
            self._keep(cached)
        if self._tasks.get(task.record.id) is not task:
            return
        entry = self.jobs[task.record.job_uid]
        self._release(task)
        entry.move(task, ENDED_BY[ending.state])
        task.ending = ending
        self.statistics.accepted += 1
        self.statistics.ended[ending.state] += 1
        if children:
            self._add_tasks(entry, children)
        self._remember(entry, task)
        self._follow(entry, *entry.graph.finish(task.record.key, ending.state))
        self._check_finished(entry)
        self._out.changed.add(entry.job.uid)

    def _keep(self, cached: Cached) -> None:
        """An answer for equal tasks; the store forgets what memory has no room for."""
        if gone := self.cache.put(cached):
            self._commit([DropCached(gone)], None)

    def _progress(self, worker: WorkerEntry, said: Progress) -> None:
        """How far an attempt is; nothing from one that is not the holder's."""
        task = self._tasks.get(said.lease.task_id)
        if task is None or task.is_settling or not is_held_by(task, worker, said.lease):
            return
        entry = self.jobs[task.record.job_uid]
        if math.isfinite(said.fraction):
            entry.progress[task.record.key] = min(max(said.fraction, 0.0), 1.0)
        if said.message and not entry.job.cancelled:
            entry.message = said.message[:MAX_MESSAGE]
        self._out.changed.add(entry.job.uid)

    def _settled(self, task: TaskEntry) -> None:
        task.is_settling = False
        for worker_key, lease in task.waiting_acks:
            self._ack(worker_key, lease)
        task.waiting_acks.clear()


def is_held_by(task: TaskEntry, worker: WorkerEntry, lease: Lease) -> bool:
    """Whether this very attempt is leased to this very worker."""
    return task.lease is not None and task.lease.worker == worker.key and task.lease.number == lease.attempt
